"""Hostile image files: each a good one of a kind, cut, flipped, or with a header that lies."""
import io
import struct
import zlib
from pathlib import Path
from random import Random
from typing import Callable, Dict, List

import numpy as np
import timm
import torch
from PIL import Image

from scat_zoo.train import checkpoint

from .oracle import Trial


def prepare(folder: Path) -> Callable[[Random], Trial]:
    """What makes a trial: `predict` of a hostile image beside a good one."""
    torch.manual_seed(0)
    model = timm.create_model('scat_linear', num_classes=3, in_chans=1, img_size=16, L=2, J=1)
    checkpoint.save(model, folder / 'model', ['ant', 'bee', 'cat'])
    good = _files()
    image = folder / 'image.png'
    image.write_bytes(good['grey.png'])

    def make(rng: Random) -> Trial:
        name = rng.choice(sorted(good))
        how = rng.choice([_flipped, _flipped, _cut, _lying, _spliced, _other, _stretched])
        bad = folder / name
        bad.write_bytes(how(good, name, rng))
        return Trial(['predict', str(folder / 'model'), str(bad), '--device', 'cpu'], f'{name}{how.__name__}', False)

    return make


def two_classes(folder: Path) -> Path:
    """Make a folder of good images, four of each of two classes to train and to test."""
    noise = np.random.RandomState(0)
    for part in ('train', 'test'):
        for c in 'ab':
            (folder / part / c).mkdir(parents=True)
            for i in range(4):
                Image.fromarray(noise.randint(0, 256, (12, 12), np.uint8)).save(folder / part / c / f'{i}.png')
    return folder


def _files() -> Dict[str, bytes]:
    """Good files of each kind, all of 24 x 16 pixels."""
    grey = np.random.RandomState(0).randint(0, 256, (16, 24), np.uint8)
    colour = np.stack([grey, grey.T.reshape(16, 24), 255 - grey], 2)
    deep = grey.astype(np.uint16) * 257
    made = {}
    for name, array, options in [
            ('grey.png', grey, {}), ('colour.png', colour, {}), ('deep.png', deep, {}), ('grey.jpg', grey, {}),
            ('colour.jpg', colour, {}), ('grey.bmp', grey, {}), ('grey.tif', grey, {}), ('deep.tif', deep, {}),
            ('packed.tif', colour, {'compression': 'tiff_lzw'}), ('float.tif', grey.astype(np.float32), {}),
            ('colour.webp', colour, {}), ('grey.pgm', grey, {}), ('grey.gif', grey, {})]:
        stream = io.BytesIO()
        kind = {'jpg': 'JPEG', 'tif': 'TIFF', 'pgm': 'PPM'}.get(name[-3:], name.split('.')[1].upper())
        Image.fromarray(array).save(stream, kind, **options)
        made[name] = stream.getvalue()
    for name, array in [('float.npy', grey.astype(np.float32)), ('colour.npy', colour),
                        ('nan.npy', np.full((16, 24), np.nan, np.float32)), ('huge.npy', grey * 1e300),
                        ('objects.npy', np.array([[{}]], object))]:
        stream = io.BytesIO()
        np.save(stream, array, allow_pickle=True)
        made[name] = stream.getvalue()
    return made


def _flipped(good: Dict[str, bytes], name: str, rng: Random) -> bytes:
    raw = bytearray(good[name])
    for _ in range(rng.choice([1, 1, 3, 20])):
        raw[rng.randrange(rng.choice([len(raw), min(64, len(raw))]))] = rng.randrange(256)
    return bytes(raw)


def _cut(good: Dict[str, bytes], name: str, rng: Random) -> bytes:
    return good[name][:rng.randrange(len(good[name]))]


def _spliced(good: Dict[str, bytes], name: str, rng: Random) -> bytes:
    """The beginning of one, the end of another."""
    other = good[rng.choice(sorted(good))]
    return good[name][:rng.randrange(len(good[name]))] + other[rng.randrange(len(other)):]


def _other(good: Dict[str, bytes], name: str, rng: Random) -> bytes:
    """What is no image: bytes, text, nothing, or an image of another kind by this name."""
    return rng.choice([rng.randbytes(300), b'<svg></svg>', b'', b'\0' * 500, good[rng.choice(sorted(good))]])


def _stretched(good: Dict[str, bytes], name: str, rng: Random) -> bytes:
    """A number of two or four bytes in the header replaced by a large one."""
    raw = bytearray(good[name])
    place = rng.randrange(min(len(raw) - 4, 200))
    large = rng.choice([0, 65535, 2 ** 24, 2 ** 31 - 1, 2 ** 32 - 1])
    raw[place:place + 4] = struct.pack(rng.choice(['<I', '>I']), large)
    return bytes(raw)


def _lying(good: Dict[str, bytes], name: str, rng: Random) -> bytes:
    """A PNG or array whose header, in order by itself, tells of more pixels than there are."""
    sides = [rng.choice([1, 15, 100_000, 2 ** 20, 2 ** 31 - 1]) for _ in range(2)]
    if name.endswith('.npy'):
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            stream, {'descr': rng.choice(['<f4', '<f8', '|O', '|S5', '<c16']), 'fortran_order': False,
                     'shape': tuple(sides)})
        return stream.getvalue() + rng.randbytes(100)
    header = struct.pack('>IIBBBBB', *sides, rng.choice([1, 8, 16]), rng.choice([0, 2, 3, 6]), 0, 0, 0)
    chunks: List[bytes] = [b'\x89PNG\r\n\x1a\n']
    for kind, content in ((b'IHDR', header), (b'IDAT', zlib.compress(bytes(1000))), (b'IEND', b'')):
        chunks += [struct.pack('>I', len(content)), kind, content, struct.pack('>I', zlib.crc32(kind + content))]
    return b''.join(chunks)
