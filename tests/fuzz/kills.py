"""Kills: a command is killed at some moment and begun again, and must end as if it had never been.

Each is run in a copy of this process, which has all imported and has computed nothing: no thread is lost in copying.
"""
import importlib
import os
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from random import Random
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import timm
import torch

from scat_zoo import cli
from scat_zoo.train import checkpoint

from .images import two_classes
from .oracle import Trial

EVENTS = {'os.rename', 'os.remove', 'os.rmdir', 'os.mkdir', 'shutil.rmtree'}           # of sys.audit, beside 'open'
BY_FOLDER = {'os.remove', 'os.rmdir'}           # where a name may be told within an open folder, as rmtree does


class Moment(NamedTuple):
    """When to die: so many seconds after the beginning, or before the n-th change of the folder; there, if a file is to
    be renamed, with but half of it written."""
    seconds: Optional[float] = None
    change: Optional[int] = None
    half: bool = False


class Work(NamedTuple):
    """A command, what goes on with it, and how it goes undisturbed: its seconds, changes of the folder, and the end."""
    first: List[str]
    again: List[str]
    seconds: float
    changes: int
    end: Dict[str, Any]


def prepare(folder: Path) -> Callable[[Random], Trial]:
    """What makes a trial: a command that is killed once or twice, and then goes on to the end."""
    for name in ('matplotlib.pyplot', 'scipy.stats', 'sklearn.linear_model', 'torch.export'):
        importlib.import_module(name)
    commands = _commands(folder)
    works: Dict[str, Work] = {}

    def make(rng: Random) -> Trial:
        name = rng.choice(sorted(commands))
        if name not in works:
            works[name] = _undisturbed(folder, *commands[name])
        work = works[name]
        moments = []
        for _ in range(rng.choice([1, 1, 2])):
            if rng.random() < 0.3:
                moments.append(Moment(seconds=rng.uniform(0, work.seconds)))
            else:
                moments.append(Moment(change=rng.randint(1, work.changes), half=rng.random() < 0.5))
        what = f'{name} killed at {", ".join(map(_told, moments))} of {work.changes} changes, {work.seconds:.1f} s'
        return Trial(work.first, what, False, 60., lambda _: _killed_and_begun_again(folder, work, moments))

    return make


def _commands(folder: Path) -> Dict[str, Tuple[List[str], List[str]]]:
    """Small commands of each kind that writes for long, and what goes on with them."""
    data, model, out = two_classes(folder / 'data'), folder / 'model', folder / 'out'
    torch.manual_seed(0)
    small: Any = timm.create_model('scat_linear', num_classes=2, in_chans=1, img_size=12, L=2, J=1)
    checkpoint.save(small, model)
    train = ['train', '--data', data, '--output', out, '--device', 'cpu']
    kwargs = ['--model-kwargs', 'L=2', 'J=1', 'global_pool=avg']
    commands: Dict[str, Tuple[List[Any], List[Any]]] = {
        'train': ([*train, *kwargs, '--learnable', '--epochs', '2', '--lda', '1', '--lda-epochs', '2'], ['--resume']),
        'probe': ([*train, *kwargs, '--no-learnable', '--val-fraction', '0.25'], ['--resume']),
        'recipe': ([*train, '--recipe', 'sample', '--jobs', '1', '--arms', 'fixed', 'morlet', 'average'], ['--resume']),
        'extract': (['extract', model, data / 'train', '--shard-rows', '2', '-o', out, '--device', 'cpu'], []),
        'export': (['export', model, '-o', out / 'model.pt2'], [])}
    return {name: ([str(part) for part in first], [str(part) for part in (*first, *more)])
            for name, (first, more) in commands.items()}


def _told(moment: Moment) -> str:
    if moment.seconds is not None:
        return f'{moment.seconds:.3f} s'
    return f'change {moment.change}{" half written" * moment.half}'


def _undisturbed(folder: Path, first: List[str], again: List[str]) -> Work:
    _begin(folder)
    began = time.monotonic()
    _run(folder, first)
    seconds, changes = time.monotonic() - began, int((folder / 'changes').read_text())
    return Work(first, again, seconds, changes, _content(folder / 'out'))


def _killed_and_begun_again(folder: Path, work: Work, moments: List[Moment]) -> int:
    _begin(folder)
    arguments = work.first
    for moment in moments:
        _run(folder, arguments, moment)
        arguments = work.again
    _run(folder, arguments)
    found = _content(folder / 'out')
    for name in sorted({*found, *work.end}):
        assert name in found, f'{name} is missing'
        assert name in work.end, f'{name} is left'
        assert found[name] == work.end[name], f'{name} is another than without a kill'
    return 0


def _begin(folder: Path) -> None:
    shutil.rmtree(folder / 'out', ignore_errors=True)
    (folder / 'out').mkdir()


def _content(folder: Path) -> Dict[str, Any]:
    """What is in each file, and None for folders, by name."""
    found: Dict[str, Any] = {}
    for path in folder.rglob('*'):
        # Bytes of a state tell whether it was read from a file.
        found[str(path.relative_to(folder))] = (
            None if path.is_dir() else _plain(torch.load(path, weights_only=True)) if path.suffix == '.state' else
            path.read_bytes())
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.dtype, value.tolist()
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return list(map(_plain, value)) if isinstance(value, (list, tuple)) else value


def _run(folder: Path, arguments: List[str], moment: Optional[Moment] = None) -> None:
    """Run the command, until that moment if there is one.

    Raises:
        AssertionError: with what it printed, if it does not end well.
    """
    process = os.fork()
    if process == 0:
        _be_the_command(folder, arguments, moment)
    try:
        if moment is not None and moment.seconds is not None:
            time.sleep(moment.seconds)
            os.kill(process, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    except BaseException:                                       # it took too long
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        raise
    killed = moment is not None and code == -signal.SIGKILL
    assert code == 0 or killed, f'exit code {code}: ' + ' '.join((folder / 'log').read_text()[-800:].split())


def _be_the_command(folder: Path, arguments: List[str], moment: Optional[Moment]) -> None:
    code = 1
    try:
        with open(folder / 'log', 'w') as log:
            sys.stdout = sys.stderr = log
            watch = _Watch(folder / 'out', moment)
            sys.addaudithook(watch)
            try:
                code = cli.main(arguments)
            except BaseException:
                traceback.print_exc()
            (folder / 'changes').write_text(str(watch.count))
    finally:
        os._exit(code)


class _Watch:
    """Counts changes of a folder, each before it happens, and dies at one."""

    def __init__(self, folder: Path, moment: Optional[Moment]) -> None:
        self.folder, self.moment, self.count = str(folder), moment or Moment(), 0

    def __call__(self, event: str, args: Tuple) -> None:
        if event == 'open':
            _, mode, flags = args
            if not (set(mode or '') & set('wxa+') or (flags or 0) & (os.O_WRONLY | os.O_RDWR)):
                return
        elif event not in EVENTS:
            return
        if not (str(args[0]).startswith(self.folder) or (event in BY_FOLDER and args[1] != -1)):
            return
        self.count += 1
        if self.count == self.moment.change:
            if self.moment.half and event == 'os.rename' and os.path.isfile(args[0]):
                os.truncate(args[0], os.path.getsize(args[0]) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
