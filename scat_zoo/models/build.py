"""How an architecture becomes a timm model: its generic cfg, and building it so that the cfg tells its true input."""
from typing import Any, Callable, Dict, Optional, Tuple, Type

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import to_2tuple
from timm.models import build_model_with_cfg
from torch import Tensor, nn

from .stem import ScatteringStem
from .upstream import FeatureGetterNet


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

    Learnable filters fix the input size, so the cfg says so; and a size or number of channels asked for shows in the
    cfg, since timm's data config reads it there.

    Args:
        levels: number of feature levels that `features_only` gives by default.
        feature_cfg: how it gives them; by a pruned `ScatteringFeatures` unless told otherwise.
    """
    overlay = dict(kwargs.pop('pretrained_cfg_overlay', None) or {})
    if kwargs.get('learnable'):
        overlay['fixed_input_size'] = True
    model = build_model_with_cfg(
        model_cls, variant, pretrained, pretrained_filter_fn=filter_fn, pretrained_cfg_overlay=overlay,
        feature_cfg=dict(out_indices=tuple(range(levels)), **(feature_cfg or {'feature_cls': ScatteringFeatures})),
        **kwargs)
    cfg = model.pretrained_cfg
    size = to_2tuple(kwargs.get('img_size') or cfg['input_size'][1:])
    channels = kwargs.get('in_chans') or cfg['input_size'][0]
    if (channels, *size) != tuple(cfg['input_size']):
        reduction = cfg['input_size'][1] // cfg['pool_size'][0]
        cfg.update(input_size=(channels, *size), pool_size=tuple(s // reduction for s in size))
    cfg.update(mean=_per_channel(cfg['mean'], channels), std=_per_channel(cfg['std'], channels))
    return model


def checkpoint_filter_fn(state_dict: Dict[str, Tensor], model: nn.Module) -> Dict[str, Tensor]:
    """A checkpoint without filters was trained on the analytic ones: give these to a model that learns filters."""
    scattering = model.scattering
    if scattering.learnable and not any(key.startswith('scattering.') for key in state_dict):
        analytic = ScatteringStem(
            scattering.J, scattering.L, scattering.max_order, scattering.in_chans, scattering.img_size, learnable=True)
        state_dict = {**state_dict, **{f'scattering.{key}': value for key, value in analytic.state_dict().items()}}
    return state_dict


def _per_channel(values: Tuple[float, ...], channels: int) -> Tuple[float, ...]:
    """Statistics for another number of channels: their mean for each, as timm's data config does."""
    return tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels
