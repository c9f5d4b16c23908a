"""Hostile files of a run that is resumed: its state, settings and figures, cut, flipped, or of another kind."""
import pickle
import shutil
from pathlib import Path
from random import Random
from typing import Any, Callable

import torch

from scat_zoo import cli
from scat_zoo.train import loop

from .checkpoints import VALUES, Payload
from .images import two_classes
from .oracle import Trial

TRAIN = ['--model-kwargs', 'L=2', 'J=1', '--epochs', '2', '--device', 'cpu', '--no-learnable']


def prepare(folder: Path) -> Callable[[Random], Trial]:
    """What makes a trial: `train --resume` of a run that was stopped after its first epoch, with one file changed."""
    good, bad = folder / 'good', folder / 'bad'
    arguments = ['train', '--data', str(two_classes(folder / 'data')), *TRAIN]
    with _stopped_after_an_epoch():
        assert cli.main([*arguments, '--output', str(good)]) == 130
    files = sorted(str(path.relative_to(good)) for path in good.rglob('*') if path.is_file() and path.stat().st_size)

    def make(rng: Random) -> Trial:
        shutil.rmtree(bad, ignore_errors=True)
        shutil.copytree(good, bad)
        name = rng.choice(files)
        how = rng.choice([_cut, _flipped, _empty, _gone, _folder, _binary, _pickle, _entry, _entry])
        what = how(bad / name, rng)
        return Trial([*arguments, '--output', str(bad), '--resume'], f'{name} {what}', False, seconds=30)

    return make


class _stopped_after_an_epoch:
    """Within, training is stopped as by Ctrl-C once an epoch is saved."""

    def __enter__(self) -> None:
        self.before = loop._Run.end

        def end(run: Any, epoch: int, val: Any) -> None:
            self.before(run, epoch, val)
            raise KeyboardInterrupt

        loop._Run.end = end  # type: ignore[method-assign]

    def __exit__(self, *_: Any) -> None:
        loop._Run.end = self.before  # type: ignore[method-assign]


def _cut(file: Path, rng: Random) -> str:
    raw = file.read_bytes()
    place = rng.randrange(len(raw))
    file.write_bytes(raw[:place])
    return f'cut at {place}'


def _flipped(file: Path, rng: Random) -> str:
    raw = bytearray(file.read_bytes())
    place = rng.randrange(len(raw))
    raw[place] ^= 1 << rng.randrange(8)
    file.write_bytes(bytes(raw))
    return f'flipped at {place}'


def _empty(file: Path, rng: Random) -> str:
    file.write_bytes(b'')
    return 'empty'


def _gone(file: Path, rng: Random) -> str:
    file.unlink()
    return 'gone'


def _folder(file: Path, rng: Random) -> str:
    file.unlink()
    file.mkdir()
    return 'is a folder'


def _binary(file: Path, rng: Random) -> str:
    file.write_bytes(rng.randbytes(400))
    return 'binary'


def _pickle(file: Path, rng: Random) -> str:
    file.write_bytes(pickle.dumps(Payload(file.parent)))
    return 'pickle'


def _entry(file: Path, rng: Random) -> str:
    """Of a state, an entry replaced by a value of any kind; of other files, text in their place."""
    if file.name != 'state':
        value = rng.choice(['null', '[]', '{}', '[1, 2]', '{"training": 3}', '"x"', 'a,b\n1,2\n', '1e999'])
        file.write_text(value)
        return f'is {value!r}'
    state = torch.load(file, weights_only=True)
    at, key = state, rng.choice(sorted(state))
    while isinstance(at[key], dict) and at[key] and rng.random() < 0.8:
        at, key = at[key], rng.choice(list(at[key]))
    value = rng.choice([v for v in VALUES if not isinstance(v, str) or '\udc80' not in v])
    at[key] = value
    torch.save(state, file)
    return f'{key} = {str(value)[:40]}'
