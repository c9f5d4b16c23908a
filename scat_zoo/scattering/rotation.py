"""Averages over rotations: coefficients that turn with the image, and do not tell by how much it is turned.

Turning an image by pi / L turns the wavelets of all its paths together, and a wavelet that is turned by pi is its own
conjugate, with the same modulus. So the mean over these turns, the difference of both orientations being kept, changes
little when an image is turned by any angle, but for its edges. (L. Sifre and S. Mallat, Rotation, Scaling and
Deformation Invariant Scattering for Texture Discrimination, CVPR 2013, keep more of how paths depend on the turn.)

For quarters of a turn it is exact, if L is even and all sampling grids turn into themselves. They do about a sample of
the coarsest; an image of even side has its centre between two pixels, and kymatio's grids begin at its first. So here
the padded image is moved until its centre lies on a sample, by half a pixel, in Fourier; low-passes are sampled from
edge to edge of the image, and each cell of the result is the mean of the samples at its corners.
"""
import functools
import math
from typing import List

import torch
from torch import Tensor

from . import geometry
from .engine import exported, upstream


def centred(x: Tensor, M: int, N: int) -> Tensor:
    """Images (..., H, W) reflected to (..., M, N), their centre at (M / 2, N / 2); half precision becomes float32."""
    dtype = torch.float32 if x.dtype == torch.float16 or x.dtype == torch.bfloat16 else x.dtype
    # Products of float64 are left alone by autocast and by the switch for TF32.
    precise = x.to(dtype) if x.device.type == 'mps' or _recording() else x.double()
    rows, cols = _matrix(x.shape[-2], M, precise), _matrix(x.shape[-1], N, precise)
    return torch.matmul(torch.matmul(rows, precise), cols.t()).to(dtype)


def _recording() -> bool:
    """Whether a graph is made for others, which may have no float64."""
    if not torch.jit.is_scripting():
        return exported.recording()
    return False


def _matrix(size: int, n: int, like: Tensor) -> Tensor:
    if not torch.jit.is_scripting():
        if not torch.compiler.is_dynamo_compiling():            # which could not look into this
            with upstream.outside_graph():
                return kept(int(size), int(n), like.dtype, like.device)
    return centring(size, n).to(like)


@functools.lru_cache(maxsize=16)
def kept(size: int, n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    # No switch of gradients, which an exported program would repeat.
    with torch.inference_mode(False):
        return centring(size, n).to(device, dtype)


def centring(size: int, n: int) -> Tensor:
    """The matrix (n, size), float64, for one axis of `centred`."""
    # Twice the places, which are whole numbers or halves, from the first pixel: of the sample at n / 2, the centre.
    places = 2 * torch.arange(n) - n + size - 1
    if size % 2 == 1:
        matrix = _reflected(places // 2, size)
        # The sample opposite to the centre is as far to the left as to the right.
        matrix[0] = (matrix[0] + _reflected((places[:1] + 2 * n) // 2, size)[0]) / 2
        return matrix
    pixels = _reflected(torch.arange(n) - (n - size) // 2, size)
    # Interpolation by all frequencies but n / 2, which has no place between two samples.
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n) - 0.5
    phase = distance.to(torch.float64) * (math.pi / n)
    return torch.matmul(torch.sin(phase * (n - 1)) / (n * torch.sin(phase)), pixels)


def _reflected(places: Tensor, size: int) -> Tensor:
    """One row a place, 1 for the pixel that is there once an image of this size is reflected at its first and last."""
    period = max(2 * (size - 1), 1)
    inside = places.abs() % period
    inside = torch.minimum(inside, period - inside)
    return (inside.unsqueeze(1) == torch.arange(size)).to(torch.float64)


def cells(s: Tensor, edge: int) -> Tensor:
    """All samples (..., m, n) of a low-pass of a centred image to the cells within `edge` samples from each side."""
    for axis in (-2, -1):
        inner = s.narrow(axis, edge, s.shape[axis] - 2 * edge + 1)
        s = (inner.narrow(axis, 0, inner.shape[axis] - 1) + inner.narrow(axis, 1, inner.shape[axis] - 1)) / 2
    return s


def average(s: Tensor, J: int, L: int, max_order: int) -> Tensor:
    """Coefficients (..., paths, h, w) of scale J to those that `geometry.paths` has with rotation='average'."""
    parts = list(s.split(geometry.order_counts(J, L, max_order), -3))
    if max_order >= 1:
        parts[1] = parts[1].unflatten(-3, [J, L]).mean(-3)
    if max_order >= 2 and J > 1:
        turn = torch.arange(L, device=s.device)
        theta2 = (turn.unsqueeze(1) + turn) % L                     # (theta2 - theta1, theta1)
        places: List[Tensor] = []
        first = 0                                                   # of j1 among the paths of order 2
        for j1 in range(J - 1):
            count = J - 1 - j1
            later = torch.arange(count, device=s.device).reshape([count, 1, 1])
            places.append((first + (turn * count + later) * L + theta2).flatten())
            first += L * count * L
        parts[2] = parts[2].index_select(-3, torch.cat(places)).unflatten(-3, [first // L, L]).mean(-3)
    return torch.cat(parts, -3)
