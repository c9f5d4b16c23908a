"""How an architecture becomes a timm model: its generic cfg, and building it so that the cfg tells its true input."""
import contextlib
from typing import Any, Dict, Iterator, List, Optional, Tuple, Type, TypeVar

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg
from torch import Tensor

from ..scattering import geometry
from ..scattering.loading import AllOrNothing
from ..wording import brief
from . import shipped
from .model import ScatteringModel
from .stem import ScatteringStem
from .upstream import FeatureGetterNet

M = TypeVar('M', bound=ScatteringModel)


def generic_cfg(**kwargs: Any) -> Dict[str, Any]:
    """The cfg of a bare model name: 3 x 32 x 32, 1000 classes, any size, no weights. Keywords replace entries."""
    return {
        'num_classes': 1000, 'input_size': (3, 32, 32), 'pool_size': (8, 8), 'interpolation': 'bicubic',
        'crop_pct': 1.0, 'mean': IMAGENET_DEFAULT_MEAN, 'std': IMAGENET_DEFAULT_STD, 'first_conv': [],
        'classifier': 'head.fc', **kwargs,
    }


class PrunedFeatures(AllOrNothing, FeatureGetterNet):
    """timm's `features_only` wrapper that prunes and scripts, with the switch for gradient checkpointing it lacks."""

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.model.set_grad_checkpointing(enable)  # type: ignore[operator]


def build(model_cls: Type[M], variant: str, pretrained: bool, kwargs: Dict[str, Any],
          feature_cfg: Optional[Dict[str, Any]] = None, **model_args: Any) -> M:
    """`timm.models.build_model_with_cfg` for a scattering model.

    A size or number of channels asked for shows in the cfg, since timm's data config reads it there.

    Args:
        kwargs: what the caller asks for.
        feature_cfg: how `features_only` gives levels; by a pruned `PrunedFeatures` unless told otherwise.
        model_args: keywords of this variant, unless the weights of a tag, or the caller, have others.
    """
    tagged, asked = shipped.model_args(variant, kwargs), [key for key in kwargs if key in model_cls.keywords()]
    kwargs = {**model_args, **tagged, **kwargs}
    if kwargs.get('img_size') is not None:
        kwargs['img_size'] = geometry.sides('img_size', kwargs['img_size'])
    feature_cfg = dict(feature_cfg or {'feature_cls': PrunedFeatures}, out_indices=())
    made: List[M] = []

    def make(**arguments: Any) -> M:
        made.append(model_cls(**arguments))
        # timm wants to know the levels before there is a model; none asked for are all.
        feature_cfg['out_indices'] = feature_cfg['out_indices'] or tuple(range(made[0].num_levels))
        return made[0]

    with short_errors(variant, asked):
        model = build_model_with_cfg(make, variant, pretrained, pretrained_filter_fn=checkpoint_filter_fn,
                                     feature_cfg=feature_cfg, **kwargs)
    # With what the weights of a tag were trained: timm records what it was asked for, and saving needs all of it.
    model._model_args = {key: kwargs[key] for key in tagged}
    stem, cfg = made[0].scattering, model.pretrained_cfg
    cfg.update({**made[0].input_cfg(stem.img_size), **statistics(cfg, stem)})
    return model


@contextlib.contextmanager
def short_errors(variant: str, asked: List[str]) -> Iterator[None]:
    """Say in one sentence what timm or torch has to say of weights for these keywords."""
    try:
        yield
    except RuntimeError as error:
        message = _why_no_weights(str(error), variant, asked)
        if message:
            raise RuntimeError(message) from error
        raise


def _why_no_weights(error: str, variant: str, asked: List[str]) -> str:
    """timm's or torch's error about weights in one sentence; '' for another error."""
    names = [f'{variant}.{tag}' for tag in shipped.tags(variant)]
    if names and 'No pretrained weights exist' in error:
        return f'No pretrained weights exist for {variant} without a tag: ask for {" or ".join(names)}.'
    mismatches = error.splitlines()[1:]
    if 'loading state_dict' not in error or not mismatches:
        return ''
    # torch lists all tensors, of which one tells enough.
    one = next((line for line in mismatches if '.weight: ' in line), mismatches[0]).strip()
    keywords = f' with the {brief(", ".join(asked), 60)} asked for' if asked else ''
    return f'these weights do not fit {variant}{keywords}: {brief(one, 180)}'


def checkpoint_filter_fn(state_dict: Dict[str, Tensor], model: ScatteringModel) -> Dict[str, Tensor]:
    """Fit a checkpoint of another model of its kind: with analytic filters, or with other image channels."""
    layer = next((name for name, p in model.named_parameters()
                  if p.dim() > 1 and not name.startswith(('scattering.', 'norm.'))), '')
    flat = getattr(model.head.global_pool, 'pool_type', '') == 'flat'
    return fit_checkpoint(state_dict, model.scattering, '', layer, flat)


def fit_checkpoint(state_dict: Dict[str, Tensor], stem: ScatteringStem, prefix: str, layer: str,
                   flat: bool = False) -> Dict[str, Tensor]:
    """The same for a model whose stem and norm are `scattering` and `norm` behind this prefix.

    Args:
        layer: the name of the first weight that reads the normalised scattering, '' if there is none.
        flat: whether it may do so behind a flat pool.

    Raises:
        RuntimeError: if its images were changed otherwise before they were scattered.
    """
    why = stem.inputs.why_not(state_dict, f'{prefix}scattering.inputs.')
    if why:
        raise RuntimeError(why)
    return _with_channels(_with_filters(state_dict, stem, prefix), stem, prefix, layer, flat)


def _with_filters(state_dict: Dict[str, Tensor], stem: ScatteringStem, prefix: str) -> Dict[str, Tensor]:
    """A checkpoint without filters was trained on the analytic ones: give these to a model that stores filters."""
    prefix = f'{prefix}scattering.'
    if any(key.startswith(f'{prefix}bank.') for key in state_dict):
        return state_dict
    return {**state_dict, **{f'{prefix}{key}': value for key, value in stem.analytic_state().items()}}


def _with_channels(state_dict: Dict[str, Tensor], stem: ScatteringStem, prefix: str, layer: str,
                   flat: bool) -> Dict[str, Tensor]:
    """Norms, and the first layer behind them, for other image channels.

    Norms take the mean over the old channels. The layer spreads the sum of its weights over the new ones, so that a
    grey image gives the same in one channel or repeated in three.
    """
    new = stem.in_chans
    if stem.inputs.channel_differences:
        return state_dict                           # there is no such rule for them: loading will say what does not fit
    groups = [channels // new for channels in stem.order_channels()]
    keys = [f'{prefix}norm.orders.{order}.norm.weight' for order in range(len(groups))]
    norms = [state_dict[key] for key in keys if key in state_dict]
    if len(norms) < len(keys):
        return state_dict
    old = len(norms[0]) // groups[0]
    # Other paths or scales than the model's are no matter of image channels, and loading them will say so.
    if old in (0, new) or [len(norm) for norm in norms] != [old * count for count in groups]:
        return state_dict
    adapted = dict(state_dict)
    for key, value in state_dict.items():
        if key.startswith(f'{prefix}norm.') and value.dim() == 1:   # (paths * old,)
            adapted[key] = value.reshape(-1, old).mean(1).repeat_interleave(new)
    if layer in state_dict:
        weight = state_dict[layer]                                  # (out, paths * old * places, ...)
        # Of the checkpoint: for a model of another grid, loading will say that the sizes differ.
        places = weight.shape[1] // sum(len(norm) for norm in norms) if flat and weight.dim() == 2 else 1
        spread = weight.reshape(len(weight), -1, old, places, *weight.shape[2:]).sum(2, keepdim=True) / new
        adapted[layer] = spread.repeat_interleave(new, dim=2).reshape(len(weight), -1, *weight.shape[2:])
    return adapted


def statistics(cfg: Dict[str, Any], stem: ScatteringStem) -> Dict[str, Tuple[float, ...]]:
    """Mean and deviation that a cfg should have, for as many channels as the images of this stem have.

    It is given plain values from 0 to 1 if it takes their logarithms, whatever the data's mean.
    """
    if stem.inputs.takes_log:
        return {'mean': (0.,) * stem.in_chans, 'std': (1.,) * stem.in_chans}
    return {name: per_channel(cfg[name], stem.in_chans) for name in ('mean', 'std')}


def per_channel(values: Tuple[float, ...], channels: int) -> Tuple[float, ...]:
    """Statistics for another number of channels: their mean for each, as timm's data config does."""
    return tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels
