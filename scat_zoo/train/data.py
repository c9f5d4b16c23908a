"""Image data sets for training: the built-in sample, Fashion-MNIST, and folders of images."""
import gzip
import math
import struct
from pathlib import Path
from typing import Callable, List, NamedTuple, Optional, Sequence, Tuple, Type, Union

import numpy as np
import torch
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import CIFAR10, FashionMNIST, ImageFolder, VisionDataset

SAMPLE = Path(__file__).parent / 'sample'
DEBIAN = Path('/usr/share/datasets/fashion-mnist')          # where Debian's package dataset-fashion-mnist puts it
CLASSES = ('T-shirt/top', 'Trouser', 'Pullover', 'Dress', 'Coat', 'Sandal', 'Shirt', 'Sneaker', 'Bag', 'Ankle boot')
# Of the 60,000 training images of Fashion-MNIST, over all pixels.
FASHION_MEAN, FASHION_STD = 0.2860, 0.3530
# Of the 50,000 training images of CIFAR-10.
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class Data(NamedTuple):
    """Splits of a data set, each of PIL images and class indices, and what a model must know of it."""
    train: Dataset
    val: Optional[Dataset]
    test: Dataset
    classes: Tuple[str, ...]
    input_size: Tuple[int, int, int]
    mean: Tuple[float, ...]
    std: Tuple[float, ...]


class IdxImages(Dataset):
    """Images and labels from a pair of idx files, the format of MNIST."""

    def __init__(self, folder: Path, split: str) -> None:
        images, labels = (read_idx(folder, f'{split}-{kind}-ubyte') for kind in ('images-idx3', 'labels-idx1'))
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise ValueError(f'{folder}: expected {split} images (n, rows, columns) and labels (n,), '
                             f'got shapes {images.shape} and {labels.shape}')
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
            raise ValueError(f'{zipped} is no complete gzip file: {error}') from error
    elif plain.is_file():
        raw = plain.read_bytes()
    else:
        raise FileNotFoundError(f'no {name} or {name}.gz in {folder}')
    if len(raw) < 4 or raw[:3] != b'\0\0\x08':
        raise ValueError(f'{folder}: {name} is no idx file of unsigned bytes')
    header = 4 + 4 * raw[3]
    shape = struct.unpack(f'>{raw[3]}I', raw[4:header]) if len(raw) >= header else (-1,)
    if len(raw) != header + math.prod(shape):
        raise ValueError(f'{folder}: {name} should hold {shape} bytes after its header, it holds {len(raw) - header}')
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def load(name: str, root: Optional[Path] = None, val_fraction: float = 0.1, seed: int = 0) -> Data:
    """The data set `name`: 'sample', 'fashion-mnist', 'cifar10', or a folder of images.

    A folder holds `train` and `test` with one folder of images a class, and may hold `val`; with `train` and `val`
    alone, `val` is the test set. What has no validation split gets one from the training images, class-balanced.

    Args:
        root: folder of Fashion-MNIST: the idx files, or what torchvision's class downloads there; or of CIFAR-10, as
            torchvision's class downloads it.
        val_fraction: part of the training images held out for validation; 0 for none.
        seed: of that split.

    Raises:
        ValueError, FileNotFoundError: in one sentence, where data is missing or broken.
    """
    if not 0 <= val_fraction < 1:
        raise ValueError(f'the validation fraction must be at least 0 and less than 1, got {val_fraction}')
    if name == 'sample':
        train, test = IdxImages(SAMPLE, 'train'), IdxImages(SAMPLE, 't10k')
    elif name == 'fashion-mnist':
        train, test = _fashion_mnist(root)
    elif name == 'cifar10':
        train, test = _cifar10(root)
        train, val = split(train, val_fraction, seed)
        return Data(train, val, test, tuple(test.classes), (3, 32, 32), CIFAR_MEAN, CIFAR_STD)
    else:
        return _image_folder(Path(name), val_fraction, seed)
    train, val = split(train, val_fraction, seed)
    return Data(train, val, test, CLASSES, (1, 28, 28), (FASHION_MEAN,), (FASHION_STD,))


def _fashion_mnist(root: Optional[Path]) -> Tuple[Dataset, Dataset]:
    folder = Path(root or DEBIAN)
    if any(folder.glob('train-images-idx3-ubyte*')):
        return IdxImages(folder, 'train'), IdxImages(folder, 't10k')
    if root is None:
        raise FileNotFoundError(
            f'no Fashion-MNIST in {DEBIAN}: install the Debian package dataset-fashion-mnist, or give --root FOLDER '
            'and torchvision downloads it there')
    return _downloaded(FashionMNIST, root)


def _cifar10(root: Optional[Path]) -> Tuple[Dataset, Dataset]:
    if root is None:
        raise FileNotFoundError('CIFAR-10 needs --root FOLDER, where it lies or torchvision downloads it to')
    return _downloaded(CIFAR10, root)


def _downloaded(dataset: Type[VisionDataset], root: Path) -> Tuple[Dataset, Dataset]:
    try:
        return dataset(root, train=True, download=True), dataset(root, train=False, download=True)
    except (RuntimeError, OSError) as error:
        reason = ' '.join(str(error).split())
        raise FileNotFoundError(f'no {dataset.__name__} in {root}, and torchvision could not download it there: '
                                f'{reason}') from error


def _image_folder(root: Path, val_fraction: float, seed: int) -> Data:
    if not root.is_dir():
        raise FileNotFoundError(f"no data set {str(root)!r}: expected 'sample', 'fashion-mnist', 'cifar10' "
                                'or a folder of images')
    held_out = [part for part in ('test', 'val') if (root / part).is_dir()]
    if not (root / 'train').is_dir() or not held_out:
        raise ValueError(f'{root} must hold the folders train and test (or val), each with a folder of images a class; '
                         f'it holds {sorted(p.name for p in root.iterdir()) or "nothing"}')
    parts = {part: _folder(root / part) for part in ['train', *held_out]}
    for part in held_out:
        if parts[part].classes != parts['train'].classes:
            raise ValueError(f'{root}: train and {part} differ in their classes: {parts["train"].classes} and '
                             f'{parts[part].classes}')
    if len(held_out) == 2:
        train, val = parts['train'], parts['val']
    else:
        train, val = split(parts['train'], val_fraction, seed)
    return Data(train, val, parts[held_out[0]], tuple(parts['train'].classes), (3, 64, 64),
                IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)


def _folder(path: Path) -> ImageFolder:
    try:
        return ImageFolder(path, loader=open_image)
    except FileNotFoundError as error:
        raise ValueError(f'{path} holds no images in class folders: {error}') from error


def open_image(file: Union[str, Path]) -> Image.Image:
    """A decoded image, of at most 16 bits a pixel and channel.

    Raises:
        ValueError: if it cannot be read, or has 32-bit pixels, integer or float, whose range no file tells.
    """
    try:
        with Image.open(file) as image:
            image.load()
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f'cannot read the image {file}: {error}') from error
    if image.mode in ('I', 'F'):
        raise ValueError(f'{file} has 32-bit pixels, whose range is not known: save it with 8 or 16 bits')
    return image


class Prepared(Dataset):
    """A data set of images brought to a model's channels (1 or 3) and transformed."""

    def __init__(self, dataset: Dataset, channels: int, transform: Callable[[Image.Image], Tensor]) -> None:
        check_channels(channels)
        self.dataset, self.channels, self.transform = dataset, channels, transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> Tuple[Tensor, int]:
        image, target = self.dataset[i]
        return self.transform(with_channels(image, self.channels)), target


def with_channels(image: Image.Image, channels: int) -> Image.Image:
    """The image in grey (1 channel) or colour (3), of 8 bits."""
    if image.mode.startswith('I;16'):                           # Pillow would clip what is above 255
        image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    return image.convert('L' if channels == 1 else 'RGB')


def check_channels(channels: int) -> None:
    """Refuse a model whose channels image files do not give."""
    if channels not in (1, 3):
        raise ValueError(f'image files give 1 or 3 channels, the model takes {channels}')


class Subset(torch.utils.data.Subset):
    """Some images of a data set, with their class indices as `targets`."""

    def __init__(self, dataset: Dataset, indices: Sequence[int]) -> None:
        super().__init__(dataset, indices)
        self.targets = np.asarray(dataset.targets)[indices].tolist()


def split(dataset: Dataset, fraction: float, seed: int) -> Tuple[Dataset, Optional[Dataset]]:
    """Take this fraction of each class out, by a seeded permutation: (the rest, the taken), each of at least one image.

    Of fraction 0, (all, None).

    Raises:
        ValueError: if a class has only one.
    """
    if fraction == 0:
        return dataset, None
    targets = np.asarray(dataset.targets)
    rng = np.random.RandomState(seed)
    taken: List[int] = []
    for c in np.unique(targets):
        of_class = rng.permutation(np.flatnonzero(targets == c))
        if len(of_class) == 1:
            raise ValueError(f'cannot hold training images out for validation: class {c} has only one '
                             '(a fraction of 0 holds none out)')
        taken += of_class[:min(max(1, round(fraction * len(of_class))), len(of_class) - 1)].tolist()
    rest = np.setdiff1d(np.arange(len(targets)), taken).tolist()
    return Subset(dataset, rest), Subset(dataset, sorted(taken))


def few(dataset: Dataset, per_class: int, seed: int) -> Subset:
    """The first `per_class` images of each class after a seeded permutation, the same one for classes of one size.

    This is the protocol of Gauthier et al. (Parametric Scattering Networks, CVPR 2022, and its public code).
    """
    targets = np.asarray(dataset.targets)
    chosen = []
    for c in np.unique(targets):
        of_class = np.flatnonzero(targets == c)
        if len(of_class) < per_class:
            raise ValueError(f'expected at least {per_class} images of each class, class {c} has {len(of_class)}')
        chosen.append(of_class[np.random.RandomState(seed).permutation(len(of_class))[:per_class]])
    return Subset(dataset, np.concatenate(chosen).tolist())
