"""Where images come from: a folder, a list of files, or WebDataset tar files; and which of them make up which part.

Features of a part are one file. Which part an image is in depends on nothing but the data and the rows asked for.
"""
import hashlib
import os
import tarfile
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Union

from ..scattering import geometry
from ..train import folders, images
from ..wording import brief, some

TARS = ('.tar', '.tar.gz', '.tgz', '.tar.bz2', '.tar.xz', '.tar.zst')


class Sample(NamedTuple):
    """One image: the name of its row, what to call it in messages, its bytes if it is no file by that name."""
    name: str
    file: str
    content: Optional[bytes] = None


class ImageFiles:
    """Image files, so many a part.

    Args:
        data: what they were asked for by.
        root: what the names of files are relative to.
        names: those of the rows.
        rows: number of images a part.
    """

    def __init__(self, data: List[str], root: str, names: Sequence[str], rows: int) -> None:
        self.data, self.root, self.names, self.rows = data, root, list(names), rows

    def __len__(self) -> int:
        return -(-len(self.names) // self.rows)

    def __str__(self) -> str:
        return f'{len(self.names):,} images'

    def settings(self) -> Dict[str, Any]:
        return {'images': len(self.names), 'names': _digest(self.names), 'shard_rows': self.rows}

    def inputs(self, part: int) -> List[str]:
        """Files that the part is made of."""
        return [os.path.join(self.root, name) for name in self._names(part)]

    def count(self, part: int) -> int:
        """Number of images in the part."""
        return len(self._names(part))

    def samples(self, part: int) -> Iterator[Sample]:
        return (Sample(name, file) for name, file in zip(self._names(part), self.inputs(part)))

    def _names(self, part: int) -> List[str]:
        return self.names[part * self.rows:(part + 1) * self.rows]


class TarFiles:
    """Tar files of samples as WebDataset has them, a part each: names are keys, and of a sample the image is read.

    Args:
        data: what they were asked for by.
        patterns: files, or addresses that webdataset opens, each of which may be many by braces.

    Raises:
        ValueError: in one sentence, if a file is not there, or webdataset is not installed.
    """

    def __init__(self, data: List[str], patterns: Sequence[str]) -> None:
        try:
            from webdataset.shardlists import expand_urls
        except ImportError as error:
            raise ValueError(f'{brief(patterns[0])} needs webdataset: install it, or scat_zoo with the extra webdataset'
                             ) from error
        self.data = data
        self.tars: List[str] = [tar for name in patterns
                                for tar in (expand_urls(name) if '{' in name and not os.path.exists(name) else [name])]
        absent = [tar for tar in self.tars if not is_address(tar) and not os.path.isfile(tar)]
        if absent:
            raise ValueError(f'no file {brief(absent[0])}: {len(absent):,} of {len(self.tars):,} tar files are missing')

    def __len__(self) -> int:
        return len(self.tars)

    def __str__(self) -> str:
        return f'{len(self.tars):,} tar files'

    def settings(self) -> Dict[str, Any]:
        names = [tar if is_address(tar) else os.path.basename(tar) for tar in self.tars]
        return {'tars': len(self.tars), 'names': _digest(names)}

    def inputs(self, part: int) -> List[str]:
        return [self.tars[part]]

    def count(self, part: int) -> int:
        """0, as a tar file does not tell before it is read."""
        return 0

    def samples(self, part: int) -> Iterator[Sample]:
        """In the order of the file.

        Raises:
            ValueError: in one sentence, if it cannot be read to its end.
        """
        from webdataset.tariterators import group_by_keys
        tar = self.tars[part]
        try:
            for sample in group_by_keys(_members(tar)):
                key = sample['__key__']
                found = [ending for ending in sample if f'.{ending}' in images.EXTENSIONS]
                # What is no image says so when it is opened.
                yield Sample(key, f'{tar}: {key}.{found[0] if found else ""}', sample[found[0]] if found else b'')
        except Exception as error:                              # it may come from anywhere between here and a server
            reason = getattr(error, 'strerror', None) or (error.args[0] if error.args else type(error).__name__)
            raise ValueError(f'cannot read {brief(tar, 120)}: {brief(" ".join(str(reason).split()), 140)}') from error


Source = Union[ImageFiles, TarFiles]


def _members(tar: str) -> Iterator[Dict[str, Any]]:
    """Files in it, as `group_by_keys` takes them."""
    from webdataset.gopen import gopen
    archive: Any
    with gopen(tar) as stream, tarfile.open(fileobj=stream, mode='r|*') as archive:
        for member in archive:
            # Neither folders and links, nor what macOS adds.
            if member.isreg() and not os.path.basename(member.name).startswith('.'):
                yield {'fname': member.name, 'data': archive.extractfile(member).read(), '__url__': tar}
            archive.members = []                                # it would keep them all
        # tarfile takes a file that was cut off between two members, or in a header, for a whole one.
        if archive.fileobj.tell() != archive.offset + tarfile.BLOCKSIZE:
            raise ValueError(f'it is cut off after {archive.offset:,} bytes: fetch it again')


def find(data: Sequence[str], shard_rows: int) -> Source:
    """The images of a folder, at any depth; of a file that lists one a line; or of tar files.

    Tar files are named one by one, by braces (`train-{0000..0099}.tar`), by the folder that they lie in, or in a list.
    Images of a folder are called by their paths from there, listed ones as the list calls them.

    Raises:
        ValueError, OSError: in one sentence, if there is none of these.
    """
    rows = geometry.integer('shard_rows', shard_rows, least=1)
    data = [str(name) for name in data]
    if all(map(is_tar, data)):
        return TarFiles(data, data)
    if len(data) > 1:
        raise ValueError(f'expected one folder or list of images, or tar files, got {some(data)}')
    name, = data
    if os.path.isdir(name):
        return _in_folder(name, rows)
    if not os.path.exists(name):
        raise ValueError(f'no file or folder {brief(name)}')
    if images.is_image(name):
        raise ValueError(f'expected a folder, a list of images or tar files, got the image {brief(name)}')
    return _listed(name, rows)


def _in_folder(folder: str, rows: int) -> Source:
    names, _ = folders.images_in(Path(folder))
    tars = sorted(entry.path for entry in os.scandir(folder) if is_tar(entry.name) and not entry.name.startswith('.'))
    if names and tars:
        raise ValueError(f'{brief(folder)} holds both images and tar files: name those to take, such as '
                         f'{brief(tars[0], 80)}')
    if tars:
        return TarFiles([folder], tars)
    if not names:
        raise ValueError(f'no images in the folder {brief(folder)}: expected tar files, or files that end in '
                         f'{some(images.EXTENSIONS, 60)}')
    return ImageFiles([folder], folder, [os.path.relpath(name, folder) for name in names], rows)


def _listed(file: str, rows: int) -> Source:
    names = [os.fsdecode(line) for line in Path(file).read_bytes().splitlines() if line.strip()]
    if not names:
        raise ValueError(f'no line in {brief(file)}: expected the path of an image a line')
    if all(map(is_tar, names)):
        return TarFiles([file], names)
    if not os.path.exists(names[0]):
        raise ValueError(f'the first line of {brief(file, 80)} is no file: expected the path of an image a line, got '
                         f'{brief(names[0], 80)}')
    return ImageFiles([file], '', names, rows)


def is_address(name: str) -> bool:
    """Whether it is no file but something that webdataset opens."""
    return '://' in name or name.startswith('pipe:')


def is_tar(name: str) -> bool:
    return is_address(name) or name.lower().endswith(TARS)


def size(file: str) -> int:
    """In bytes, -1 if it is not there or no file."""
    try:
        return -1 if is_address(file) else os.stat(file).st_size
    except OSError:
        return -1


def _digest(names: Iterable[str]) -> str:
    found = hashlib.sha256()
    for name in names:
        found.update(os.fsencode(name) + b'\0')
    return found.hexdigest()[:16]
