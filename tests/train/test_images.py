"""Opening image files of every kind and depth, and bringing them to a model's channels."""
import contextlib
import io
import os
import random
import struct
import sys
import zlib

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torchvision.transforms import functional

from scat_zoo import wording
from scat_zoo.train import augment, images


def noise(*shape, dtype=np.uint8, top=256):
    return np.random.RandomState(0).randint(0, top, shape).astype(dtype)


def write_png16(path, pixels):
    """A PNG of 16 bits (H, W, 1 to 4), which Pillow writes of one channel only."""
    def chunk(kind, content):
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))
    height, width, channels = pixels.shape
    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in pixels)
    header = struct.pack('>IIBBBBB', width, height, 16, (0, 4, 2, 6)[channels - 1], 0, 0, 0)
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(rows))
                     + chunk(b'IEND', b''))


def write_dicom(path, pixels, **tags):
    pydicom = pytest.importorskip('pydicom')
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    content = FileDataset(str(path), {}, file_meta=meta, preamble=b'\0' * 128)
    content.SOPClassUID, content.SOPInstanceUID = SecondaryCaptureImageStorage, meta.MediaStorageSOPInstanceUID
    content.Rows, content.Columns = pixels.shape[:2]
    content.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    content.PhotometricInterpretation = 'MONOCHROME2' if pixels.ndim == 2 else 'RGB'
    content.BitsAllocated = content.BitsStored = 8 * pixels.dtype.itemsize
    content.HighBit, content.PixelRepresentation = content.BitsStored - 1, int(pixels.dtype.kind == 'i')
    if pixels.ndim == 3:
        content.PlanarConfiguration = 0
    content.PixelData = pixels.tobytes()
    for tag, value in tags.items():
        setattr(content, tag, value)
    pydicom.dcmwrite(path, content, enforce_file_format=True)


@pytest.mark.parametrize(('dtype', 'suffix'), [
    (np.uint16, 'png'), (np.uint16, 'tiff'), (np.int32, 'tiff'), (np.float32, 'tiff'), (np.uint16, 'npy'),
    (np.float64, 'npy'), (np.int64, 'npy')])
def test_deep_grey_files_keep_their_values(dtype, suffix, tmp_path):
    values = (noise(20, 24, dtype=np.int64, top=4096) - (2000 if dtype != np.uint16 else 0)).astype(dtype)
    file = tmp_path / f'a.{suffix}'
    if suffix == 'npy':
        np.save(file, values)
    else:
        Image.fromarray(values).save(file)
    read = images.open_image(file)
    assert read.dtype == np.float32
    assert np.array_equal(read, values[..., None])


def test_12_bits_in_16_keep_all_grey_levels(tmp_path):
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    Image.fromarray(values).save(tmp_path / 'xray.tiff')
    ready = images.prepare(images.open_image(tmp_path / 'xray.tiff'), 1, (0, 4095))
    assert len(ready.unique()) == 4096
    assert (ready.min().item(), ready.max().item(), ready.shape) == (0, 1, (1, 64, 64))


@pytest.mark.parametrize('suffix', ['png', 'tiff'])
def test_images_of_16_bits_are_those_of_8(suffix, tmp_path):
    image = Image.fromarray(noise(28, 28))
    Image.fromarray(np.asarray(image).astype(np.uint16) * 257).save(tmp_path / f'deep.{suffix}')
    deep = images.open_image(tmp_path / f'deep.{suffix}')
    for channels in (1, 3):
        ours = images.prepare(deep, channels, (0, 65535))
        torch.testing.assert_close(ours, functional.to_tensor(images.prepare(image, channels)))
    with pytest.raises(ValueError, match=r'more than 8 bits \(values from 0 to 65535\) and the model'):
        images.prepare(deep, 1)


@pytest.mark.parametrize(('channels', 'kept'), [(1, 1), (2, 1), (3, 3), (4, 3)])
def test_png_of_16_bits_a_colour(channels, kept, tmp_path):
    values = noise(20, 24, channels, dtype=np.uint16, top=65536)
    write_png16(tmp_path / 'a.png', values)
    assert np.array_equal(images.open_image(tmp_path / 'a.png'), values[..., :kept])
    with Image.open(tmp_path / 'a.png') as image:               # why Pillow is not asked
        assert channels == 1 or np.asarray(image).max() <= 255


def test_arrays(tmp_path):
    for values in (noise(20, 24), noise(20, 24, 1), noise(20, 24, 3), noise(20, 24, 3) > 127):
        np.save(tmp_path / 'a.npy', values)
        image = images.open_image(tmp_path / 'a.npy')
        assert isinstance(image, Image.Image)
        expected = values * (255 if values.dtype == bool else 1)
        assert np.array_equal(image, expected[..., 0] if expected.shape[2:] == (1,) else expected)
    for values in (noise(20, 24, 5), noise(20, 24, 2, dtype=np.float32), noise(20, 24, 3, dtype=np.int16)):
        np.save(tmp_path / 'a.npy', values)
        read = images.open_image(tmp_path / 'a.npy')
        assert read.dtype == np.float32
        assert np.array_equal(read, values)
    for values, phrase in ((noise(5), r'got shape \(5,\)'), (noise(0, 4), 'got shape'), (np.array([['a']]), 'type <U1'),
                           (np.ones((2, 2), complex), 'type complex'), (np.array([[{}]], object), 'Object arrays'),
                           (np.full((2, 2), np.nan), 'NaN'), (np.full((2, 2), 1e300), 'infinite')):
        np.save(tmp_path / 'a.npy', values)
        with pytest.raises(ValueError, match=phrase) as caught:
            images.open_image(tmp_path / 'a.npy')
        assert str(caught.value).startswith(f'cannot read the image {tmp_path}')


@pytest.mark.parametrize(('shape', 'dtype', 'options'), [
    ((20, 24, 5), np.uint8, {'photometric': 'minisblack', 'planarconfig': 'contig'}),
    ((5, 20, 24), np.uint16, {'photometric': 'minisblack', 'planarconfig': 'separate'}),
    ((5, 20, 24), np.uint16, {'photometric': 'minisblack'}),                # five pages
    ((3, 20, 24), np.float64, {'photometric': 'minisblack'}),
    ((20, 24, 6), np.uint8, {'photometric': 'rgb', 'planarconfig': 'contig'}),      # Pillow keeps three of these
    ((20, 24, 4), np.uint8, {'photometric': 'rgb', 'extrasamples': [0]}),
    ((20, 24, 3), np.uint16, {'photometric': 'rgb'}),
    ((20, 24, 4), np.uint16, {'photometric': 'rgb'}),
    ((20, 24), np.float16, {}), ((20, 24), np.uint32, {}), ((20, 24), np.int8, {}), ((20, 24), np.int16, {})])
def test_tiff_of_any_kind(shape, dtype, options, tmp_path):
    tifffile = pytest.importorskip('tifffile')
    top = 256 if dtype == np.float16 else 2 ** 32
    values = noise(*shape, dtype=np.int64, top=top).astype(dtype)
    tifffile.imwrite(tmp_path / 'a.tif', values, **options)
    expected = values[..., None] if values.ndim == 2 else values
    if shape[-1] == 24 and len(shape) == 3:
        expected = np.moveaxis(values, 0, -1)
    assert np.array_equal(images.open_image(tmp_path / 'a.tif'), expected.astype(np.float32))
    if options == {'photometric': 'minisblack'}:                # pages behind the end cannot be missed
        return
    content = (tmp_path / 'a.tif').read_bytes()
    (tmp_path / 'a.tif').write_bytes(content[:len(content) // 2])
    with pytest.raises(ValueError, match='cannot read the image'):
        images.open_image(tmp_path / 'a.tif')


@pytest.mark.parametrize('byteorder', '<>')
@pytest.mark.parametrize('compression', [None, 'zlib'])
@pytest.mark.parametrize('channels', [3, 4])
def test_tiff_of_16_bits_a_colour_without_tifffile(channels, compression, byteorder, tmp_path, monkeypatch):
    tifffile = pytest.importorskip('tifffile')
    values = noise(20, 24, channels, dtype=np.uint16, top=65536)
    tifffile.imwrite(tmp_path / 'a.tif', values, photometric='rgb', compression=compression, byteorder=byteorder,
                     rowsperstrip=8, extratags=[(274, 3, 1, 6, True)])
    monkeypatch.setitem(sys.modules, 'tifffile', None)
    assert np.array_equal(images.open_image(tmp_path / 'a.tif'), np.rot90(values, -1))


def test_tiff_that_needs_tifffile_without_it(tmp_path, monkeypatch):
    tifffile = pytest.importorskip('tifffile')
    tifffile.imwrite(tmp_path / 'a.tif', noise(20, 24, 5), photometric='minisblack', planarconfig='contig')
    monkeypatch.setitem(sys.modules, 'tifffile', None)
    with pytest.raises(ValueError, match='needs tifffile: install it'):
        images.open_image(tmp_path / 'a.tif')


def test_pages_of_different_sizes_are_no_channels(tmp_path):
    large, small = Image.fromarray(noise(20, 24)), Image.fromarray(noise(10, 12))
    large.save(tmp_path / 'a.tif', save_all=True, append_images=[small])
    assert np.array_equal(images.open_image(tmp_path / 'a.tif'), large)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_orientation_is_applied(orientation, tmp_path):
    """Of a PNG as of a TIFF, whose pixels Pillow mixes up where it maps the file into memory."""
    stored, exif = noise(20, 24), Image.Exif()
    exif[0x0112] = orientation
    turned = {1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1], 5: stored.T,
              6: np.rot90(stored, -1), 7: stored[::-1, ::-1].T, 8: np.rot90(stored)}[orientation]
    Image.fromarray(stored).save(tmp_path / 'a.png', exif=exif)
    assert np.array_equal(images.open_image(tmp_path / 'a.png'), turned)
    tifffile = pytest.importorskip('tifffile')
    tag = [(274, 3, 1, orientation, True)]
    for dtype in (np.uint8, np.uint16, np.float64):             # read by Pillow, by Pillow, by tifffile
        tifffile.imwrite(tmp_path / 'a.tif', stored.astype(dtype), extratags=tag)
        assert np.array_equal(np.squeeze(images.open_image(tmp_path / 'a.tif')), turned), dtype


def test_orientation_of_a_deep_png(tmp_path):
    values, exif = noise(20, 24, 3, dtype=np.uint16, top=65536), Image.Exif()
    exif[0x0112] = 6
    write_png16(tmp_path / 'a.png', values)
    plain, note = (tmp_path / 'a.png').read_bytes(), exif.tobytes().removeprefix(b'Exif\0\0')
    chunk = struct.pack('>I', len(note)) + b'eXIf' + note + struct.pack('>I', zlib.crc32(b'eXIf' + note))
    (tmp_path / 'a.png').write_bytes(plain[:33] + chunk + plain[33:])       # behind the header
    assert np.array_equal(images.open_image(tmp_path / 'a.png'), np.rot90(values, -1))


def test_dicom(tmp_path):
    file = tmp_path / 'a.dcm'
    twelve = noise(20, 24, dtype=np.uint16, top=4096)
    write_dicom(file, twelve, BitsStored=12, HighBit=11, RescaleSlope=2, RescaleIntercept=-1024)
    assert np.array_equal(images.open_image(file)[..., 0], 2. * twelve - 1024)
    write_dicom(file, twelve, BitsStored=12, HighBit=11, PhotometricInterpretation='MONOCHROME1')
    assert np.array_equal(images.open_image(file)[..., 0], 4095. - twelve)
    signed = twelve.astype(np.int16) - 2000
    write_dicom(file, signed)
    assert np.array_equal(images.open_image(file)[..., 0], signed)
    write_dicom(file, signed, PhotometricInterpretation='MONOCHROME1')
    assert np.array_equal(images.open_image(file)[..., 0], -1. - signed)
    for pixels in (noise(20, 24), noise(20, 24, 3)):
        write_dicom(file, pixels)
        image = images.open_image(file)
        assert isinstance(image, Image.Image)
        assert np.array_equal(image, pixels)
    file.rename(tmp_path / 'IM0001')                            # known by what is in it
    assert np.array_equal(images.open_image(tmp_path / 'IM0001'), noise(20, 24, 3))
    write_dicom(file, noise(20, 24), NumberOfFrames=2, PixelData=noise(40, 24).tobytes())
    with pytest.raises(ValueError, match='expected one picture, got 2 frames'):
        images.open_image(file)
    file.write_bytes(noise(1000).tobytes())
    with pytest.raises(ValueError, match='cannot read the image'):
        images.open_image(file)


def test_dicom_without_pydicom(tmp_path, monkeypatch):
    (tmp_path / 'a').write_bytes(b'\0' * 128 + b'DICM' + b'\0' * 50)
    monkeypatch.setitem(sys.modules, 'pydicom', None)
    with pytest.raises(ValueError, match='need pydicom: install it, or scat_zoo with the extra dicom'):
        images.open_image(tmp_path / 'a')


@pytest.mark.parametrize('suffix', ['png', 'jpg', 'tiff', 'bmp', 'webp', 'gif', 'npy'])
def test_damaged_files_end_in_one_sentence(suffix, tmp_path):
    file, buffer = tmp_path / f'a.{suffix}', io.BytesIO()
    if suffix == 'npy':
        np.save(buffer, noise(40, 48))
    else:
        Image.fromarray(noise(40, 48)).save(buffer, 'jpeg' if suffix == 'jpg' else suffix)
    whole = buffer.getvalue()
    for length in (0, 1, 20, 60, len(whole) // 2):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match='cannot read the image') as caught:
            images.open_image(file)
        assert '\n' not in str(caught.value)
    rng = np.random.RandomState(1)
    for _ in range(100):                                        # it reads, or says in one sentence that it does not
        broken = np.frombuffer(whole, np.uint8).copy()
        broken[rng.randint(0, len(broken), 5)] = rng.randint(0, 256, 5)
        file.write_bytes(broken.tobytes())
        with contextlib.suppress(ValueError):
            images.open_image(file)


@pytest.mark.parametrize('suffix', ['png', 'npy'])
def test_images_that_are_far_too_long(suffix, tmp_path):
    for sides in ((1, 1000), (1000, 1), (2, 2000)):
        picture(tmp_path / f'a.{suffix}', np.zeros(sides, np.uint8))
        images.open_image(tmp_path / f'a.{suffix}')
    picture(tmp_path / f'a.{suffix}', np.zeros((1, 1001), np.uint8))
    with pytest.raises(ValueError, match=r'it has 1,001 x 1 pixels, one side more than 1,000 times the other: cut it'):
        images.open_image(tmp_path / f'a.{suffix}')


def picture(file, values):
    np.save(file, values) if file.suffix == '.npy' else Image.fromarray(values).save(file)


def test_what_is_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / 'a.png')
    (tmp_path / 'b.png').mkdir()
    (tmp_path / 'c.png').symlink_to(tmp_path / 'nowhere')
    for name, phrase in (('a.png', 'it is no regular file'), ('b.png', 'it is no regular file'),
                         ('c.png', 'No such file'), ('d.png', 'No such file')):
        with pytest.raises(ValueError, match=phrase):
            images.open_image(tmp_path / name)


def test_avif_without_support(tmp_path, monkeypatch, recwarn):
    (tmp_path / 'a.avif').write_bytes(b'\0\0\0\x1cftypavif' + b'\0' * 100)
    Image.init()
    monkeypatch.delitem(Image.EXTENSION, '.avif', raising=False)
    with pytest.raises(ValueError, match='this Pillow was built without AVIF'):
        images.open_image(tmp_path / 'a.avif')
    assert not recwarn


def test_names_that_are_no_text_can_be_printed(tmp_path):
    name = os.fsdecode(b'caf\xe9\n.png')
    (tmp_path / name).write_text('hello')
    with pytest.raises(ValueError, match='cannot read the image') as caught:
        images.open_image(tmp_path / name)
    assert '\n' not in str(caught.value)
    assert str(caught.value).encode()                           # which raises at what is no text
    assert wording.shown('naïve ☺.png') == 'naïve ☺.png'


def test_is_image():
    for name in ('a.png', 'A.JPG', '.cache/x/a.tiff', 'a b.npy', 'a.dcm', 'a.avif', '..b/a.png'):
        assert images.is_image(name), name
    for name in ('a.txt', '.a.png', '._a.png', 'Thumbs.db', 'png', 'x/.ipynb_checkpoints/a.png', '__MACOSX/x/a.png',
                 'a.png.part', 'a'):
        assert not images.is_image(name), name


def test_prepare_images_of_8_bits():
    colour = Image.fromarray(noise(8, 9, 3))
    palette = colour.convert('P')
    palette.info['transparency'] = bytes(range(256))
    for image in (colour, colour.convert('CMYK'), colour.convert('RGBA'), palette, colour.convert('LA'),
                  colour.convert('1')):
        for channels, mode in ((1, 'L'), (3, 'RGB')):
            for value_range in (None, (0, 4095)):               # among deep images it counts as value / 255
                ready = images.prepare(image, channels, value_range)
                assert (ready.mode, ready.size) == (mode, (9, 8))
                assert np.array_equal(ready, image.convert('RGBA').convert('RGB').convert(mode))
    with pytest.raises(ValueError, match='these image files give 1 or 3 channels, the model takes 4'):
        images.prepare(colour, 4)


def test_prepare_deep_images():
    grey, colour, many = (noise(8, 9, c, dtype=np.float32, top=1000) for c in (1, 3, 5))
    low, high = -100, 1100
    assert images.prepare(grey, 3, (low, high)).shape == (3, 8, 9)
    torch.testing.assert_close(images.prepare(grey, 3, (low, high))[2], images.prepare(grey, 1, (low, high))[0])
    expected = functional.rgb_to_grayscale((torch.from_numpy(colour).permute(2, 0, 1) + 100) / 1200)
    torch.testing.assert_close(images.prepare(colour, 1, (low, high)), expected, atol=2e-4, rtol=0)   # weights rounded
    assert images.prepare(many, 5, (low, high)).is_contiguous()
    torch.testing.assert_close(images.prepare(many, 5, (low, high))[4], torch.from_numpy(many[..., 4] + 100) / 1200)
    for picture, channels, phrase in ((many, 3, 'the images have 5 channels, the model takes 3'),
                                      (grey, 5, 'give 1 or 3 channels, the model takes 5')):
        with pytest.raises(ValueError, match=phrase):
            images.prepare(picture, channels, (low, high))


@pytest.mark.parametrize('name', augment.NAMES)
@pytest.mark.parametrize(('channels', 'size'), [(1, 28), (3, (24, 40)), (5, 32)])
def test_augmentation_of_deep_images(name, channels, size):
    """The same random change as of 8 bits, where Pillow has such images."""
    y, x = np.mgrid[:40, :50] / 50
    smooth = np.stack([np.sin(5 * x + c) * np.cos(4 * y) for c in range(channels)], -1)     # (40, 50, C)
    pixels = np.rint(127.5 * (smooth + 1)).astype(np.uint8)
    transform = augment.train_transform(
        timm.create_model('scat_linear', in_chans=channels, img_size=size, L=2), name)
    deep = images.prepare(pixels.astype(np.float32), channels, (0, 255))

    def transformed(picture):
        torch.manual_seed(3)
        random.seed(3)
        return transform(picture)
    ours = transformed(deep)
    assert ours.shape == (channels, *((size, size) if isinstance(size, int) else size))
    if channels < 5:
        theirs = transformed(Image.fromarray(pixels[..., 0] if channels == 1 else pixels))
        assert (ours - theirs).abs().mean() < 0.05 * theirs.std()
