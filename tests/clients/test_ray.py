"""`scat_zoo.ray.Extractor` on a local cluster of two workers: the rows of `scat-zoo extract`, also if one is killed."""
import logging
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
import ray

import scat_zoo.ray
from scat_zoo.extract import FeatureExtractor, job, load, sources
from tests.extract.pictures import MODEL, write

IMAGES = 300


@pytest.fixture(scope='module', autouse=True)
def cluster():
    # Two for the workers and one that reads: Ray counts, whatever there is.
    ray.init(num_cpus=3, include_dashboard=False, logging_level=logging.ERROR, object_store_memory=200 * 2 ** 20)
    yield
    ray.shutdown()


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    return write(tmp_path_factory.mktemp('images'), IMAGES)


@pytest.fixture(scope='module')
def expected(images, tmp_path_factory):
    output = tmp_path_factory.mktemp('features')
    job.run(FeatureExtractor(MODEL), sources.find([str(images)], 128), output)
    features, paths = load(output)
    return dict(zip(paths, features.numpy()))


def extracted(ds, extractor=scat_zoo.ray.Extractor, **options):
    return ds.map_batches(extractor, batch_size=50, concurrency=2,
                          fn_constructor_kwargs={'model': MODEL, **options}).take_all()


def assert_same(rows, expected):
    """Each once, to the bit."""
    assert sorted(Path(row['path']).name for row in rows) == sorted(expected)
    assert all(np.array_equal(row['features'], expected[Path(row['path']).name]) for row in rows)


def test_a_worker_that_is_killed_loses_nothing(images, expected, tmp_path):
    killed = tmp_path / 'killed'

    class Mortal(scat_zoo.ray.Extractor):
        calls = 0

        def __call__(self, batch):
            self.calls += 1
            if self.calls == 2:
                try:
                    os.close(os.open(killed, os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    pass
                else:
                    os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(batch)

    ds = ray.data.read_binary_files(str(images), include_paths=True, override_num_blocks=6)
    assert_same(extracted(ds, Mortal), expected)
    assert killed.exists()


def test_the_lines_in_the_docs(images, expected, tmp_path):
    page = (Path(__file__).parents[2] / 'docs' / 'scale.md').read_text()
    lines, = re.findall(r'^```text\n(import ray$.*?)^```$', page, re.MULTILINE | re.DOTALL)
    (tmp_path / 'pictures').symlink_to(images)
    exec(lines.replace('scat_linear.fashion_mnist', MODEL).replace('/data', str(tmp_path)), {})
    rows = ray.data.read_parquet(str(tmp_path / 'features')).take_all()
    assert_same(rows, {name: row.astype(np.float16) for name, row in expected.items()})
