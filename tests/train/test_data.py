"""Data sets: the built-in sample, idx files, folders, and what is refused."""
import gzip
import hashlib

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10, FashionMNIST

from scat_zoo.train import data, make_sample


@pytest.fixture
def folder(tmp_path):
    """An ImageFolder of two classes, ten images each for training and four to test."""
    rng = np.random.RandomState(0)
    for part, count in (('train', 10), ('test', 4)):
        for name in ('cat', 'dog'):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.randint(0, 255, (20, 24, 3), np.uint8)).save(tmp_path / part / name / f'{i}.png')
    return tmp_path


def test_the_sample_is_balanced_and_has_no_common_image():
    d = data.load('sample', val_fraction=0.2)
    train, test = d.train.dataset, d.test
    assert np.bincount(train.targets).tolist() == [100] * 10
    assert np.bincount(test.targets).tolist() == [200] * 10
    assert (len(d.train), len(d.val), len(d.test)) == (800, 200, 2000)
    digests = [hashlib.sha256(image.tobytes()).digest() for part in (train, test) for image in part.images]
    assert len(set(digests)) == 3000
    assert sum(file.stat().st_size for file in data.SAMPLE.iterdir()) < 2e6
    assert 'Zalando' in (data.SAMPLE / 'LICENSE').read_text()


def test_split_is_balanced_disjoint_and_seeded():
    d, again, other = (data.load('sample', val_fraction=0.1, seed=seed) for seed in (0, 0, 1))
    targets = np.asarray(d.val.dataset.targets)
    assert np.bincount(targets[d.val.indices]).tolist() == [10] * 10
    assert sorted(d.train.indices + d.val.indices) == list(range(1000))
    assert d.val.indices == again.val.indices != other.val.indices


def test_a_split_leaves_no_class_without_an_image():
    train = data.load('sample', val_fraction=0.).train
    of_two = [np.flatnonzero(np.asarray(train.targets) == c)[:5] for c in (3, 8)]
    for fraction in (0.01, 0.5, 0.99):
        parts = data.split(data.Subset(train, np.concatenate(of_two)), fraction, seed=0)
        assert all(set(part.targets) == {3, 8} for part in parts)
    lonely = data.Subset(train, np.append(of_two[0], of_two[1][0]))
    with pytest.raises(ValueError, match='out for validation: class 8 has only one'):
        data.split(lonely, 0.1, seed=0)


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


def test_fashion_mnist_from_idx_files_and_from_torchvision(tmp_path):
    d = data.load('fashion-mnist', root=data.SAMPLE)
    assert len(d.test) == 2000
    # What torchvision's class finds in its own layout.
    raw = tmp_path / 'FashionMNIST' / 'raw'
    raw.mkdir(parents=True)
    for file in data.SAMPLE.glob('*.gz'):
        (raw / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
    theirs = data.load('fashion-mnist', root=tmp_path)
    assert isinstance(theirs.test, FashionMNIST)
    (ours_image, ours_target), (image, target) = d.test[5], theirs.test[5]
    assert np.array_equal(np.asarray(ours_image), np.asarray(image))
    assert ours_target == target


def test_a_download_that_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(FashionMNIST, 'mirrors', ['http://127.0.0.1:1/'])       # where nobody listens
    monkeypatch.setattr(CIFAR10, 'url', 'http://127.0.0.1:1/')
    for name, called in (('fashion-mnist', 'FashionMNIST'), ('cifar10', 'CIFAR10')):
        with pytest.raises(FileNotFoundError, match='torchvision could not download it there') as caught:
            data.load(name, tmp_path)
        assert str(caught.value).startswith(f'no {called} in {tmp_path}, ')
        assert '\n' not in str(caught.value)


def test_image_folder(folder):
    d = data.load(str(folder), val_fraction=0.2)
    assert (len(d.train), len(d.val), len(d.test), d.classes) == (16, 4, 8, ('cat', 'dog'))
    (folder / 'test').rename(folder / 'val')                    # val alone is the test set
    d = data.load(str(folder), val_fraction=0.2)
    assert (len(d.train), len(d.val), len(d.test)) == (16, 4, 8)


def test_missing_data(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="no data set 'nowhere'"):
        data.load('nowhere')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match=r'must hold the folders train and test.*it holds nothing'):
        data.load(str(tmp_path / 'empty'))
    for file in (folder / 'train' / 'dog').iterdir():
        file.unlink()
    with pytest.raises(ValueError, match=r'holds no images in class folders.*dog'):
        data.load(str(folder))
    with pytest.raises(ValueError, match='validation fraction'):
        data.load('sample', val_fraction=1.0)


def test_differing_classes(folder):
    (folder / 'test' / 'dog').rename(folder / 'test' / 'wolf')
    with pytest.raises(ValueError, match='train and test differ in their classes'):
        data.load(str(folder))


@pytest.mark.parametrize(('content', 'phrase'), [
    (b'\0\0\x08\x01\0\0\0\x05abc', 'should hold'), (b'\0\0\x0d\x01\0\0\0\x00', 'no idx file'), (b'', 'no idx file'),
    (b'\0\0\x08\x03\0\0', 'should hold')])
def test_broken_idx_files(tmp_path, content, phrase):
    (tmp_path / 'x').write_bytes(content)
    with pytest.raises(ValueError, match=phrase):
        data.read_idx(tmp_path, 'x')
    (tmp_path / 'y.gz').write_bytes(gzip.compress(content)[:-3])
    with pytest.raises(ValueError, match='no complete gzip file'):
        data.read_idx(tmp_path, 'y')


def test_broken_images(tmp_path):
    (tmp_path / 'text.png').write_text('hello')
    with pytest.raises(ValueError, match='cannot read the image'):
        data.open_image(tmp_path / 'text.png')
    with pytest.raises(ValueError, match='cannot read the image'):
        data.open_image(tmp_path / 'absent.png')
    for name, kind in (('float.tiff', np.float32), ('whole.tiff', np.int32)):
        Image.fromarray(np.ones((4, 4), kind)).save(tmp_path / name)
        with pytest.raises(ValueError, match='32-bit pixels'):
            data.open_image(tmp_path / name)
    with pytest.raises(ValueError, match='1 or 3 channels, the model takes 4'):
        data.Prepared([], 4, None)


@pytest.mark.parametrize('suffix', ['png', 'tiff'])
def test_images_of_16_bits_are_those_of_8(suffix, tmp_path):
    image, _ = data.load('sample').test[0]
    deep = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    deep.save(tmp_path / f'deep.{suffix}')
    for channels in (1, 3):
        ours = data.with_channels(data.open_image(tmp_path / f'deep.{suffix}'), channels)
        assert np.array_equal(ours, data.with_channels(image, channels))
