"""One model: made for some data, or from weights to start from; its images prepared for it; trained on them."""
import inspect
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import timm
import torch
from timm.utils import random_seed
from torch import nn

from ..models import shipped
from ..models.model import ScatteringModel, has_scattering
from ..models.scat_linear import ScatLinear
from ..wording import brief, nearest
from . import augment, checkpoint, discriminant, whitening
from .data import Data, Images, Prepared
from .distributed import rank
from .loop import Training, fit

# Images are brought to the size as a whole: cutting borders off would lose what lies there.
WHOLE = {'crop_pct': 1.0, 'crop_mode': 'squash'}
# What timm makes of a model, or where.
TIMMS = {*inspect.signature(timm.create_model).parameters, 'features_only', 'out_indices', 'device', 'dtype'}


def create(name: str, kwargs: Dict[str, Any], data: Data, seed: int) -> Any:
    """A registered model for these data, the zoo's or another of timm's.

    Raises:
        ValueError, TypeError: in one sentence, on a name or keywords that there are not.
    """
    if not timm.is_model(name):
        raise unknown(name)
    of_timm = [key for key in kwargs if key in TIMMS]
    if of_timm:
        raise ValueError(f'{of_timm[0]} cannot be one of the model keywords: --from gives weights to start from, '
                         '--device the device, --amp half precision')
    random_seed(seed)
    channels, height, width = data.input_size
    defaults: Dict[str, Any] = {'num_classes': len(data.classes), 'in_chans': channels}
    cfg: Dict[str, Any] = {'mean': data.mean, 'std': data.std, **WHOLE}
    if name in timm.list_models('scat_*'):
        defaults['img_size'] = height, width
    else:
        cfg['input_size'] = data.input_size
    return timm.create_model(name, pretrained_cfg_overlay=cfg, **{**defaults, **kwargs})


def start_from(name: str, data: Data, seed: int) -> ScatteringModel:
    """The model of a checkpoint folder, or of shipped weights, with classes and channels of these data.

    It keeps its image size, and a classifier of as many classes; learned filters are frozen.

    Raises:
        ValueError: in one sentence, if there are no such weights.
    """
    random_seed(seed)
    kwargs: Dict[str, Any] = {'num_classes': len(data.classes), 'in_chans': data.input_size[0], 'pretrained': True,
                              'pretrained_cfg_overlay': WHOLE}
    if Path(name).is_dir():
        checkpoint.load(Path(name))                             # refuses what is not whole
        name = f'local-dir:{checkpoint.folder_of(name)}'
    elif name not in shipped.names():
        raise checkpoint.no_model(name, shipped.names())
    model: Any = timm.create_model(name, **kwargs)
    if not has_scattering(model):
        raise ValueError(f'expected a model with scattering filters, {brief(name.removeprefix("local-dir:"))} has none')
    model.scattering.set_learnable(False)
    return model


def unknown(name: str) -> ValueError:
    """What to raise for a name that is none of the zoo's."""
    return ValueError(f'unknown model {brief(repr(name))}; {nearest(name, timm.list_models("scat_*"))} '
                      '(`scat-zoo list` tells more)')


def own_side(name: str) -> int:
    """Side of the images that a model of this name is made for."""
    cfg = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    return cfg.input_size[-1] if cfg else 0


def is_linear(model: nn.Module) -> bool:
    """Whether nothing but norms stands between the scattering and one linear layer."""
    return isinstance(model, ScatLinear) and model.head.hidden_size == 0


def prepared(images: Images, model: nn.Module, data: Data, augmentation: Optional[str] = None) -> Prepared:
    """Images of these data as the model takes them, to test it, or with this augmentation to train it."""
    transform = augment.eval_transform(model) if augmentation is None else augment.train_transform(model, augmentation)
    return Prepared(images, data.input_size[0], transform, data.value_range)


def train_one(model: ScatteringModel, images: Images, val: Optional[Images], data: Data, training: Training,
          device: torch.device, states: Tuple[Path, Path], title: str, line: int = 0,
          after_epoch: Optional[Callable[[List[Dict[str, float]]], None]] = None) -> List[Dict[str, float]]:
    """Train the model in place, as `whitening.begin`, `loop.fit` and `discriminant.finish` do; return the history of
    the last two.

    Args:
        images, val: those of the data to train on, and to validate on after each epoch.
        states: the state files of the two.
    """
    of_loop, of_filters = states

    def after(history: List[Dict[str, float]]) -> None:
        of_filters.unlink(missing_ok=True)              # what follows these epochs began where fewer of them ended
        if after_epoch is not None:
            after_epoch(history)

    train_set = prepared(images, model, data, training.augment)
    random_seed(training.seed, rank())
    val_set = None if val is None else prepared(val, model, data)
    if training.whiten and not of_loop.exists():
        whitening.begin(model, train_set, training.whiten, device)
    history = fit(model, train_set, val_set, training, device, of_loop, title, line, after_epoch=after)
    return history + discriminant.finish(model, train_set, val_set, training, device, of_filters, title, line)
