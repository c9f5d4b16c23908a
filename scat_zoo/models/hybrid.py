"""Hybrid networks: any network of timm with scattering in the place of its first layers.

First-order scattering in front of a ResNet: Oyallon, Belilovsky, Zagoruyko and Valko, Compressing the Input for CNNs
with the First-Order Scattering Transform, ECCV 2018, arXiv:1809.10200.
"""
import functools
import inspect
import sys
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Optional, Set, Tuple, Type, Union

import torch
from timm.layers import get_device_dtype, get_spatial_dim
from timm.models import checkpoint
from torch import Tensor, nn

from ..scattering import geometry
from ..wording import brief, some
from .build import fit_checkpoint
from .heads import ScatteringNorm
from .model import Freezing
from .stem import ScatteringStem
from .upstream import feature_take_indices, update_model_input_size


class ScatteringEmbed(nn.Module):
    """Scattering, its norm, and a convolution to the width of the layers behind: (B, C, H, W) -> (B, width, h, w).

    Args:
        stem: keywords of `ScatteringStem`.
        log_floor: as for `OrderNorm`.
        width: channels of the output; None for those of the norm, without a convolution.
        kernel: side and stride of the convolution.
        bias: whether it has one.
        only_size: (H, W) of the only images that are taken; None for any.
    """

    def __init__(self, stem: Dict[str, Any], log_floor: float, width: Optional[int] = None, kernel: int = 1,
                 bias: bool = True, only_size: Optional[Tuple[int, int]] = None) -> None:
        super().__init__()
        placed: Dict[str, Any] = {name: stem.get(name) for name in ('device', 'dtype')}
        self.scattering = ScatteringStem(**stem)
        channels = self.scattering.order_channels()
        self.norm = ScatteringNorm(channels, log_floor, **placed)
        self.in_channels = self.scattering.in_chans             # as of a convolution, in whose place it may stand
        self.num_features = self.out_channels = sum(channels) if width is None else width
        self.conv: nn.Module = nn.Identity()
        if width is not None:
            self.conv = nn.Conv2d(sum(channels), width, kernel, stride=kernel, bias=bias, **placed)
        self.only_size = only_size
        self.grad_checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        x = of_size(x, self.only_size)
        if self.grad_checkpointing and not torch.jit.is_scripting():
            x = checkpoint(self.scattering, x)
        else:
            x = self.scattering(x)                              # (B, C * paths, H / 2^J, W / 2^J)
        return self.conv(self.norm(x))


class PassThrough(nn.Identity):
    """Stands in the place of a layer after the first that the scattering replaces."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_channels = self.out_channels = width            # as of a convolution


@torch.fx.wrap
def of_size(x: Tensor, size: Optional[Tuple[int, int]]) -> Tensor:
    """The images, refused if they have another size than this."""
    if size is not None and (x.shape[2] != size[0] or x.shape[3] != size[1]):
        raise RuntimeError(f'expected images of {size[0]} x {size[1]}, got {x.shape[2]} x {x.shape[3]}: '
                           'set_input_size() makes the model one for others, dynamic_img_size=True one for all')
    return x


class Hybrid(Freezing):
    """What a network of timm gains with the scattering: its filters, as all models of the zoo have them.

    A model's class has this one and the network's own as its bases.
    """

    if TYPE_CHECKING:                                           # TorchScript would read them
        network_class: Any
        feature_info: List[Dict[str, Any]]
        pretrained_cfg: Dict[str, Any]
        forward_features: Any
        _traits: Dict[str, Any]
        _recipe: Any                                            # a `graft.Recipe`
        _embed_name: str
        _level_names: List[str]
        _gone: List[Dict[str, Any]]                             # what `feature_info` said of levels that are gone

    @property
    def scattering_embed(self) -> ScatteringEmbed:
        """The scattering, its norm, and the convolution behind."""
        return self.get_submodule(self._embed_name)  # type: ignore[return-value]

    @property
    def scattering(self) -> ScatteringStem:
        return self.scattering_embed.scattering

    @torch.jit.ignore
    def init_weights(self, needs_reset: bool = True) -> None:
        """Initial values: with `needs_reset` of all parameters and buffers, filters included."""
        for module in self.modules():
            if needs_reset and module is not self and hasattr(module, 'reset_parameters'):
                module.reset_parameters()  # type: ignore[operator]
        # Not every network can give its own anew, so they come from one that is built anew.
        fresh = dict(_tensors(self._recipe.make(self.scattering.img_size, **get_device_dtype(self))))
        with torch.no_grad():
            for name, tensor in _tensors(self):
                if name in fresh and fresh[name].shape == tensor.shape:
                    tensor.copy_(fresh[name])

    @torch.jit.ignore
    def no_weight_decay(self) -> Set[str]:
        # Decay would pull the filters to zero and away from wavelets.
        own: Set[str] = getattr(self.network_class, 'no_weight_decay', lambda _: set())(self)
        return own | {name for name, _ in self.named_parameters() if name.startswith(f'{self._embed_name}.scattering.')}

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the scattering, and what the network does so, in the backward pass, and keep only the inputs."""
        self.network_class.set_grad_checkpointing(self, enable)
        self.scattering_embed.grad_checkpointing = enable

    @torch.jit.ignore
    def set_input_size(self, img_size: Union[int, Tuple[int, int], None] = None, **kwargs: Any) -> None:
        """Be a model for images of that side, or (H, W), with what it learned.

        Pixelwise filters and position embeddings are resampled; an optimiser is built afterwards. What is saved
        afterwards has the new size.

        Args:
            kwargs: what else the network's own method takes, if it has one.

        Raises:
            ValueError: if a side is below 2^J.
        """
        size = self.scattering.img_size if img_size is None else geometry.sides('img_size', img_size)
        self.scattering.set_input_size(size)
        if self.scattering_embed.only_size is not None:
            self.scattering_embed.only_size = size
        if hasattr(self.network_class, 'set_input_size'):
            self.network_class.set_input_size(self, img_size=size, **kwargs)
        update_model_input_size(self, size)
        self.pretrained_cfg.update(self.input_cfg(size))

    def input_cfg(self, size: Tuple[int, int]) -> Dict[str, Any]:
        """What a cfg says of images (H, W): `input_size`, and `pool_size`, that of the last feature map."""
        cfg: Dict[str, Any] = {'input_size': (self.scattering.in_chans, *size)}
        own = self.pretrained_cfg
        if own.get('pool_size') and tuple(own['input_size'][1:]) != size:
            cfg['pool_size'] = self._map_size(cfg['input_size'])
        return cfg

    @torch.no_grad()
    def _map_size(self, input_size: Tuple[int, int, int]) -> Tuple[int, ...]:
        """(h, w) of the last feature map, for images (C, H, W): some networks round up, others down."""
        training = [module for module in self.modules() if module.training]
        x = torch.zeros(1, *input_size, **get_device_dtype(self))
        for module in training:
            module.training = False
        try:
            features = self.forward_features(x)
        finally:
            for module in training:
                module.training = True
        return tuple(features.shape[axis] for axis in get_spatial_dim(getattr(self, 'output_fmt', 'NCHW')))

    def level_indices(self, indices: Any) -> List[int]:
        """The feature levels asked for, as timm tells them: the last n if an integer, all if None.

        Raises:
            IndexError: for one that there is not.
        """
        count = len(self.feature_info)
        asked = [count - indices] if isinstance(indices, int) else list(indices or [])
        wrong = [i for i in asked if not -count <= i < count or (isinstance(indices, int) and not 0 <= i < count)]
        if wrong:
            strides = some([level['reduction'] for level in self.feature_info], 60)
            raise IndexError(f'there are {count} feature levels, of strides {strides}, got {brief(indices, 60)}: the '
                             'scattering stands in the place of finer ones')
        return feature_take_indices(count, indices)[0]

    def __reduce_ex__(self, protocol: Any) -> Any:
        reduced: Any = super().__reduce_ex__(max(2, protocol))
        _, _, *state = reduced
        return (blank, (self.network_class, isinstance(self, FewerLevels)), *state)


class FewerLevels(Hybrid):
    """A hybrid that lacks the network's first feature levels, which its methods still count."""

    def forward_intermediates(
            self,
            x: Tensor,
            indices: Optional[Union[int, List[int]]] = None,
            norm: bool = False,
            stop_early: bool = False,
            output_fmt: str = 'NCHW',
            intermediates_only: bool = False,
    ) -> Union[List[Tensor], Tuple[Tensor, List[Tensor]]]:
        """As the network's own, on the levels that are left."""
        if torch.jit.is_scripting():
            assert intermediates_only, 'A scripted model gives the intermediates alone.'
            take, _ = feature_take_indices(len(self._level_names), indices)
            names = [self._level_names[i] for i in take]
            levels: List[Tensor] = []
            for name, module in self.named_children():
                if len(levels) < len(names):
                    x = module(x)
                    if name in names:
                        levels.append(x)
            return levels
        else:
            asked = [i + len(self._gone) for i in self.level_indices(indices)]
            return self.network_class.forward_intermediates(
                self, x, asked, norm=norm, stop_early=stop_early, output_fmt=output_fmt,
                intermediates_only=intermediates_only)

    def prune_intermediate_layers(self, indices: Union[int, List[int], None] = 1, prune_norm: bool = False,
                                  prune_head: bool = True) -> List[int]:
        """Remove all that the levels `indices` do not need, and the head if asked for; return these levels."""
        take, left = self.level_indices(indices), self.feature_info
        self.feature_info = self._gone + left                    # as the network counts them
        try:
            self.network_class.prune_intermediate_layers(
                self, [i + len(self._gone) for i in take], prune_norm=prune_norm, prune_head=prune_head)
        finally:
            self.feature_info = left
        return take


def _tensors(module: nn.Module) -> Iterator[Tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


@functools.cache
def hybrid_class(network_class: Any, fewer_levels: bool) -> Type[Hybrid]:
    """The class of hybrids of networks of this class."""
    unused = ['scattering_embed', 'scattering', *getattr(network_class, '__jit_unused_properties__', [])]
    return type(f'Hybrid{network_class.__name__}', (FewerLevels if fewer_levels else Hybrid, network_class), {
        '__module__': __name__, '__doc__': network_class.__doc__, 'network_class': network_class,
        # TorchScript reads constants here, and would compile all properties.
        '__annotations__': dict(inspect.get_annotations(network_class)), '__jit_unused_properties__': unused})


def blank(network_class: Any, fewer_levels: bool) -> Hybrid:
    """One with nothing in it yet."""
    cls = hybrid_class(network_class, fewer_levels)
    return cls.__new__(cls)


def checkpoint_filter_fn(state_dict: Dict[str, Tensor], model: Hybrid) -> Dict[str, Tensor]:
    """Fit a checkpoint of another hybrid of its kind: with analytic filters, other image channels, or another size."""
    embed = f'{model._embed_name}.'
    layer = next((name for name, p in model.named_parameters() if p.dim() > 1 and name.startswith((
        f'{embed}conv.', f'{embed.removesuffix("backbone.")}proj.'))), '')
    state_dict = fit_checkpoint(state_dict, model.scattering, embed, layer)
    of_network = getattr(sys.modules[model.network_class.__module__], 'checkpoint_filter_fn', None)
    if of_network is None:
        return state_dict
    ours = {key: value for key, value in state_dict.items() if key.startswith(embed)}
    return {**of_network({key: value for key, value in state_dict.items() if key not in ours}, model), **ours}
