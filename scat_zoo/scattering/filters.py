"""What a bank hands over to the transform, and how filters get to other resolutions and to other image sizes."""
import math
from typing import List, NamedTuple, Tuple

import torch
from torch import Tensor

from . import geometry


class Filters(NamedTuple):
    """Real filters in Fourier, zero frequency first, for padded images (M, N); level l works at resolution 2^-l.

    `phi[scale][level]`: low-passes (M / 2^l, N / 2^l), the scales in descending order from J.
    `psi[j][level]`: wavelets of scale j in all orientations, (L, M / 2^l, N / 2^l).

    The levels are those that are read: see `geometry.levels`.
    """
    phi: List[List[Tensor]]
    psi: List[List[Tensor]]


def copied(filters: Filters) -> Filters:
    """Copies: fixed filters are shared with other models, learned ones are the parameters themselves."""
    return Filters([[hat.clone() for hat in levels] for levels in filters.phi],
                   [[hat.clone() for hat in levels] for levels in filters.psi])


def from_finest(phi: Tensor, psi: Tensor, scales: List[int], L: int, max_order: int) -> Filters:
    """Filters whose coarser levels are the crops of the finest: phi (scales, M, N), psi (J * L, M, N)."""
    of_phi, of_psi = geometry.levels(scales, max_order)
    low_passes: List[List[Tensor]] = []
    for hat, levels in zip(phi, of_phi):
        low_passes.append([crop(hat, level) for level in range(levels)])
    wavelets: List[List[Tensor]] = []
    for hat, levels in zip(psi.split(L), of_psi):
        wavelets.append([crop(hat, level) for level in range(levels)])
    return Filters(low_passes, wavelets)


def crop(hat: Tensor, level: int) -> Tensor:
    """The low frequencies that are left at resolution 2^-level: (..., M, N) -> (..., M / 2^level, N / 2^level)."""
    if level == 0:
        return hat
    M, N = hat.shape[-2] >> level, hat.shape[-1] >> level
    rows = torch.cat([hat[..., :M // 2, :], hat[..., hat.shape[-2] - M // 2:, :]], dim=-2)
    return torch.cat([rows[..., :N // 2], rows[..., rows.shape[-1] - N // 2:]], dim=-1)


def resample(hat: Tensor, M: int, N: int) -> Tensor:
    """The Fourier transform of filters (..., m, n) at the frequencies of (M, N): their impulse responses as they are.

    In a larger image zeros surround a response; in a smaller one it overlaps itself, as the convolution with it does
    there. Either way its sum stays, so that wavelets keep a mean of zero. Larger and back gives the same again.
    """
    # In float64, which autocast leaves alone; MPS has none.
    precise = hat if hat.device.type == 'mps' else hat.double()
    rows = _interpolation(hat.shape[-2], M).to(precise)
    cols = _interpolation(hat.shape[-1], N).to(precise)
    return torch.matmul(torch.matmul(rows, precise), cols.t()).to(hat.dtype)


def resample_levels(levels: List[Tensor], M: int, N: int) -> List[Tensor]:
    """One filter, or those of one scale, at all levels, for another padded size; the finest becomes (..., M, N).

    Of a coarser one, what differs from the crop of the finest is resampled, and the rest cropped again: a crop ends at
    the coarse grid's Nyquist frequency, and its response is long.
    """
    moved: List[Tensor] = []
    for level, hat in enumerate(levels):
        if level == 0:
            moved.append(resample(hat, M, N))
        else:
            moved.append(crop(moved[0], level) + resample(hat - crop(levels[0], level), M >> level, N >> level))
    return moved


def _interpolation(before: int, after: int) -> Tensor:
    """Matrix (after, before), float64, of trigonometric interpolation between the frequencies of two FFTs.

    An even length's sample at half the length is shared between both ends of the response.
    """
    n = torch.arange(before // 2 + 1, dtype=torch.float64)                  # places in the response, and their weights
    weight = (2 - ((n == 0) | (2 * n == before)).double()) / before
    old = torch.outer(torch.arange(before, dtype=torch.float64), n).remainder(before) * (2 * math.pi / before)
    new = torch.outer(torch.arange(after, dtype=torch.float64), n).remainder(after) * (2 * math.pi / after)
    return torch.cat([new.cos() * weight, new.sin() * weight], 1) @ torch.cat([old.cos(), old.sin()], 1).t()


def padded_size(x: Tensor, J: int, border: int = 1) -> Tuple[int, int]:
    """The padded size of images x (..., H, W), which must be large enough."""
    height, width = x.shape[-2], x.shape[-1]
    if (1 << J) > height or (1 << J) > width:
        raise RuntimeError(f'The smallest dimension should be larger than 2^J. (2^J is {1 << J}, the image '
                           f'({height},{width}))')
    return geometry.padded_size(height, width, J, border)
