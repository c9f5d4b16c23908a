"""Filter banks: modules that give the transform its filters for an image.

`FixedBank` is analytic: kymatio's tight frame, at whatever size comes. `PixelwiseBank` stores every value of every
filter that the transform reads, as parameters or as buffers, for one image size. Banks that learn the numbers behind
the wavelets are in `parametric`. Calling a bank on images gives `(phi, psi)` as `transform.scattering2d` takes them;
with more than one scale to low-pass at, the phi of all, scale after scale (see `scales`).
"""
import functools
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from . import geometry, morlet


class FixedBank(nn.Module):
    """The analytic filters, which follow the image size and are never part of a state dict.

    Args:
        J: log-2 of the scale.
        L: number of orientations.
        image_size: (H, W) for which filters are kept ready.
        max_order: highest order of scattering whose filters are given out.
        scales: log-2 of the scales of the low-passes, J among them; J alone unless given.
    """

    def __init__(self, J: int, L: int, image_size: Tuple[int, int], max_order: int = 2,
                 device: Optional[torch.device] = None, dtype: Optional[torch.dtype] = None,
                 scales: Optional[Sequence[int]] = None) -> None:
        super().__init__()
        self.J, self.L, self.image_size, self.max_order = J, L, image_size, max_order
        self.scales = geometry.check_scales(scales, J)
        M, N = geometry.padded_size(image_size[0], image_size[1], J)
        hat = torch.empty(len(self.scales) + J * L, M, N, device=device, dtype=dtype)
        # A buffer and not a cache, so that a scripted or exported model finds the filters there as constants.
        self.register_buffer('hat', hat, persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Compute the filters anew."""
        M, N = self.hat.shape[-2:]
        self.hat.copy_(_filter_bank(M, N, self.scales, self.L, self.hat.dtype, self.hat))

    def init_non_persistent_buffers(self) -> None:
        """What timm and transformers call once a model built on the meta device has memory."""
        self.reset_parameters()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> 'FixedBank':
        # Filters that changed type, or had no memory before, are computed and not converted: `.double()` is exact.
        before = self.hat
        super()._apply(fn, recurse)
        if self.hat.dtype != before.dtype or before.is_meta:
            self.reset_parameters()
        return self

    def set_max_order(self, max_order: int) -> None:
        """Give out the filters that the orders up to max_order read."""
        self.max_order = max_order

    def wavelets(self) -> List[morlet.Wavelet]:
        """The numbers behind each wavelet, by scale and orientation."""
        return morlet.describe(*morlet.tight_frame(self.J, self.L, torch.device('cpu')))

    def forward(self, x: Tensor) -> Tuple[List[Tensor], List[List[Tensor]]]:
        return analytic_filters(x, self.hat, self.scales, self.L, self.max_order)

    def extra_repr(self) -> str:
        return f'J={self.J}, L={self.L}, image_size={self.image_size}, max_order={self.max_order}'


class Filter(nn.Module):
    """One filter in Fourier, a real tensor `hat` (M, N): a Parameter while it is learnable, otherwise a buffer."""
    hat: Tensor

    def __init__(self, hat: Tensor, learnable: bool) -> None:
        super().__init__()
        self.register_buffer('hat', hat)
        self.set_learnable(learnable)

    def set_learnable(self, learnable: bool) -> None:
        as_state(self, 'hat', learnable)

    def _load_from_state_dict(self, state_dict: Dict[str, Any], prefix: str, *args: Any) -> None:
        errors, before = args[-1], len(args[-1])
        refuse_non_finite(state_dict, prefix, ('hat',), errors)
        if len(errors) == before:                               # else it is not loaded
            super()._load_from_state_dict(state_dict, prefix, *args)


class PixelwiseBank(nn.Module):
    """Every filter that the transform reads, at every level a tensor of its own, for one image size.

    State-dict keys are `phi.level{l}.hat`, `phi.scale{s}_level{l}.hat` for the low-passes of scales s < J, and
    `psi.j{j}_theta{t}_level{l}.hat`, whether learnable or not.

    Args:
        J, L, image_size, max_order, scales: as for `FixedBank`.
        learnable: whether the filters are parameters or buffers.
        init: 'tight_frame', or 'random' for Morlet wavelets drawn at random.
    """

    def __init__(self, J: int, L: int, image_size: Tuple[int, int], max_order: int = 2, learnable: bool = True,
                 init: str = 'tight_frame', device: Optional[torch.device] = None,
                 dtype: Optional[torch.dtype] = None, scales: Optional[Sequence[int]] = None) -> None:
        super().__init__()
        self.J, self.L, self.image_size, self.max_order = J, L, image_size, max_order
        self.learnable, self.init, self.scales = learnable, init, geometry.check_scales(scales, J)
        hat = self._start(torch.empty(0, device=device, dtype=dtype))
        phi, psi = _stored_filters(self.scales, L, max_order)
        self.phi = nn.ModuleDict(
            {name: Filter(crop(hat[i], level).clone(), learnable) for name, (i, level) in phi.items()})
        self.psi = nn.ModuleDict(
            {name: Filter(crop(hat[i], level).clone(), learnable) for name, (i, level) in psi.items()})

    def _start(self, like: Tensor) -> Tensor:
        """Initial filters (scales + J * L, M, N) at the finest level, of this type and on this device."""
        M, N = geometry.padded_size(self.image_size[0], self.image_size[1], self.J)
        if self.init == 'random' and not like.is_meta:
            drawn = [numbers.flatten() for numbers in morlet.random_wavelets(self.J, self.L)]
            return morlet.morlets((M, N), self.J, *drawn, morlet.aliases(self.L), self.scales).to(like)
        return _filter_bank(M, N, self.scales, self.L, like.dtype, like)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Give every filter its initial value again, or another random one."""
        hat = self._start(self.phi['level0'].hat.detach())
        phi, psi = _stored_filters(self.scales, self.L, self.max_order)
        for name, (i, level) in phi.items():
            self.phi[name].hat.copy_(crop(hat[i], level))
        for name, (i, level) in psi.items():
            self.psi[name].hat.copy_(crop(hat[i], level))

    @torch.no_grad()
    def copy_filters(self, phi: List[Tensor], psi: List[List[Tensor]]) -> None:
        """Take over the filters that another bank gives for images of this size."""
        for low_pass, hat in zip(self.phi.values(), phi):
            low_pass.hat.copy_(hat)
        for j, levels in enumerate(psi):
            for level, wavelets in enumerate(levels):
                for t, hat in enumerate(wavelets):
                    self.psi[f'j{j}_theta{t}_level{level}'].hat.copy_(hat)

    def wavelets(self) -> List[morlet.Wavelet]:
        """None: these filters are free, no numbers stand behind them."""
        return []

    def set_learnable(self, learnable: bool) -> None:
        """Turn every filter into a parameter that requires grad, or into a buffer, keeping its values."""
        self.learnable = learnable
        for module in self.modules():
            if isinstance(module, Filter):
                module.set_learnable(learnable)

    def set_max_order(self, max_order: int) -> None:
        """Keep the filters that the orders up to max_order read; a missing one is the crop of its finest level."""
        if max_order == self.max_order:
            return

        def keep(filters: nn.ModuleDict, name: str, level: int) -> Filter:
            if name in filters:
                return filters[name]
            finest = filters[name.replace(f'level{level}', 'level0')]
            return Filter(crop(finest.hat.detach(), level).clone(), self.learnable)

        phi, psi = _stored_filters(self.scales, self.L, max_order)
        self.phi = nn.ModuleDict({name: keep(self.phi, name, level) for name, (_, level) in phi.items()})
        self.psi = nn.ModuleDict({name: keep(self.psi, name, level) for name, (_, level) in psi.items()})
        self.max_order = max_order

    def forward(self, x: Tensor) -> Tuple[List[Tensor], List[List[Tensor]]]:
        phi: List[Tensor] = []
        for low_pass in self.phi.values():
            phi.append(low_pass.hat)
        wavelets: List[Tensor] = []
        for wavelet in self.psi.values():
            wavelets.append(wavelet.hat)
        return phi, stack_orientations(wavelets, self.J, self.L, self.max_order)

    def __repr__(self) -> str:
        # One line: a line for each of its filters would bury the model.
        count = len(self.phi) + len(self.psi)
        state = 'learnable' if self.learnable else 'frozen'
        return f'PixelwiseBank(J={self.J}, L={self.L}, image_size={self.image_size}, max_order={self.max_order}, ' \
               f'{count} {state} filters)'


def _stored_filters(scales: List[int], L: int,
                    max_order: int) -> Tuple[Dict[str, Tuple[int, int]], Dict[str, Tuple[int, int]]]:
    """Name of every phi and psi that is read -> (its place in `morlet.filter_bank`, its level), in state-dict order."""
    J, low = scales[0], len(scales)
    phi = {f'{f"scale{s}_" if s < J else ""}level{level}': (i, level)
           for i, s in enumerate(scales) for level in range(geometry.phi_levels(s, max_order))}
    psi = {f'j{j}_theta{t}_level{level}': (low + j * L + t, level)
           for j in range(J) for t in range(L) for level in range(geometry.psi_levels(j, max_order))}
    return phi, psi


@torch.fx.wrap
def analytic_filters(x: Tensor, hat: Tensor, scales: List[int], L: int,
                     max_order: int) -> Tuple[List[Tensor], List[List[Tensor]]]:
    """Filters (phi, psi) for images x (..., H, W), all levels cropped from `hat` where it has the padded size of x."""
    J = scales[0]
    M, N = padded_size(x, J)
    if hat.shape[1] != M or hat.shape[2] != N:
        dtype = torch.float64 if hat.dtype == torch.float64 else torch.float32
        if torch.jit.is_scripting():
            hat = morlet.filter_bank((M, N), J, L, dtype, hat.device, scales)
        else:
            hat = _filter_bank(M, N, scales, L, dtype, hat)
    return level_filters(hat, J, L, max_order, scales)


def padded_size(x: Tensor, J: int) -> Tuple[int, int]:
    """The padded size of images x (..., H, W), which must be large enough."""
    height, width = x.shape[-2], x.shape[-1]
    if (1 << J) > height or (1 << J) > width:
        raise RuntimeError(f'The smallest dimension should be larger than 2^J. (2^J is {1 << J}, the image '
                           f'({height},{width}))')
    return geometry.padded_size(height, width, J)


def level_filters(hat: Tensor, J: int, L: int, max_order: int,
                  scales: Optional[List[int]] = None) -> Tuple[List[Tensor], List[List[Tensor]]]:
    """Filters (phi, psi) of a bank (scales + J * L, M, N) whose coarser levels are the crops of the finest one."""
    phi: List[Tensor] = []
    low = [J] if scales is None else scales
    for i, scale in enumerate(low):
        phi += [crop(hat[i], level) for level in range(geometry.phi_levels(scale, max_order))]
    psi: List[List[Tensor]] = []
    for j in range(J):
        wavelets = hat[len(low) + j * L:len(low) + (j + 1) * L]
        psi.append([crop(wavelets, level) for level in range(geometry.psi_levels(j, max_order))])
    return phi, psi


def stack_orientations(wavelets: List[Tensor], J: int, L: int, max_order: int) -> List[List[Tensor]]:
    """Single wavelets, ordered by scale j, orientation and level, to psi[j][level] of shape (L, M, N)."""
    psi: List[List[Tensor]] = []
    start = 0
    for j in range(J):
        levels = geometry.psi_levels(j, max_order)
        psi.append([torch.stack([wavelets[start + t * levels + level] for t in range(L)]) for level in range(levels)])
        start += L * levels
    return psi


def crop(hat: Tensor, level: int) -> Tensor:
    """The low frequencies that are left at resolution 2^-level: (..., M, N) -> (..., M / 2^level, N / 2^level)."""
    if level == 0:
        return hat
    M, N = hat.shape[-2] >> level, hat.shape[-1] >> level
    rows = torch.cat([hat[..., :M // 2, :], hat[..., hat.shape[-2] - M // 2:, :]], dim=-2)
    return torch.cat([rows[..., :N // 2], rows[..., rows.shape[-1] - N // 2:]], dim=-1)


def as_state(module: nn.Module, name: str, learnable: bool) -> None:
    """Make a module's tensor a parameter that requires grad, or a persistent buffer, of the same value."""
    tensor = getattr(module, name)
    if learnable and isinstance(tensor, nn.Parameter):
        tensor.requires_grad_(True)
        return
    delattr(module, name)
    if learnable:
        setattr(module, name, nn.Parameter(tensor.detach()))
    else:
        module.register_buffer(name, tensor.detach())


def refuse_non_finite(state_dict: Dict[str, Any], prefix: str, names: Sequence[str], errors: List[str]) -> None:
    """Add an error, as `nn.Module._load_from_state_dict` does, for each tensor that holds NaN or infinity."""
    for name in names:
        value = state_dict.get(prefix + name)
        if isinstance(value, Tensor) and not value.is_meta and not value.isfinite().all():
            errors.append(f'{prefix}{name} is out of range: it has values that are not finite.')


def _filter_bank(M: int, N: int, scales: List[int], L: int, dtype: torch.dtype, like: Tensor) -> Tensor:
    """`morlet.filter_bank` where `like` is, for reading only: it may be out of the cache."""
    # A tensor subclass may be fake, and must not get into the cache.
    plain = type(like) in (Tensor, nn.Parameter) and not torch.compiler.is_compiling()
    build = _cached_filter_bank if plain else _cached_filter_bank.__wrapped__
    return build(M, N, tuple(scales), L, dtype, like.device)


@functools.lru_cache(maxsize=4)
def _cached_filter_bank(M: int, N: int, scales: Tuple[int, ...], L: int, dtype: torch.dtype,
                        device: torch.device) -> Tensor:
    # A function of its arguments alone, so it can't go stale; nobody may write into the result.
    with torch.inference_mode(False), torch.no_grad():
        return morlet.filter_bank((M, N), scales[0], L, dtype, device, list(scales))
