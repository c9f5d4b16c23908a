"""Checkpoints: folders in timm's own format (`config.json`, `model.safetensors`), written atomically."""
import json
import os
import tempfile
from pathlib import Path
from typing import Any, Dict, Sequence

import timm
from safetensors import SafetensorError
from timm.models import save_for_hf
from torch import nn

from ..models import shipped
from ..models.stem import ScatteringStem


def save(model: nn.Module, folder: Path, label_names: Sequence[str] = ()) -> None:
    """Write weights and the config that rebuilds the model; `timm.create_model('local-dir:FOLDER', pretrained=True)`
    reads them back, to the same bits. A checkpoint that is there already is replaced once the new one is complete."""
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f'.{folder.name}-') as scratch:
        new = Path(scratch) / 'new'
        save_for_hf(model, new, model_config={'label_names': list(label_names)}, safe_serialization=True)
        _amend(new / 'config.json', model.scattering)
        if folder.exists():
            os.replace(folder, Path(scratch) / 'old')
        os.replace(new, folder)


def _amend(config: Path, scattering: ScatteringStem) -> None:
    content = json.loads(config.read_text())
    args = content.setdefault('model_args', {})
    # timm writes the number of classes twice; in model_args it collides with transformers' own argument.
    args.pop('num_classes', None)
    # The state of the filters now: `set_learnable` may have changed the one that the model was created with.
    state = {'parametrization': scattering.parametrization, 'nonexpansive': scattering.nonexpansive,
             'frozen_filters': bool(scattering.state_dict()) and not scattering.learnable}
    defaults = {'parametrization': 'pixelwise', 'nonexpansive': False, 'frozen_filters': False}
    args['learnable'] = scattering.learnable
    args.update({key: value for key, value in state.items() if key in args or value != defaults[key]})
    content['pretrained_cfg']['fixed_input_size'] = scattering.fixed_input_size
    config.write_text(json.dumps(content, indent=2))


def load(folder: Path) -> nn.Module:
    """The model of a checkpoint folder, in eval mode.

    Raises:
        ValueError: in one sentence, if there is no complete checkpoint.
    """
    folder = Path(folder)
    missing = [name for name in ('config.json', 'model.safetensors') if not (folder / name).is_file()]
    if missing:
        raise ValueError(f'no checkpoint in {folder}: expected a folder with config.json and model.safetensors, '
                         f'{" and ".join(missing)} missing')
    try:
        return timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
    except (SafetensorError, json.JSONDecodeError, KeyError, RuntimeError) as error:
        reason = ' '.join(str(error).split())
        raise ValueError(f'the checkpoint in {folder} is corrupt or does not fit: {reason}') from error


def open_model(name: str, kwargs: Dict[str, Any]) -> nn.Module:
    """The model of a checkpoint folder, or the registered one of this name, with its weights if the name has a tag.

    Raises:
        ValueError: in one sentence, if there is neither, or it has no scattering.
    """
    if Path(name).is_dir():
        if kwargs:
            raise ValueError(f'{name} is a checkpoint, which tells its own keywords: leave --model-kwargs out')
        model = load(Path(name))
    elif timm.is_model(name):
        architecture, _, tag = name.partition('.')
        model = timm.create_model(name, pretrained=tag in shipped.tags(architecture), **kwargs).eval()
    else:
        raise ValueError(f'{name!r} is no checkpoint folder and no model; the zoo has '
                         f'{", ".join(timm.list_models("scat_*"))}')
    if not isinstance(getattr(model, 'scattering', None), ScatteringStem):
        raise ValueError(f'{name} has no scattering filters')
    return model
