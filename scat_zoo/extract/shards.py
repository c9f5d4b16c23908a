"""The folder of features: files that are whole or not there, which of them there are, and reading them back.

FOLDER holds `settings.json` from the start, `features-00000-of-00013.safetensors` and so on as they are done, and
`index.json` once all are. A file holds the tensor `features` (rows, ...) and one entry of metadata, `scat_zoo`, JSON of
`paths` (a row each), `left_out` (path and reason), `sizes` of the files read, `sha256` and `settings`.
"""
import contextlib
import hashlib
import json
import os
import re
import secrets
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Union

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..train.run_folder import naming, read_json
from ..wording import brief

SETTINGS, INDEX = 'settings.json', 'index.json'
PARTIAL = re.compile(r'(.+)\.[0-9a-f]{8}\.partial')             # name of a file that is being written
LARGEST = 100_000_000                                           # bytes of a safetensors file's header
INFORMATIVE = ('scat_zoo', 'data')                              # settings on which no row depends


class Features(NamedTuple):
    """Rows of features (N, ...), and the name of each: the path of its file, or its key in a tar file."""
    features: Tensor
    paths: List[str]


class FeatureFolder:
    """What is done and what is not. Any number of processes may have the same folder.

    Args:
        path: the folder, which need not be there.
        parts: number of files of features.
        settings: what the rows depend on.
    """

    def __init__(self, path: Union[str, Path], parts: int, settings: Dict[str, Any]) -> None:
        self.path, self.parts, self.settings = Path(path), parts, settings
        self.digest = hashlib.sha256(json.dumps(_compared(settings), sort_keys=True).encode()).hexdigest()[:16]

    def file(self, part: int) -> Path:
        return self.path / f'features-{part:05}-of-{self.parts:05}.safetensors'

    def begin(self, mine: Sequence[int]) -> None:
        """Make it, or see that it holds features of the same settings; remove what was left of these parts half done.

        Whoever has part 0 sees to the other files too.

        Raises:
            ValueError: in one sentence, if it holds anything else, or cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            names = os.listdir(self.path)
        except OSError as error:
            raise ValueError(f'cannot write to {brief(self.path)}: {error.strerror}; choose another -o') from error
        # In this order, since another process may just have begun.
        if (self.path / SETTINGS).exists():
            self._check(read_json(self.path / SETTINGS))
        elif all(PARTIAL.fullmatch(name) for name in names):
            _put(self.path / SETTINGS, lambda file: file.write_text(json.dumps(self.settings, indent=2)))
        else:
            raise ValueError(f'{brief(self.path)} is not empty and holds no features: choose another -o')
        _clean(self.path, {*(self.file(part).name for part in mine), *((SETTINGS, INDEX) if 0 in mine else ())})

    def _check(self, before: Dict[str, Any]) -> None:
        then, now = _compared(before), _compared(json.loads(json.dumps(self.settings)))
        changes = '; '.join(_change(key, then.get(key), now.get(key)) for key in {**then, **now}
                            if then.get(key) != now.get(key))
        if changes:
            raise ValueError(f'{brief(self.path, 80)} holds features with other settings: {brief(changes, 120)}; take '
                             'the same ones to go on, or choose another -o')

    def record(self, part: int) -> Optional[Dict[str, Any]]:
        """What the part's file says of itself; None if there is none that is whole.

        Raises:
            ValueError: in one sentence, if it was made with other settings.
        """
        file = self.file(part)
        record = read_record(file) if file.exists() else None
        if record is not None and record['settings'] != self.digest:
            raise ValueError(f'{brief(file)} was made with other settings than {SETTINGS} beside it tells: delete the '
                             'folder, or choose another -o')
        return record

    def is_done(self, part: int, files: Sequence[str], sizes: Sequence[int]) -> bool:
        """Whether the part's features are there.

        Args:
            files, sizes: what they are made of, as it is now. A size of -1, now or then, is not known.

        Raises:
            ValueError: in one sentence, if one of these files has changed since.
        """
        record = self.record(part)
        if record is None:
            return False
        for file, now, then in zip(files, sizes, record['sizes']):
            if now != then and -1 not in (now, then):
                raise ValueError(f'{brief(file, 100)} had {then:,} bytes when its features were written, and has '
                                 f'{now:,}: delete {self.file(part).name} to have them written anew')
        return True

    def write(self, part: int, features: Tensor, paths: Sequence[str], left_out: Sequence[Sequence[str]],
              sizes: Sequence[int]) -> None:
        """Write the part's file, which is there once it is whole and on disk.

        Args:
            features: (rows, ...).
            paths: names of the rows.
            left_out: name and reason, of images that have no row.
            sizes: of the files that it is made of, in bytes.

        Raises:
            ValueError: if names are too long for the header of a file.
            OSError: if it cannot be written.
        """
        record = json.dumps({'paths': list(paths), 'left_out': list(left_out), 'sizes': list(sizes),
                             'sha256': _checksum(features, paths), 'settings': self.digest})
        if len(json.dumps(record)) + 1000 > LARGEST:
            raise ValueError(f'the names of {len(paths):,} rows take {len(record):,} bytes, more than the header of a '
                             'file holds: take fewer rows a file')
        # One entry, as safetensors writes several in any order; and not its `save_file`, which makes files of other
        # names that a killed process would leave.
        content = save({'features': features}, {'scat_zoo': record})
        _put(self.file(part), lambda file: file.write_bytes(content))

    def finish(self) -> Optional[Dict[str, Any]]:
        """Write the index once all parts are done, and return it; None before."""
        names = set(os.listdir(self.path))
        if not all(self.file(part).name in names for part in range(self.parts)):
            return None
        shards = []
        for part in range(self.parts):
            record = self.record(part)
            if record is None:
                return None
            shards.append({'file': self.file(part).name, 'rows': len(record['paths']),
                           'left_out': len(record['left_out']), 'sha256': record['sha256']})
        with safe_open(self.file(0), 'pt') as first:
            features = first.get_slice('features')
            shape, dtype = features.get_shape()[1:], features.get_dtype()
        settings = read_json(self.path / SETTINGS)
        index = {'rows': sum(shard['rows'] for shard in shards), 'shape': shape, 'dtype': dtype,
                 'left_out': sum(shard['left_out'] for shard in shards), 'settings': settings, 'shards': shards}
        _put(self.path / INDEX, lambda file: file.write_text(json.dumps(index, indent=2)))
        _clean(self.path, None)
        return index


def load(folder: Union[str, Path], shards: Union[int, Sequence[int], None] = None) -> Features:
    """All rows of a folder of `scat-zoo extract`, or those of some of its files, in memory.

    Args:
        shards: numbers of the files, or one.

    Raises:
        ValueError: in one sentence, if the folder is not complete, there is no such file, or one is not what was
            written.
    """
    folder = Path(folder)
    if not (folder / INDEX).is_file():
        raise ValueError(f'no {INDEX} in {brief(folder)}: `scat-zoo extract` writes it once all features are there, '
                         'and goes on by the same command')
    index = read_json(folder / INDEX)
    known = index['shards']
    numbers = list(range(len(known)) if shards is None else [shards] if isinstance(shards, int) else shards)
    if any(number not in range(len(known)) for number in numbers):
        raise ValueError(f'{brief(folder)} has the files 0 to {len(known) - 1}, got shards={brief(numbers, 60)}')
    entries = [known[number] for number in numbers]
    rows = sum(entry['rows'] for entry in entries)
    dtype = {'F32': torch.float32, 'F16': torch.float16}[index['dtype']]
    features = torch.empty(rows, *index['shape'], dtype=dtype)
    paths: List[str] = []
    for entry in entries:
        file = folder / entry['file']
        record = read_record(file)
        if record is None:
            raise ValueError(f'{brief(file)} is missing or broken: delete it, and `scat-zoo extract` with the same '
                             'options writes it anew')
        with safe_open(file, 'pt') as stored:
            part = stored.get_tensor('features')
        if _checksum(part, record['paths']) != entry['sha256']:
            raise ValueError(f'{brief(file)} does not have the checksum that {INDEX} tells: delete it, and `scat-zoo '
                             'extract` with the same options writes it anew')
        features[len(paths):len(paths) + len(part)] = part
        paths += record['paths']
    return Features(features, paths)


def read_record(file: Path) -> Optional[Dict[str, Any]]:
    """What a file of features says of itself; None if it is not there, or not whole."""
    try:
        with safe_open(file, 'pt') as stored:
            return json.loads((stored.metadata() or {})['scat_zoo'])
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def _checksum(features: Tensor, paths: Sequence[str]) -> str:
    """SHA-256 of the tensor's bytes and then of the paths as JSON."""
    found = hashlib.sha256(features.numpy().data)
    found.update(json.dumps(list(paths)).encode())
    return found.hexdigest()


def _compared(settings: Dict[str, Any]) -> Dict[str, Any]:
    # Weights are the same in whatever folder they lie.
    left_out = (*INFORMATIVE, 'model') if settings.get('weights') else INFORMATIVE
    return {key: value for key, value in settings.items() if key not in left_out}


def _change(key: str, then: Any, now: Any) -> str:
    if key in ('names', 'weights'):
        return f'the {"names of the images" if key == "names" else key} were others'
    return f'{key} was {brief(then, 40)}, is {brief(now, 40)}'


def _put(file: Path, fill: Callable[[Path], Any]) -> None:
    """Have the file filled under another name, then put it in its place: it is whole and on disk, or not there."""
    for last in (False, False, True):
        partial = file.with_name(f'{file.name}.{secrets.token_hex(4)}.partial')
        try:
            with naming(file):
                fill(partial)
                _sync(partial)
            os.replace(partial, file)
            break
        except FileNotFoundError:                               # a process that begins has cleaned it away
            if last:
                raise
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    with contextlib.suppress(OSError):                          # some systems do not open folders
        _sync(file.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _clean(folder: Path, names: Optional[Iterable[str]]) -> None:
    """Remove what is left of files of these names that were not finished, or of all."""
    for name in os.listdir(folder):
        found = PARTIAL.fullmatch(name)
        if found and (names is None or found[1] in names):
            (folder / name).unlink(missing_ok=True)
