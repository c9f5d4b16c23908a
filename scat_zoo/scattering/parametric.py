"""Banks of Morlet wavelets that are learned by a few numbers each, and follow any image size.

They compute their filters in `forward`, as a plain function of their parameters. These are offsets from kymatio's
tight frame: all zero is the fixed bank. theta is offset in radians. sigma, xi and slant are offset on a logarithmic
scale that saturates at the ends of a range, with unit slope at the tight frame, so that no finite offset leaves it:

| number | range | |
|---|---|---|
| sigma, pixels | 1/2 to max(10, 3.2 x 2^(J-1)) | |
| xi, radians per pixel | min(1/4, 0.75 pi / 2^J) to pi | at 0 nothing is left of a wavelet, above pi it is an alias |
| slant | min(1/4, 1/L) to sigma / `morlet.narrowest(L)` | this bounds the width across the wave |

The tight frame and every random start lie inside. The low-pass is analytic and fixed.
"""
import math
from typing import Any, Dict, List, Optional, Sequence, Tuple, Type

import torch
from torch import Tensor, nn

from . import frame, geometry, morlet
from .banks import PixelwiseBank, as_state, level_filters, padded_size, refuse_non_finite

NAMES = ('theta', 'xi', 'sigma', 'slant')
INITS = ('tight_frame', 'random')


class MorletBank(nn.Module):
    """Morlet wavelets, each with an orientation, frequency, width and slant of its own.

    "Canonical" in Gauthier et al. (Parametric Scattering Networks, CVPR 2022). The state dict holds the offsets
    `theta`, `xi`, `sigma` and `slant`, each (J, L), and `limit` with `nonexpansive`.

    Args:
        J: log-2 of the scale.
        L: number of orientations.
        image_size: (H, W), for the record: the filters follow the size of the images.
        max_order: highest order of scattering whose filters are given out.
        learnable: whether the offsets are parameters or buffers.
        init: 'tight_frame' or 'random'.
        nonexpansive: in every forward, divide all filters by what brings the greatest Littlewood-Paley sum down to 1
            (see `frame`). It is that of all levels, whatever max_order, and above 1: the low-pass alone has
            (pi / 3.1415)^2 at the zero frequency. Of k scales, each low-pass is divided by sqrt(k) first: together
            they then weigh what one does, and the wavelets need not make room for them.
        scales: as for `banks.FixedBank`.
    """
    theta: Tensor
    xi: Tensor
    sigma: Tensor
    slant: Tensor
    limit: Optional[Tensor]

    def __init__(self, J: int, L: int, image_size: Tuple[int, int], max_order: int = 2, learnable: bool = True,
                 init: str = 'tight_frame', device: Optional[torch.device] = None,
                 dtype: Optional[torch.dtype] = None, nonexpansive: bool = False,
                 scales: Optional[Sequence[int]] = None) -> None:
        super().__init__()
        self.J, self.L, self.image_size, self.max_order = J, L, image_size, max_order
        self.learnable, self.init, self.scales = learnable, init, geometry.check_scales(scales, J)
        for name in NAMES:
            self.register_buffer(name, torch.empty(self._shape(), device=device, dtype=dtype))
        # A part of the state dict, or a checkpoint would lose the property.
        self.register_buffer('limit', torch.empty((), device=device, dtype=dtype) if nonexpansive else None)
        self.reset_parameters()
        self.set_learnable(learnable)

    def _shape(self) -> Tuple[int, ...]:
        return self.J, self.L

    @property
    def nonexpansive(self) -> bool:
        return self.limit is not None

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Give every wavelet its initial numbers again, or other random ones."""
        for name in NAMES:
            getattr(self, name).zero_()
        if self.limit is not None:
            self.limit.fill_(1)
        if self.init == 'random' and not self.theta.is_meta:
            shape = self._shape()
            drawn = morlet.random_wavelets(self.J, 1 if len(shape) == 1 else self.L)
            for name, offset in zip(NAMES, offsets(*drawn, self.J, self.L)):
                getattr(self, name).copy_(offset.reshape(shape))

    def set_learnable(self, learnable: bool) -> None:
        """Turn the offsets into parameters that require grad, or into buffers, keeping their values."""
        self.learnable = learnable
        for name in NAMES:
            as_state(self, name, learnable)
        if self.limit is not None:
            as_state(self, 'limit', learnable=False)            # stays the last in the state dict

    def set_max_order(self, max_order: int) -> None:
        """Give out the filters that the orders up to max_order read; order 0 reads no wavelet, so none is learned."""
        self.max_order = max_order
        if max_order == 0:
            self.set_learnable(False)

    def wavelets(self) -> List[morlet.Wavelet]:
        """The numbers behind each wavelet, by scale and orientation."""
        own = [getattr(self, name).detach().cpu() for name in NAMES]
        return morlet.describe(*wavelet_numbers(*own, self.J, self.L))

    def forward(self, x: Tensor) -> Tuple[List[Tensor], List[List[Tensor]]]:
        return morlet_filters(
            x, self.theta, self.xi, self.sigma, self.slant, self.limit, self.scales, self.L, self.max_order)

    def _load_from_state_dict(self, state_dict: Dict[str, Any], prefix: str, *args: Any) -> None:
        errors, before = args[-1], len(args[-1])
        refuse_non_finite(state_dict, prefix, NAMES, errors)
        limit = state_dict.get(f'{prefix}limit')
        if isinstance(limit, Tensor) and not limit.is_meta and not (limit == 1).all():
            errors.append(f'{prefix}limit is out of range: a nonexpansive bank has 1 there.')
        if len(errors) == before:                               # else nothing of it is loaded
            super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return f'J={self.J}, L={self.L}, image_size={self.image_size}, max_order={self.max_order}, ' \
               f'{"learnable" if self.learnable else "frozen"}{", nonexpansive" if self.nonexpansive else ""}'


class EquivariantBank(MorletBank):
    """Morlet wavelets, those of a scale rotations of one by steps of pi / L: the transform commutes with such turns.

    The state dict holds offsets (J,), theta that of the whole scale; otherwise as `MorletBank`.
    """

    def _shape(self) -> Tuple[int, ...]:
        return (self.J,)


PARAMETRIZATIONS: Dict[str, Type[nn.Module]] = {
    'pixelwise': PixelwiseBank, 'morlet': MorletBank, 'equivariant': EquivariantBank}


def check(parametrization: str, init: str, nonexpansive: bool) -> None:
    """Refuse options that no learnable bank has.

    Raises:
        ValueError: in one sentence.
    """
    if parametrization not in PARAMETRIZATIONS:
        raise ValueError(f'unknown parametrization {parametrization!r}; known: {", ".join(PARAMETRIZATIONS)}')
    if init not in INITS:
        raise ValueError(f'unknown init {init!r}; known: {", ".join(INITS)}')
    if nonexpansive and parametrization == 'pixelwise':
        raise ValueError("nonexpansive=True needs parametrization 'morlet' or 'equivariant': pixelwise filters are "
                         'themselves the parameters, and nothing bounds them or keeps their mean zero')


@torch.fx.wrap
def morlet_filters(x: Tensor, theta: Tensor, xi: Tensor, sigma: Tensor, slant: Tensor, limit: Optional[Tensor],
                   scales: List[int], L: int, max_order: int) -> Tuple[List[Tensor], List[List[Tensor]]]:
    """Filters (phi, psi) for images x (..., H, W) from offsets (J, L), or (J,) for rotations of one wavelet a scale.

    They are computed in float64, the finest level alone, of which the coarser ones are crops.
    """
    J, dtype, device = scales[0], theta.dtype, theta.device
    if device.type == 'mps':                                    # it has no float64
        theta, xi, sigma, slant = theta.cpu(), xi.cpu(), sigma.cpu(), slant.cpu()
    widths, angles, frequencies, slants = wavelet_numbers(theta, xi, sigma, slant, J, L)        # (J, L)
    hat = morlet.morlets(padded_size(x, J), J, widths.flatten(), angles.flatten(), frequencies.flatten(),
                         slants.flatten(), morlet.aliases(L), scales)                   # (scales + J * L, M, N)
    if limit is not None:
        if len(scales) > 1:
            hat = torch.cat([hat[:len(scales)] / math.sqrt(len(scales)), hat[len(scales):]])
        phi, psi = level_filters(hat, J, L, 2, scales)
        hat = hat * (limit.to(hat) / frame.upper_bound(phi, psi)).sqrt()
    hat = hat.to(device=device, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    return level_filters(hat, J, L, max_order, scales)


def wavelet_numbers(theta: Tensor, xi: Tensor, sigma: Tensor, slant: Tensor, J: int,
                    L: int) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    """Offsets (J, L) or (J,) -> sigma, theta, xi, slant of the wavelets, each (J, L) in float64."""
    if theta.dim() == 1:
        theta, xi, sigma, slant = theta.unsqueeze(1), xi.unsqueeze(1), sigma.unsqueeze(1), slant.unsqueeze(1)
    sigma0, theta0, xi0, slant0 = morlet.tight_frame(J, L, theta.device)
    xi_range, sigma_range, slant_range = _ranges(J, sigma0, L)
    new_sigma = _moved(sigma.double(), sigma0, sigma_range, sigma_range)
    new_slant = _moved(slant.double(), slant0, slant_range, _ranges(J, new_sigma, L)[2])
    return new_sigma, theta0 + theta.double(), _moved(xi.double(), xi0, xi_range, xi_range), new_slant


def offsets(sigma: Tensor, theta: Tensor, xi: Tensor, slant: Tensor, J: int,
            L: int) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    """The inverse of `wavelet_numbers`: numbers (J, L) -> offsets theta, xi, sigma, slant of that shape.

    Of one wavelet a scale, (J, 1), theta is the turn of its scale.
    """
    sigma0, theta0, xi0, slant0 = (numbers[:, :sigma.shape[1]] for numbers in morlet.tight_frame(J, L, sigma.device))
    xi_range, sigma_range, slant_range = _ranges(J, sigma0, L)
    return (theta - theta0 if sigma.shape[1] == L else theta, _offset(xi, xi0, xi_range, xi_range),
            _offset(sigma, sigma0, sigma_range, sigma_range),
            _offset(slant, slant0, slant_range, _ranges(J, sigma, L)[2]))


def _ranges(J: int, sigma: Tensor, L: int) -> List[Tuple[Tensor, Tensor]]:
    """Lower and upper ends for xi, sigma, and slant, whose upper end depends on sigma."""
    one = torch.ones_like(sigma)
    return [(min(0.25, 0.75 * math.pi / 2.0 ** J) * one, math.pi * one),
            (0.5 * one, max(10.0, 3.2 * 2.0 ** (J - 1)) * one),
            (min(0.25, 1.0 / L) * one, sigma / morlet.narrowest(L))]


def _moved(offset: Tensor, start: Tensor, start_ends: Tuple[Tensor, Tensor], ends: Tuple[Tensor, Tensor]) -> Tensor:
    """A value moved from its start by an offset of its logarithm, that saturates at the ends of its range."""
    place = _place(start, start_ends)
    slope = place * (1 - place) * torch.log(start_ends[1] / start_ends[0])
    place = torch.sigmoid(torch.logit(place) + offset / slope)
    return ends[0] * torch.exp(place * torch.log(ends[1] / ends[0]))


def _offset(value: Tensor, start: Tensor, start_ends: Tuple[Tensor, Tensor], ends: Tuple[Tensor, Tensor]) -> Tensor:
    """The offset by which `_moved` gives this value."""
    place = _place(start, start_ends)
    slope = place * (1 - place) * torch.log(start_ends[1] / start_ends[0])
    return (torch.logit(_place(value, ends)) - torch.logit(place)) * slope


def _place(value: Tensor, ends: Tuple[Tensor, Tensor]) -> Tensor:
    """Where in its range a value is on a logarithmic scale, in (0, 1)."""
    return torch.log(value / ends[0]) / torch.log(ends[1] / ends[0])
