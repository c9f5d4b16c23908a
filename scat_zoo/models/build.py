"""How an architecture becomes a timm model: its generic cfg, and building it so that the cfg tells its true input."""
import math
from typing import Any, Callable, Dict, Optional, Tuple, Type

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import to_2tuple
from timm.models import build_model_with_cfg
from torch import Tensor, nn

from . import shipped
from .stem import ScatteringStem
from .upstream import FeatureGetterNet

# What may read the normalised scattering, by name; the first that a checkpoint has does.
FIRST_LAYERS = ('conv_reduce.conv', 'head.pre_logits.fc', 'head.fc')


def generic_cfg(**kwargs: Any) -> Dict[str, Any]:
    """The cfg of a bare model name: 3 x 32 x 32, 1000 classes, any size, no weights. Keywords replace entries."""
    return {
        'num_classes': 1000, 'input_size': (3, 32, 32), 'pool_size': (8, 8), 'interpolation': 'bicubic',
        'crop_pct': 1.0, 'mean': IMAGENET_DEFAULT_MEAN, 'std': IMAGENET_DEFAULT_STD, 'first_conv': [],
        'classifier': 'head.fc', **kwargs,
    }


class ScatteringFeatures(FeatureGetterNet):
    """timm's `features_only` wrapper that prunes and scripts, with the switch for gradient checkpointing it lacks."""

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.model.set_grad_checkpointing(enable)


def build(model_cls: Type[nn.Module], variant: str, pretrained: bool, filter_fn: Callable, levels: int,
          feature_cfg: Optional[Dict[str, Any]] = None, **kwargs: Any) -> nn.Module:
    """`timm.models.build_model_with_cfg` for a scattering model.

    Pixelwise filters fix the input size, so the cfg says so; and a size or number of channels asked for shows in the
    cfg, since timm's data config reads it there.

    Args:
        levels: number of feature levels that `features_only` gives by default.
        feature_cfg: how it gives them; by a pruned `ScatteringFeatures` unless told otherwise.
    """
    overlay = dict(kwargs.pop('pretrained_cfg_overlay', None) or {})
    stored = kwargs.get('learnable') or kwargs.get('frozen_filters') or kwargs.get('init') == 'random'
    if stored and kwargs.get('parametrization', 'pixelwise') == 'pixelwise':
        overlay['fixed_input_size'] = True
    try:
        model = build_model_with_cfg(
            model_cls, variant, pretrained, pretrained_filter_fn=filter_fn, pretrained_cfg_overlay=overlay,
            feature_cfg=dict(out_indices=tuple(range(levels)), **(feature_cfg or {'feature_cls': ScatteringFeatures})),
            **kwargs)
    except RuntimeError as error:
        names = [f'{variant}.{tag}' for tag in shipped.tags(variant)]
        if names and 'No pretrained weights exist' in str(error):
            raise RuntimeError(f'No pretrained weights exist for {variant} without a tag: ask for '
                               f'{" or ".join(names)}.') from error
        raise
    # With what the weights of a tag were trained: timm records what it was asked for, and saving needs all of it.
    tagged = shipped.model_args(variant, kwargs)
    model._model_args = {key: value for key, value in kwargs.items() if key in tagged}
    cfg = model.pretrained_cfg
    size = to_2tuple(kwargs.get('img_size') or cfg['input_size'][1:])
    channels = kwargs.get('in_chans') or cfg['input_size'][0]
    J, reduction = kwargs.get('J', 2), model.feature_info[-1]['reduction']
    # Scattering rounds its size down, convolutions round theirs up.
    pool_size = tuple(math.ceil((side >> J) / (reduction >> J)) for side in size)
    cfg.update(input_size=(channels, *size), pool_size=pool_size,
               mean=_per_channel(cfg['mean'], channels), std=_per_channel(cfg['std'], channels))
    return model


def checkpoint_filter_fn(state_dict: Dict[str, Tensor], model: nn.Module) -> Dict[str, Tensor]:
    """Fit a checkpoint of another model of its kind: with analytic filters, or with other image channels."""
    return _with_channels(_with_filters(state_dict, model), model)


def _with_filters(state_dict: Dict[str, Tensor], model: nn.Module) -> Dict[str, Tensor]:
    """A checkpoint without filters was trained on the analytic ones: give these to a model that stores filters."""
    scattering = model.scattering
    if not list(scattering.state_dict()) or any(key.startswith('scattering.') for key in state_dict):
        return state_dict
    analytic = ScatteringStem(
        scattering.J, scattering.L, scattering.max_order, scattering.in_chans, scattering.img_size, learnable=True,
        parametrization=scattering.parametrization, nonexpansive=scattering.nonexpansive, scales=scattering.scales)
    return {**state_dict, **{f'scattering.{key}': value for key, value in analytic.state_dict().items()}}


def _with_channels(state_dict: Dict[str, Tensor], model: nn.Module) -> Dict[str, Tensor]:
    """Norms, and the first layer behind them, for other image channels.

    Norms take the mean over the old channels. The layer spreads the sum of its weights over the new ones, so that a
    grey image gives the same in one channel or repeated in three.
    """
    new = model.in_chans
    groups = [channels // new for channels in model.scattering.order_channels()]
    norms = [state_dict.get(f'norm.orders.{order}.norm.weight') for order in range(len(groups))]
    if any(norm is None for norm in norms):
        return state_dict
    old = len(norms[0]) // groups[0]
    # Other paths or scales than the model's are no matter of image channels, and loading them will say so.
    if old in (0, new) or [len(norm) for norm in norms] != [old * count for count in groups]:
        return state_dict
    adapted = dict(state_dict)
    for key, value in state_dict.items():
        if key.startswith('norm.') and value.dim() == 1:            # (paths * old,)
            adapted[key] = value.reshape(-1, old).mean(1).repeat_interleave(new)
    layer = next((name for name in FIRST_LAYERS if f'{name}.weight' in state_dict), None)
    if layer is not None:
        weight = state_dict[f'{layer}.weight']                      # (out, paths * old * places, ...)
        flat = getattr(model.head.global_pool, 'pool_type', '') == 'flat'
        # Of the checkpoint: for a model of another grid, loading will say that the sizes differ.
        places = weight.shape[1] // sum(len(norm) for norm in norms) if flat and weight.dim() == 2 else 1
        spread = weight.reshape(len(weight), -1, old, places, *weight.shape[2:]).sum(2, keepdim=True) / new
        adapted[f'{layer}.weight'] = spread.repeat_interleave(new, dim=2).reshape(len(weight), -1, *weight.shape[2:])
    return adapted


def _per_channel(values: Tuple[float, ...], channels: int) -> Tuple[float, ...]:
    """Statistics for another number of channels: their mean for each, as timm's data config does."""
    return tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels
