"""The maker of the built-in sample: the same images and bytes every time."""
import numpy as np

from scat_zoo.train import data
from tools import make_sample


def test_make_sample_is_deterministic(tmp_path):
    rng = np.random.RandomState(0)
    for split in ('train', 't10k'):
        make_sample.write_idx(tmp_path / f'{split}-images-idx3-ubyte.gz', rng.randint(0, 255, (5000, 2, 3), np.uint8))
        make_sample.write_idx(tmp_path / f'{split}-labels-idx1-ubyte.gz', np.arange(5000).astype(np.uint8) % 10)
    images = data.read_idx(tmp_path, 'train-images-idx3-ubyte')
    labels = data.read_idx(tmp_path, 'train-labels-idx1-ubyte')
    assert images.shape == (5000, 2, 3)
    chosen = make_sample.subset(labels, 7, seed=0)
    assert labels[chosen].tolist() == list(range(10)) * 7
    assert np.array_equal(chosen, make_sample.subset(labels, 7, seed=0))
    before = (tmp_path / 'train-images-idx3-ubyte.gz').read_bytes()
    make_sample.write_idx(tmp_path / 'train-images-idx3-ubyte.gz', images)
    assert (tmp_path / 'train-images-idx3-ubyte.gz').read_bytes() == before
