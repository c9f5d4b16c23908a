"""The folder of a run: who may write into it, with which settings a run goes on, and files that are whole or not there.
"""
import contextlib
import csv
import json
import os
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Sequence

import filelock

from ..wording import brief, some
from .distributed import rank

LARGEST = 1 << 28               # bytes of a file of JSON: an index of a million files
LOCK = '.lock'                  # in the output folder; see `held`
# Settings of a run that are no options of the same name.
NAMES = {'start': '--from', 'input_size': '--img-size', 'in_chans': '--in-chans',
         'processes': 'the number of processes', 'ways': 'what to train'}


def check_folder(output: Path, settings: Dict[str, Any], resume: bool) -> None:
    """Refuse an output folder that holds anything but the run to resume.

    The same images may lie elsewhere by now, and there may be more epochs to train for. A run that saved nothing, since
    it failed in its first epoch, need not be resumed: another may begin in its place.
    """
    file = output / 'settings.json'
    others = os.path.isdir(output) and any(
        entry.name not in (file.name, f'{file.name}.partial', LOCK) for entry in output.iterdir())
    if not os.path.exists(file):
        if others:
            raise ValueError(f'{brief(output)} is not empty and holds no run; choose another --output')
        return
    if not resume:
        if others:
            raise ValueError(f'{brief(output)} holds a run already: continue it with --resume, or choose '
                             'another --output')
        return
    before, now = read_json(file), json.loads(json.dumps(settings))
    if not all(isinstance(before.get(name) or kind(), kind) for name, kind in (('training', dict), ('ways', list))):
        raise ValueError(f'{brief(file)} is broken: expected the settings of a run, got {brief(repr(before), 60)}')
    before, now = _comparable(before, now)
    if before != now:
        raise ValueError(f'cannot resume the run in {brief(output, 60)} with other settings; --resume takes the '
                         f'options that it began with: {brief(_changes(before, now), 120)}')


def check_folder_of_runs(output: Path, names: Sequence[str]) -> None:
    """Refuse an output folder for runs of these names that holds something, and no run."""
    others = [entry.name for entry in output.iterdir() if entry.name not in (LOCK, *names)
              ] if os.path.isdir(output) else []
    if others and not any(output.glob('*/settings.json')):
        raise ValueError(f'{brief(output)} is not empty and holds no runs, but {some(others)}; choose another --output')


@contextlib.contextmanager
def held(output: Path) -> Iterator[None]:
    """Make the output folder, and keep other processes from training into it; under torchrun, the first process does.

    Raises:
        ValueError: if another is at it, or it cannot be made.
    """
    if rank() > 0:
        yield
        return
    lock = filelock.FileLock(output / LOCK)
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except filelock.Timeout as error:
        raise ValueError(f'another process is training in {brief(output)}: wait for it, or choose another --output'
                         ) from error
    except OSError as error:
        raise ValueError(f'cannot write to {brief(output)}: {error.strerror}; choose another --output') from error
    try:
        yield
    finally:
        lock.release()


def _comparable(before: Dict[str, Any], now: Dict[str, Any]) -> List[Dict[str, Any]]:
    """Both without what may differ."""
    same_images = before.get('fingerprint') and before.get('fingerprint') == now.get('fingerprint')
    one_name = before.get('data') == now.get('data')
    epochs: List[Any] = [(settings.get('training') or {}).get('epochs') for settings in (before, now)]
    more = all(type(count) is int for count in epochs) and epochs[1] >= epochs[0]
    never = before.get('training') is None                      # by gradients
    both = []
    for settings in (before, now):
        # Other images are told by their name: what else differs follows from them.
        left_out = {'data', 'root', 'fingerprint'} if same_images else set() if one_name else {
            'fingerprint', 'input_size'}
        kept = {key: value for key, value in settings.items() if key not in left_out}
        if set(before.get('ways') or ()) <= set(now.get('ways') or ()):
            kept.pop('ways', None)                              # one more way may be tried
            if before.get('learnable') is None:
                kept.pop('learnable', None)
        if never:
            kept.pop('training', None)
        elif kept.get('training') is not None:
            # What an earlier version did not know of, it did not do.
            kept['training'] = {key: value for key, value in kept['training'].items()
                                if (key in before['training'] or value) and not (more and key == 'epochs')}
        both.append(kept)
    return both


def _changes(before: Dict[str, Any], now: Dict[str, Any]) -> str:
    """What differs, in words."""
    others = ['the images are others than they were'] * (before.get('fingerprint') != now.get('fingerprint'))
    left_out = {'fingerprint'}
    if isinstance(before.get('training'), dict) and now.get('training') is None:
        others.append('training by gradients was asked for, now it is not')
        left_out.add('training')
    if 'arm' in now:                                            # all else that a run of a recipe has is the recipe's
        of_recipe = (before.keys() | now.keys()) - {'data', 'root', 'select', *left_out}
        others += ['the recipe is another than it was'] * any(before.get(key) != now.get(key) for key in of_recipe)
        left_out |= of_recipe
    was, given = ({key: value for key, value in settings.items() if key not in left_out} for settings in (before, now))
    return '; '.join([*differences(was, given, NAMES), *others]) or 'they are those of another version'


def differences(before: Mapping[str, Any], now: Mapping[str, Any], names: Mapping[str, str]) -> List[str]:
    """What was asked for and what is, where they differ: in options of the command line.

    Args:
        names: of settings, or of their entries, that are no options of the same name.
    """
    was, given = _options(before, names), _options(now, names)
    return [f'{option} was {_told(was.get(option))}, now it is {_told(given.get(option))}'
            for option in {**was, **given} if was.get(option) != given.get(option)]


def _options(settings: Mapping[str, Any], names: Mapping[str, str]) -> Dict[str, Any]:
    """These settings as options of the command line, by name, without those that are not given."""
    found: Dict[str, Any] = {}
    for name, value in settings.items():
        option = names.get(name, option_of(name))
        if isinstance(value, dict) and name == 'training':
            found.update(_options(value, names))
        elif isinstance(value, dict):                           # keywords of the model
            found.update({names.get(key, f'{option} {brief(key, 40)}'):
                          entry if type(entry) in (int, float) else str(entry) for key, entry in value.items()})
        elif isinstance(value, list) and name == 'input_size':
            found[option] = 'x'.join(map(str, value[1:]))
        elif value is False and name == 'learnable':
            found['--no-learnable'] = True
        elif value is not None and value is not False and value != 'None':
            found[option] = value
    return found


def _told(value: Any) -> str:
    if value is None or value is True:
        return 'given' if value else 'not given'
    return brief(', '.join(map(str, value)) if isinstance(value, list) else value, 40)


def option_of(name: str) -> str:
    """The option of the command line that gives this argument."""
    return '--' + name.replace('_', '-')


def read_json(file: Path, entries: Sequence[str] = ()) -> Dict[str, Any]:
    """What the file holds, by name.

    Raises:
        ValueError: if it is no JSON, or these entries are not all in it.
    """
    try:
        if file.stat().st_size > LARGEST:
            raise ValueError(f'it has more than {LARGEST:,} bytes')
        content = json.loads(file.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{brief(file)} is broken, expected JSON: {brief(error)}') from error
    if not isinstance(content, dict) or any(name not in content for name in entries):
        wanted = ' '.join(['entries by name', *(['with', some(entries)] if entries else [])])
        raise ValueError(f'{brief(file)} is broken: expected {wanted}, got {brief(repr(content), 60)}')
    return content


@contextlib.contextmanager
def whole(file: Path) -> Iterator[Path]:
    """What to write in place of this file, which it becomes at the end of the block; nothing is left of half of it.

    Raises:
        OSError: at once, if there is something else than a file, or none can be written; and where the disk is full.
            It names the file.
    """
    if os.path.exists(file) and not file.is_file():
        raise FileExistsError(f'expected a file, or none yet, at {brief(file)}: what is there is something else')
    file = Path(os.path.realpath(file))             # a link stays, and what it points to is replaced
    partial = file.with_name(f'{file.name}.partial')
    try:
        open(partial, 'wb').close()
    except OSError as error:
        raise type(error)(error.errno, error.strerror, brief(file, 200)) from error
    try:
        with naming(file):
            yield partial
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    os.replace(partial, file)


@contextlib.contextmanager
def naming(file: Path) -> Iterator[None]:
    """Within, an error of what is open already, as that of a full disk, names this file."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.strerror:
            raise type(error)(error.errno, error.strerror, brief(file, 200)) from error
        raise


def write_json(file: Path, content: Any) -> None:
    with whole(file) as partial:
        partial.write_text(json.dumps(content, indent=2))


def write_csv(file: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with whole(file) as partial, open(partial, 'w', newline='') as stream:
        csv.writer(stream).writerows([header, *rows])
