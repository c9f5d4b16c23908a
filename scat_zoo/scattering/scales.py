"""Several scales at once: the same paths low-passed at more than one scale, all on the grid of the coarsest.

`scales` are logarithms to base 2, in descending order from J. The coefficients of scale s are those of the transform of
scale s, whose wavelets are j < s, on the image padded as J demands. Their grid has 2^(J - s) samples along each side of
a cell of the coarse grid, the first of which is where the coefficient of scale J is. A bank gives the low-passes of all
scales in one list, scale after scale and each by level, since the finest levels of all have one size.
"""
from typing import List, NamedTuple

import torch
from torch import Tensor

from . import fast, geometry


class Group(NamedTuple):
    """What one map is: its path, the scale of its low-pass, and its row and column among the samples of a cell."""
    path: geometry.Path
    scale: int
    dy: int
    dx: int


def groups(scales: List[int], L: int, max_order: int) -> List[Group]:
    """All maps in the order of the output: by order, scale (descending), path, dy, dx."""
    return [Group(path, scale, dy, dx)
            for order in range(max_order + 1) for scale in scales
            for path in geometry.paths(scale, L, max_order) if path.order == order
            for dy in range(1 << (scales[0] - scale)) for dx in range(1 << (scales[0] - scale))]


def by_scale(phi: List[Tensor]) -> List[List[Tensor]]:
    """The low-passes of each scale, by level, from those of all in one list."""
    low_passes: List[List[Tensor]] = []
    for hat in phi:
        if hat.shape == phi[0].shape:                           # the finest level, with which a scale begins
            low_passes.append([])
        low_passes[-1].append(hat)
    return low_passes


def scattering2d(x: Tensor, phi: List[Tensor], psi: List[List[Tensor]], scales: List[int], L: int,
                 max_order: int) -> Tensor:
    """Coefficients of all scales, path-major.

    Args:
        x: images (B, C, H, W).
        phi, psi: as a bank gives them; see `by_scale` and `transform.scattering2d`.
        scales: from J downwards.
        L: number of orientations.
        max_order: 0, 1 or 2.

    Returns:
        (B, maps, C, H / 2^J, W / 2^J), the maps of `groups`.
    """
    J = scales[0]
    orders: List[List[Tensor]] = []                                             # of each scale
    for scale, s in zip(scales, fast.at_scales(x, by_scale(phi), psi, scales, max_order, False)):
        k = 1 << (J - scale)                                                    # (B, C, paths, k h, k w)
        s = s.unflatten(-2, [s.shape[-2] // k, k]).unflatten(-1, [s.shape[-1] // k, k])     # (..., h, k, w, k)
        s = s.permute([0, 2, 4, 6, 1, 3, 5]).flatten(1, 3)                      # (B, paths k k, C, h, w)
        orders.append(list(s.split([k * k * n for n in geometry.order_counts(scale, L, max_order)], 1)))
    in_order: List[Tensor] = []
    for order in range(max_order + 1):
        for maps in orders:
            in_order.append(maps[order])
    return torch.cat(in_order, 1)
