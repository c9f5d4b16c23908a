"""Banks of Morlet wavelets that are learned by a few numbers each, and follow any image size.

They compute their filters in `forward`, as a plain function of their parameters. These are offsets from kymatio's
tight frame: all zero is the fixed bank. theta is offset in radians. The others are offset on a logarithmic scale that
saturates at the ends of a range, with unit slope at the tight frame, so that no finite offset leaves it:

| number | range | |
|---|---|---|
| sigma, pixels | 1/2 to max(10, 3.2 x 2^(J-1)) | |
| xi, radians per pixel | min(1/4, 0.75 pi / 2^J) to pi | at 0 nothing is left of a wavelet, above pi it is an alias |
| slant | min(1/4, 1/L) to sigma / `morlet.narrowest(L)` | this bounds the width across the wave |
| width of the low-passes | 1/2 to 2 times the tight frame's | one number for all scales |

The tight frame and every random start lie inside. The low-pass is fixed, unless `learn_lowpass`.
"""
import math
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from ..wording import brief, nearest
from . import frame, geometry, morlet
from .banks import INITS, Bank, PixelwiseBank, as_state, refuse_non_finite
from .filters import Filters, from_finest, padded_size
from .morlet import Numbers


class MorletBank(Bank):
    """Morlet wavelets, each with an orientation, frequency, width and slant of its own.

    "Canonical" in Gauthier et al. (Parametric Scattering Networks, CVPR 2022). The state dict holds the offsets
    `theta`, `xi`, `sigma` and `slant`, each (J, L), `lowpass` with `learn_lowpass`, and `limit` with `nonexpansive`.

    Args:
        J, L, max_order, scales: as for `banks.Bank`.
        image_size: (H, W), for the record: the filters follow the size of the images.
        learnable: whether the offsets are parameters or buffers.
        init: 'tight_frame' or 'random'.
        nonexpansive: in every forward, divide all filters by what brings the greatest Littlewood-Paley sum down to 1
            (see `frame`). It is that of all levels, whatever max_order, and above 1: the low-pass alone has
            (pi / 3.1415)^2 at the zero frequency. Of k scales, each low-pass is divided by sqrt(k) first: together
            they then weigh what one does, and the wavelets need not make room for them.
        learn_lowpass: whether the width of the low-passes is learned too.
    """

    kind = 'morlet'
    filter_lr = 1e-2                                # offsets of logarithms and angles
    OPTIONS: Dict[str, Any] = {                                 # noqa: RUF012
        'init': 'tight_frame', 'nonexpansive': False, 'learn_lowpass': False}
    theta: Tensor
    xi: Tensor
    sigma: Tensor
    slant: Tensor
    lowpass: Optional[Tensor]
    limit: Optional[Tensor]

    def __init__(self, J: int, L: int, image_size: Tuple[int, int], max_order: int = 2,
                 scales: Optional[Sequence[int]] = None, learnable: bool = True, init: str = 'tight_frame',
                 nonexpansive: bool = False, learn_lowpass: bool = False, device: Optional[torch.device] = None,
                 dtype: Optional[torch.dtype] = None) -> None:
        super().__init__(J, L, image_size, max_order, scales)
        self.init = init
        zeros = torch.empty(J, L, device=device, dtype=dtype)
        for name in Numbers._fields:
            self.register_buffer(name, self._stored(zeros).clone())
        self.register_buffer('lowpass', zeros.new_empty(()) if learn_lowpass else None)
        # A part of the state dict, or a checkpoint would lose the property.
        self.register_buffer('limit', zeros.new_empty(()) if nonexpansive else None)
        self.reset_parameters()
        self.set_learnable(learnable)

    @classmethod
    def options_of(cls, keys: Sequence[str]) -> Dict[str, Any]:
        return {'nonexpansive': 'limit' in keys, 'learn_lowpass': 'lowpass' in keys}

    def _stored(self, offset: Tensor) -> Tensor:
        """What is stored of an offset (J, L)."""
        return offset

    def _offsets(self) -> Numbers:
        """All offsets, (J, L)."""
        return Numbers(self.theta, self.xi, self.sigma, self.slant)

    def _drawn(self) -> Numbers:
        """Numbers of random wavelets, (J, L)."""
        return morlet.random_wavelets(self.J, self.L)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Give every wavelet its initial numbers again, or other random ones."""
        for name in Numbers._fields:
            getattr(self, name).zero_()
        if self.lowpass is not None:
            self.lowpass.zero_()
        if self.limit is not None:
            self.limit.fill_(1)
        if self.init == 'random' and not self.theta.is_meta:
            for name, offset in offsets(self._drawn(), self.J, self.L)._asdict().items():
                getattr(self, name).copy_(self._stored(offset))

    def set_learnable(self, learnable: bool) -> None:
        """Turn the offsets into parameters that require grad, or into buffers, keeping their values.

        Order 0 reads no wavelet, so none is learned there.
        """
        of_wavelets = learnable and self.max_order > 0
        for name in Numbers._fields:
            as_state(self, name, of_wavelets)
        if self.lowpass is not None:
            as_state(self, 'lowpass', learnable)
        if self.limit is not None:
            as_state(self, 'limit', learnable=False)            # stays the last in the state dict
        self.learnable = of_wavelets or (learnable and self.lowpass is not None)

    def set_max_order(self, max_order: int) -> None:
        super().set_max_order(max_order)
        if max_order == 0:
            for name in Numbers._fields:
                as_state(self, name, learnable=False)
            if self.limit is not None:
                as_state(self, 'limit', learnable=False)
            self.learnable = self.learnable and self.lowpass is not None

    def wavelets(self) -> List[morlet.Wavelet]:
        own = Numbers(*(offset.detach().cpu() for offset in self._offsets()))
        return morlet.describe(wavelet_numbers(own, self.J, self.L))

    def forward(self, x: Tensor) -> Filters:
        return morlet_filters(x, self._offsets(), self.lowpass, self.limit, self.scales, self.L, self.max_order)

    def _load_from_state_dict(self, state_dict: Dict[str, Any], prefix: str, *args: Any) -> None:
        errors, before = args[-1], len(args[-1])
        refuse_non_finite(state_dict, prefix, (*Numbers._fields, 'lowpass'), errors)
        limit = state_dict.get(f'{prefix}limit')
        if isinstance(limit, Tensor) and not limit.is_meta and not (limit == 1).all():
            errors.append(f'{prefix}limit is out of range: a nonexpansive bank has 1 there.')
        if len(errors) == before:                               # else nothing of it is loaded
            super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        made = ''.join(f', {name}' for name, value in self.options().items() if value)
        return super().extra_repr() + made


class EquivariantBank(MorletBank):
    """Morlet wavelets, those of a scale rotations of one by steps of pi / L: the transform commutes with such turns.

    The state dict holds offsets (J,), theta that of the whole scale; otherwise as `MorletBank`.
    """

    kind = 'equivariant'

    def _stored(self, offset: Tensor) -> Tensor:
        return offset[:, 0]

    def _offsets(self) -> Numbers:
        return Numbers(self.theta.unsqueeze(1).expand(self.J, self.L), self.xi.unsqueeze(1).expand(self.J, self.L),
                       self.sigma.unsqueeze(1).expand(self.J, self.L), self.slant.unsqueeze(1).expand(self.J, self.L))

    def _drawn(self) -> Numbers:
        turn, *others = (numbers.expand(self.J, self.L) for numbers in morlet.random_wavelets(self.J, 1))
        return Numbers(morlet.tight_frame(self.J, self.L, turn.device).theta + turn, *others)


# The kinds of learned banks, subclasses of `Bank`, by the name that `parametrization` has for them.
KINDS: Dict[str, Any] = {bank.kind: bank for bank in (PixelwiseBank, MorletBank, EquivariantBank)}


def check(parametrization: str, options: Dict[str, Any], **switches: bool) -> Dict[str, Any]:
    """The options that differ from their defaults; refuses those that this kind of bank does not have.

    Raises:
        ValueError: in one sentence, for an unknown kind or init, or an option that this kind has not.
    """
    defaults = {name: default for bank in KINDS.values() for name, default in bank.OPTIONS.items()}
    if not isinstance(parametrization, str) or parametrization not in KINDS:
        raise ValueError(f'unknown parametrization {brief(repr(parametrization), 60)}; '
                         f'{nearest(parametrization, KINDS)}')
    changed = {name: value for name, value in options.items() if value != defaults[name]}
    for name, value in {**switches, **options}.items():
        if name != 'init':
            geometry.switch(name, value)
    if changed.get('init', INITS[0]) not in INITS:
        raise ValueError(f'unknown init {brief(repr(changed["init"]), 60)}; {nearest(changed["init"], INITS)}')
    for name in changed:
        if name not in KINDS[parametrization].OPTIONS:
            having = ' or '.join(repr(kind) for kind, bank in KINDS.items() if name in bank.OPTIONS)
            raise ValueError(f'{name}={brief(repr(changed[name]), 60)} needs parametrization {having}: '
                             f'{parametrization} filters have no such option')
    return changed


@torch.fx.wrap
def morlet_filters(x: Tensor, offsets: Numbers, lowpass: Optional[Tensor], limit: Optional[Tensor], scales: List[int],
                   L: int, max_order: int) -> Filters:
    """Filters for images x (..., H, W) from offsets (J, L).

    They are computed in float64, the finest level alone, of which the coarser ones are crops.
    """
    J, like = scales[0], offsets.theta
    if like.device.type == 'mps':                               # it has no float64
        offsets = Numbers(offsets.theta.cpu(), offsets.xi.cpu(), offsets.sigma.cpu(), offsets.slant.cpu())
    theta, xi, sigma, slant = wavelet_numbers(offsets, J, L)
    numbers = Numbers(theta.flatten(), xi.flatten(), sigma.flatten(), slant.flatten())
    size, aliases = padded_size(x, J), morlet.aliases(L)
    phi = morlet.lowpasses(size, lowpass_widths(lowpass, scales, theta.device), aliases)
    return handed_over(phi, morlet.morlets(size, numbers, aliases), limit, scales, L, max_order, like)


def handed_over(phi: Tensor, psi: Tensor, limit: Optional[Tensor], scales: List[int], L: int, max_order: int,
                like: Tensor) -> Filters:
    """The finest filters (scales, M, N) and (J * L, M, N) as a bank gives them: within the limit, at all levels."""
    if limit is not None:
        if len(scales) > 1:
            phi = phi / math.sqrt(len(scales))
        ratio = (limit.to(psi) / frame.upper_bound(from_finest(phi, psi, scales, L, 2))).sqrt()
        phi, psi = phi * ratio, psi * ratio
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return from_finest(phi.to(device=like.device, dtype=dtype), psi.to(device=like.device, dtype=dtype), scales, L,
                       max_order)


def wavelet_numbers(offsets: Numbers, J: int, L: int) -> Numbers:
    """Offsets (J, L) -> what the wavelets have, in float64."""
    start = morlet.tight_frame(J, L, offsets.theta.device)
    xi_range, sigma_range, slant_range = _ranges(J, start.sigma, L)
    sigma = _moved(offsets.sigma.double(), start.sigma, sigma_range, sigma_range)
    slant = _moved(offsets.slant.double(), start.slant, slant_range, _ranges(J, sigma, L)[2])
    xi = _moved(offsets.xi.double(), start.xi, xi_range, xi_range)
    return Numbers(start.theta + offsets.theta.double(), xi, sigma, slant)


def offsets(numbers: Numbers, J: int, L: int) -> Numbers:
    """The inverse of `wavelet_numbers`."""
    start = morlet.tight_frame(J, L, numbers.theta.device)
    xi_range, sigma_range, slant_range = _ranges(J, start.sigma, L)
    return Numbers(numbers.theta - start.theta, _offset(numbers.xi, start.xi, xi_range, xi_range),
                   _offset(numbers.sigma, start.sigma, sigma_range, sigma_range),
                   _offset(numbers.slant, start.slant, slant_range, _ranges(J, numbers.sigma, L)[2]))


def lowpass_widths(offset: Optional[Tensor], scales: List[int], device: torch.device) -> Tensor:
    """Standard deviations in pixels of the low-passes, (scales,), float64."""
    one = torch.ones(1, dtype=torch.float64, device=device)
    widths = torch.cat([morlet.lowpass_width(scale) * one for scale in scales])
    if offset is None:
        return widths
    ends = 0.5 * one, 2 * one
    return widths * _moved(offset.to(one), one, ends, ends)


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
