"""scat_linear: scattering, logarithm and batch normalisation of each order, a linear classifier.

The first scattering classifiers (Bruna and Mallat 2013; Oyallon and Mallat, Deep Roto-Translation Scattering, 2015),
with filters that can be learned (Gauthier et al., Parametric Scattering Networks, CVPR 2022).
"""
from typing import Any, Dict, List, Optional, Set, Tuple, Union

import torch
from timm.layers import get_device_dtype, to_2tuple
from timm.models import checkpoint, generate_default_cfgs
from torch import Tensor, nn

from ..scattering import geometry
from . import shipped
from .build import build, checkpoint_filter_fn, generic_cfg
from .freezing import Freezing
from .heads import ScatteringHead, ScatteringNorm
from .stem import ScatteringStem
from .upstream import feature_take_indices, register_model

__all__ = ['ScatLinear']


class ScatLinear(Freezing):
    """Scattering, logarithm and batch normalisation of each order, linear classifier.

    Feature level i holds the normalised orders 0 to i, all at stride 2^J.

    Args:
        num_classes: number of classes, 0 for features.
        in_chans: number of image channels.
        img_size: side, or (H, W), of the images. Fixed filters and all pools take other sizes too; 'flat' then pools
            the feature map to this size's grid. Pixelwise filters are tied to it.
        J: log-2 of the scattering scale; the stride of the feature map is 2^J.
        L: number of orientations.
        max_order: highest order of scattering, 1 or 2.
        learnable: whether the filters are parameters.
        frozen_filters: without `learnable`, whether the filters are learned values, frozen, and not the analytic ones.
        parametrization: what is learned of the filters: 'pixelwise', 'morlet' or 'equivariant'; see `ScatteringStem`.
        init: 'tight_frame', the fixed filters, or 'random'.
        nonexpansive: 'morlet' and 'equivariant' only: keep the scattering 1-Lipschitz in the padded images.
        scales: log-2 of the scales at which paths are low-passed, J among them; J alone unless given.
        log_floor: orders 1 and 2 enter the norm as log(S / mean + log_floor); 0 for no logarithm.
        global_pool: 'flat' (flatten the feature map), timm's pool types, or '' for none.
        head_hidden_size: width of a hidden layer before the classifier, 0 for none.
        drop_rate: dropout before the classifier, and before the hidden layer.
    """

    def __init__(
            self,
            num_classes: int = 1000,
            in_chans: int = 3,
            img_size: Union[int, Tuple[int, int]] = 32,
            J: int = 2,
            L: int = 8,
            max_order: int = 2,
            learnable: bool = False,
            frozen_filters: bool = False,
            parametrization: str = 'pixelwise',
            init: str = 'tight_frame',
            nonexpansive: bool = False,
            scales: Optional[Tuple[int, ...]] = None,
            log_floor: float = 0.1,
            global_pool: str = 'flat',
            head_hidden_size: int = 0,
            drop_rate: float = 0.,
            device: Optional[torch.device] = None,
            dtype: Optional[torch.dtype] = None,
    ) -> None:
        super().__init__()
        dd = {'device': device, 'dtype': dtype}
        img_size = to_2tuple(img_size)
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.grad_checkpointing = False

        self.scattering = ScatteringStem(
            J, L, max_order, in_chans, img_size, learnable, frozen_filters, parametrization, init, nonexpansive,
            scales, **dd)
        channels = self.scattering.order_channels()
        self.norm = ScatteringNorm(channels, log_floor, **dd)
        self.feature_info = [
            dict(num_chs=sum(channels[:i + 1]), reduction=2 ** J, module=f'norm.orders.{i}')
            for i in range(len(channels))]
        self.num_features = sum(channels)

        grid = geometry.output_size(img_size[0], img_size[1], J)
        self.head = ScatteringHead(
            self.num_features, num_classes, global_pool, grid, head_hidden_size, drop_rate, **dd)
        self.head_hidden_size = self.head.num_features

    @torch.jit.ignore
    def init_weights(self, needs_reset: bool = True) -> None:
        """Initial values for all parameters and buffers, filters included."""
        if needs_reset:
            for module in self.modules():
                if module is not self and hasattr(module, 'reset_parameters'):
                    module.reset_parameters()

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> Dict[str, Any]:
        return dict(stem=r'^scattering', blocks=r'^norm\.orders\.(\d+)')

    @torch.jit.ignore
    def no_weight_decay(self) -> Set[str]:
        # Decay would pull the filters to zero and away from wavelets.
        return {name for name, _ in self.named_parameters() if name.startswith('scattering.')}

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the scattering in the backward pass and keep only its input."""
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: Optional[str] = None, reset_other: bool = False) -> None:
        """A new classifier; `reset_other` leaves a hidden layer before it out."""
        self.num_classes = num_classes
        self.head.reset(self.num_features, num_classes, global_pool, reset_other, **get_device_dtype(self))
        self.head_hidden_size = self.head.num_features

    def forward_intermediates(
            self,
            x: Tensor,
            indices: Optional[Union[int, List[int]]] = None,
            norm: bool = False,
            stop_early: bool = False,
            output_fmt: str = 'NCHW',
            intermediates_only: bool = False,
    ) -> Union[List[Tensor], Tuple[Tensor, List[Tensor]]]:
        """Feature maps (B, C, H / 2^J, W / 2^J) of the levels `indices`, and the final one before them.

        Args:
            x: images (B, in_chans, H, W).
            indices: the last n levels if an integer, all if None.
            norm: without effect, every level is normalised.
            stop_early: end at the highest level asked for.
            output_fmt: 'NCHW', the only one.
            intermediates_only: return the list of feature maps alone.
        """
        assert output_fmt == 'NCHW', 'Output format must be NCHW.'
        take_indices, max_index = feature_take_indices(len(self.norm.orders), indices)
        intermediates: List[Tensor] = []
        scattering = self._scatter(x)                           # (B, C, h, w)
        features = scattering[:, :0]
        for i, order in enumerate(self.norm.orders):
            if not stop_early or i <= max_index:
                features = order(scattering, features)
                if i in take_indices:
                    intermediates.append(features)
        if intermediates_only:
            return intermediates
        return features, intermediates

    def prune_intermediate_layers(
            self,
            indices: Union[int, List[int]] = 1,
            prune_norm: bool = False,
            prune_head: bool = True,
    ) -> List[int]:
        """Remove the orders, filters and head that the levels `indices` do not need; return these levels."""
        take_indices, max_index = feature_take_indices(len(self.norm.orders), indices)
        prune_end = max_index < len(self.norm.orders) - 1
        if prune_end:
            self.norm.orders = self.norm.orders[:max_index + 1]
            self.scattering.set_max_order(max_index)
            self.num_features = self.feature_info[max_index]['num_chs']
        if prune_head or prune_end:
            self.reset_classifier(0, '', reset_other=True)
        return take_indices

    def _scatter(self, x: Tensor) -> Tensor:
        if self.grad_checkpointing and not torch.jit.is_scripting():
            return checkpoint(self.scattering, x)
        return self.scattering(x)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, num_features, H / 2^J, W / 2^J)."""
        return self.norm(self._scatter(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return self.head(x, pre_logits=pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def feature_levels(J: int = 2, L: int = 8, max_order: int = 2, **_: Any) -> int:
    """Number of feature levels that a model built with these keywords has: of orders with any path."""
    return len({path.order for path in geometry.paths(J, L, max_order)})


default_cfgs = generate_default_cfgs({**shipped.cfgs('scat_linear'), 'scat_linear.*': generic_cfg()})


@register_model
def scat_linear(pretrained: bool = False, **kwargs: Any) -> ScatLinear:
    """Scattering, log and batch normalisation of each order, linear classifier; see `ScatLinear` for the keywords."""
    kwargs = {**shipped.model_args('scat_linear', kwargs), **kwargs}
    return build(ScatLinear, 'scat_linear', pretrained, checkpoint_filter_fn, feature_levels(**kwargs), **kwargs)
