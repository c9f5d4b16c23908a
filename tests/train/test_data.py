"""Data sets: the built-in sample, idx files, folders, and what is refused."""
import gzip
import hashlib
import os
import shutil
import time

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import transforms
from torchvision.datasets import CIFAR10, FashionMNIST, ImageFolder

from scat_zoo.train import data, images, scan


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
        with pytest.raises(FileNotFoundError, match='torchvision could not download it: ') as caught:
            data.load(name, tmp_path)
        assert str(caught.value).startswith(f'no {called} in {tmp_path}, ')


def test_image_folder(folder):
    d = data.load(str(folder), val_fraction=0.2)
    assert (len(d.train), len(d.val), len(d.test), d.classes) == (16, 4, 8, ('cat', 'dog'))
    assert (d.input_size, d.value_range) == ((3, 20, 24), None)
    (folder / 'test').rename(folder / 'val')                    # val alone is the test set
    d = data.load(str(folder), val_fraction=0.2)
    assert (len(d.train), len(d.val), len(d.test)) == (16, 4, 8)


def test_missing_data(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match=r'nowhere is not there: .*a data set \(known: sample, fashion'):
        data.load('nowhere')
    with pytest.raises(FileNotFoundError, match=r'did you mean fashion-mnist\?'):
        data.load('fashion_mnist')
    with pytest.raises(FileNotFoundError, match='is a file: expected a folder of images'):
        data.load(str(folder / 'train' / 'cat' / '0.png'))
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match=r'must hold the folders train and test.*it holds nothing'):
        data.load(str(tmp_path / 'empty'))
    for file in (folder / 'train' / 'dog').iterdir():
        file.unlink()
    with pytest.raises(ValueError, match=r'must hold a folder of images for each class, and no image lies in dog'):
        data.load(str(folder))
    with pytest.raises(ValueError, match='validation fraction'):
        data.load('sample', val_fraction=1.0)
    with pytest.raises(ValueError, match='test fraction must be more than 0'):
        data.load('sample', test_fraction=0.)


def test_differing_classes(folder):
    (folder / 'test' / 'dog').rename(folder / 'test' / 'wolf')
    with pytest.raises(ValueError, match='must have the same classes; only train has dog, only test has wolf'):
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


def test_order_is_that_of_torchvision(folder):
    nested = folder / 'train' / 'cat' / 'more' / 'a-b'
    nested.mkdir(parents=True)
    for name in ('more/z.png', 'more/a-b/0.png', 'more.png'):
        (folder / 'train' / 'cat' / name).symlink_to(folder / 'train' / 'cat' / '3.png')
    (folder / 'train' / 'ant').symlink_to(folder / 'test' / 'dog')
    (folder / 'test' / 'ant').symlink_to(folder / 'test' / 'dog')
    d = data.load(str(folder), val_fraction=0.)
    theirs = ImageFolder(folder / 'train')
    assert (d.train.samples, list(d.classes)) == (theirs.samples, theirs.classes)
    assert len(d.train) == 27


def test_links_that_lead_round_in_circles(folder):
    (folder / 'train' / 'cat' / 'again').symlink_to(folder / 'train' / 'cat')
    assert len(data.load(str(folder), val_fraction=0.).train) == 20


def test_what_is_no_image_is_skipped(folder):
    cat = folder / 'train' / 'cat'
    for name in ('._0.png', '.hidden.png', 'Thumbs.db', 'notes.txt'):
        (cat / name).write_text('hello')
    for place in (cat / '.ipynb_checkpoints', cat / '__MACOSX', cat / '.thumbnails', folder / 'train' / '__MACOSX',
                  folder / 'train' / '.ipynb_checkpoints'):
        place.mkdir()
        (place / '0.png').write_text('hello')
    d = data.load(str(folder), val_fraction=0.)
    assert (len(d.train), d.classes) == (20, ('cat', 'dog'))
    assert '2 files that are no images are skipped' in d.notes


def test_broken_files_are_listed_together(folder, capsys):
    place = folder / 'train' / 'cat'
    for i in range(12):
        (place / f'broken{i:02}.png').write_text('hello')
    (folder / 'test' / 'dog' / '0.png').write_bytes((folder / 'test' / 'dog' / '0.png').read_bytes()[:200])
    os.mkfifo(place / 'a.png')                                  # from which reading would wait for ever
    with pytest.raises(ValueError, match=r'14 of 41 images cannot be read: .*-broken; the first is .*/a\.png: it'):
        data.load(str(folder))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f'cannot read the image {place}/a.png: it is no regular file'
    assert lines[1].startswith(f'cannot read the image {place}/broken00.png: it is no image')
    assert len(lines) == 14
    d = data.load(str(folder), val_fraction=0., skip_broken=True)
    assert not capsys.readouterr().err
    assert (len(d.train), len(d.test)) == (20, 7)
    assert f'14 of 41 images cannot be read and are left out, such as {place}/a.png: it is no regular file' in d.notes
    assert len(data.load(str(folder), val_fraction=0., scan=False).train) == 33
    for file in (folder / 'test' / 'dog').iterdir():
        file.write_text('hello')
    with pytest.raises(ValueError, match='no test images are left of dog'):
        data.load(str(folder), skip_broken=True)


def test_broken_files_with_names_that_are_no_text(folder):
    (folder / 'train' / 'cat' / os.fsdecode(b'\xff.png')).write_text('hello')
    (folder / 'train' / os.fsdecode(b'\xfe')).mkdir()
    (folder / 'test' / os.fsdecode(b'\xfe')).mkdir()
    for part in ('train', 'test'):
        for name in ('0.png', '1.png'):
            (folder / part / os.fsdecode(b'\xfe') / name).write_bytes((folder / 'test' / 'cat' / '0.png').read_bytes())
    with pytest.raises(ValueError, match='1 of 33 images cannot be read') as caught:
        data.load(str(folder))
    d = data.load(str(folder), skip_broken=True)
    assert d.classes == ('cat', 'dog', '\\udcfe')
    assert ' '.join([str(caught.value), *d.notes, *d.classes]).encode()     # which raises at what is no text


def undivided(folder):
    for name in ('cat', 'dog'):
        (folder / 'train' / name).rename(folder / name)
    (folder / 'train').rmdir()
    for file in (folder / 'test').rglob('*.png'):
        file.unlink()
    for name in ('cat', 'dog'):
        (folder / 'test' / name).rmdir()
    (folder / 'test').rmdir()
    return folder


def test_a_folder_without_a_split(folder):
    root = undivided(folder)
    d, other = (data.load(str(root), val_fraction=0.1, seed=seed) for seed in (0, 1))
    assert (len(d.train), len(d.val), len(d.test), d.classes) == (14, 2, 4, ('cat', 'dog'))
    assert np.bincount(d.test.targets).tolist() == [2, 2]
    assert d.test.samples == other.test.samples == data.load(str(root), scan=False).test.samples
    assert d.val.indices != other.val.indices
    assert not set(d.test.samples) & set(d.train.dataset.samples)
    assert any('4 of 20 are held out to test, 20% of each class' in note for note in d.notes)
    assert len(data.load(str(root), test_fraction=0.5).test) == 10
    for file in list((root / 'dog').iterdir())[1:]:
        file.unlink()
    with pytest.raises(ValueError, match='can be held out of classes of one: dog'):
        data.load(str(root))
    next((root / 'dog').iterdir()).unlink()
    with pytest.raises(ValueError, match='no image lies in dog'):
        data.load(str(root))


def test_which_folders_are_divided(folder, tmp_path):
    (folder / 'unlabelled').mkdir()
    (folder / 'unlabelled' / '0.png').write_bytes((folder / 'test' / 'cat' / '0.png').read_bytes())
    assert data.load(str(folder)).classes == ('cat', 'dog')
    (folder / 'test').rename(folder / 'later')
    with pytest.raises(ValueError, match=r'must hold the folders train and test \(or val\)'):
        data.load(str(folder))
    vehicles = tmp_path / 'vehicles'
    for name in ('bus', 'train', 'test'):                       # a class may have such a name
        (vehicles / name).mkdir(parents=True)
        for i in range(5):
            Image.new('RGB', (8, 8)).save(vehicles / name / f'{i}.png')
    assert data.load(str(vehicles)).classes == ('bus', 'test', 'train')
    for names in (('Train', 'Test'), ('training', 'validation')):
        for name in names:                                      # which would be classes of their own
            shutil.copytree(folder / 'train', tmp_path / names[0] / name)
        with pytest.raises(ValueError, match=f'must hold the folders train and .*it holds {", ".join(sorted(names))}'):
            data.load(str(tmp_path / names[0]))


def test_the_class_with_one_image_is_named(folder):
    for i in range(1, 10):
        (folder / 'train' / 'dog' / f'{i}.png').unlink()
    with pytest.raises(ValueError, match='out for validation: class dog has only one'):
        data.load(str(folder))


def save_all(folder, make):
    for i, file in enumerate(sorted(folder.rglob('*.png'))):
        content = make(i)
        file.unlink()
        if isinstance(content, Image.Image):
            content.save(file)
        else:
            np.save(file.with_suffix('.npy'), content)


def test_grey_is_found(folder):
    rng = np.random.RandomState(0)

    def grey(i):
        image = Image.fromarray(rng.randint(0, 255, (10 + i, 20), np.uint8))
        return image.convert(('L', 'RGB', 'LA', 'P', '1')[i % 5])
    save_all(folder, grey)
    d = data.load(str(folder), val_fraction=0.)
    heights = [d.train[i][0].height for i in range(20)]
    assert d.input_size == (1, int(np.median(heights)), 20)
    assert any('grey' in note for note in d.notes)
    assert any('alpha' in note for note in d.notes)
    values = [np.asarray(images.prepare(d.train[i][0], 1)) / 255 for i in range(20)]
    mean = np.mean([value.mean() for value in values])
    assert d.mean == pytest.approx([mean])
    assert d.std == pytest.approx([np.sqrt(np.mean([((value - mean) ** 2).mean() for value in values]))])
    Image.new('RGB', (20, 20), (255, 0, 0)).save(folder / 'train' / 'cat' / '0.png')
    d = data.load(str(folder), val_fraction=0.)
    assert d.input_size[0] == len(d.mean) == len(d.std) == 3
    assert d.mean[0] > d.mean[1] == pytest.approx(d.mean[2])
    assert any(note.startswith('1 of 20 training images are in colour') for note in d.notes)


def test_deep_images(folder):
    rng = np.random.RandomState(0)
    save_all(folder, lambda i: Image.fromarray(rng.randint(100, 1024, (20, 24)).astype(np.uint16)))
    deep = np.full((20, 24), 500, np.uint16)
    deep[0, :2] = 7, 4000
    Image.fromarray(deep).save(folder / 'train' / 'cat' / '0.png')
    deep[0, 0] = 65535
    Image.fromarray(deep).save(folder / 'test' / 'cat' / '0.png')       # which tells nothing to those who train
    d = data.load(str(folder), val_fraction=0.)
    assert (d.input_size, d.value_range) == ((1, 20, 24), (7, 4000))
    assert ('all images are more than 8 bits in grey or colour; values of the training images, 7 to 4000, '
            'become 0 to 1') in d.notes
    as_tensor = data.Prepared(d.train, 1, transforms.MaybeToTensor(), d.value_range)
    values = torch.stack([as_tensor[i][0] for i in range(20)]).double()
    assert (values.min(), values.max()) == (0, 1)
    assert d.mean == pytest.approx([values.mean().item()], abs=1e-6)
    assert d.std == pytest.approx([values.std(correction=0).item()], abs=1e-6)
    with pytest.raises(ValueError, match=r'train/cat/0.png: the image has more than 8 bits'):
        data.Prepared(d.train, 1, lambda x: x)


@pytest.mark.parametrize(('deep', 'flat'), [('train/cat/2', 'train/cat/0'), ('test/dog/1', 'train/cat/0'),
                                            ('train/cat/0', 'train/cat/1')])
def test_images_of_8_bits_and_of_more_are_refused_together(folder, deep, flat):
    """One file of each is named, the first."""
    deep += '.png'
    with Image.open(folder / deep) as image:
        pixels = np.asarray(image.convert('L')).astype(np.uint16) * 257
    Image.fromarray(pixels).save(folder / deep)
    with pytest.raises(ValueError, match=f'^all images must have as many bits: .*/{flat}.png has 8, .*/{deep} has m'):
        data.load(str(folder))


def test_constant_images_divide_by_nothing(folder):
    save_all(folder, lambda i: np.full((8, 8), 300, np.int32))
    d = data.load(str(folder), val_fraction=0.)
    assert d.value_range == (300, 301)
    assert d.mean == (0,)
    assert d.std[0] > 0


def test_copies_of_training_images(folder):
    assert not any('training images too' in note for note in data.load(str(folder)).notes)
    with Image.open(folder / 'train' / 'dog' / '3.png') as image:
        image.save(folder / 'test' / 'cat' / '2.bmp')
    shutil.copy(folder / 'train' / 'cat' / '3.png', folder / 'test' / 'cat' / '3.png')
    note = next(note for note in data.load(str(folder)).notes if 'training images too' in note)
    assert note.startswith(f'2 of 9 test images are training images too, such as {folder}/test/cat/2.bmp: ')


def test_many_channels(folder):
    rng = np.random.RandomState(0)
    save_all(folder, lambda i: rng.rand(8, 9, 5).astype(np.float32) * 10 - 5)
    d = data.load(str(folder), val_fraction=0.)
    assert d.input_size == (5, 8, 9)
    assert d.mean == pytest.approx([0.5] * 5, abs=0.05)
    assert data.Prepared(d.test, 5, lambda x: x, d.value_range)[0][0].shape == (5, 8, 9)
    with pytest.raises(ValueError, match='the images have 5 channels, the model takes 3'):
        data.Prepared(d.train, 3, lambda x: x, d.value_range)
    np.save(folder / 'test' / 'cat' / 'other.npy', rng.rand(8, 9, 4))
    with pytest.raises(ValueError, match=r'or else of the same channels: .*\.npy has 5, .*/other\.npy has 4'):
        data.load(str(folder))


def test_channels_that_image_files_do_not_give():
    with pytest.raises(ValueError, match='these image files give 1 or 3 channels, the model takes 4'):
        data.Prepared(data.load('sample').test, 4, lambda x: x)


def test_the_same_data_under_another_path(folder, tmp_path):
    before = data.load(str(folder)).fingerprint
    other = tmp_path / 'elsewhere'
    other.mkdir()
    for part in ('train', 'test'):
        (folder / part).rename(other / part)
    assert data.load(f'{other}/', scan=False).fingerprint == before
    assert data.load('sample').fingerprint == 'sample'
    file = other / 'test' / 'cat' / '0.png'
    file.rename(other / 'test' / 'cat' / 'x.png')
    renamed = data.load(str(other)).fingerprint
    Image.new('RGB', (50, 50)).save(other / 'test' / 'cat' / 'x.png')
    assert len({before, renamed, data.load(str(other)).fingerprint}) == 3


def test_statistics_of_many_images_are_from_some(folder, monkeypatch):
    whole = data.load(str(folder))
    monkeypatch.setattr(scan, 'MEASURED', 5)
    some = data.load(str(folder))
    assert whole.mean != some.mean == pytest.approx(whole.mean, abs=0.02)


def test_10000_small_files_are_read_in_seconds(tmp_path):
    for c in range(10):
        (tmp_path / str(c)).mkdir()
        for i in range(1000):
            Image.new('L', (28, 28), i % 256).save(tmp_path / str(c) / f'{i}.png')
    start = time.monotonic()
    d = data.load(str(tmp_path))
    assert (len(d.train) + len(d.val), len(d.test)) == (8000, 2000)
    assert time.monotonic() - start < 60                        # 5 s on two free cores


def test_a_name_that_no_folder_can_have():
    with pytest.raises(FileNotFoundError, match=r'^xxx.* is not there: expected a folder of images, or the name '):
        data.load('x' * 5000)
