"""Folders of image files by class: how they are divided, and which files lie in them."""
import hashlib
import os
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

from torch.utils.data import Dataset

from ..wording import brief, shown, some
from .images import EXTENSIONS, NO_IMAGES, Picture, is_image, open_image

# What others call the parts, in small letters.
PARTS = frozenset('train training test testing val valid validation dev'.split())


class ImageFiles(Dataset):
    """Image files, each with the index of its class."""

    def __init__(self, samples: Sequence[Tuple[str, int]], classes: Sequence[str]) -> None:
        self.samples, self.classes = list(samples), tuple(classes)
        self.targets = [target for _, target in self.samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> Tuple[Picture, int]:
        file, target = self.samples[i]
        return open_image(file), target

    def subset(self, indices: Sequence[int]) -> 'ImageFiles':
        return ImageFiles([self.samples[i] for i in indices], self.classes)


def parts_of(root: Path) -> Tuple[str, ...]:
    """('train', 'test'), ('train', 'val') or all three, if the folder is divided so; () if it holds class folders.

    Raises:
        ValueError: if it is neither.
    """
    names = _folders(root)
    held_out = [name for name in ('test', 'val') if name in names]
    classes = [name for name in names if name not in ('train', 'test', 'val')]
    # A class may be called train, as in a list of vehicles: its images lie in it, beside those of other classes.
    is_class = any(entry.is_file() and is_image(entry.name) for name in ('train', *held_out) if name in names
                   for entry in os.scandir(root / name)) and any(images_in(root / name)[0] for name in classes)
    if 'train' in names and held_out and not is_class:
        return ('train', *held_out)
    others = {name.lower() for name in names} <= PARTS and not any(
        entry.is_file() and is_image(entry.name) for name in names for entry in os.scandir(root / name))
    if len(names) < 2 or others or (len(names) > len(classes) and not is_class):
        raise ValueError(f'{brief(root, 80)} must hold the folders train and test (or val), each with a folder of '
                         'images a class, or such folders of two or more classes itself; it holds '
                         f'{some(_entries(root), 60)}')
    return ()


def find(folder: Path) -> Tuple[ImageFiles, int]:
    """The images in each of its folders, in the order of torchvision's ImageFolder, and how many other files there are.

    Raises:
        ValueError: if there are no folders, or one holds no images.
    """
    classes = _folders(folder)
    found = [images_in(folder / name) for name in classes]
    empty = [name for name, (files, _) in zip(classes, found) if not files]
    if not classes or empty:
        where = f'no image lies in {some(empty, 60)}' if empty else 'it has none'
        raise ValueError(f'{brief(folder)} must hold a folder of images for each class, and {where} '
                         f'(of files that end in {some(EXTENSIONS, 60)})')
    samples = [(file, c) for c, (files, _) in enumerate(found) for file in files]
    return ImageFiles(samples, [shown(name) for name in classes]), sum(others for _, others in found)


def above_classes(root: Path) -> Optional[str]:
    """A folder of this one that looks as if it were the one that holds the classes; None if there is none."""
    for name in _folders(root):
        own = [inner for inner in _folders(root / name) if images_in(root / name / inner)[0]]
        if len(own) > 1 and not any(entry.is_file() and is_image(entry.name) for entry in os.scandir(root / name)):
            return name
    return None


def _folders(folder: Path) -> List[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and _is_visible(entry.name))


def _entries(folder: Path) -> List[str]:
    return sorted(entry.name for entry in os.scandir(folder))


def _is_visible(name: str) -> bool:
    return not name.startswith('.') and name not in NO_IMAGES


def images_in(folder: Path) -> Tuple[List[str], int]:
    """The images at any depth, in order, and the number of other files that are not hidden.

    Raises:
        OSError: if a folder cannot be searched.
    """
    found, others = [], 0
    for where, names in sorted(_walk(folder)):
        images = [name for name in sorted(names) if is_image(name)]
        found += [os.path.join(where, name) for name in images]
        others += sum(_is_visible(name) for name in names) - len(images)
    return found, others


def _walk(folder: Path) -> Iterator[Tuple[str, List[str]]]:
    seen, top = set(), os.path.realpath(folder)                 # links may lead round in circles, and above the top
    for where, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        place = os.path.realpath(where)
        known = place in seen or os.path.commonpath((place, top)) == place != top
        folders[:] = [] if known else [name for name in folders if _is_visible(name)]
        if not known:
            yield where, names
        seen.add(place)


def _raise(error: OSError) -> None:
    raise error


def fingerprint(parts: Dict[str, ImageFiles], root: Path) -> str:
    """Of the files' names below the root and their sizes: the same for the same data elsewhere."""
    start = len(str(root))
    entries = sorted((os.fsencode(file)[start:].replace(os.sep.encode(), b'/').lstrip(b'/'), _size(file))
                     for part in parts.values() for file, _ in part.samples)
    return hashlib.sha256(repr(entries).encode()).hexdigest()[:16]


def _size(file: str) -> int:
    try:
        return os.stat(file).st_size
    except OSError:                                             # a link to nowhere: reading it tells
        return -1
