"""What speaks for a class in an image: each scattering path's share in the logit, and where in the image it lies.

The logit l_c counts relative to its mean over all classes, and a normalised coefficient z has the share
z d(l_c - mean l) / dz: gradient times input (Shrikumar, Greenside, Shcherbina and Kundaje, Not Just a Black Box, 2016,
arXiv:1605.01713). z is about 0 in an average training image. Where nothing but a pool stands between z and one linear
layer, l is homogeneous of degree 1 in z but for the biases, and shares add up to it by Euler's theorem: then a path's
share is weight times normalised feature, exactly. Elsewhere it is an estimate of first order.
"""
from typing import Any, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor, nn

from ..models.heads import MeanStdPool
from ..models.model import ScatteringModel
from ..models.scat_linear import ScatLinear
from ..models.stem import ScatteringStem
from ..scattering import geometry
from ..wording import brief
from .model import is_linear


class Evidence(NamedTuple):
    """What speaks for a class in an image.

    target: number of the class.
    logits: (classes,).
    coefficients: of the scattering, (channels, h, w), channels as in `ScatteringStem.channels`.
    levels: the same, normalised, before the norm's own weights: 0 in an average training image.
    shares: of each in the logit of the class relative to the mean of all, (channels, h, w).
    constant: what these add up to less than that: the bias, if they are exact.
    exact: whether they are, or else estimates of first order.
    """
    target: int
    logits: Tensor
    coefficients: Tensor
    levels: Tensor
    shares: Tensor
    constant: float
    exact: bool


def evidence(model: Any, x: Tensor, target: Optional[int] = None) -> Evidence:
    """What speaks for a class in one image (1, C, H, W), normalised as the model takes it.

    Args:
        model: one of the zoo's, in eval mode.
        target: number of the class; the likeliest unless given.

    Raises:
        ValueError: in one sentence, if the model has not one logit a class and image, or they are not finite.
    """
    if model.num_classes < 2:
        raise ValueError(f'expected a model of two classes or more, got {brief(model.num_classes, 40)}: no other would '
                         'speak against')
    norm = model.norm if isinstance(model, ScatteringModel) else model.scattering_embed.norm
    kept: List[Tensor] = []

    def keep(module: nn.Module, inputs: Tuple[Tensor], features: Tensor) -> Tensor:
        kept[:] = inputs[0].detach()[0], features.detach().requires_grad_()
        return kept[1].clone()                                  # layers behind may write into it

    unpooled = isinstance(model, ScatteringModel) and not model.head.global_pool.pool_type
    handle = norm.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            logits = x if unpooled else model(x)
    finally:
        handle.remove()
    if logits.dim() != 2:
        raise ValueError(f"expected a model with a pool, {brief(type(model).__name__, 60)} has global_pool='' and so "
                         'no logits of the image as a whole')
    logits = logits[0]
    if not logits.isfinite().all():
        raise ValueError(f"the model's output is not finite, {brief(logits.tolist(), 60)}: the image, or a weight, is "
                         'not, or is far too large')
    target = int(logits.argmax()) if target is None else target
    relative = logits[target] - logits.mean()
    slope, = torch.autograd.grad(relative, kept[1])
    shares = (kept[1].detach() * slope)[0]
    return Evidence(target, logits.detach(), kept[0], _levels(norm, kept[1].detach()[0]), shares,
                    relative.item() - shares.double().sum().item(), is_linear(model))


def _levels(norm: Any, features: Tensor) -> Tensor:
    """Normalised coefficients (channels, h, w) before the norm's own weights and biases."""
    weight, bias = (torch.cat([getattr(order.norm, name).detach() for order in norm.orders])[:, None, None]
                    for name in ('weight', 'bias'))
    return (features - bias) / torch.where(weight == 0, 1, weight)


def paths_of(stem: ScatteringStem) -> List[geometry.Path]:
    """The paths of its largest scale, all that there are."""
    return geometry.paths(stem.J, stem.L, stem.max_order, stem.rotation)


def by_path(stem: ScatteringStem, values: Tensor, scale: Optional[int] = None) -> Tensor:
    """Sums over windows, of all scales or of one: (channels, h, w) -> (paths, colours) in float64."""
    places = {path: n for n, path in enumerate(paths_of(stem))}
    channels = stem.channels
    rows = torch.tensor([places[geometry.Path(*channel[:5])] for channel in channels])
    colours = torch.tensor([channel.colour for channel in channels])
    chosen = torch.tensor([scale in (None, channel.scale) for channel in channels])
    sums = values.double().sum((1, 2))
    return torch.zeros(len(places), stem.colours, dtype=torch.float64).index_put_(
        (rows[chosen], colours[chosen]), sums[chosen], accumulate=True)


def by_place(stem: ScatteringStem, values: Tensor, size: Tuple[int, int]) -> Tensor:
    """Shares summed over paths, as a density in 2^J x 2^J pixels: (channels, h, w) -> (H, W).

    Between the centres of the windows of a scale it changes evenly, and beyond the outer ones it stays. So windows that
    all have one share give an even map. Shared out among the pixels nearest to it, a window at the border, whose
    centre may be the first pixel, would be a small cell in a strong colour, whatever is there.
    """
    total = torch.zeros(size, dtype=torch.float64)
    for scale in stem.scales:
        of_scale = [n for n, channel in enumerate(stem.channels) if channel.scale == scale]
        cell = 1 << (stem.J - scale)
        maps = values[of_scale].double().unflatten(0, (-1, cell, cell, stem.colours)).sum((0, 3))  # (dy, dx, h, w)
        windows = maps.permute(2, 0, 3, 1).flatten(2).flatten(0, 1)
        rows, columns = (_weights(side, count, stem.J, scale, stem.rotation)
                         for side, count in zip(size, windows.shape))
        total += cell ** 2 * (rows @ windows @ columns.t())
    return total


def _weights(side: int, count: int, J: int, scale: int, rotation: Optional[str]) -> Tensor:
    """How much each of so many windows along an axis counts at each pixel: (side, count) in float64, rows of sum 1."""
    padded, _ = geometry.padded_size(side, side, J)
    step, first = 1 << scale, float((1 << J) - (padded - side) // 2)
    if rotation is not None:                                    # see `rotation.cells`
        first = (1 << J) - padded / 2 + (side - 1 + step) / 2
    places = ((torch.arange(side, dtype=torch.float64) - first) / step).clamp(0, count - 1)
    return (1 - (places[:, None] - torch.arange(count)).abs()).clamp(min=0)


def keeps_places(model: Any, shares: Tensor) -> bool:
    """Whether shares tell places: not if there is one window, or the head sees standard deviations over all."""
    of_deviations = isinstance(model, ScatLinear) and isinstance(model.head.global_pool, MeanStdPool)
    return not of_deviations and (shares.shape[1:].numel() > 1 or len(model.scattering.scales) > 1)
