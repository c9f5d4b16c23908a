"""scat_linear: scattering, logarithm and batch normalisation of each order, a linear classifier.

The first scattering classifiers (Bruna and Mallat 2013; Oyallon and Mallat, Deep Roto-Translation Scattering, 2015),
with filters that can be learned (Gauthier et al., Parametric Scattering Networks, CVPR 2022).
"""
from typing import Any, Dict, List

import torch
from timm.models import generate_default_cfgs
from torch import Tensor

from . import shipped
from .build import build, checkpoint_filter_fn, generic_cfg  # noqa: F401  (timm looks for checkpoint_filter_fn here)
from .model import ScatteringModel
from .upstream import register_model

__all__ = ['ScatLinear']


class ScatLinear(ScatteringModel):
    """Scattering, logarithm and batch normalisation of each order, linear classifier.

    Feature level i holds the normalised orders 0 to i, all at stride 2^J.

    Args:
        num_classes: number of classes, 0 for features.
        global_pool: 'flat' (flatten the feature map), 'avgstd' (mean and standard deviation of each map), timm's pool
            types, or '' for none.
        head_hidden_size: width of a hidden layer before the classifier, 0 for none.
        kwargs: of `ScatteringModel` and `ScatteringStem`.
    """

    def __init__(self, num_classes: int = 1000, global_pool: str = 'flat', head_hidden_size: int = 0,
                 **kwargs: Any) -> None:
        super().__init__(num_classes, **kwargs)
        channels = self.scattering.order_channels()
        self.add_head([
            dict(num_chs=sum(channels[:i + 1]), reduction=2 ** self.scattering.J, module=f'norm.orders.{i}')
            for i in range(len(channels))], global_pool, head_hidden_size)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> Dict[str, Any]:
        return dict(stem=r'^scattering', blocks=r'^norm\.orders\.(\d+)')

    def forward_levels(self, x: Tensor, last: int) -> List[Tensor]:
        scattering = self.scatter(x)                            # (B, in_chans * paths, H / 2^J, W / 2^J)
        levels = [scattering[:, :0]]
        for i, order in enumerate(self.norm.orders):
            if i <= last:
                levels.append(order(scattering, levels[-1]))    # (B, in_chans * paths of orders 0 to i, ...)
        return levels[1:]

    def forward_features(self, x: Tensor) -> Tensor:
        return self.norm(self.scatter(x))                       # the last level, where hooks on `norm` see it

    def keep_levels(self, last: int) -> None:
        self.norm.orders = self.norm.orders[:last + 1]
        self.scattering.set_max_order(last)


default_cfgs = generate_default_cfgs({**shipped.cfgs('scat_linear'), 'scat_linear.*': generic_cfg()})


@register_model
def scat_linear(pretrained: bool = False, **kwargs: Any) -> ScatLinear:
    """Scattering, log and batch normalisation of each order, linear classifier; see `ScatLinear` for the keywords."""
    return build(ScatLinear, 'scat_linear', pretrained, kwargs)
