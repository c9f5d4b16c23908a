"""Closed forms, in float64, of the Morlet wavelets and the Gaussian low-pass of 2-D scattering, in Fourier.

With d = (cos theta, sin theta) a direction (first coordinate: rows), a Gabor filter in space is

    g(u) = exp(-((u.d)^2 + slant^2 (u.d_perp)^2) / (2 sigma^2)) exp(i xi u.d) / (2 pi sigma^2 / slant),

so its Fourier transform is the real Gaussian exp(-sigma^2 / 2 (((w.d) - xi)^2 + (w.d_perp)^2 / slant^2)). Sampling in
space sums that over all frequencies w + 2 pi n. A Morlet wavelet is a Gabor filter minus the multiple of its own
envelope (xi = 0) that makes its mean zero (Bruna and Mallat, Invariant Scattering Convolution Networks, 2013).

Everything here compiles with TorchScript, since a scripted model rebuilds its bank for an unforeseen image size.
"""
import math
from typing import List, NamedTuple, Tuple

import torch
from torch import Tensor


class Wavelet(NamedTuple):
    """A Morlet wavelet in numbers for people.

    j and t are its scale and orientation index, `angle` that of its wave vector, in degrees from the image's row axis
    (downwards) to its columns, within (-180, 180]; `wavelength` = 2 pi / xi and `scale` = sigma are in pixels.
    """
    j: int
    t: int
    angle: float
    wavelength: float
    scale: float
    slant: float


class Numbers(NamedTuple):
    """What wavelets are computed from, each a tensor of one shape; or offsets of these, see `parametric`.

    theta: orientations of the wave vectors, in radians from the rows' axis to the columns'.
    xi: central frequencies, in radians per pixel.
    sigma: standard deviations of the envelopes along theta, in pixels.
    slant: ratios of an envelope's width along theta to that across it.
    """
    theta: Tensor
    xi: Tensor
    sigma: Tensor
    slant: Tensor


def gabor_hat(size: Tuple[int, int], theta: float, xi: float, sigma: float, slant: float,
              device: torch.device) -> Tensor:
    """Fourier transform of a Gabor filter sampled on Z^2, at the frequencies of an FFT of this size.

    Args:
        size: (M, N), number of frequencies along rows and columns.
        theta, xi, sigma, slant: as in `Numbers`.

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


def morlet_hat(size: Tuple[int, int], theta: float, xi: float, sigma: float, slant: float,
               device: torch.device) -> Tensor:
    """Fourier transform of a Morlet wavelet, zero at the zero frequency; arguments and result as for `gabor_hat`."""
    gabor = gabor_hat(size, theta, xi, sigma, slant, device)
    envelope = gabor_hat(size, theta, 0.0, sigma, slant, device)
    return gabor - gabor[0, 0] / envelope[0, 0] * envelope


def gabors(size: Tuple[int, int], numbers: Numbers, aliases: int) -> Tensor:
    """Fourier transforms of many Gabor filters at once, with exact gradients to all their parameters.

    Each Gaussian is summed over its 2 aliases + 1 nearest periods along rows and along columns, so that everything
    within (2 aliases + 1) pi of its centre counts.

    Args:
        size: (M, N), number of frequencies along rows and columns.
        numbers: float64 tensors (K,).
        aliases: number of periods at either side.

    Returns:
        Real float64 tensor (K, M, N), zero frequency first.
    """
    kymatio_pi = 3.1415                                                     # see gabor_hat
    theta, xi, sigma, slant = numbers
    cos, sin = torch.cos(theta), torch.sin(theta)
    across = (sigma / slant).square()
    along = sigma.square()
    p_row = along * cos.square() + across * sin.square()                    # precision matrix, as in gabor_hat
    p_col = along * sin.square() + across * cos.square()
    p_mix = (along - across) * cos * sin
    row = _periods(size[0], xi * cos, aliases)                              # (K, periods * M)
    col = _periods(size[1], xi * sin, aliases)                              # (K, periods * N)
    # The quadratic form as a product of matrices: its gradient needs no tensor of the size of the result.
    left = torch.stack([-0.5 * p_row.unsqueeze(1) * row.square(), -p_mix.unsqueeze(1) * row, torch.ones_like(row)], 2)
    right = torch.stack([torch.ones_like(col), col, -0.5 * p_col.unsqueeze(1) * col.square()], 1)
    values = torch.bmm(left, right).exp()                                   # (K, periods * M, periods * N)
    periods = 2 * aliases + 1
    return values.reshape(-1, periods, size[0], periods, size[1]).sum([1, 3]) * (math.pi / kymatio_pi)


def _periods(size: int, centre: Tensor, aliases: int) -> Tensor:
    """Offsets (K, periods * size) of the FFT's frequencies from centres (K,), in the periods nearest to each centre."""
    w = torch.arange(size, dtype=centre.dtype, device=centre.device) * (2 * math.pi / size)
    nearest = torch.remainder(w - centre.unsqueeze(1) + math.pi, 2 * math.pi) - math.pi         # (K, size)
    shift = torch.arange(-aliases, aliases + 1, dtype=centre.dtype, device=centre.device) * (2 * math.pi)
    return (shift.unsqueeze(1) + nearest.unsqueeze(1)).flatten(1)


def morlets(size: Tuple[int, int], numbers: Numbers, aliases: int) -> Tensor:
    """Morlet wavelets (K, M, N), each exactly zero at the zero frequency; arguments as for `gabors`."""
    theta, xi, sigma, slant = numbers
    both = Numbers(torch.cat([theta, theta]), torch.cat([xi, torch.zeros_like(xi)]), torch.cat([sigma, sigma]),
                   torch.cat([slant, slant]))
    hats = gabors(size, both, aliases)
    gabor, envelope = hats[:len(xi)], hats[len(xi):]
    return gabor - gabor[:, :1, :1] * (envelope / envelope[:, :1, :1])


def lowpasses(size: Tuple[int, int], widths: Tensor, aliases: int) -> Tensor:
    """Gaussians of these standard deviations in pixels, (K,), as low-pass filters (K, M, N); aliases as for `gabors`.
    """
    zero = torch.zeros_like(widths)
    return gabors(size, Numbers(zero, zero, widths, torch.ones_like(widths)), aliases)


def lowpass_width(scale: int) -> float:
    """Standard deviation in pixels of the low-pass of scale 2^scale."""
    return 0.8 * 2.0 ** (scale - 1)


def narrowest(L: int) -> float:
    """The least width in pixels, along the wave or across, of the wavelets that this package learns.

    Half a pixel, below which the shape is lost between the samples; less where the tight frame itself is as narrow.
    """
    return min(0.5, L / 8)


def aliases(L: int) -> int:
    """Periods at either side that `gabors` needs for such wavelets: what is left out is below 2e-5 at the narrowest.

    For L >= 4 it is one, which leaves less than 1e-12 out of the tight frame.
    """
    return math.ceil(0.75 / narrowest(L) - 0.5)


def tight_wavelet(j: int, t: int, L: int) -> Tuple[float, float, float, float]:
    """theta, xi, sigma and slant of a wavelet of kymatio's tight frame."""
    return (int(L - L / 2 - 1) - t) * math.pi / L, 0.75 * math.pi / 2.0 ** j, 0.8 * 2.0 ** j, 4.0 / L


def tight_frame(J: int, L: int, device: torch.device) -> Numbers:
    """The numbers of all wavelets of the tight frame, each (J, L)."""
    # Computed there: a GPU would have to be waited for to take them from here.
    theta, xi, sigma, slant = tight_wavelet(0, 0, L)
    scale = torch.exp2(torch.arange(J, dtype=torch.float64, device=device)).unsqueeze(1).expand(J, L)
    turn = torch.arange(L, dtype=torch.float64, device=device) * (math.pi / L)
    return Numbers((theta - turn).expand(J, L), xi / scale, sigma * scale, slant * torch.ones_like(scale))


def random_wavelets(J: int, L: int) -> Numbers:
    """Wavelets drawn at random, each number (J, L), by torch's global generator.

    The distribution is that of Gauthier et al. (Parametric Scattering Networks, CVPR 2022), the same at every scale.
    """
    u = torch.rand(4, J, L, dtype=torch.float64)
    sigma = torch.log(math.exp(1) + (math.exp(5) - math.exp(1)) * u[0])
    return Numbers(2 * math.pi * u[1], 0.5 + 0.5 * u[2], sigma, 0.5 + u[3])


def describe(numbers: Numbers) -> List[Wavelet]:
    """Wavelets with these numbers, each a tensor (J, L), for people."""
    theta, xi, sigma, slant = numbers
    angle = 180 - torch.remainder(180 - torch.rad2deg(theta), 360)
    rows = torch.stack([angle, 2 * math.pi / xi, sigma, slant], dim=-1).tolist()
    return [Wavelet(j, t, *values) for j, row in enumerate(rows) for t, values in enumerate(row)]


def filter_bank(size: Tuple[int, int], scales: List[int], L: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The low-pass filters and the J * L wavelets of kymatio's tight frame, at full resolution, in Fourier.

    kymatio cuts each filter off after two image widths. That shows, by up to 1e-4 of a filter, only for L > 12 with
    2^J close to the image size; elsewhere its filters and these agree to float32 precision.

    Args:
        size: (M, N), the padded image size.
        scales: log-2 of the scales of the low-passes, in descending order from J.
        L: number of orientations.
        dtype: type of the result; each filter is computed in float64.

    Returns:
        Real tensor (scales + J * L, M, N): phi by scale, then psi by scale j and orientation index.
    """
    # MPS has no float64.
    born = torch.device('cpu') if device.type == 'mps' else device
    J, low = scales[0], len(scales)
    bank = torch.empty(low + J * L, size[0], size[1], dtype=dtype, device=device)
    for i, scale in enumerate(scales):
        bank[i] = gabor_hat(size, 0.0, 0.0, lowpass_width(scale), 1.0, born)
    for j in range(J):
        for t in range(L):
            theta, xi, sigma, slant = tight_wavelet(j, t, L)
            bank[low + j * L + t] = morlet_hat(size, theta, xi, sigma, slant, born)
    return bank
