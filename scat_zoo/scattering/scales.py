"""Several scales at once: the same paths low-passed at more than one scale, all on the grid of the coarsest.

`scales` are logarithms to base 2, in descending order from J. The coefficients of scale s are those of the transform of
scale s, whose wavelets are j < s, on the image padded as J demands. Their grid has 2^(J - s) samples along each side of
a cell of the coarse grid, the first of which is where the coefficient of scale J is.
"""
from typing import List, NamedTuple, Optional

import torch
from torch import Tensor

from . import geometry


class Group(NamedTuple):
    """What one map is: its path, the scale of its low-pass, and its row and column among the samples of a cell."""
    path: geometry.Path
    scale: int
    dy: int
    dx: int


def groups(scales: List[int], L: int, max_order: int, rotation: Optional[str] = None) -> List[Group]:
    """All maps in the order of the output: by order, scale (descending), path, dy, dx."""
    return [Group(path, scale, dy, dx)
            for order in range(max_order + 1) for scale in scales
            for path in geometry.paths(scale, L, max_order, rotation) if path.order == order
            for dy in range(1 << (scales[0] - scale)) for dx in range(1 << (scales[0] - scale))]


def path_major(coefficients: List[Tensor], scales: List[int], L: int, max_order: int,
               rotation: Optional[str] = None) -> Tensor:
    """Coefficients (B, C, paths, h', w') of each scale to (B, maps, C, H / 2^J, W / 2^J), the maps of `groups`."""
    if len(scales) == 1:
        return coefficients[0].transpose(1, 2)
    orders: List[List[Tensor]] = []                                             # of each scale
    for scale, s in zip(scales, coefficients):
        cell = 1 << (scales[0] - scale)                                         # samples along its side
        s = s.unflatten(-2, [s.shape[-2] // cell, cell]).unflatten(-1, [s.shape[-1] // cell, cell])
        s = s.permute([0, 2, 4, 6, 1, 3, 5]).flatten(1, 3)                      # (B, paths in cells, C, h, w)
        orders.append(list(s.split([cell * cell * n for n in geometry.order_counts(scale, L, max_order, rotation)], 1)))
    in_order: List[Tensor] = []
    for order in range(max_order + 1):
        for maps in orders:
            in_order.append(maps[order])
    return torch.cat(in_order, 1)
