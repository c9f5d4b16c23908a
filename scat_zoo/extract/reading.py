"""Reading a folder of features back: what its index and each of its files must say of itself, and `load`.

A file may say anything. What it says is held against tables, and against what else tells it, before any row is read.
"""
import contextlib
import hashlib
import json
import math
import operator
import os
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import torch
from safetensors import safe_open
from torch import Tensor

from ..train.run_folder import read_json
from ..wording import brief

INDEX = 'index.json'
DTYPES = {'F32': torch.float32, 'F16': torch.float16}
INFORMATIVE = ('scat_zoo', 'data')                              # settings on which no row depends
LARGEST_ROW, MOST_AXES = 1 << 31, 8                             # more only a file without rows could tell of
ANEW = '`scat-zoo extract` with the same options writes it anew'


class Features(NamedTuple):
    """Rows of features (N, ...), and the name of each: the path of its file, or its key in a tar file."""
    features: Tensor
    paths: List[str]


class Index(NamedTuple):
    """What the index tells: shape and dtype of each row, the digest of the settings, and an entry for each file."""
    shape: List[int]
    dtype: str
    settings: str
    shards: List[Dict[str, Any]]


class Header(NamedTuple):
    """What a file of features says of itself; `shape` is that of a row."""
    record: Dict[str, Any]
    rows: int
    shape: List[int]
    dtype: str


def _count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(fits, value))


def _entries(value: Any) -> bool:
    return isinstance(value, dict)


def _shape(value: Any) -> bool:
    """Whether it can be that of a row."""
    sides = _list_of(lambda v: _count(v) and 0 < v <= LARGEST_ROW)(value) and len(value) <= MOST_AXES
    return sides and math.prod(value) <= LARGEST_ROW


Table = Dict[str, Tuple[Callable[[Any], bool], str]]
OF_INDEX: Table = {
    'rows': (_count, 'a whole number'), 'left_out': (_count, 'a whole number'),
    'shape': (_shape, 'that of a row'), 'dtype': (lambda v: v in list(DTYPES), ' or '.join(DTYPES)),
    'settings': (_entries, 'entries by name'), 'shards': (_list_of(_entries), 'entries by name, for each file')}
OF_SHARD: Table = {
    'file': (_text, 'a name'), 'rows': (_count, 'a whole number'), 'left_out': (_count, 'a whole number'),
    'sha256': (_text, 'a checksum')}
OF_RECORD: Table = {
    'paths': (_list_of(_text), 'names'),
    'left_out': (_list_of(lambda v: _list_of(_text)(v) and len(v) == 2), 'names with reasons'),
    'sizes': (_list_of(lambda v: v == -1 or _count(v)), 'whole numbers'), 'sha256': (_text, 'a checksum'),
    'settings': (_text, 'a checksum')}


def load(folder: Union[str, Path], shards: Union[int, Sequence[int], None] = None) -> Features:
    """All rows of a folder of `scat-zoo extract`, or those of some of its files, in memory.

    Args:
        shards: numbers of the files, or one.

    Raises:
        TypeError: if shards are no numbers.
        ValueError: in one sentence, if the folder is not complete, there is no such file, or one is not what was
            written.
    """
    folder = Path(folder)
    index = _read_index(folder)
    known = index.shards
    numbers = list(range(len(known))) if shards is None else _numbers(shards)
    if any(number not in range(len(known)) for number in numbers):
        raise ValueError(f'{brief(folder)} has the files 0 to {len(known) - 1}, got shards={brief(numbers, 60)}')
    # All headers before any row: by then it is known how much memory the rows take.
    found = [(folder / known[number]['file'], _header_as_told(folder, index, known[number])) for number in numbers]
    features = torch.empty(sum(header.rows for _, header in found), *index.shape, dtype=DTYPES[index.dtype])
    paths: List[str] = []
    for file, header in found:
        part = read_rows(file, header)
        if part is None:
            raise ValueError(f'{brief(file)} holds rows that are not finite, or not those of its checksum: {ANEW}')
        features[len(paths):len(paths) + len(part)] = part
        paths += header.record['paths']
    return Features(features, paths)


def _numbers(shards: Any) -> List[int]:
    if not isinstance(shards, (bool, str, bytes)):
        with contextlib.suppress(TypeError):
            return [operator.index(number) for number in ([shards] if hasattr(shards, '__index__') else shards)]
    raise TypeError(f'shards must be one or several numbers of files, got {brief(repr(shards), 60)}')


def _read_index(folder: Path) -> Index:
    file = folder / INDEX
    if not os.path.isfile(file):
        raise ValueError(f'no {INDEX} in {brief(folder)}: `scat-zoo extract` writes it once all features are there, '
                         'and goes on by the same command')
    index = read_json(file)
    trouble = _unfit(index, OF_INDEX)
    for number, entry in enumerate([] if trouble else index['shards']):
        name = file_name(number, len(index['shards']))
        trouble = trouble or _unfit(entry, OF_SHARD) or (
            '' if entry['file'] == name else f'file {number} must be {name}, got {brief(repr(entry["file"]), 60)}')
    for key in ('rows', 'left_out'):
        if not trouble and sum(entry[key] for entry in index['shards']) != index[key]:
            trouble = f'{key} must be the sum of those of all files, got {brief(index[key], 40)}'
    try:
        settings = '' if trouble else digest(index['settings'])
    except RecursionError:
        trouble = 'settings are nested too deep'
    if trouble:
        raise ValueError(f'{brief(file)} is broken, {trouble}: {ANEW}')
    return Index(index['shape'], index['dtype'], settings, index['shards'])


def _header_as_told(folder: Path, index: Index, entry: Dict[str, Any]) -> Header:
    """Of a file, if all that it says is what the index tells."""
    file = folder / entry['file']
    header = read_header(file)
    if header is None:
        raise ValueError(f'{brief(file)} is missing or broken: {ANEW}')
    record = header.record
    for name, has, told in (
            ('rows', header.rows, entry['rows']), ('images left out', len(record['left_out']), entry['left_out']),
            ('shape', header.shape, index.shape), ('dtype', header.dtype, index.dtype),
            ('checksum', record['sha256'], entry['sha256']), ('settings', record['settings'], index.settings)):
        if has != told:
            raise ValueError(f'{brief(file)} does not have the {name} that {INDEX} tells: {ANEW}')
    return header


def read_header(file: Path) -> Optional[Header]:
    """What a file of features says of itself; None if it is not there, not whole, or no such file."""
    if not file.is_file():                                      # what is a pipe would be waited for
        return None
    try:
        with safe_open(file, 'pt') as stored:
            record = json.loads(stored.metadata()['scat_zoo'])
            features = stored.get_slice('features')
            shape, dtype = features.get_shape(), features.get_dtype()
    except Exception:                                           # a file may say anything
        return None
    if not isinstance(record, dict) or _unfit(record, OF_RECORD) or dtype not in DTYPES or not shape:
        return None
    rows, *of_row = shape
    return Header(record, rows, of_row, dtype) if rows == len(record['paths']) and _shape(of_row) else None


def read_rows(file: Path, header: Header) -> Optional[Tensor]:
    """The features (rows, ...) of a file; None if they are not those of its checksum, or not finite, as no
    row is that is written."""
    try:
        with safe_open(file, 'pt') as stored:
            features = stored.get_tensor('features')
    except Exception:                                           # it has gone since its header was read
        return None
    same = checksum(features, header.record['paths']) == header.record['sha256']
    return features if same and features.isfinite().all() else None


def file_name(part: int, parts: int) -> str:
    return f'features-{part:05}-of-{parts:05}.safetensors'


def checksum(features: Tensor, paths: Sequence[str]) -> str:
    """SHA-256 of the tensor's bytes and then of the paths as JSON."""
    found = hashlib.sha256(features.numpy().data)
    found.update(json.dumps(list(paths)).encode())
    return found.hexdigest()


def compared(settings: Dict[str, Any]) -> Dict[str, Any]:
    """The settings on which rows depend."""
    # Weights are the same in whatever folder they lie.
    left_out = (*INFORMATIVE, 'model') if settings.get('weights') else INFORMATIVE
    return {key: value for key, value in settings.items() if key not in left_out}


def digest(settings: Dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(compared(settings), sort_keys=True).encode()).hexdigest()[:16]


def _unfit(content: Mapping[str, Any], table: Table) -> str:
    """What is wrong with the first of these entries that is not what it must be; nothing if all are."""
    for name, (fits, what) in table.items():
        if name not in content:
            return f'there is no entry {name}'
        if not fits(content[name]):
            return f'{name} must be {what}, got {brief(repr(content[name]), 40)}'
    return ''
