"""Image data sets for training: the built-in sample, Fashion-MNIST, and folders of images."""
import gzip
import math
import os
import struct
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple, Type, Union

import numpy as np
import torch
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import CIFAR10, FashionMNIST, VisionDataset

from ..wording import brief, nearest, shown, some
from . import folders
from .images import prepare
from .scan import Found, look

DATA_SETS = ('sample', 'fashion-mnist', 'cifar10')
SAMPLE = Path(__file__).parent / 'sample'
DEBIAN = Path('/usr/share/datasets/fashion-mnist')          # where Debian's package dataset-fashion-mnist puts it
CLASSES = ('T-shirt/top', 'Trouser', 'Pullover', 'Dress', 'Coat', 'Sandal', 'Shirt', 'Sneaker', 'Bag', 'Ankle boot')
# Of the 60,000 training images of Fashion-MNIST, over all pixels.
FASHION_MEAN, FASHION_STD = 0.2860, 0.3530
# Of the 50,000 training images of CIFAR-10.
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class Data(NamedTuple):
    """Splits of a data set, each of pictures and class indices, and what a model must know of it.

    Attributes:
        mean, std: by channel, of values from 0 to 1.
        value_range: the values that become 0 and 1, those of the training images, if any has more than 8 bits.
        notes: what was found in a folder and done with it, a line each.
        fingerprint: equal for the same data, wherever they lie.
    """
    train: 'Images'
    val: Optional['Images']
    test: 'Images'
    classes: Tuple[str, ...]
    input_size: Tuple[int, int, int]
    mean: Tuple[float, ...]
    std: Tuple[float, ...]
    value_range: Optional[Tuple[float, float]] = None
    notes: Tuple[str, ...] = ()
    fingerprint: str = ''


class IdxImages(Dataset):
    """Images and labels from a pair of idx files, the format of MNIST."""

    def __init__(self, folder: Path, split: str) -> None:
        images, labels = (read_idx(folder, f'{split}-{kind}-ubyte') for kind in ('images-idx3', 'labels-idx1'))
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise ValueError(f'{brief(folder)}: expected {split} images (n, rows, columns) and labels (n,), '
                             f'got shapes {brief(images.shape, 40)} and {brief(labels.shape, 40)}')
        self.images, self.targets = images, labels.tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> Tuple[Image.Image, int]:
        return Image.fromarray(self.images[i]), self.targets[i]


def read_idx(folder: Path, name: str) -> np.ndarray:
    """The array of unsigned bytes in the idx file `name` or `name.gz` in this folder.

    Raises:
        FileNotFoundError: if neither is there.
        ValueError: if it is no complete idx file of unsigned bytes.
    """
    plain, zipped = Path(folder) / name, Path(folder) / f'{name}.gz'
    if zipped.is_file():
        try:
            raw = gzip.decompress(zipped.read_bytes())
        except (OSError, EOFError) as error:
            raise ValueError(f'{brief(zipped)} is no complete gzip file, fetch it again: {brief(error, 60)}') from error
    elif plain.is_file():
        raw = plain.read_bytes()
    else:
        raise FileNotFoundError(f'expected the file {name} or {name}.gz in {brief(folder)}, which holds neither')
    if len(raw) < 4 or raw[:3] != b'\0\0\x08':
        raise ValueError(f'{brief(folder)}: {name} is no idx file of unsigned bytes, it begins with '
                         f'{brief(repr(raw[:4]))}')
    header = 4 + 4 * raw[3]
    shape = struct.unpack(f'>{raw[3]}I', raw[4:header]) if len(raw) >= header else (-1,)
    if len(raw) != header + math.prod(shape):
        raise ValueError(f'{brief(folder)}: {name} should hold {brief(shape, 40)} bytes after its header, it holds '
                         f'{len(raw) - header}: fetch it again')
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def load(name: str, root: Optional[Path] = None, val_fraction: float = 0.1, seed: int = 0, test_fraction: float = 0.2,
         skip_broken: bool = False, scan: bool = True) -> Data:
    """The data set `name`: 'sample', 'fashion-mnist', 'cifar10', or a folder of images.

    A folder holds `train` and `test` with one folder of images a class, and may hold `val`; with `train` and `val`
    alone, `val` is the test set. Or it holds one folder of images a class itself: part of each is held out to test, by
    a permutation that is always the same. What has no validation split gets one from the training images,
    class-balanced.

    Args:
        root: folder of Fashion-MNIST: the idx files, or what torchvision's class downloads there; or of CIFAR-10, as
            torchvision's class downloads it.
        val_fraction: part of the training images held out for validation; 0 for none.
        seed: of that split.
        test_fraction: part of the images of a folder without a split held out to test.
        skip_broken: leave files out that cannot be read.
        scan: open each file of a folder once, to find the broken ones and to measure. Without, a folder's size, mean
            and deviation are no more than stand-ins, which suits who knows a model that was trained on such images.

    Raises:
        ValueError, FileNotFoundError: in one sentence, where data is missing or broken; stderr gets a line for each
            broken file.
    """
    if not 0 <= val_fraction < 1:
        raise ValueError(f'the validation fraction must be at least 0 and less than 1, got {val_fraction:g}')
    if not 0 < test_fraction < 1:
        raise ValueError(f'the test fraction must be more than 0 and less than 1, got {test_fraction:g}')
    if name == 'cifar10':
        return _cifar10(root, val_fraction, seed)
    if name not in ('sample', 'fashion-mnist'):
        return _image_folder(Path(name), val_fraction, seed, test_fraction, skip_broken, scan)
    train, test = _fashion_mnist(SAMPLE if name == 'sample' else root)
    train, val = split(train, val_fraction, seed)
    return Data(train, val, test, CLASSES, (1, 28, 28), (FASHION_MEAN,), (FASHION_STD,), fingerprint=name)


def _fashion_mnist(root: Optional[Path]) -> Tuple['Images', 'Images']:
    folder = Path(root or DEBIAN)
    if os.path.isdir(folder) and any(folder.glob('train-images-idx3-ubyte*')):
        return IdxImages(folder, 'train'), IdxImages(folder, 't10k')
    if root is None:
        raise FileNotFoundError(
            f'no Fashion-MNIST in {DEBIAN}: install the Debian package dataset-fashion-mnist, or give --root FOLDER '
            'and torchvision downloads it there')
    return _downloaded(FashionMNIST, root)


def _cifar10(root: Optional[Path], val_fraction: float, seed: int) -> Data:
    if root is None:
        raise FileNotFoundError('CIFAR-10 needs --root FOLDER, where it lies or torchvision downloads it to')
    whole, test = _downloaded(CIFAR10, root)
    train, val = split(whole, val_fraction, seed)
    return Data(train, val, test, tuple(test.classes), (3, 32, 32), CIFAR_MEAN, CIFAR_STD, fingerprint='cifar10')


def _downloaded(dataset: Type[VisionDataset], root: Path) -> Tuple[VisionDataset, VisionDataset]:
    try:
        return dataset(root, train=True, download=True), dataset(root, train=False, download=True)
    except (RuntimeError, OSError) as error:
        reason = ' '.join(str(error).split())
        raise FileNotFoundError(f'no {dataset.__name__} in {brief(root, 80)}, and torchvision could not download it: '
                                f'{brief(reason, 130)}') from error


def _image_folder(root: Path, val_fraction: float, seed: int, test_fraction: float, skip_broken: bool,
                  scan: bool) -> Data:
    if not os.path.isdir(root):
        what = 'is a file' if os.path.isfile(root) else 'is not there'
        raise FileNotFoundError(f'{brief(root)} {what}: expected a folder of images, or the name of a data set '
                                f'({nearest(root, DATA_SETS)})')
    notes: List[str] = []
    names = folders.parts_of(root)
    if names:
        parts, others = _divided(root, names)
    else:
        whole, others = folders.find(root)
        parts = _divide(whole, root, test_fraction)
        inner = folders.above_classes(root)
        if inner is not None:
            notes.append(f'{brief(inner, 40)} is taken for a class, and holds folders of images itself: if these are '
                         f'the classes, take --data {brief(root / inner, 80)}')
        notes.append(f'no folder divides the images: {len(parts["test"]):,} of {len(whole):,} are held out to test, '
                     f'{test_fraction:.0%} of each class')
    if others:
        notes.append(f'{others:,} files that are no images are skipped' if others > 1 else
                     '1 file that is no image is skipped')
    if len(parts['train'].classes) < 2:
        raise ValueError(f'{brief(root)} has images of one class, {brief(parts["train"].classes[0], 40)}: a classifier '
                         'needs two or more')
    fingerprint = folders.fingerprint(parts, root)
    found = Found((3, 64, 64), IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, None, ())
    if scan:
        parts, found = look(parts, skip_broken)
    train, val = (parts['train'], parts['val']) if len(parts) == 3 else split(parts['train'], val_fraction, seed)
    if val is not None and len(parts) < 3:
        notes.append(f'{len(val):,} of {len(parts["train"]):,} training images are held out for validation')
    return Data(train, val, parts[list(parts)[1]], parts['train'].classes, *found[:4],
                notes=(*found.notes, *notes), fingerprint=fingerprint)


def _divided(root: Path, names: Sequence[str]) -> Tuple[Dict[str, folders.ImageFiles], int]:
    """The images of each part, and the number of other files."""
    found = {name: folders.find(root / name) for name in names}
    parts = {name: part for name, (part, _) in found.items()}
    classes = set(parts['train'].classes)
    for name in names[1:]:
        theirs = set(parts[name].classes)
        if theirs != classes:
            ours, new = (some(sorted(names), 60) for names in (classes - theirs, theirs - classes))
            raise ValueError(f'{brief(root, 80)}: train and {name} must have the same classes; only train has {ours}, '
                             f'only {name} has {new}')
    return parts, sum(others for _, others in found.values())


def _divide(whole: folders.ImageFiles, root: Path, fraction: float) -> Dict[str, folders.ImageFiles]:
    """Training and test images. The seed is fixed, so that whoever tests later holds the same ones out."""
    targets = np.asarray(whole.targets)
    single = [whole.classes[c] for c in _singles(targets)]
    if single:
        raise ValueError(f'{brief(root)} has no folder of test images, and none can be held out of classes of one: '
                         f'{some(single, 80)}')
    rest, taken = _hold_out(targets, fraction, seed=0)
    return {'train': whole.subset(rest), 'test': whole.subset(taken)}


class Prepared(Dataset):
    """A data set of pictures brought to a model's channels and range of values, and transformed.

    Raises:
        ValueError: in one sentence, if the first picture has other channels, or values of a range that is not known.
    """

    def __init__(self, dataset: 'Images', channels: int, transform: Callable[[Union[Image.Image, Tensor]], Tensor],
                 value_range: Optional[Tuple[float, float]] = None) -> None:
        self.dataset, self.channels, self.transform, self.value_range = dataset, channels, transform, value_range
        if len(dataset):
            self._picture(0)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> Tuple[Tensor, int]:
        picture, target = self._picture(i)
        return self.transform(picture), target

    def _picture(self, i: int) -> Tuple[Union[Image.Image, Tensor], int]:
        picture, target = self.dataset[i]
        try:
            return prepare(picture, self.channels, self.value_range), target
        except ValueError as error:
            raise ValueError(f'{brief(name_of(self.dataset, i), 80)}: {error}') from error


def name_of(dataset: Any, i: int) -> str:
    """The file of an image, or its number."""
    while isinstance(dataset, torch.utils.data.Subset):
        dataset, i = dataset.dataset, dataset.indices[i]
    return shown(dataset.samples[i][0]) if isinstance(dataset, folders.ImageFiles) else f'image {i}'


class Subset(torch.utils.data.Subset):
    """Some images of a data set, with their class indices as `targets`."""

    def __init__(self, dataset: 'Images', indices: Sequence[int]) -> None:
        super().__init__(dataset, indices)
        self.targets: List[int] = np.asarray(dataset.targets)[indices].tolist()
        self.classes = getattr(dataset, 'classes', ())


Images = Union[IdxImages, folders.ImageFiles, VisionDataset, Subset]       # pictures with `targets`, their classes


def split(dataset: Images, fraction: float, seed: int) -> Tuple[Images, Optional[Images]]:
    """Take this fraction of each class out, by a seeded permutation: (the rest, the taken), each of at least one image.

    Of fraction 0, (all, None).

    Raises:
        ValueError: if a class has only one.
    """
    if fraction == 0:
        return dataset, None
    targets = np.asarray(dataset.targets)
    single = _singles(targets)
    if single:
        raise ValueError('cannot hold training images out for validation: class '
                         f'{brief(_class(dataset, single[0]), 60)} has only one (a fraction of 0 holds none out)')
    rest, taken = _hold_out(targets, fraction, seed)
    return Subset(dataset, rest), Subset(dataset, taken)


def _singles(targets: np.ndarray) -> List[int]:
    """The classes of one image."""
    classes, counts = np.unique(targets, return_counts=True)
    return classes[counts == 1].tolist()


def _hold_out(targets: np.ndarray, fraction: float, seed: int) -> Tuple[List[int], List[int]]:
    """Indices of the rest and of the held out, each in order and with at least one of each class, which has two."""
    rng = np.random.RandomState(seed)
    taken: List[int] = []
    for c in np.unique(targets):
        of_class = rng.permutation(np.flatnonzero(targets == c))
        taken += of_class[:min(max(1, round(fraction * len(of_class))), len(of_class) - 1)].tolist()
    return np.setdiff1d(np.arange(len(targets)), taken).tolist(), sorted(taken)


def _class(dataset: Images, c: int) -> Union[str, int]:
    """The name of a class, or its number."""
    classes = getattr(dataset, 'classes', ())
    return classes[c] if classes else c


def few(dataset: Images, per_class: int, seed: int) -> Subset:
    """The first `per_class` images of each class after a seeded permutation, the same one for classes of one size.

    This is the protocol of Gauthier et al. (Parametric Scattering Networks, CVPR 2022, and its public code).
    """
    targets = np.asarray(dataset.targets)
    chosen = []
    for c in np.unique(targets):
        of_class = np.flatnonzero(targets == c)
        if len(of_class) < per_class:
            raise ValueError(f'expected at least {per_class} images of each class, class '
                             f'{brief(_class(dataset, c), 60)} has {len(of_class)}')
        chosen.append(of_class[np.random.RandomState(seed).permutation(len(of_class))[:per_class]])
    return Subset(dataset, np.concatenate(chosen).tolist())
