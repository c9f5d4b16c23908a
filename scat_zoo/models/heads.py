"""What stands on a scattering stem: the normalisation of each order, and pooled classifiers."""
import contextlib
from collections import OrderedDict
from typing import List, Optional, Tuple, Union

import torch
import torch.nn.functional as F
from timm.layers import SelectAdaptivePool2d
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import statically_known_true

from ..scattering import engine
from ..wording import brief, nearest
from .norms import BatchNorm, share_of_batch


class OrderNorm(nn.Module):
    """Log compression and batch normalisation of the channels of one order, put behind the normalised lower orders.

    Coefficients S of order 1 and 2 are averages of moduli, and span magnitudes: they become log(S / m + log_floor) with
    m their channel's mean. Negative ones, which a learned low-pass can produce, count as zero there. (Logarithms of
    scattering coefficients: Anden and Mallat, Deep Scattering Spectrum, 2014.)

    One OrderNorm comes after the other, so that the output of the i-th is the feature map of orders 0 to i.

    Args:
        start, stop: the channels of this order in the scattering map.
        log_floor: 0 for no logarithm.
    """

    def __init__(self, start: int, stop: int, log_floor: float, device: Optional[torch.device] = None,
                 dtype: Optional[torch.dtype] = None) -> None:
        super().__init__()
        self.start, self.stop, self.log_floor = start, stop, log_floor
        self.running_mean: Optional[Tensor]
        if log_floor > 0:
            self.register_buffer('running_mean', torch.ones(stop - start, device=device, dtype=dtype))
        else:
            self.register_buffer('running_mean', None)
        self.norm = BatchNorm(stop - start, device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """The running means at their start; the batch normalisation has a method of its own."""
        if self.running_mean is not None:
            self.running_mean.fill_(1)

    def forward(self, scattering: Tensor, lower: Tensor) -> Tensor:
        # (B, all channels, h, w), (B, start, h, w) -> (B, stop, h, w)
        x = scattering[:, self.start:self.stop]
        if self.running_mean is not None:
            steps: Optional[Tensor] = None
            momentum: Optional[float] = None
            # Where the norm is held (its eval mode, or timm's frozen norm, which counts nothing) the mean is held too.
            if self.norm.training and hasattr(self.norm, 'num_batches_tracked'):
                steps, momentum = self.norm.num_batches_tracked, self.norm.momentum
            x = log_compression(x, self.running_mean, steps, momentum, self.log_floor)
        return torch.cat([lower, self.norm(x)], dim=1)


@torch.fx.wrap
def log_compression(x: Tensor, running_mean: Tensor, steps: Optional[Tensor], momentum: Optional[float],
                    floor: float) -> Tensor:
    """log(x / m + floor) of (B, C, h, w); m is each channel's mean in the batch while training, else the running one.

    The mean sets the scale of the compression, and no gradient flows through it.

    One node in a traced graph, or the update of the running mean would be taken for dead code.

    Args:
        steps: number of batches that the running mean has seen, or None for one that stays as it is and is used.
        momentum: as for `norms.batch_norm`.
    """
    mean = running_mean
    if steps is not None:
        mean = x.detach().mean(dim=[0, 2, 3])
        running_mean.lerp_(mean.to(running_mean.dtype), share_of_batch(steps, momentum, running_mean))
    # The smallest mean allowed only matters on blank images, whose coefficients are all zero.
    return torch.log(x.clamp(min=0) / mean.clamp(min=1e-6).reshape(1, -1, 1, 1) + floor)


class ScatteringNorm(nn.Module):
    """An OrderNorm for each order, one after the other: (B, C, h, w) -> (B, C, h, w).

    Args:
        channels: number of channels of each order, from order 0, which is a local mean and takes no logarithm.
        log_floor: as for `OrderNorm`.
    """

    def __init__(self, channels: List[int], log_floor: float = 0.1, device: Optional[torch.device] = None,
                 dtype: Optional[torch.dtype] = None) -> None:
        super().__init__()
        stops = [sum(channels[:i + 1]) for i in range(len(channels))]
        self.orders = nn.ModuleList(
            OrderNorm(stop - c, stop, log_floor if order > 0 else 0., device, dtype)
            for order, (c, stop) in enumerate(zip(channels, stops)))

    def forward(self, scattering: Tensor) -> Tensor:
        features = scattering[:, :0]
        for order in self.orders:
            features = order(scattering, features)              # (B, channels of the orders so far, h, w)
        return features


class FlatPool(nn.Module):
    """Average pooling to a fixed grid, then flatten: (B, C, h, w) -> (B, C * rows * columns). At that grid, flatten."""
    pool_type = 'flat'

    def __init__(self, grid: Tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid

    def feat_mult(self) -> int:
        return self.grid[0] * self.grid[1]

    def forward(self, x: Tensor) -> Tensor:
        return pool_to(x, self.grid).flatten(1)


@torch.fx.wrap
def pool_to(x: Tensor, grid: Tuple[int, int]) -> Tensor:
    """(B, C, h, w) -> (B, C, rows, columns) by averages."""
    if not torch.jit.is_scripting():
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return _pool_in_a_graph(x, grid)
    # Where there is nothing to average, adaptive pooling would still take a tenth of a training step.
    if x.shape[2] == grid[0] and x.shape[3] == grid[1]:
        return x
    return F.adaptive_avg_pool2d(x, grid)


def _pool_in_a_graph(x: Tensor, grid: Tuple[int, int]) -> Tensor:
    """The same as matrix products: of adaptive pooling, torch compiles a graph for each size, and exports not all.

    A trace keeps its size, as its scattering does, which refuses images of another.
    """
    sides = engine.sizes(x)[2:]
    if statically_known_true(sides[0] == grid[0]) and statically_known_true(sides[1] == grid[1]):
        return x
    with engine.outside_graph() if engine.recording() else contextlib.nullcontext():
        rows, columns = (_averages(cells, side, x) for cells, side in zip(grid, sides))
    return rows @ x @ columns.t()


def _averages(cells: int, side: int, like: Tensor) -> Tensor:
    """Matrix (cells, side) of averages, in as many cells, whose first and last samples they may share."""
    cell = torch.arange(cells, device=like.device).unsqueeze(1)
    sample = torch.arange(side, device=like.device)
    first, stop = cell * side // cells, ((cell + 1) * side + cells - 1) // cells
    return ((sample >= first) & (sample < stop)).to(like.dtype) / (stop - first).to(like.dtype)


class MeanStdPool(nn.Module):
    """Mean and standard deviation of each map: (B, C, h, w) -> (B, 2 C), means first."""
    pool_type = 'avgstd'

    def feat_mult(self) -> int:
        return 2

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean([2, 3], keepdim=True)
        variance = (x - mean).square().mean([2, 3])
        # Of a map that is the same everywhere the root has no derivative: there it is next to 0, and passes none.
        return torch.cat([mean.flatten(1), variance.clamp(min=1e-8).sqrt()], dim=1)


class ScatteringHead(nn.Module):
    """Pooling, a hidden layer if wanted, dropout, linear classifier; timm's heads, with two more pool types.

    Args:
        in_features: channels of the feature map.
        num_classes: 0 for no classifier.
        pool_type: 'flat', 'avgstd' (mean and standard deviation), or one of timm's ('avg', 'max', 'avgmax',
            'catavgmax', ...), or '' for none.
        grid: (rows, columns) that 'flat' pools to.
        hidden_size: width of a hidden layer with GELU, 0 for none. Without pooling there is none.
        drop_rate: dropout before the hidden layer and before the classifier.
    """

    def __init__(self, in_features: int, num_classes: int, pool_type: str, grid: Tuple[int, int],
                 hidden_size: int = 0, drop_rate: float = 0., device: Optional[torch.device] = None,
                 dtype: Optional[torch.dtype] = None) -> None:
        super().__init__()
        self.grid = grid
        self.hidden_size = hidden_size
        self.drop = nn.Dropout(drop_rate)
        self._pool(in_features, pool_type)
        self._hidden(device, dtype)
        self._classifier(num_classes, device, dtype)

    def _pool(self, in_features: int, pool_type: str) -> None:
        if not isinstance(pool_type, str):
            raise TypeError(f'global_pool must be the name of a pool, got {brief(repr(pool_type), 60)}')
        if pool_type == 'flat':
            self.global_pool: Union[FlatPool, MeanStdPool, SelectAdaptivePool2d] = FlatPool(self.grid)
        elif pool_type == MeanStdPool.pool_type:
            self.global_pool = MeanStdPool()
        else:
            try:
                self.global_pool = SelectAdaptivePool2d(pool_type=pool_type, flatten=bool(pool_type))
            except AssertionError:
                raise ValueError(f'unknown global_pool {brief(repr(pool_type), 60)}; '
                                 f'{nearest(pool_type, ("flat", "avgstd", "avg", "max", "avgmax", "catavgmax"))}'
                                 ) from None
        self.pooled_features = in_features * self.global_pool.feat_mult()

    def _hidden(self, device: Optional[torch.device], dtype: Optional[torch.dtype]) -> None:
        self.pre_logits: nn.Module = nn.Identity()
        self.num_features = self.pooled_features                # width before the classifier
        if self.hidden_size and self.global_pool.pool_type:
            fc = nn.Linear(self.pooled_features, self.hidden_size, device=device, dtype=dtype)
            self.pre_logits = nn.Sequential(OrderedDict(drop=nn.Dropout(self.drop.p), fc=fc, act=nn.GELU()))
            self.num_features = self.hidden_size

    def _classifier(self, num_classes: int, device: Optional[torch.device], dtype: Optional[torch.dtype]) -> None:
        self.fc: nn.Module = nn.Identity()
        if num_classes > 0:
            self.fc = nn.Linear(self.num_features, num_classes, device=device, dtype=dtype)

    def reset(self, in_features: int, num_classes: int, pool_type: Optional[str] = None, reset_other: bool = False,
              device: Optional[torch.device] = None, dtype: Optional[torch.dtype] = None) -> None:
        """A new classifier; and where given, another pool type, with a new hidden layer if its width changes.

        Args:
            reset_other: leave the hidden layer out from now on.
        """
        if reset_other:
            self.hidden_size = 0
        before = self.pooled_features, bool(self.global_pool.pool_type)
        self._pool(in_features, self.global_pool.pool_type if pool_type is None else pool_type)
        if reset_other or before != (self.pooled_features, bool(self.global_pool.pool_type)):
            self._hidden(device, dtype)
        self._classifier(num_classes, device, dtype)
        self.train(self.training)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.drop(self.pre_logits(self.global_pool(x)))
        return x if pre_logits else self.fc(x)
