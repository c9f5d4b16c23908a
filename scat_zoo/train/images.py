"""Image files: opening one of any kind and depth, and bringing it to a model's channels and range of values."""
import contextlib
import io
import os
import stat
import sys
from pathlib import Path
from typing import Any, BinaryIO, Callable, List, NamedTuple, Optional, Tuple, Union

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..wording import brief

# Either an image of 8 bits, or an array (H, W, C) of float32 that holds the file's own values.
Picture = Union[Image.Image, np.ndarray]

EXTENSIONS = tuple((                                            # the commonest first, as messages tell them
    '.jpg .jpeg .png .tif .tiff .bmp .gif .webp .npy .dcm .dicom .jpe .jfif .apng .dib .ppm .pgm .pbm .pnm .pfm .tga '
    '.jp2 .j2k .jpx .avif .avifs .heic .heif').split())
NO_IMAGES = frozenset(('.ipynb_checkpoints', '__MACOSX'))       # folders of copies that other programs leave
LONGEST = 1000          # times the shorter side, which is enlarged to a model's: the other would take gigabytes then
LUMA = (0.299, 0.587, 0.114)                                    # as Pillow turns colour into grey
# TIFF's (sample format, bits) that Pillow takes for other types of the same size.
MISREAD = {(1, 32): np.uint32, (2, 8): np.int8}
# Of two bytes a colour Pillow unpacks the higher; told of the other order, as the second names say, the lower. Grey and
# alpha are four bytes, so unpacked as they are the lower one of grey is second.
SWAPPED = {'RGB;16B': 'RGB;16L', 'RGB;16L': 'RGB;16B', 'RGBA;16B': 'RGBA;16L', 'RGBA;16L': 'RGBA;16B', 'LA;16B': 'RGBA'}
NATIVE = '16L' if sys.byteorder == 'little' else '16B'


def is_image(path: Union[str, Path]) -> bool:
    """Whether a file of this name may be an image: neither hidden nor a copy that another program left."""
    path = Path(path)
    return (path.suffix.lower() in EXTENSIONS and not path.name.startswith('.')
            and NO_IMAGES.isdisjoint(path.parts))


class _File(NamedTuple):
    """An image file, or its content, read from elsewhere, and its name."""
    name: Union[str, Path]
    content: Optional[bytes] = None

    def open(self) -> BinaryIO:
        return open(self.name, 'rb') if self.content is None else io.BytesIO(self.content)


def open_image(file: Union[str, Path], content: Optional[bytes] = None) -> Picture:
    """The decoded image, upright: a Pillow image if it has 8 bits a channel, else its values (H, W, C) in float32.

    Pages of a TIFF file that are grey and of one size are its channels; of other files with several pictures, the first
    counts. DICOM values are rescaled as the file says, and brighter is more.

    Args:
        content: its bytes, where it does not lie on disk by this name, as in a tar file.

    Raises:
        ValueError: in one sentence, if it cannot be read, or has values that are not finite.
    """
    try:
        if content is None and not stat.S_ISREG(os.stat(file).st_mode):     # reading from a pipe could wait for ever
            raise ValueError('it is no regular file')
        opened = _File(file, content)
        return picture_of(_reader(opened)(opened))
    except Exception as error:                                  # decoders fail in every way on damaged bytes
        reason = getattr(error, 'strerror', None) or str(error) or type(error).__name__
        if isinstance(error, Image.DecompressionBombError):
            reason = f'it has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels, which is too large: scale it down'
        raise ValueError(f'cannot read the image {brief(file, 120)}: {brief(" ".join(reason.split()), 140)}') from error


def _reader(file: _File) -> Callable[[_File], Picture]:
    with file.open() as stream:
        head = stream.read(132)
    if head[128:] == b'DICM' or Path(file.name).suffix.lower() in ('.dcm', '.dicom'):
        return _open_dicom
    if head.startswith(b'\x93NUMPY'):
        return _open_npy
    if head[:4] in (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+'):
        return _open_tiff
    if head.startswith(b'\x89PNG') and head[24:25] == b'\x10' and head[25:26] != b'\0':     # 16 bits, not just grey
        return _open_deep_png
    if head[4:8] == b'ftyp' and head[8:12] in (b'avif', b'avis') and '.avif' not in Image.registered_extensions():
        raise ValueError('this Pillow was built without AVIF')
    return _open_pillow


def _open_pillow(file: _File) -> Picture:
    # Given a name, Pillow maps some files into memory, and mixes up the pixels of a TIFF file on its side.
    with file.open() as stream:
        try:
            image = Image.open(stream)
        except UnidentifiedImageError as error:
            raise ValueError('it is no image, or of a kind that Pillow does not read') from error
        return _loaded(image)


def _loaded(image: Image.Image) -> Picture:
    image.load()
    with contextlib.suppress(Exception):                        # broken metadata do not spoil the pixels
        image = ImageOps.exif_transpose(image)
    if image.mode in ('I', 'F') or image.mode.startswith('I;16'):
        return np.asarray(image)
    if image.mode in ('LAB', 'HSV'):
        return image.convert('RGB')
    return image


def _open_tiff(file: _File) -> Picture:
    with file.open() as stream:
        try:
            image: Any = Image.open(stream)                     # one with tags
        except UnidentifiedImageError:                          # of a kind that Pillow does not know
            return _open_tifffile(file)
        bits, bands = max(image.tag_v2.get(258, (1,))), len(image.getbands())
        if image.tag_v2.get(277, bands) != bands:               # Pillow would drop samples
            return _open_tifffile(file)
        if bands > 1 and bits > 8:                              # and here bits
            interleaved = image.tag_v2.get(284, 1) == 1 and image.mode in ('RGB', 'RGBA')
            return _both_bytes(file) if interleaved else _open_tifffile(file)
        kind = MISREAD.get((image.tag_v2.get(339, (1,))[0], bits))
        pages = range(getattr(image, 'n_frames', 1))
        if not _are_channels([_page_kind(image, i) for i in pages]):
            pages = range(1)
        read = []
        for i in pages:
            image.seek(i)
            read.append(_loaded(image.copy() if len(pages) > 1 else image))
    if kind is not None:
        read = [np.asarray(page).view(kind) for page in read]
    return read[0] if len(read) == 1 else np.stack([np.asarray(page) for page in read], -1)


def _page_kind(image: Image.Image, page: int) -> Tuple:
    image.seek(page)
    return image.size, len(image.getbands()), image.mode


def _are_channels(kinds: List[Tuple]) -> bool:
    """Of each page, (size, samples, ...): whether all are grey and alike."""
    return len(set(kinds)) == 1 and kinds[0][1] == 1


def _open_tifffile(file: _File) -> np.ndarray:
    try:
        import tifffile
    except ImportError as error:
        raise ValueError('a TIFF file with more than 3 channels, or another that Pillow does not read, needs tifffile: '
                         'install it') from error
    with file.open() as stream, tifffile.TiffFile(stream) as tiff:
        first = tiff.pages[0]
        kinds = [(page.shape, page.samplesperpixel, page.dtype) for page in tiff.pages]
        pages = [page.asarray() for page in (tiff.pages if _are_channels(kinds) else [first])]
        if first.axes not in ('YX', 'YXS', 'SYX'):
            raise ValueError(f'expected a picture, got axes {first.axes}')
        array = np.stack(pages, -1) if len(pages) > 1 else pages[0]
        tag = first.tags.get('Orientation')
        return _upright(np.moveaxis(array, 0, -1) if first.axes == 'SYX' else array, tag.value if tag else 1)


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, ...) turned by the number that EXIF and TIFF give: 5 to 8 lie on their side."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def _open_deep_png(file: _File) -> np.ndarray:
    array = _both_bytes(file)
    return array[..., 1:2] if _is_grey_and_alpha(file) else array[..., :3]      # without alpha


def _is_grey_and_alpha(file: _File) -> bool:
    with file.open() as stream:
        return stream.read(26)[25] == 4


def _both_bytes(file: _File) -> np.ndarray:
    """(H, W, C) of a PNG or TIFF file of 16 bits a colour."""
    high, low = (_unpacked(file, swapped) for swapped in (False, True))
    return 256 * high.astype(np.uint16) + low


def _unpacked(file: _File, swapped: bool) -> np.ndarray:
    with file.open() as stream, Image.open(stream) as image:
        if swapped:
            image.tile = [_swapped(tile) for tile in image.tile]
        return np.asarray(_loaded(image))


def _swapped(tile: Any) -> Any:
    """An entry of Pillow's list of what to decode, (decoder, box, offset, arguments), of bytes in the other order."""
    *where, args = tile
    name, *others = (args,) if isinstance(args, str) else args
    name = SWAPPED[name.replace('16N', NATIVE)]
    return getattr(type(tile), '_make', tuple)((*where, name if isinstance(args, str) else (name, *others)))


def _open_npy(file: _File) -> np.ndarray:
    with file.open() as stream:
        return np.load(stream, allow_pickle=False)


def _open_dicom(file: _File) -> np.ndarray:
    try:
        import pydicom
        from pydicom.pixels import apply_color_lut
    except ImportError as error:
        raise ValueError('DICOM files need pydicom: install it, or scat_zoo with the extra dicom') from error
    with file.open() as stream:
        content = pydicom.dcmread(stream)
        array = content.pixel_array
    if int(content.get('NumberOfFrames') or 1) > 1:
        raise ValueError(f'expected one picture, got {content.NumberOfFrames} frames')
    photometric = content.PhotometricInterpretation
    if photometric == 'PALETTE COLOR':
        array = apply_color_lut(array, content)
    if photometric == 'MONOCHROME1':                            # the least value is white
        # The sum of the least and the largest value: of unsigned ones 2^bits - 1, of signed ones -1.
        ends = -1 if content.PixelRepresentation else 2 ** content.BitsStored - 1
        array = (ends - array.astype(np.int64)).astype(array.dtype)
    slope, intercept = float(content.get('RescaleSlope') or 1), float(content.get('RescaleIntercept') or 0)
    return array if (slope, intercept) == (1, 0) else slope * array.astype(np.float64) + intercept


def picture_of(content: Picture) -> Picture:
    """A decoded image, or an array (H, W) or (H, W, C), as `open_image` gives it.

    Raises:
        ValueError: in one sentence, if it is no picture, is far too long, or has values that are not finite.
    """
    if isinstance(content, Image.Image):
        _check_sides(*content.size)
        return content
    array = content[..., None] if content.ndim == 2 else content
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(f'expected an array (height, width) or (height, width, channels), got shape '
                         f'{brief(content.shape, 40)}')
    _check_sides(array.shape[1], array.shape[0])
    if array.dtype.kind not in 'buif':
        raise ValueError(f'expected numbers, got values of type {brief(array.dtype, 60)}')
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    if array.dtype == np.uint8 and array.shape[2] in (1, 3):
        return Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[2] == 1 else array))
    with np.errstate(over='ignore'):                            # it is infinite then
        array = np.array(array, np.float32, order='C')
    if not np.isfinite(array).all():
        raise ValueError('it holds NaN or infinite values')
    return array


def _check_sides(width: int, height: int) -> None:
    if max(width, height) > LONGEST * min(width, height):
        raise ValueError(f'it has {width:,} x {height:,} pixels, one side more than {LONGEST:,} times the other: '
                         'cut it')


def channels_of(picture: Picture) -> int:
    """1 or 3 of an image of 8 bits, without its alpha channel."""
    if isinstance(picture, Image.Image):
        return 1 if picture.mode in ('1', 'L', 'LA', 'La') else 3
    return picture.shape[2]


def prepare(picture: Picture, channels: int, value_range: Optional[Tuple[float, float]] = None
            ) -> Union[Image.Image, Tensor]:
    """The picture in grey or colour, of 8 bits; or a tensor (channels, H, W), of 0 and 1 at the ends of the range.

    Raises:
        ValueError: in one sentence, if the picture has other channels, or more than 8 bits and no range is known.
    """
    check_channels(channels, channels_of(picture))
    if isinstance(picture, Image.Image):
        return with_channels(picture, channels)
    if value_range is None:
        raise ValueError(f'the image has more than 8 bits (values from {picture.min():g} to {picture.max():g}) and the '
                         'model was trained on 8, so which values are black and white is unknown: save it with 8 bits')
    low, high = value_range
    values = torch.from_numpy(picture).movedim(2, 0)            # (C, H, W)
    values = (values.contiguous() - low) / (high - low)
    if len(values) == channels:
        return values
    if channels == 3:
        return values.repeat(3, 1, 1)
    return (values * torch.tensor(LUMA)[:, None, None]).sum(0, keepdim=True)


def with_channels(image: Image.Image, channels: int) -> Image.Image:
    """The image of 8 bits in grey (1 channel) or colour (3)."""
    if image.mode == 'P' and 'transparency' in image.info:      # of which Pillow would warn
        image = image.convert('RGBA')
    return image.convert('L' if channels == 1 else 'RGB')


def check_channels(channels: int, data_channels: int = 3) -> None:
    """Refuse a model that takes so many channels if images of `data_channels` do not give them."""
    if channels != data_channels and not {channels, data_channels} <= {1, 3}:
        given = 'these image files give 1 or 3' if data_channels in (1, 3) else f'the images have {data_channels}'
        raise ValueError(f'{given} channels, the model takes {brief(channels, 40)}: only grey and colour are turned '
                         'into each other')
