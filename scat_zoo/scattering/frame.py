"""What a filter bank guarantees: its Littlewood-Paley bounds, and the Lipschitz constant that follows from them.

Let W_l be the linear operator that the cascade applies at level l (resolution 2^-l) to a real signal u: convolution
with every filter that is read there, the low-passes phi of all scales s > l (one, unless several scales are asked for)
and the wavelets `psi[j][l]` (all scales at level 0, j > l at level l). By Parseval, as |u^(w)| = |u^(-w)| for real u,

    |W_l u|^2 = mean over w of |u^(w)|^2 LP_l(w),
    LP_l(w) = sum over phi of |phi(w)|^2 + 1/2 sum over psi of |psi(w)|^2 + |psi(-w)|^2,

with w the frequencies of the level's own grid: -w is taken modulo its length, and so a level's Nyquist frequency is its
own mirror image, which it is not on a finer grid. Let B = max over l and w of LP_l(w), b = max(B, 1). Then, for two
padded images whose difference is d, and norms that are plain sums of squares over all samples:

 1. |W_0 d|^2 <= B |d|^2: order 0 before sampling, and every x * psi.
 2. The modulus brings no two complex numbers further apart, and sampling every k-th pixel drops samples, so neither
    increases a distance, however badly a filter is band-limited. (That holds for plain sums. Weighted with the area k^2
    of a sample they would only be bounded for band-limited signals.) Cropping the padding drops samples too.
 3. The images of level j1, |x * psi| sampled, are real, so 1 and 2 apply to each of them with W_j1: its coefficients
    of order 1, at all scales, and its images of the next layer together are at most b times as far apart as it is. A
    last low-pass by phi[j2], again of all scales s > j2, gives order 2, and costs at most another b.

With S0, D the squared distances of order 0 and of the first layer's images, S0 + D <= B |d|^2 by 1, and orders 1 and 2
together are at most b^2 D. So the squared distance of all coefficients is at most S0 + b^2 D <= B b^2 |d|^2: they are
sqrt(B b^max_order)-Lipschitz in the padded image, and 1-Lipschitz if B <= 1. The bound is not attained: sampling every
2^J pixels keeps about 2^-J of the norm of what the last low-pass leaves, and so does the greatest ratio one can find.

At the zero frequency the tight frame's low-passes are about 1, so for k scales B is about k at least. Divided by
sqrt(k), together they weigh what one does.
"""
import math
from typing import List, Tuple

import torch
from torch import Tensor

from .filters import Filters


def littlewood_paley(filters: Filters) -> List[Tensor]:
    """The Littlewood-Paley sum LP_l at every level on which filters are read: tensors (M / 2^l, N / 2^l)."""
    sums: List[Tensor] = []
    for level, hat in enumerate(filters.phi[0]):                            # the coarsest scale has all levels
        power = torch.zeros_like(hat)
        for wavelets in filters.psi:
            if level < len(wavelets):
                power = power + wavelets[level].square().sum(0)
        mirrored = torch.roll(torch.flip(power, [0, 1]), [1, 1], [0, 1])
        total = hat.square() + 0.5 * (power + mirrored)
        for low_passes in filters.phi[1:]:
            if level < len(low_passes):
                total = total + low_passes[level].square()
        sums.append(total)
    return sums


def upper_bound(filters: Filters) -> Tensor:
    """B, the maximum of all Littlewood-Paley sums, a differentiable scalar."""
    return torch.stack([total.amax() for total in littlewood_paley(filters)]).amax()


def frame_bounds(filters: Filters) -> Tuple[float, float]:
    """(A, B): the minimum of the Littlewood-Paley sum at level 0, and its maximum over all levels, in float64.

    A is taken where the whole bank is read: A |u|^2 <= |W_0 u|^2 <= B |u|^2. Coarser levels leave out on purpose the
    wavelets of scales j <= l, which would find next to nothing there; their sums have no minimum worth a name.
    """
    phi, psi = ([[hat.detach().double() for hat in levels] for levels in bank] for bank in filters)
    sums = littlewood_paley(Filters(phi, psi))
    return sums[0].min().item(), max(total.max().item() for total in sums)


def lipschitz_bound(B: float, max_order: int) -> float:
    """How many times further apart than two padded images all their coefficients, up to max_order, can be."""
    return math.sqrt(B * max(B, 1.0) ** max_order)
