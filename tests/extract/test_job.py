"""`scat-zoo extract`: killed at any moment and begun again, alone or in several processes, it ends with the same bytes.
"""
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from scat_zoo import cli
from scat_zoo.extract import FeatureExtractor, job, load, shards, sources
from scat_zoo.extract.reading import read_header

from .pictures import MODEL, png, write, write_tar

ROOT = Path(__file__).parents[2]
IMAGES, ROWS = 45, 4                            # twelve files, the last of one row


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    return write(tmp_path_factory.mktemp('images'), IMAGES)


@pytest.fixture(scope='module')
def extractor():
    return FeatureExtractor(MODEL, batch_size=3)


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory, images, extractor):
    output = tmp_path_factory.mktemp('undisturbed') / 'out'
    job.run(extractor, sources.find([str(images)], ROWS), output)
    return output


def run(extractor, images, output, **options):
    job.run(extractor, sources.find([str(images)], ROWS), output, **options)


def assert_same(output, expected):
    names = sorted(file.name for file in expected.iterdir())
    assert sorted(file.name for file in output.iterdir()) == names
    for name in names:
        assert (output / name).read_bytes() == (expected / name).read_bytes(), name


def test_all_rows_in_order(undisturbed, images, extractor):
    features, paths = load(undisturbed)
    assert paths == [f'{i:03}.png' for i in range(IMAGES)]
    expected = extractor(torch.stack([extractor.reader.open(images / name) for name in paths]))
    assert torch.equal(features, expected)
    assert len({tuple(row.tolist()) for row in features}) == IMAGES


@pytest.mark.parametrize('workers', [1, 2])
def test_workers_change_nothing(workers, undisturbed, images, extractor, tmp_path):
    run(extractor, images, tmp_path / 'out', workers=workers)
    assert_same(tmp_path / 'out', undisturbed)


def test_workers_may_be_begun_anew_and_not_copied(images, extractor):
    """As where they are no forks."""
    batches = job.Batches(sources.find([str(images)], 3), extractor.reader, [1], 2)
    assert [batch.names for batch in pickle.loads(pickle.dumps(batches))] == [['003.png', '004.png'], ['005.png']]


@pytest.mark.parametrize('world', [1, 2, 5, 20])
def test_processes_in_any_order_change_nothing(world, undisturbed, images, extractor, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('WORLD_SIZE', str(world))
    for rank in reversed(range(world)):
        assert not (tmp_path / 'out' / 'index.json').exists()
        monkeypatch.setenv('RANK', str(rank))
        run(extractor, images, tmp_path / 'out')
    assert_same(tmp_path / 'out', undisturbed)
    assert capsys.readouterr().out.count('done: 45 rows') == 1


def in_a_process_that_dies(moment, at, work):
    """Do the work in a copy of this process, which kills itself with SIGKILL at this moment of its `at`-th writing."""
    process = os.fork()
    if process == 0:
        sync, replace, count = shards._sync, os.replace, [0]

        def dying_sync(path):
            count[0] += path.is_file()                          # and not of the folder
            if count[0] == at and moment == 'half written':
                os.truncate(path, 50)
                os.kill(os.getpid(), signal.SIGKILL)
            sync(path)

        def dying_replace(*paths):
            if count[0] == at and moment == 'before it is there':
                os.kill(os.getpid(), signal.SIGKILL)
            replace(*paths)
            if count[0] == at:
                os.kill(os.getpid(), signal.SIGKILL)

        shards._sync, os.replace = dying_sync, dying_replace
        try:
            work()
        finally:
            os._exit(0)
    return os.waitpid(process, 0)[1] == signal.SIGKILL


# The first writing is that of the settings, the last that of the index.
@pytest.mark.parametrize('at', [1, 2, 7, 13, 14])
@pytest.mark.parametrize('moment', ['half written', 'before it is there', 'when it is there'])
def test_killed_at_any_moment_and_begun_again(moment, at, undisturbed, images, extractor, tmp_path):
    output = tmp_path / 'out'
    assert in_a_process_that_dies(moment, at, lambda: run(extractor, images, output))
    files = len(list(output.glob('features-*.safetensors')))
    assert files == max(0, at - 2) + (moment == 'when it is there' and 1 < at < 14)
    assert (output / 'index.json').exists() == (at == 14 and moment == 'when it is there')
    run(extractor, images, output)
    assert_same(output, undisturbed)


def test_killed_twice_and_continued_by_others(undisturbed, images, extractor, tmp_path, monkeypatch):
    output = tmp_path / 'out'
    monkeypatch.setenv('WORLD_SIZE', '2')
    for rank in '01':
        monkeypatch.setenv('RANK', rank)
        assert in_a_process_that_dies('half written', 3, lambda: run(extractor, images, output))
    assert len(list(output.glob('*.partial'))) == 2
    monkeypatch.setenv('WORLD_SIZE', '3')
    for rank in '201':
        monkeypatch.setenv('RANK', rank)
        run(extractor, images, output)
    assert_same(output, undisturbed)


def test_one_of_two_processes_under_torchrun_is_killed_and_both_begin_again(tmp_path):
    images, output = write(tmp_path / 'images', 600), tmp_path / 'out'
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2',
               '--max-restarts', '1', '-m', 'scat_zoo', 'extract', MODEL, str(images), '-o', str(output),
               '--shard-rows', '10', '--batch-size', '10']
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
                          ) as process:
        while not list(output.glob('features-*.safetensors')):
            assert process.poll() is None
            time.sleep(0.002)
        children = Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        assert not (output / 'index.json').exists()
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-3000:]
    assert re.search(r'^process . of 2: [1-9]\d* of 30 files are there already', out, re.MULTILINE)
    job.run(FeatureExtractor(MODEL, batch_size=10), sources.find([str(images)], 10), tmp_path / 'alone')
    assert_same(output, tmp_path / 'alone')


def test_begun_again_when_all_is_done(undisturbed, images, extractor, capsys):
    written = {file: file.stat().st_mtime_ns for file in undisturbed.glob('features-*')}
    run(extractor, images, undisturbed)
    assert 'process 0 of 1: 12 of 12 files are there already' in capsys.readouterr().out
    assert written == {file: file.stat().st_mtime_ns for file in written}


def test_what_is_missing_is_written_anew(undisturbed, images, extractor, tmp_path):
    output = tmp_path / 'out'
    run(extractor, images, output)
    names = sorted(output.glob('features-*'))
    names[2].unlink()
    names[5].write_bytes(names[5].read_bytes()[:100])
    run(extractor, images, output)
    assert_same(output, undisturbed)


@pytest.fixture
def some_broken(tmp_path):
    """Nine images in three files; of the second file one is broken, of the third another."""
    folder = write(tmp_path / 'images', 9)
    for name in ('004.png', '008.png'):
        (folder / name).write_bytes(b'no image')
    return folder


def test_a_broken_image_costs_its_file_until_it_is_mended(some_broken, extractor, tmp_path, capsys):
    source = sources.find([str(some_broken)], 3)
    with pytest.raises(ValueError, match='2 of 3 files of features are not written, since what is named above cannot'):
        job.run(extractor, source, tmp_path / 'out')
    assert [line.partition(': ')[0] for line in capsys.readouterr().err.splitlines() if line.startswith('cannot read')
            ] == [f'cannot read the image {some_broken}/{name}.png' for name in ('004', '008')]
    assert len(list((tmp_path / 'out').glob('features-*'))) == 1
    write(some_broken, 9)
    job.run(extractor, source, tmp_path / 'out')
    job.run(extractor, source, tmp_path / 'expected')
    assert_same(tmp_path / 'out', tmp_path / 'expected')


def test_broken_images_left_out(some_broken, extractor, tmp_path, capsys):
    source = sources.find([str(some_broken)], 3)
    with pytest.raises(ValueError, match='2 of 3 files'):
        job.run(extractor, source, tmp_path / 'out')
    job.run(extractor, source, tmp_path / 'out', skip_broken=True)
    assert 'done: 7 rows, 2 left out' in capsys.readouterr().out
    features, paths = load(tmp_path / 'out')
    assert paths == [f'{i:03}.png' for i in range(8) if i != 4]
    record = read_header(tmp_path / 'out' / 'features-00001-of-00003.safetensors').record
    (name, reason), = record['left_out']
    assert name == '004.png'
    assert reason.startswith('cannot read the image')
    job.run(extractor, sources.find([str(some_broken)], 9), tmp_path / 'one', skip_broken=True)  # three batches
    record = read_header(tmp_path / 'one' / 'features-00000-of-00001.safetensors').record
    assert [name for name, _ in record['left_out']] == ['004.png', '008.png']
    write(some_broken, 9)
    job.run(extractor, sources.find([str(some_broken)], 3), tmp_path / 'whole')
    assert torch.equal(features, load(tmp_path / 'whole').features[[0, 1, 2, 3, 5, 6, 7]])
    with pytest.raises(ValueError, match=r'004.png had 8 bytes when its features were written, and has \d+: '):
        job.run(extractor, source, tmp_path / 'out')


def test_where_no_image_can_be_read_it_ends_at_once(tmp_path, extractor):
    folder = tmp_path / 'images'
    folder.mkdir()
    for i in range(30):
        (folder / f'{i:02}.png').write_bytes(b'no image')
    with pytest.raises(ValueError, match=r'^none of 3 images could be read; cannot read the image .*00.png'):
        job.run(extractor, sources.find([str(folder)], 3), tmp_path / 'out')


def test_an_image_that_is_gone_is_named(images, extractor, tmp_path, capsys):
    listed = tmp_path / 'list.txt'
    listed.write_text(f'{images}/000.png\n{tmp_path}/gone.png\n')
    with pytest.raises(ValueError, match='1 of 1 files of features are not written'):
        job.run(extractor, sources.find([str(listed)], 3), tmp_path / 'out')
    assert f'cannot read the image {tmp_path}/gone.png: No such file or directory' in capsys.readouterr().err


def test_features_that_are_not_finite_are_as_if_broken(images, tmp_path):
    extractor = FeatureExtractor(MODEL, level=0, dtype='float16')
    extractor.mean -= 1e6                                       # order 0 is beyond float16 then
    with pytest.raises(ValueError, match=r'none of 4 images could be read; the features of 000.png are not '):
        run(extractor, images, tmp_path / 'out')


def test_tar_files_give_the_rows_of_their_images(undisturbed, extractor, tmp_path, capsys):
    for part in range(2):
        write_tar(tmp_path / f'x-{part}.tar', [member for i in range(10 * part, 10 * part + 10) for member in (
            (f'{i:03}.cls', b'1'), (f'{i:03}.png', png(i)))])
    write_tar(tmp_path / 'x-2.tar', [])
    whole = (tmp_path / 'x-1.tar').read_bytes()
    (tmp_path / 'x-1.tar').write_bytes(whole[:6000])            # as if its download had ended early
    data, out = [f'{tmp_path}/x-{{0..2}}.tar'], tmp_path / 'out'
    with pytest.raises(ValueError, match='1 of 3 files of features are not written'):
        job.run(extractor, sources.find(data, 1), out, skip_broken=True)
    assert f'cannot read {tmp_path}/x-1.tar: ' in capsys.readouterr().err
    (tmp_path / 'x-1.tar').write_bytes(whole)
    job.run(extractor, sources.find(data, 1), out)
    features, paths = load(out)
    assert paths == [f'{i:03}' for i in range(20)]
    assert torch.equal(features, load(undisturbed).features[:20])
    assert [entry['rows'] for entry in json.loads((out / 'index.json').read_text())['shards']] == [10, 10, 0]


def test_the_command(images, tmp_path, capsys):
    options = [MODEL, str(images), '-o', str(tmp_path / 'out'), '--shard-rows', '20']
    assert cli.main(['extract', *options, '--level', '-1', '--dtype', 'float16', '--workers', '1']) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == (f'45 images, 3 files of features, 16 float16 an image; writing to {tmp_path}/out')
    assert out[-1] == f'done: 45 rows; {tmp_path}/out/index.json tells of all files'
    features = load(tmp_path / 'out').features
    assert (features.shape, features.dtype) == ((45, 16), torch.float16)
    assert cli.main(['extract', *options]) == 2
    assert 'settings: --level was 2, now it is pre_logits; --pool was avg, n' in capsys.readouterr().err
    assert cli.main(['extract', 'scat_resnet', str(images), '-o', str(tmp_path / 'random'), '--model-kwargs', 'J=1',
                     'in_chans=1']) == 0
    assert '  scat_resnet has no weights: its layers behind the scattering are random' in capsys.readouterr().out


def test_ctrl_c_says_how_to_go_on(images, tmp_path, monkeypatch, capsys):
    def stop(*args):
        raise KeyboardInterrupt
    monkeypatch.setattr(FeatureExtractor, '__call__', stop)
    assert cli.main(['extract', MODEL, str(images), '-o', str(tmp_path / 'out')]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == 'stopped; the same command goes on from there'
