"""The scattering transform in plain torch operations, from an image and its filters.

This is the reference: TorchScript, export and tests use it, and whatever is faster must equal it. It knows filters,
not where they come from. Spectra are kept as real tensors with a last axis (real, imaginary), because products of
complex tensors with real ones neither script nor export to ONNX.
"""
import math
from typing import List, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from . import geometry
from .filters import Filters


def reference(x: Tensor, filters: Filters, scales: List[int], max_order: int, pre_pad: bool = False,
              border: int = 1) -> List[Tensor]:
    """Scattering coefficients of a batch of images (Bruna and Mallat 2013; equal to kymatio 0.3.0's).

    Half precision is computed in float32 and rounded at the end.

    Args:
        x: images (..., H, W), or padded images (..., M, N) with `pre_pad`.
        filters: as a bank gives them.
        scales: log-2 of the scale of each low-pass, in descending order. The first is the J of padding and wavelets.
        max_order: 0, 1 or 2.
        pre_pad: whether x is padded already.
        border: cells of 2^J pixels on each side of the padded image that are padding, and left out of the results; 0
            for images that are periodic, and so need none.

    Returns:
        For each scale s, (..., its paths, 2^(J - s) (H // 2^J), 2^(J - s) (W // 2^J)), the samples within the cells of
        the coarse grid, whose first ones are its own; paths ordered as in `geometry.paths`.

    Raises:
        RuntimeError: if x is not real floating point, or its padded size is not that of the filters.
    """
    finest = filters.phi[0][0]
    check(x, finest, scales[0], pre_pad, border)
    M, N = finest.shape[-2], finest.shape[-1]
    batch = x.shape[:-2]
    count = 1
    for n in batch:
        count *= n
    dtype = x.dtype
    x = x.reshape([count, x.shape[-2], x.shape[-1]])               # (B, H, W)
    if dtype == torch.float16 or dtype == torch.bfloat16:
        x = x.float()
    if count == 0:                                                  # an FFT refuses an empty batch
        x = torch.cat([x, torch.zeros([1, x.shape[1], x.shape[2]], dtype=x.dtype, device=x.device)])
    if not pre_pad and border > 0:
        x = pad(x, M, N)
    results: List[Tensor] = []
    for s in _cascade(x, filters, scales, max_order, border):      # (B, paths, h, w)
        results.append(s[:count].reshape(batch + s.shape[1:]).to(dtype))
    return results


def check_dtype(x: Tensor) -> None:
    """Refuse images that are no floats."""
    if x.is_complex():
        raise RuntimeError(f'expected real images, got {x.dtype}: take x.abs(), or x.real and x.imag as two channels')
    if not x.is_floating_point():
        raise RuntimeError(f'expected floating-point images, got {x.dtype}: convert them, for example x.float() / 255')


def check(x: Tensor, phi: Tensor, J: int, pre_pad: bool, border: int) -> None:
    """Refuse images that are no floats, or of another padded size than the filters."""
    check_dtype(x)
    height, width = x.shape[-2], x.shape[-1]
    M, N = phi.shape[-2], phi.shape[-1]
    padded = (height, width) if pre_pad or border == 0 else geometry.padded_size(height, width, J, border)
    if padded[0] != M or padded[1] != N:
        raise RuntimeError(
            f'these filters are for images that are padded to {(M, N)}, and an image of {(height, width)} is padded to '
            f'{padded}: build them for that size')


def _cascade(x: Tensor, filters: Filters, scales: List[int], max_order: int, border: int) -> List[Tensor]:
    """Padded images (B, M, N) -> coefficients (B, paths, h, w) of each scale."""
    phi, psi = filters
    J = scales[0]
    U0 = _fft(x)                                                            # (B, M, N, 2)
    zeroth = _lowpasses(U0.unsqueeze(1), phi, scales, 0, border)            # (B, 1, h, w) of each scale
    first: List[List[Tensor]] = []
    second: List[List[Tensor]] = []
    if max_order >= 1:
        for j1 in range(J):
            U1 = _fft(_wavelet_modulus(U0.unsqueeze(1), psi[j1][0], j1))    # (B, L, M / 2^j1, N / 2^j1, 2)
            first.append(_lowpasses(U1, phi, scales, j1, border))           # (B, L, h, w)
            if max_order >= 2:
                for t1 in range(U1.shape[1]):
                    for j2 in range(j1 + 1, J):
                        U2 = _wavelet_modulus(U1[:, t1:t1 + 1], psi[j2][j1], j2 - j1)
                        second.append(_lowpasses(_fft(U2), phi, scales, j2, border))    # (B, L, h, w)
    results: List[Tensor] = []
    for i in range(len(scales)):
        parts = [zeroth[i]]
        for maps in first + second:
            if i < len(maps):
                parts.append(maps[i])
        results.append(torch.cat(parts, dim=1))
    return results


def pad(x: Tensor, M: int, N: int) -> Tensor:
    """Reflect images (B, H, W) to (B, M, N), the extra pixel of an odd difference at the bottom and right."""
    height, width = x.shape[-2], x.shape[-1]
    top, left = (M - height) // 2, (N - width) // 2
    bottom, right = M - height - top, N - width - left
    # Torch reflects by less than the image size; where the padding equals it, the last row or column is added by hand.
    full_rows, full_cols = int(top == height), int(left == width)
    margins = [left - full_cols, right - full_cols, top - full_rows, bottom - full_rows]
    x = F.pad(x.unsqueeze(1), margins, mode='reflect').squeeze(1)
    if full_rows:
        x = torch.cat([x[:, 1:2], x, x[:, -2:-1]], dim=1)
    if full_cols:
        x = torch.cat([x[:, :, 1:2], x, x[:, :, -2:-1]], dim=2)
    return x


def _wavelet_modulus(spectrum: Tensor, psi: Tensor, octaves: int) -> Tensor:
    """|x * psi| sampled every s = 2^octaves pixels: (B, 1, M, N, 2) and (L, M, N) -> (B, L, M / s, N / s)."""
    return modulus(_ifft(fold(filtered(spectrum, psi), octaves)))


def _lowpasses(spectrum: Tensor, phi: List[List[Tensor]], scales: List[int], level: int, border: int) -> List[Tensor]:
    """Low-passed at each scale above the level, sampled, without the padding: (..., M, N, 2) -> (..., h, w)."""
    results: List[Tensor] = []
    for i, scale in enumerate(scales):
        if scale > level:
            low = _ifft(fold(filtered(spectrum, phi[i][level]), scale - level))
            margin = border << (scales[0] - scale)
            results.append(low[..., margin:low.shape[-3] - margin, margin:low.shape[-2] - margin, 0])
    return results


def filtered(spectrum: Tensor, hat: Tensor) -> Tensor:
    """Multiply a spectrum (..., M, N, 2) by real filters (..., M, N)."""
    # Filter values doubled in memory: broadcast along an axis of two, the product would take five times as long.
    return spectrum * torch.stack([hat, hat], dim=-1)


def fold(spectrum: Tensor, octaves: int) -> Tensor:
    """Sample every 2^octaves pixels, in Fourier: the mean of the aliases. (..., M, N, 2) -> (..., M / s, N / s, 2)."""
    if octaves == 0:
        return spectrum
    step = 1 << octaves
    M, N = spectrum.shape[-3], spectrum.shape[-2]
    # One axis at a time: a mean over two axes at once takes eight times as long.
    return spectrum.unflatten(-3, [step, M // step]).mean(-4).unflatten(-2, [step, N // step]).mean(-3)


def modulus(z: Tensor) -> Tensor:
    """|z| of pairs (..., 2), with all derivatives 0 where z = 0."""
    largest = z.detach().abs().amax(-1)
    zero = largest == 0
    size = largest.masked_fill(zero, 1.0)                       # squares of tiny and of huge numbers are none
    shares = z / size.unsqueeze(-1)
    square = shares[..., 0] * shares[..., 0] + shares[..., 1] * shares[..., 1]
    return square.masked_fill(zero, 1.0).sqrt() * size.masked_fill(zero, 0.0)


def _fft(x: Tensor) -> Tensor:
    """Real (..., M, N) -> (..., M, N, 2)."""
    if _in_a_graph():
        return _dft(torch.stack([x, torch.zeros_like(x)], dim=-1), -1.0)
    return torch.view_as_real(torch.fft.fft2(x))


def _ifft(spectrum: Tensor) -> Tensor:
    """(..., M, N, 2) -> (..., M, N, 2)."""
    if _in_a_graph():
        return _dft(spectrum, 1.0) / (spectrum.shape[-3] * spectrum.shape[-2])
    return torch.view_as_real(torch.fft.ifft2(torch.view_as_complex(spectrum)))


def _in_a_graph() -> bool:
    """Whether a graph is recorded that others may run: they have FFTs and complex numbers slow, or not at all.

    Not TorchScript, which torch runs, and where an FFT is faster.
    """
    if not torch.jit.is_scripting():
        return torch.jit.is_tracing() or torch.compiler.is_exporting()
    return False


def _dft(z: Tensor, sign: float) -> Tensor:
    """Sums over both axes of z times exp(sign 2 pi i k n / N), (..., M, N, 2) -> (..., M, N, 2), in real products."""
    cos, sin = _waves(z.shape[-2], z)
    real, imag = torch.matmul(z[..., 0], cos), torch.matmul(z[..., 1], cos)
    re = real - sign * torch.matmul(z[..., 1], sin)
    im = imag + sign * torch.matmul(z[..., 0], sin)
    cos, sin = _waves(z.shape[-3], z)
    return torch.stack([torch.matmul(cos, re) - sign * torch.matmul(sin, im),
                        torch.matmul(cos, im) + sign * torch.matmul(sin, re)], dim=-1)


def _waves(n: int, like: Tensor) -> Tuple[Tensor, Tensor]:
    """Matrices (n, n) of cos and sin(2 pi k y / n)."""
    k = torch.arange(n, device=like.device)
    # Turns left out in whole numbers: a float would lose the phase.
    phase = torch.outer(k, k).remainder(n).to(like.dtype) * (2 * math.pi / n)
    return torch.cos(phase), torch.sin(phase)
