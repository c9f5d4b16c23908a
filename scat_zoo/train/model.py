"""Making the model that is trained: a registered one for some data, or one that starts from weights."""
from pathlib import Path
from typing import Any, Dict

import timm
from timm.utils import random_seed
from torch import nn

from ..models import shipped
from ..models.scat_linear import ScatLinear
from . import checkpoint
from .data import Data

# Images are brought to the size as a whole: cutting borders off would lose what lies there.
WHOLE = {'crop_pct': 1.0, 'crop_mode': 'squash'}


def create(name: str, kwargs: Dict[str, Any], data: Data, seed: int) -> nn.Module:
    """A registered model for these data, of the zoo or another of timm's.

    Raises:
        ValueError, TypeError: in one sentence, on a name or keywords that there are not.
    """
    if not timm.is_model(name):
        raise unknown(name)
    random_seed(seed)
    channels, height, width = data.input_size
    defaults = {'num_classes': len(data.classes), 'in_chans': channels}
    cfg = {'mean': data.mean, 'std': data.std, **WHOLE}
    if name in timm.list_models('scat_*'):
        defaults['img_size'] = height, width
    else:
        cfg['input_size'] = data.input_size
    return timm.create_model(name, pretrained_cfg_overlay=cfg, **{**defaults, **kwargs})


def start_from(name: str, data: Data, seed: int) -> nn.Module:
    """The model of a checkpoint folder, or of shipped weights, with classes and channels of these data.

    It keeps its image size, and a classifier of as many classes; learned filters are frozen.

    Raises:
        ValueError: in one sentence, if there are no such weights.
    """
    random_seed(seed)
    kwargs = {'num_classes': len(data.classes), 'in_chans': data.input_size[0], 'pretrained': True,
              'pretrained_cfg_overlay': WHOLE}
    if Path(name).is_dir():
        checkpoint.load(Path(name))                             # refuses what is not whole
        name = f'local-dir:{checkpoint.folder_of(name)}'
    elif name not in shipped.names():
        raise ValueError(f'{name!r} is no checkpoint folder, and no weights come under that name; '
                         f'known: {", ".join(shipped.names())}')
    model = timm.create_model(name, **kwargs)
    model.scattering.set_learnable(False)
    return model


def unknown(name: str) -> ValueError:
    """What to raise for a name that is none of the zoo's."""
    return ValueError(f'unknown model {name!r}; the zoo has {", ".join(timm.list_models("scat_*"))}')


def own_side(name: str) -> int:
    """Side of the images that a model of this name is made for."""
    return timm.get_pretrained_cfg(name).input_size[-1] if timm.is_model(name) else 0


def is_linear(model: nn.Module) -> bool:
    """Whether nothing but norms stands between the scattering and one linear layer."""
    return isinstance(model, ScatLinear) and model.head.hidden_size == 0
