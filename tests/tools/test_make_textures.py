"""The texture maker: which pictures it takes, crops the same every time, splits that share no pixel."""
import io
import random
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from scat_zoo.train import data
from tools import make_textures


def noise(seed, colour, side=256):
    return Image.fromarray((np.random.RandomState(seed).rand(side, side, 3) * 60 + colour).astype(np.uint8))


@pytest.fixture
def archive(tmp_path):
    """Two textures; what is no texture: a near-duplicate, one too small, one that is not homogeneous, a broken file."""
    light = noise(5, 100)
    light.paste(noise(6, 180).crop((0, 0, 128, 256)))
    pictures = {'b.png': noise(1, 40), 'a.png': noise(2, 120), 'c.png': noise(3, 41), 'd.png': noise(4, 80, 128),
                'e.png': light}
    with zipfile.ZipFile(tmp_path / 'pictures.pk3', 'w') as files:
        for name, picture in pictures.items():
            content = io.BytesIO()
            picture.save(content, 'PNG')
            files.writestr(name, content.getvalue())
        files.writestr('f.png', b'nonsense')
        files.writestr('g.txt', b'no picture')
    return tmp_path / 'pictures.pk3'


def test_homogeneous_pictures_that_differ_are_classes(archive):
    assert [name for name, _ in make_textures.homogeneous(archive)] == ['a.png', 'b.png']


def test_the_folder_is_a_data_set_and_the_same_every_time(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(make_textures, 'PER_CLASS', {'train': 3, 'val': 1, 'test': 2})
    for name in ('one', 'two'):
        monkeypatch.setattr(sys, 'argv', ['make_textures', str(archive), str(tmp_path / name)])
        make_textures.main()
    one, two = (data.load(str(tmp_path / name)) for name in ('one', 'two'))
    assert (len(one.train), len(one.val), len(one.test)) == (6, 2, 4)
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(one.train, two.train))


def test_crops_come_from_their_region_alone():
    for split, (left, top, right, bottom) in make_textures.REGION.items():
        picture = np.zeros((256, 256, 3), np.uint8)
        picture[top:bottom, left:right] = 100                   # whatever is black comes from elsewhere
        rng = random.Random(0)
        for _ in range(30):
            patch = np.asarray(make_textures.crop(Image.fromarray(picture), (left, top, right, bottom), rng))
            assert patch.shape == (64, 64, 3), split
            assert patch.min() >= 100 * 0.6 * 0.85 - 1, split


def test_archives_that_make_no_data_set(tmp_path, monkeypatch, capsys):
    (tmp_path / 'broken.zip').write_text('nonsense')
    zipfile.ZipFile(tmp_path / 'empty.zip', 'w').close()
    for name, phrase in (('absent.zip', 'cannot read the archive'), ('broken.zip', 'cannot read the archive'),
                         ('empty.zip', 'holds no homogeneous colour picture')):
        monkeypatch.setattr(sys, 'argv', ['make_textures', str(tmp_path / name), str(tmp_path / 'images')])
        with pytest.raises(SystemExit):
            make_textures.main()
        assert phrase in capsys.readouterr().err
    assert not (tmp_path / 'images').exists()
