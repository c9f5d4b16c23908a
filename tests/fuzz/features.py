"""Hostile folders of features: a good one in which something is wrong, read back, or gone on with and then read back.
"""
import copy
import json
import os
import pickle
import shutil
import sys
from pathlib import Path
from random import Random
from typing import Any, Callable, Dict, List

import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from scat_zoo import cli
from scat_zoo.extract import Features, load
from scat_zoo.extract.reading import checksum
from scat_zoo.train import checkpoint

from .checkpoints import VALUES, Payload, _paths
from .images import two_classes
from .oracle import Trial, run

MORE = [*VALUES, 10 ** 12, [10 ** 9], [2 ** 31, 2 ** 31], [0, 2 ** 62], 'F32', 'F16', 'I32', 'features-00000-of-00003',
        '/etc/passwd', [['a', 'b']], {'file': 'x', 'rows': 10 ** 12}]


def prepare(folder: Path) -> Callable[[Random], Trial]:
    """What makes a trial: `load` of a hostile folder of five rows in three files, or `extract` into it and then `load`.

    Rows that are read must be those of the good one.
    """
    torch.manual_seed(0)
    model: Any = timm.create_model('scat_linear', num_classes=2, in_chans=1, img_size=12, L=2, J=1)
    checkpoint.save(model, folder / 'model')
    images = two_classes(folder / 'data') / 'train'
    for file in sorted(images.rglob('*.png'))[5:]:
        file.unlink()
    good, bad = folder / 'good', folder / 'bad'
    extract = [str(part) for part in ('extract', folder / 'model', images, '--shard-rows', 2, '--device', 'cpu', '-o')]
    assert run([*extract, str(good)]).code == 0
    rows = load(good)

    def read(_: List[str]) -> int:
        return _read(bad, rows)

    def go_on(arguments: List[str]) -> int:
        code = cli.main(arguments)
        assert code or not _read(bad, rows), 'what `extract` went on with cannot be read'
        return code

    def make(rng: Random) -> Trial:
        shutil.rmtree(bad, ignore_errors=True)
        shutil.copytree(good, bad)
        what = []
        for _ in range(rng.choice([1, 1, 1, 2])):
            file = rng.choice(sorted(bad.iterdir()))
            how = rng.choice([_entry, _entry, _bytes, _other] if file.suffix == '.json' else
                             [_entry, _entry, _tensor, _bytes, _other])
            if file.is_file() and file.stat().st_size:          # not what the first change took away
                what.append(f'{file.name} {how(file, rng)}')
        if rng.random() < 0.4:
            return Trial([*extract, str(bad)], ', '.join(what), False, main=go_on)
        return Trial(['load'], ', '.join(what), False, main=read)

    return make


def _read(folder: Path, expected: Features) -> int:
    try:
        found = load(folder)
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    assert torch.equal(found.features, expected.features), 'other rows were read'
    assert found.features.dtype == expected.features.dtype
    assert found.paths == expected.paths, 'other paths were read'
    return 0


def _entry(file: Path, rng: Random) -> str:
    """Another value for an entry of the JSON in it, or none."""
    try:
        content = _json(file)
        *way, key = rng.choice(list(_paths(content)))
    except Exception:                                           # of what was changed before
        return 'stays'
    at = content
    for step in way:
        at = at[step]
    value = rng.choice([*MORE, ...])
    if value is ...:
        del at[key]
    else:
        at[key] = copy.deepcopy(value)
    if way[:1] == ['shards'] and key == 'rows' and type(value) is int:
        content['rows'] = value + 3                             # so that the sum is right, often
    _write_json(file, content)
    return f'{[*way, key]} = {str(value)[:40]}'


def _json(file: Path) -> Any:
    if file.suffix == '.json':
        return json.loads(file.read_text())
    with safe_open(file, 'pt') as stored:
        return json.loads(stored.metadata()['scat_zoo'])


def _write_json(file: Path, content: Any) -> None:
    if file.suffix == '.json':
        file.write_text(json.dumps(content))
        return
    with safe_open(file, 'pt') as stored:
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}
    save_file(tensors, file, {'scat_zoo': json.dumps(content)})


def _tensor(file: Path, rng: Random) -> str:
    """Other features, whose checksum is told as theirs or not."""
    try:
        record = _json(file)
        with safe_open(file, 'pt') as stored:
            value = stored.get_tensor('features')
        change: Dict[str, Callable[[], torch.Tensor]] = {
            'longer': lambda: torch.cat([value, value]), 'flat': value.flatten, 'one number': lambda: value.sum(),
            'empty': lambda: value[:0], 'narrow': lambda: value[:, :0], 'turned': lambda: value.T.contiguous(),
            'NaN': lambda: torch.full_like(value, float('nan')), 'half': value.half, 'double': value.double,
            'whole numbers': lambda: value.view(torch.int32), 'unsqueezed': lambda: value[:, None],
            'brain': value.bfloat16, 'complex': lambda: value.to(torch.complex64)}
        what = rng.choice(sorted(change))
        new = change[what]()
        if rng.random() < 0.5 and new.dtype not in (torch.bfloat16, torch.complex64) and torch.isnan(new).any():
            record['sha256'] = checksum(new, record['paths'])
    except Exception:                                           # of what was changed before
        return 'stays'
    name = rng.choice(['features', 'features', 'features', 'Features', ''])
    more = {'more': torch.zeros(3)} if rng.random() < 0.2 else {}
    save_file({name: new, **more}, file, {rng.choice(['scat_zoo'] * 5 + ['format']): json.dumps(record)})
    return f'{name} {what}'


def _bytes(file: Path, rng: Random) -> str:
    """Other bytes."""
    raw = file.read_bytes()
    place = rng.randrange(rng.choice([len(raw), min(len(raw), 100)]))
    depth = rng.choice([300, 900, 950, 970, 985, 990, 1000, 100_000])
    what = rng.choice(['cut', 'flipped', 'flipped', 'empty', 'null', 'list', 'number', 'deep', 'deep entry', 'marked',
                       'binary', 'pickle', 'longer', 'length'])
    file.write_bytes({
        'cut': raw[:place], 'flipped': raw[:place] + bytes([raw[place] ^ 1 << rng.randrange(8)]) + raw[place + 1:],
        'empty': b'', 'null': b'null', 'list': b'[]', 'number': b'1e999', 'deep': b'[' * depth + b']' * depth,
        'deep entry': raw.replace(b'"settings": {', b'"settings": {"x": ' + b'[' * depth + b']' * depth + b', ', 1),
        'marked': b'\xef\xbb\xbf' + raw, 'binary': rng.randbytes(300), 'pickle': pickle.dumps(Payload(file.parent)),
        'longer': raw + b'\0', 'length': rng.choice([0, 1, 2 ** 27, 2 ** 40, 2 ** 63]).to_bytes(8, 'little') + raw[8:],
    }[what])
    return f'{what} at {place}'


def _other(file: Path, rng: Random) -> str:
    """Something else in its place."""
    beside = rng.choice(sorted(file.parent.iterdir()))
    what = rng.choice(['gone', 'a folder', 'a loop', 'a link to nowhere', 'a pipe', 'another file', 'a link to it'])
    content = beside.read_bytes() if beside.is_file() else b''
    file.unlink()
    if what == 'a folder':
        file.mkdir()
    elif what == 'a loop':
        file.symlink_to(file)
    elif what == 'a link to nowhere':
        file.symlink_to(file.with_name('nowhere'))
    elif what == 'a pipe':
        os.mkfifo(file)
    elif what == 'another file':
        file.write_bytes(content)
    elif what == 'a link to it':
        file.symlink_to(beside)
    return f'is {what} ({beside.name})'
