"""Checkpoints: folders in timm's own format (`config.json`, `model.safetensors`), written atomically."""
import errno
import json
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterable, Optional, Sequence, Tuple, Union

import timm
from safetensors import SafetensorError
from timm.models import save_for_hf
from torch import nn

from ..models import shipped
from ..models.model import ScatteringModel, has_scattering
from ..models.stem import ScatteringStem
from ..wording import brief, nearest
from . import vetting

LEFT_OVER = '.saving'           # the end of the name of a folder in which a checkpoint is being written


def save(model: ScatteringModel, folder: Path, label_names: Sequence[str] = (),
         value_range: Optional[Tuple[float, float]] = None) -> None:
    """Write weights and the config that rebuilds the model; `timm.create_model('local-dir:FOLDER', pretrained=True)`
    reads them back, to the same bits. A checkpoint that is there already is replaced once the new one is complete.

    Args:
        value_range: the pixel values that became black and white in training, where images have more than 8 bits; see
            the function of this name.

    Raises:
        ValueError: if the range is none, there are not as many labels as classes, weights are not finite, or something
            else is there already.
        OSError: if it cannot be written; the one that was there stays.
    """
    if value_range is not None:
        value_range = _checked_range([float(v) for v in value_range], 'the value range to save')
    if len(label_names) not in (0, model.num_classes):
        raise ValueError(f'expected names of {model.num_classes:,} classes, or none, got {len(label_names):,}')
    folder = Path(folder)
    try:
        vetting.check_values(model)
    except ValueError as error:
        raise ValueError(f'cannot save the model in {brief(folder)}: {error}') from error
    empty = not os.path.exists(folder) or (folder.is_dir() and not any(folder.iterdir()))
    if not empty and not (folder / vetting.CONFIG).is_file():
        raise ValueError(f'expected a checkpoint to replace, or nothing, at {brief(folder)}: there is something else')
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f'.{folder.name}-', suffix=LEFT_OVER) as scratch:
            new = Path(scratch) / 'new'
            save_for_hf(model, str(new), model_config={'label_names': list(label_names)}, safe_serialization=True)
            _amend(new / 'config.json', model.scattering, value_range)
            if folder.exists():
                os.replace(folder, Path(scratch) / 'old')
            os.replace(new, folder)
    except (OSError, SafetensorError) as error:                 # neither names the folder
        reason = getattr(error, 'strerror', None) or ' '.join(str(error).split())
        raise OSError(getattr(error, 'errno', None) or errno.EIO, reason, brief(folder, 200)) from error


def tidy(folder: Path) -> None:
    """Finish, or undo, what processes that were killed while they saved left in this folder; none may be saving."""
    for scratch in folder.glob(f'.*-*{LEFT_OVER}'):
        target = folder / scratch.name[1:].rsplit('-', 1)[0]
        # The old one is moved away once the new one is whole.
        if (scratch / 'old').exists() and (scratch / 'new').exists() and not target.exists():
            os.replace(scratch / 'new', target)
        shutil.rmtree(scratch, ignore_errors=True)
    for partial in folder.glob('*.partial'):
        partial.unlink(missing_ok=True)


def _amend(config: Path, scattering: ScatteringStem, value_range: Optional[Tuple[float, float]]) -> None:
    content = json.loads(config.read_text())
    args = content.setdefault('model_args', {})
    # timm writes the number of classes twice; in model_args it collides with transformers' own argument.
    args.pop('num_classes', None)
    # The state of the filters now: `set_learnable` may have changed the one that the model was created with.
    args.update({key: value for key, value in scattering.state_keywords().items()
                 if key in args or key == 'learnable' or value not in (False, 'pixelwise')})
    if value_range is not None:
        content['value_range'] = value_range                    # beside timm's own entries, of which it reads no other
    config.write_text(json.dumps(content, indent=2))


def load(folder: Path) -> nn.Module:
    """The model of a checkpoint folder, or of a run's folder, which holds one, in eval mode.

    Raises:
        ValueError: in one sentence, if there is no complete checkpoint, or its weights are not finite.
    """
    folder = folder_of(folder)
    missing = [name for name in (vetting.CONFIG, vetting.WEIGHTS) if not os.path.isfile(folder / name)]
    if missing:
        raise ValueError(f'no checkpoint in {brief(folder)}: expected a folder with {vetting.CONFIG} and '
                         f'{vetting.WEIGHTS}, {"there is neither" if len(missing) > 1 else f"{missing[0]} is missing"}')
    try:
        found = vetting.vet(folder)
        with vetting.no_more_than(found):
            model = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
        vetting.check_loaded(model, found)
    except Exception as error:                          # a file may say anything
        reason = ' '.join(str(error).split())
        raise ValueError(f'the checkpoint in {brief(folder, 80)} is corrupt or does not fit: '
                         f'{brief(reason, 140)}') from error
    return model


def folder_of(folder: Union[str, Path]) -> Path:
    """The checkpoint's own folder: this one, or that in a run's."""
    folder = Path(folder)
    within = folder / 'checkpoint'
    return within if os.path.isdir(within) and not os.path.exists(folder / 'config.json') else folder


def value_range(model_or_checkpoint: Union[str, Path]) -> Optional[Tuple[float, float]]:
    """The pixel values that the model of this checkpoint, or run's folder, was trained to see as black and white.

    None where the pixels' type tells it, as with 8 bits, and of a model's name.

    Raises:
        ValueError: in one sentence, if what the checkpoint holds is no range, or it cannot be read.
    """
    if not os.path.isdir(model_or_checkpoint):
        return None
    file = folder_of(model_or_checkpoint) / 'config.json'
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f'cannot read the checkpoint\'s {brief(file)}: {brief(error)}') from error
    found = content.get('value_range') if isinstance(content, dict) else None
    return None if found is None else _checked_range(found, f'value_range in {brief(file)}')


def _checked_range(found: Any, what: str) -> Tuple[float, float]:
    numbers = found if isinstance(found, list) and all(type(v) in (int, float) for v in found) else ()
    if len(numbers) != 2 or not all(map(math.isfinite, numbers)) or not numbers[0] < numbers[1]:
        raise ValueError(f'{what} must be two finite numbers, the lower first, got {brief(found, 60)}')
    return float(numbers[0]), float(numbers[1])


def open_model(name: str, kwargs: Dict[str, Any]) -> ScatteringModel:
    """The model of a checkpoint or run's folder, or the registered one of this name, with its weights if the name has a
    tag.

    Raises:
        ValueError: in one sentence, if there is neither, or it has no scattering.
    """
    model: Any
    if os.path.isdir(name):
        if kwargs:
            raise ValueError(f'{brief(name)} is a checkpoint, which tells its own keywords: leave --model-kwargs out')
        model = load(Path(name))
    elif timm.is_model(name) and ('.' not in name or name in shipped.names()):
        vetting.check_scattering(name)
        if 'checkpoint_path' in kwargs:                         # timm unpickles
            path = brief(kwargs['checkpoint_path'], 60)
            raise ValueError(f'checkpoint_path={path} is no keyword of {brief(name, 60)}: give the folder of a '
                             'checkpoint in place of the name')
        model = timm.create_model(name, pretrained=name in shipped.names(), **kwargs).eval()
    else:
        raise no_model(name, [*timm.list_models('scat_*'), *shipped.names()])
    if not has_scattering(model):
        raise ValueError(f'expected a model with scattering filters (`scat-zoo list`), {brief(name)} has none')
    return model


def has_weights(name: str) -> bool:
    """Whether what `open_model` opens by this name has learned weights, or else random ones."""
    return os.path.isdir(name) or name in shipped.names()


def no_model(name: str, known: Iterable[str]) -> ValueError:
    """What to raise for a name that is neither a checkpoint folder nor among the known."""
    what = 'has no weights' if timm.is_model(name) else 'is a file' if os.path.isfile(name) else 'is not there'
    names = 'a name with weights' if timm.is_model(name) else 'a name'
    return ValueError(f'{brief(name, 80)} {what}: expected the folder of a checkpoint or a run, or {names} of '
                      f'`scat-zoo list`; {nearest(name, known)}')
