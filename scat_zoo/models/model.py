"""What all models of the zoo share: the scattering and its norm, timm's methods, freezing, parameter groups."""
import inspect
import math
import sys
from typing import Any, Dict, Iterable, Iterator, List, Optional, Set, Tuple, Union

import torch
from timm.layers import get_device_dtype
from timm.models import checkpoint
from torch import Tensor, nn

from ..scattering import geometry
from ..scattering.loading import AllOrNothing
from ..wording import nearest, some
from .heads import ScatteringHead, ScatteringNorm
from .stem import ScatteringStem
from .upstream import feature_take_indices, update_model_input_size


class Freezing(AllOrNothing):
    """Freezes the halves of a model whose front end is `scattering`. Buffers have no gradient anyway.

    A gradient from before goes too: an optimiser's next step would apply it.
    """

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """All parameters that are not scattering filters, for an optimiser group of their own."""
        filters = {id(p) for p in self._filters()}
        return (p for p in self.parameters() if id(p) not in filters)

    def _filters(self) -> Iterator[nn.Parameter]:
        scattering: Any = self.scattering
        return scattering.parameters()

    def freeze_scattering(self) -> None:
        _hold(self._filters())

    def unfreeze_scattering(self) -> None:
        self.scattering.requires_grad_(True)

    def freeze_classifier(self) -> None:
        _hold(self.head_parameters())

    def unfreeze_classifier(self) -> None:
        for p in self.head_parameters():
            p.requires_grad_(True)


def has_scattering(model: nn.Module) -> bool:
    """Whether its filters are in `scattering`, as those of all models of the zoo."""
    return isinstance(model, Freezing)


def _hold(parameters: Iterable[nn.Parameter]) -> None:
    for p in parameters:
        p.requires_grad_(False)
        p.grad = None


class ScatteringModel(Freezing):
    """The children `scattering`, `norm` and `head`, and the methods that models of timm have.

    An architecture's constructor calls this one, adds its own layers, and ends with `add_head`. Its methods are
    `forward_levels`, `group_matcher`, and `keep_levels` if it has layers to remove.

    Args:
        num_classes: number of classes, 0 for features.
        log_floor: orders 1 and 2 enter the norm as log(S / mean + log_floor); 0 for no logarithm.
        pool_grid: (rows, columns) that the pool 'flat' averages to, for images of any size; unless given, those of the
            scattering of `img_size`.
        drop_rate: dropout before the classifier, and before a hidden layer.
        filters: keywords of `ScatteringStem`: in_chans, img_size, J, L, learnable, device, dtype and so on.

    Raises:
        TypeError: on a keyword that there is not; it names those that there are.
    """

    __jit_unused_properties__ = ('head_hidden_size',)           # TorchScript would compile it

    def __init__(self, num_classes: int = 1000, log_floor: float = 0.1,
                 pool_grid: Union[int, Tuple[int, int], None] = None, drop_rate: float = 0., **filters: Any) -> None:
        super().__init__()
        known = self.keywords()
        unknown = [name for name in filters if name not in known]
        if unknown:
            raise TypeError(f'{type(self).__name__} has no keyword {some(unknown, 60)}; {nearest(unknown[0], known)}')
        if 'img_size' in filters:
            filters['img_size'] = geometry.sides('img_size', filters['img_size'])
        num_classes = geometry.integer('num_classes', num_classes, least=0)
        log_floor = geometry.number('log_floor', log_floor, 0, sys.float_info.max, '0, for no logarithm, or positive')
        drop_rate = geometry.number('drop_rate', drop_rate, 0, 1, 'a share from 0 to 1')
        self.scattering = ScatteringStem(**filters)
        placed = {name: filters.get(name) for name in ('device', 'dtype')}
        self.norm = ScatteringNorm(self.scattering.order_channels(), log_floor, **placed)
        self.num_classes, self.in_chans, self.drop_rate = num_classes, self.scattering.in_chans, drop_rate
        grid = geometry.output_size(*self.scattering.img_size, self.scattering.J) if pool_grid is None else pool_grid
        self.pool_grid = geometry.sides('pool_grid', grid, least=1)
        self.grad_checkpointing = False
        self.pretrained_cfg: Dict[str, Any]                     # timm's, like the next
        self._model_args: Dict[str, Any]
        self._traits = {'fixed_input_size': False}              # what timm would otherwise read in an old checkpoint

    @classmethod
    def keywords(cls) -> List[str]:
        """Names of all keywords: the architecture's own, those of all models, those of `ScatteringStem`."""
        parameters = [p for base in cls.__mro__ if issubclass(base, ScatteringModel)
                      for p in inspect.signature(base).parameters.values()]
        own = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        return list(dict.fromkeys([*own, *ScatteringStem.keywords()]))

    def add_head(self, feature_info: List[Dict[str, Any]], global_pool: str, hidden_size: int = 0) -> None:
        """The head, on the last level.

        Args:
            feature_info: timm's, of each level.
            global_pool: 'flat', 'avgstd', one of timm's pool types, or '' for none.
            hidden_size: width of a hidden layer before the classifier, 0 for none.
        """
        hidden_size = geometry.integer('head_hidden_size', hidden_size, least=0)
        self.feature_info, self.num_levels = feature_info, len(feature_info)
        self.num_features: int = feature_info[-1]['num_chs']
        self.head = ScatteringHead(self.num_features, self.num_classes, global_pool, self.pool_grid, hidden_size,
                                   self.drop_rate, **get_device_dtype(self.norm))

    @property
    def head_hidden_size(self) -> int:
        """Width of what the classifier sees."""
        return self.head.num_features

    @torch.jit.ignore
    def init_weights(self, needs_reset: bool = True) -> None:
        """Initial values; with `needs_reset` of all parameters and buffers, filters included."""
        for module in self.modules():
            if needs_reset and module is not self and hasattr(module, 'reset_parameters'):
                module.reset_parameters()  # type: ignore[operator]

    @torch.jit.ignore
    def no_weight_decay(self) -> Set[str]:
        # Decay would pull the filters to zero and away from wavelets.
        return {name for name, _ in self.named_parameters() if name.startswith('scattering.')}

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the scattering, and stages behind it, in the backward pass, and keep only their inputs."""
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: Optional[str] = None, reset_other: bool = False) -> None:
        """A new classifier; `reset_other` leaves a hidden layer before it out.

        Raises:
            TypeError, ValueError: if there can't be so many classes; nothing is changed then.
        """
        self.num_classes = num_classes = geometry.integer('num_classes', num_classes, least=0)
        self.head.reset(self.num_features, num_classes, global_pool, reset_other, **get_device_dtype(self))

    @torch.jit.ignore
    def set_input_size(self, img_size: Union[int, Tuple[int, int]]) -> None:
        """Be a model for images of that side, or (H, W), with what it learned.

        Pixelwise filters are resampled, and an optimiser is built afterwards; others follow any size anyway. The grid
        of a flat pool stays, and so does the classifier. What is saved afterwards has the new size.

        Raises:
            ValueError: if a side is below 2^J.
        """
        size = geometry.sides('img_size', img_size)
        self.scattering.set_input_size(size)
        update_model_input_size(self, size, pool_grid=self.pool_grid)
        if hasattr(self, 'pretrained_cfg'):
            self.pretrained_cfg.update(self.input_cfg(size))

    def input_cfg(self, size: Tuple[int, int]) -> Dict[str, Any]:
        """What a cfg says of images (H, W): `input_size`, and `pool_size`, that of the last feature map."""
        J, reduction = self.scattering.J, self.feature_info[-1]['reduction']
        # Scattering rounds its size down, convolutions round theirs up.
        pool_size = tuple(math.ceil((side >> J) / (reduction >> J)) for side in size)
        return {'input_size': (self.in_chans, *size), 'pool_size': pool_size, 'fixed_input_size': False}

    def scatter(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, in_chans * paths, H / 2^J, W / 2^J), not yet normalised."""
        if self.grad_checkpointing and not torch.jit.is_scripting():
            return checkpoint(self.scattering, x)
        return self.scattering(x)

    def forward_levels(self, x: Tensor, last: int) -> List[Tensor]:
        """Images (B, in_chans, H, W) -> feature maps (B, C, h, w), levels 0 to `last`."""
        raise NotImplementedError(f'{type(self).__name__} must define forward_levels()')

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, num_features, h, w)."""
        return self.forward_levels(x, self.num_levels - 1)[-1]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return self.head(x, pre_logits=pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
            self,
            x: Tensor,
            indices: Optional[Union[int, List[int]]] = None,
            norm: bool = False,
            stop_early: bool = False,
            output_fmt: str = 'NCHW',
            intermediates_only: bool = False,
    ) -> Union[List[Tensor], Tuple[Tensor, List[Tensor]]]:
        """Feature maps (B, C, h, w) of the levels `indices`, and the final one before them.

        Args:
            x: images (B, in_chans, H, W).
            indices: the last n levels if an integer, all if None.
            norm: without effect, there is no final norm.
            stop_early: end at the highest level asked for.
            output_fmt: 'NCHW', the only one.
            intermediates_only: return the list of feature maps alone.
        """
        assert output_fmt == 'NCHW', 'Output format must be NCHW.'
        take, last = feature_take_indices(self.num_levels, indices)
        levels = self.forward_levels(x, last if stop_early else self.num_levels - 1)
        intermediates = [levels[i] for i in sorted(take)]
        if intermediates_only:
            return intermediates
        return levels[-1], intermediates

    def prune_intermediate_layers(self, indices: Union[int, List[int], None] = 1, prune_norm: bool = False,
                                  prune_head: bool = True) -> List[int]:
        """Remove the head and all that the levels `indices` do not need; return these levels."""
        take, last = feature_take_indices(self.num_levels, indices)
        prune_end = last < self.num_levels - 1
        if prune_end:
            self.keep_levels(last)
            self.num_levels, self.num_features = last + 1, self.feature_info[last]['num_chs']
        if prune_head or prune_end:
            self.reset_classifier(0, '', reset_other=True)
        return take

    def keep_levels(self, last: int) -> None:
        """Remove what only the levels beyond `last` need."""


def param_groups(model: nn.Module, lr: float, filter_lr: Optional[float] = None,
                 weight_decay: float = 0.) -> List[Dict[str, Any]]:
    """Groups for any torch optimiser: filters with their own rate and no decay, other parameters at `lr`.

    Weight decay applies to matrices and kernels, not to norms and biases, as in timm. What does not require a gradient
    is left out.

    Args:
        model: one whose front end is its child `scattering`: any of the zoo's, or a `ScatteringBase`.
        lr: rate of all parameters but the filters.
        filter_lr: rate of the filters; for Adam that of their kind (`Bank.filter_lr`), unless given.
        weight_decay: of matrices and kernels outside the scattering.
    """
    filters: List[nn.Parameter] = []
    plain: List[nn.Parameter] = []
    decayed: List[nn.Parameter] = []
    scattering: Any = model.scattering                                  # of either class
    of_filters = {id(p) for p in scattering.parameters()}               # torch.compile changes the names
    for p in model.parameters():
        if p.requires_grad:
            (filters if id(p) in of_filters else plain if p.dim() <= 1 else decayed).append(p)
    filter_lr = scattering.bank.filter_lr if filter_lr is None else filter_lr
    groups = [(filters, filter_lr, 0.), (plain, lr, 0.), (decayed, lr, weight_decay)]
    return [{'params': params, 'lr': rate, 'weight_decay': decay} for params, rate, decay in groups if params]
