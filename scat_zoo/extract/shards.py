"""The folder of features: files that are whole or not there, and which of them there are; reading.py reads them back.

FOLDER holds `settings.json` from the start, `features-00000-of-00013.safetensors` and so on as they are done, and
`index.json` once all are. A file holds the tensor `features` (rows, ...) and one entry of metadata, `scat_zoo`, JSON of
`part` (its number), `paths` (a row each), `left_out` (path and reason), `sizes` of the files read, `sha256` and
`settings`.
"""
import contextlib
import json
import os
import re
import secrets
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Optional, Sequence, Union

from safetensors.torch import save
from torch import Tensor

from ..train.run_folder import differences, naming, read_json
from ..wording import brief
from .reading import INDEX, Header, checksum, compared, digest, file_name, read_header, read_rows

SETTINGS = 'settings.json'
# What is no option of the same name.
NAMES = {'model': 'the model', 'images': 'the number of images', 'tars': 'the number of tar files'}
PARTIAL = re.compile(r'(.+)\.[0-9a-f]{8}\.partial')             # name of a file that is being written
LARGEST = 100_000_000                                           # bytes of a safetensors file's header


class FeatureFolder:
    """What is done and what is not. Any number of processes may have the same folder.

    Args:
        path: the folder, which need not be there.
        parts: number of files of features.
        settings: what the rows depend on.
    """

    def __init__(self, path: Union[str, Path], parts: int, settings: Dict[str, Any]) -> None:
        self.path, self.parts, self.settings = Path(path), parts, settings
        self.digest = digest(settings)

    def file(self, part: int) -> Path:
        return self.path / file_name(part, self.parts)

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
        own = {SETTINGS, INDEX, *(self.file(part).name for part in mine)}
        for file in (self.path / name for name in names if name in own):
            if file.exists() and not file.is_file():
                raise ValueError(f'expected a file, or none yet, at {brief(file)}: what is there is something else')
        # After the names, since another process may just have begun.
        before = read_json(self.path / SETTINGS) if (self.path / SETTINGS).exists() else None
        if before is not None:
            self._check(before)
        elif not all(PARTIAL.fullmatch(name) for name in names):
            raise ValueError(f'{brief(self.path)} is not empty and holds no features: choose another -o')
        # What is told in other words, as 0.0 for 0, would give the index another digest than the files have.
        if before is None or digest(before) != self.digest:
            _put(self.path / SETTINGS, lambda file: file.write_text(json.dumps(self.settings, indent=2)))
        _clean(self.path, own if 0 in mine else own - {SETTINGS, INDEX})

    def _check(self, before: Dict[str, Any]) -> None:
        then, now = compared(before), compared(json.loads(json.dumps(self.settings)))
        others = [f'the {what} were others' for key, what in (('names', 'names of the images'), ('weights', 'weights'))
                  if then.pop(key, None) != now.pop(key, None)]
        changes = '; '.join(differences(then, now, NAMES) + others)
        if changes:
            raise ValueError(f'{brief(self.path, 80)} holds features with other settings: {brief(changes, 120)}; take '
                             'the same ones to go on, or choose another -o')

    def header(self, part: int) -> Optional[Header]:
        """What the part's file says of itself; None if there is none that is whole.

        Raises:
            ValueError: in one sentence, if it was made with other settings.
        """
        file = self.file(part)
        header = read_header(file)
        if header is not None and header.record['settings'] != self.digest:
            raise ValueError(f'{brief(file)} was made with other settings than {SETTINGS} beside it tells: delete the '
                             'folder, or choose another -o')
        # Another's file may have been put there; the first versions told no number.
        return header if header is not None and header.record.get('part', part) == part else None

    def is_done(self, part: int, files: Sequence[str], sizes: Sequence[int]) -> bool:
        """Whether the part's features are there, with their checksum.

        Args:
            files, sizes: what they are made of, as it is now. A size of -1, now or then, is not known.

        Raises:
            ValueError: in one sentence, if one of these files has changed since.
        """
        header = self.header(part)
        if header is None or len(header.record['sizes']) != len(files):
            return False
        for file, now, then in zip(files, sizes, header.record['sizes']):
            if now != then and -1 not in (now, then):
                raise ValueError(f'{brief(file, 100)} had {then:,} bytes when its features were written, and has '
                                 f'{now:,}: delete {self.file(part).name} to have them written anew')
        return read_rows(self.file(part), header) is not None

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
        record = json.dumps({'part': part, 'paths': list(paths), 'left_out': list(left_out), 'sizes': list(sizes),
                             'sha256': checksum(features, paths), 'settings': self.digest})
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
        shards, rows = [], set()
        for part in range(self.parts):
            header = self.header(part)
            if header is None:
                return None
            rows.add((*header.shape, header.dtype))
            shards.append({'file': self.file(part).name, 'rows': header.rows,
                           'left_out': len(header.record['left_out']), 'sha256': header.record['sha256']})
        if len(rows) > 1:
            raise ValueError(f'the files of {brief(self.path)} hold rows of {len(rows)} shapes or dtypes: delete the '
                             'folder, or choose another -o')
        (*shape, dtype), = rows
        settings = read_json(self.path / SETTINGS)
        index = {'rows': sum(shard['rows'] for shard in shards), 'shape': shape, 'dtype': dtype,
                 'left_out': sum(shard['left_out'] for shard in shards), 'settings': settings, 'shards': shards}
        _put(self.path / INDEX, lambda file: file.write_text(json.dumps(index, indent=2)))
        _clean(self.path, None)
        return index


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
