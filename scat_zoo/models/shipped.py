"""Weights that come with the package: in `weights/`, a folder ARCHITECTURE.TAG of timm's format for each.

Such a folder has `config.json`, `model.safetensors`, and a model card, `README.md`. To ship another, put it there.
"""
import json
from pathlib import Path
from typing import Any, Dict, List

import timm
from torch import nn

WEIGHTS = Path(__file__).parent / 'weights'


def names() -> List[str]:
    """ARCHITECTURE.TAG of all of them, in alphabetical order."""
    return sorted(folder.name for folder in WEIGHTS.iterdir() if folder.is_dir())


def tags(architecture: str) -> List[str]:
    """The tags with which this architecture's weights come, in alphabetical order."""
    return sorted(folder.name.partition('.')[2] for folder in WEIGHTS.glob(f'{architecture}.*'))


def cfgs(architecture: str) -> Dict[str, Dict[str, Any]]:
    """timm's cfgs of these weights, by name with tag; they go before the architecture's own, which is marked `.*`."""
    return {name: {**_config(name)['pretrained_cfg'], 'label_names': tuple(_config(name)['label_names']),
                   'file': str(WEIGHTS / name / 'model.safetensors'), 'license': 'bsd-3-clause'}
            for name in (f'{architecture}.{tag}' for tag in tags(architecture))}


def model_args(architecture: str, kwargs: Dict[str, Any]) -> Dict[str, Any]:
    """What the model of these weights was created with, where `kwargs` ask for a tag, as timm does."""
    tag = kwargs.get('pretrained_cfg')
    if not isinstance(tag, str) or tag not in tags(architecture):
        return {}
    args = dict(_config(f'{architecture}.{tag}')['model_args'])
    if kwargs.get('global_pool') is None:
        args.pop('global_pool', None)                           # the cfg's, or the model's own
    return args


def results(name: str) -> Dict[str, Any]:
    """What the run recorded that trained these weights: recipe, arm, seed, accuracy, numbers of parameters."""
    return json.loads((WEIGHTS / name / 'results.json').read_text())


def create(architecture: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    """`timm.create_model`, but `pretrained` means the first tag that there is, as in torch.hub; without any, it raises.
    """
    first = [f'{architecture}.{tag}' for tag in tags(architecture)[:1] if pretrained]
    return timm.create_model((first or [architecture])[0], pretrained=pretrained, **kwargs)


def _config(name: str) -> Dict[str, Any]:
    return json.loads((WEIGHTS / name / 'config.json').read_text())
