"""Closed forms, in float64, of the Morlet wavelets and the Gaussian low-pass of 2-D scattering, in Fourier.

With d = (cos theta, sin theta) a direction (first coordinate: rows), a Gabor filter in space is

    g(u) = exp(-((u.d)^2 + slant^2 (u.d_perp)^2) / (2 sigma^2)) exp(i xi u.d) / (2 pi sigma^2 / slant),

so its Fourier transform is the real Gaussian exp(-sigma^2 / 2 (((w.d) - xi)^2 + (w.d_perp)^2 / slant^2)). Sampling in
space sums that over all frequencies w + 2 pi n. A Morlet wavelet is a Gabor filter minus the multiple of its own
envelope (xi = 0) that makes its mean zero (Bruna and Mallat, Invariant Scattering Convolution Networks, 2013).

Everything here compiles with TorchScript, since a scripted model rebuilds its bank for an unforeseen image size.
"""
import math
from typing import Tuple

import torch
from torch import Tensor


def gabor_hat(size: Tuple[int, int], sigma: float, theta: float, xi: float, slant: float,
              device: torch.device) -> Tensor:
    """Fourier transform of a Gabor filter sampled on Z^2, at the frequencies of an FFT of this size.

    Args:
        size: (M, N), number of frequencies along rows and columns.
        sigma: standard deviation of the envelope along theta, in pixels.
        theta: orientation, in radians.
        xi: central frequency, in radians per pixel.
        slant: ratio of the envelope's width along theta to that across it.

    Returns:
        Real float64 tensor (M, N), zero frequency first.
    """
    # kymatio 0.3.0 normalises by 2 * 3.1415 * sigma^2 / slant. With pi itself no coefficient would come closer to
    # kymatio's than 4e-5. (These are locals because TorchScript sees no module globals.)
    kymatio_pi = 3.1415
    # The Gaussian is evaluated out to exp(-cutoff) of its peak: 4e-18, below float64 precision.
    cutoff = 40.0

    cos, sin = math.cos(theta), math.sin(theta)
    p_row = sigma ** 2 * (cos ** 2 + sin ** 2 / slant ** 2)   # precision matrix of the Gaussian in frequency
    p_col = sigma ** 2 * (sin ** 2 + cos ** 2 / slant ** 2)
    p_mix = sigma ** 2 * cos * sin * (1 - 1 / slant ** 2)
    reach_row = math.sqrt(2 * cutoff * (cos ** 2 + slant ** 2 * sin ** 2)) / sigma
    reach_col = math.sqrt(2 * cutoff * (sin ** 2 + slant ** 2 * cos ** 2)) / sigma

    k, row = _frequencies(size[0], xi * cos, reach_row, device)
    n, col = _frequencies(size[1], xi * sin, reach_col, device)
    exponent = torch.outer(row, -p_mix * col)
    exponent += (-0.5 * p_row * row ** 2).unsqueeze(1)
    exponent += -0.5 * p_col * col ** 2
    values = exponent.exp_()                                    # aliases side by side
    # Sampling in space adds the aliases up.
    values = torch.zeros(size[0], len(n), dtype=torch.float64, device=device).index_add_(0, k, values)
    values = torch.zeros(size[0], size[1], dtype=torch.float64, device=device).index_add_(1, n, values)
    return values.mul_(math.pi / kymatio_pi)                                # (M, N)


def _frequencies(size: int, centre: float, reach: float, device: torch.device) -> Tuple[Tensor, Tensor]:
    """FFT bins and offsets from the centre of all frequencies 2 pi k / size, k in Z, within reach of the centre."""
    first = math.ceil((centre - reach) * size / (2 * math.pi))
    last = math.floor((centre + reach) * size / (2 * math.pi))
    k = torch.arange(first, last + 1, device=device)
    return k.remainder(size), k.to(torch.float64) * (2 * math.pi / size) - centre


def morlet_hat(size: Tuple[int, int], sigma: float, theta: float, xi: float, slant: float,
               device: torch.device) -> Tensor:
    """Fourier transform of a Morlet wavelet, zero at the zero frequency; arguments and result as for `gabor_hat`."""
    gabor = gabor_hat(size, sigma, theta, xi, slant, device)
    envelope = gabor_hat(size, sigma, theta, 0.0, slant, device)
    return gabor - gabor[0, 0] / envelope[0, 0] * envelope


def filter_bank(size: Tuple[int, int], J: int, L: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The low-pass filter and the J * L wavelets of kymatio's tight frame, at full resolution, in Fourier.

    kymatio cuts each filter off after two image widths. That shows, by up to 1e-4 of a filter, only for L > 12 with
    2^J close to the image size; elsewhere its filters and these agree to float32 precision.

    Args:
        size: (M, N), the padded image size.
        J: log-2 of the scale.
        L: number of orientations.
        dtype: type of the result; each filter is computed in float64.

    Returns:
        Real tensor (1 + J * L, M, N): phi, then psi by scale j and orientation index.
    """
    # MPS has no float64.
    born = torch.device('cpu') if device.type == 'mps' else device
    bank = torch.empty(1 + J * L, size[0], size[1], dtype=dtype, device=device)
    bank[0] = gabor_hat(size, 0.8 * 2.0 ** (J - 1), 0.0, 0.0, 1.0, born)
    for j in range(J):
        for t in range(L):
            theta = (int(L - L / 2 - 1) - t) * math.pi / L
            bank[1 + j * L + t] = morlet_hat(
                size, 0.8 * 2.0 ** j, theta, 0.75 * math.pi / 2.0 ** j, 4.0 / L, born)
    return bank
