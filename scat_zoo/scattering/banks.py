"""Filter banks: modules that give the transform its filters for an image.

`FixedBank` is analytic: kymatio's tight frame, at whatever size comes. `PixelwiseBank` stores every value of every
filter that the transform reads, as parameters or as buffers. Banks that learn the numbers behind the wavelets are in
`parametric`, beside the dict of all kinds that learn.
"""
import functools
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from . import geometry, morlet
from .filters import Filters, from_finest, padded_size, resample_levels

INITS = ('tight_frame', 'random')


class Bank(nn.Module):
    """What all banks have in common, and what each kind declares. Called on images (..., H, W) it gives `Filters`.

    A kind that learns is a subclass, and a line in `parametric.KINDS`. Its constructor takes the arguments below, then
    `learnable`, those of its `OPTIONS`, `device` and `dtype`. Its `forward` calls a function under `torch.fx.wrap`,
    which TorchScript compiles. `set_learnable` sets `self.learnable` too, and makes no parameter of what its order does
    not read. Options, `init` aside, are switches that the keys of the state dict tell (`options_of`).

    Args:
        J: log-2 of the scale.
        L: number of orientations.
        image_size: (H, W) of the images that the filters are for, or kept ready for.
        max_order: highest order of scattering whose filters are given out.
        scales: log-2 of the scales of the low-passes, J among them; J alone unless given.
    """

    __jit_unused_properties__ = ('mode',)           # TorchScript would compile it
    kind = 'fixed'                                  # the name that `parametrization` has for it
    filter_lr = 1e-2                                # of the filters with Adam
    OPTIONS: Dict[str, Any] = {}                    # noqa: RUF012  (keywords of this kind's own, and their defaults)
    learnable = False

    def __init__(self, J: int, L: int, image_size: Tuple[int, int], max_order: int = 2,
                 scales: Optional[Sequence[int]] = None) -> None:
        super().__init__()
        self.J, self.L, self.image_size, self.max_order = J, L, image_size, max_order
        self.scales = geometry.check_scales(scales, J)
        # The name of a kind is a key of its state dict; these came before that, and differ in their keys or shapes.
        if self.kind not in ('fixed', 'pixelwise', 'morlet', 'equivariant'):
            self.register_buffer(self.kind, torch.empty(0))

    @property
    def mode(self) -> str:
        """'fixed' (analytic), 'learnable' (parameters that require grad) or 'frozen' (learned or drawn, then held)."""
        if self.kind == Bank.kind:
            return 'fixed'
        return 'learnable' if any(p.requires_grad for p in self.parameters()) else 'frozen'

    @classmethod
    def options_of(cls, keys: Sequence[str]) -> Dict[str, Any]:
        """With which options a bank of this kind was made whose state dict has these keys."""
        return {}

    def options(self) -> Dict[str, Any]:
        """Those with which this bank was made."""
        return self.options_of(list(self.state_dict()))

    def fits(self, state: Dict[str, Tensor]) -> bool:
        """Whether this is the state dict of a bank of this kind, of whatever size."""
        return all(isinstance(t, Tensor) for t in state.values()) and (
            {key: t.ndim for key, t in state.items()} == {key: t.ndim for key, t in self.state_dict().items()})

    def fitted(self, state: Dict[str, Tensor]) -> Dict[str, Tensor]:
        """The state dict of a bank for images of another size, as this one can load it."""
        return state

    def reset_parameters(self) -> None:
        """Give every filter its initial values again."""
        raise NotImplementedError(f'{type(self).__name__} must define reset_parameters()')

    def set_learnable(self, learnable: bool) -> None:
        """Turn what is learned into parameters that require grad, or into buffers, keeping the values."""
        raise NotImplementedError(f'{type(self).__name__} must define set_learnable()')

    def set_max_order(self, max_order: int) -> None:
        """Give out the filters that the orders up to max_order read."""
        self.max_order = max_order

    def set_image_size(self, image_size: Tuple[int, int]) -> None:
        """Be for images of that size from now on."""
        self.image_size = image_size

    def wavelets(self) -> List[morlet.Wavelet]:
        """The numbers behind each wavelet, by scale and orientation; an empty list if there are none."""
        return []

    def extra_repr(self) -> str:
        return f'J={self.J}, L={self.L}, image_size={self.image_size}, max_order={self.max_order}'


class FixedBank(Bank):
    """The analytic filters, which follow the image size and are never part of a state dict."""
    hat: Tensor

    def __init__(self, J: int, L: int, image_size: Tuple[int, int], max_order: int = 2,
                 scales: Optional[Sequence[int]] = None, device: Optional[torch.device] = None,
                 dtype: Optional[torch.dtype] = None) -> None:
        super().__init__(J, L, image_size, max_order, scales)
        M, N = geometry.padded_size(image_size[0], image_size[1], J)
        hat = torch.empty(len(self.scales) + J * L, M, N, device=device, dtype=dtype)
        # A buffer and not a cache, so that a scripted or exported model finds the filters there as constants.
        self.register_buffer('hat', hat, persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
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

    def set_image_size(self, image_size: Tuple[int, int]) -> None:
        M, N = geometry.padded_size(image_size[0], image_size[1], self.J)
        hat = self.hat.new_empty(len(self.hat), M, N)           # before anything is another
        super().set_image_size(image_size)
        self.hat = hat
        self.reset_parameters()

    def wavelets(self) -> List[morlet.Wavelet]:
        return morlet.describe(morlet.tight_frame(self.J, self.L, torch.device('cpu')))

    def forward(self, x: Tensor) -> Filters:
        return analytic_filters(x, self.hat, self.scales, self.L, self.max_order)


class Filter(nn.Module):
    """One filter in Fourier, a real tensor `hat` (M, N): a Parameter while it is learnable, otherwise a buffer."""
    hat: Tensor

    def __init__(self, hat: Tensor, learnable: bool) -> None:
        super().__init__()
        self.register_buffer('hat', hat)
        as_state(self, 'hat', learnable)

    def _load_from_state_dict(self, state_dict: Dict[str, Any], prefix: str, *args: Any) -> None:
        errors, before = args[-1], len(args[-1])
        refuse_non_finite(state_dict, prefix, ('hat',), errors)
        if len(errors) == before:                               # else it is not loaded
            super()._load_from_state_dict(state_dict, prefix, *args)


class PixelwiseBank(Bank):
    """Every filter that the transform reads, at every level a tensor of its own, for one image size.

    Images of another size get the same impulse responses (`filters.resample`). State-dict keys are
    `phi.level{l}.hat`, `phi.scale{s}_level{l}.hat` for the low-passes of scales s < J, and
    `psi.j{j}_theta{t}_level{l}.hat`, whether learnable or not.

    Args:
        J, L, image_size, max_order, scales: as for `Bank`.
        learnable: whether the filters are parameters or buffers.
        init: 'tight_frame', or 'random' for Morlet wavelets drawn at random.
        border: as for `geometry.padded_size`.
    """

    kind = 'pixelwise'
    filter_lr = 1e-3                                # Fourier coefficients are small numbers
    OPTIONS: Dict[str, Any] = {'init': 'tight_frame'}           # noqa: RUF012

    def __init__(self, J: int, L: int, image_size: Tuple[int, int], max_order: int = 2,
                 scales: Optional[Sequence[int]] = None, learnable: bool = True, init: str = 'tight_frame',
                 border: int = 1, device: Optional[torch.device] = None, dtype: Optional[torch.dtype] = None) -> None:
        super().__init__(J, L, image_size, max_order, scales)
        self.learnable, self.init, self.border = learnable, init, border
        self.phi: Mapping[str, Filter]              # `nn.ModuleDict`s; TorchScript knows no such types in the class
        self.psi: Mapping[str, Filter]
        for name, hats in self._named(self._start(torch.empty(0, device=device, dtype=dtype))).items():
            self.add_module(name, nn.ModuleDict({key: Filter(hat.clone(), learnable) for key, hat in hats.items()}))

    def _start(self, like: Tensor) -> Filters:
        """Initial filters, of this type and on this device."""
        M, N = geometry.padded_size(self.image_size[0], self.image_size[1], self.J, self.border)
        low = len(self.scales)
        hat = _filter_bank(M, N, self.scales, self.L, like.dtype, like)
        if self.init == 'random' and not like.is_meta:
            drawn = morlet.Numbers(*(numbers.flatten() for numbers in morlet.random_wavelets(self.J, self.L)))
            hat = torch.cat([hat[:low], morlet.morlets((M, N), drawn, morlet.aliases(self.L)).to(like)])
        return from_finest(hat[:low], hat[low:], self.scales, self.L, self.max_order)

    def _named(self, filters: Filters) -> Dict[str, Dict[str, Tensor]]:
        """Single filters by name, in the order of the state dict."""
        phi = {f'{f"scale{scale}_" if scale < self.J else ""}level{level}': hat
               for scale, levels in zip(self.scales, filters.phi) for level, hat in enumerate(levels)}
        psi = {f'j{j}_theta{t}_level{level}': wavelets[t] for j, levels in enumerate(filters.psi)
               for t in range(self.L) for level, wavelets in enumerate(levels)}
        return {'phi': phi, 'psi': psi}

    def reset_parameters(self) -> None:
        """Give every filter its initial value again, or another random one."""
        self.copy_filters(self._start(self.phi['level0'].hat.detach()))

    def is_analytic(self) -> bool:
        """Whether every filter has the value that the tight frame gives it, to the precision of its type, or float32's.

        Without values, on the meta device, what it was made with tells.
        """
        own, first = self.own(), self.phi['level0'].hat
        if first.is_meta or self.init != INITS[0]:
            return self.init == INITS[0]
        start, eps = self._start(first), max(torch.finfo(first.dtype).eps, torch.finfo(torch.float32).eps)
        return all(bool((a - b).abs().max() <= 4 * eps) for a, b in zip(
            [hat for levels in (*own.phi, *own.psi) for hat in levels],
            [hat for levels in (*start.phi, *start.psi) for hat in levels]))

    @torch.no_grad()
    def copy_filters(self, filters: Filters) -> None:
        """Take over the filters that another bank gives for images of this size."""
        for name, hats in self._named(filters).items():
            for key, hat in hats.items():
                getattr(self, name)[key].hat.copy_(hat)

    def set_learnable(self, learnable: bool) -> None:
        self.learnable = learnable
        for stored in [*self.phi.values(), *self.psi.values()]:
            as_state(stored, 'hat', learnable)

    @torch.inference_mode(False)
    @torch.no_grad()
    def set_max_order(self, max_order: int) -> None:
        """Keep the filters that the orders up to max_order read; a missing one is the crop of its finest level."""
        if max_order == self.max_order:
            return
        mode, (phi, psi) = self.mode, self.own()
        finest = torch.stack([levels[0] for levels in phi]), torch.cat([levels[0] for levels in psi])
        self.max_order = max_order
        for name, hats in self._named(from_finest(*finest, self.scales, self.L, max_order)).items():
            kept = getattr(self, name)
            setattr(self, name, nn.ModuleDict({key: kept[key] if key in kept else Filter(hat.clone(), self.learnable)
                                               for key, hat in hats.items()}))
        if mode == 'frozen':                                    # parameters that are held, of which some may be new
            self.requires_grad_(False)

    @torch.inference_mode(False)
    @torch.no_grad()
    def set_image_size(self, image_size: Tuple[int, int]) -> None:
        """Resample the filters to that size. The parameters are others: build the optimiser afterwards."""
        filters = resized(self.own(), torch.empty(image_size, device='meta'), self.border)
        super().set_image_size(image_size)
        for name, hats in self._named(filters).items():
            for key, hat in hats.items():
                stored = getattr(self, name)[key]
                if hat.shape != stored.hat.shape:
                    learned = isinstance(stored.hat, nn.Parameter)
                    stored.hat = nn.Parameter(hat, stored.hat.requires_grad) if learned else hat

    def fitted(self, state: Dict[str, Tensor]) -> Dict[str, Tensor]:
        if not self.fits(state) or any(hat.is_meta or not hat.isfinite().all() for hat in state.values()):
            return state
        sides = state['phi.level0.hat'].shape
        if sides == self.phi['level0'].hat.shape or min(sides) < 1 or any(n % (1 << self.J) for n in sides):
            return state
        other = PixelwiseBank(self.J, self.L, (sides[0], sides[1]), self.max_order, self.scales, learnable=False,
                              border=0, dtype=torch.float64)
        if any(hat.shape != state[key].shape for key, hat in other.state_dict().items()):
            return state
        other.load_state_dict(state)
        other.border = self.border
        other.set_image_size(self.image_size)
        return {key: hat.to(state[key].dtype) for key, hat in other.state_dict().items()}

    def own(self) -> Filters:
        """The filters for images of its size."""
        low_passes: List[Tensor] = []
        for low_pass in self.phi.values():
            low_passes.append(low_pass.hat)
        wavelets: List[Tensor] = []
        for wavelet in self.psi.values():
            wavelets.append(wavelet.hat)
        of_phi, of_psi = geometry.levels(self.scales, self.max_order)
        phi: List[List[Tensor]] = []
        for levels in of_phi:
            phi.append(low_passes[:levels])
            low_passes = low_passes[levels:]
        psi: List[List[Tensor]] = []
        for levels in of_psi:
            psi.append([torch.stack(wavelets[level:self.L * levels:levels]) for level in range(levels)])
            wavelets = wavelets[self.L * levels:]
        return Filters(phi, psi)

    def forward(self, x: Tensor) -> Filters:
        return resized(self.own(), x, self.border)

    def __repr__(self) -> str:
        # One line: a line for each of its filters would bury the model.
        return f'PixelwiseBank({self.extra_repr()}, {len(self.phi) + len(self.psi)} filters)'


@torch.fx.wrap
def resized(filters: Filters, x: Tensor, border: int = 1) -> Filters:
    """Filters for images x (..., H, W): these, or if x is padded to another size, their impulse responses there."""
    M, N = padded_size(x, len(filters.psi), border)
    finest = filters.phi[0][0]
    if finest.shape[0] == M and finest.shape[1] == N:
        return filters
    return Filters([resample_levels(levels, M, N) for levels in filters.phi],
                   [resample_levels(levels, M, N) for levels in filters.psi])


@torch.fx.wrap
def analytic_filters(x: Tensor, hat: Tensor, scales: List[int], L: int, max_order: int) -> Filters:
    """Filters for images x (..., H, W), all levels cropped from `hat` where it has the padded size of x."""
    M, N = padded_size(x, scales[0])
    if hat.shape[1] != M or hat.shape[2] != N:
        dtype = torch.float64 if hat.dtype == torch.float64 else torch.float32
        if torch.jit.is_scripting():
            hat = morlet.filter_bank((M, N), scales, L, dtype, hat.device)
        else:
            hat = _filter_bank(M, N, scales, L, dtype, hat)
    return from_finest(hat[:len(scales)], hat[len(scales):], scales, L, max_order)


def as_state(module: nn.Module, name: str, learnable: bool) -> None:
    """Make a module's tensor a parameter that requires grad, or a persistent buffer, of the same value."""
    tensor = getattr(module, name)
    if learnable and isinstance(tensor, nn.Parameter):
        tensor.requires_grad_(True)
        return
    if isinstance(tensor, nn.Parameter):
        # Memory of its own: an optimiser that still holds the parameter would go on moving its values.
        with torch.inference_mode(False):
            tensor = tensor.detach().clone()
    delattr(module, name)
    if learnable:
        setattr(module, name, nn.Parameter(tensor.detach()))
    else:
        module.register_buffer(name, tensor.detach())
    kind = str(getattr(module, 'kind', ''))
    if kind in module._buffers:                                 # it stays the last key
        module.register_buffer(kind, module._buffers.pop(kind))


def refuse_non_finite(state_dict: Dict[str, Any], prefix: str, names: Sequence[str], errors: List[str]) -> None:
    """Add an error, as `nn.Module._load_from_state_dict` does, for each tensor that is sparse, or not finite."""
    for name in names:
        value = state_dict.get(prefix + name)
        if isinstance(value, Tensor) and value.layout != torch.strided:
            errors.append(f'{prefix}{name} is sparse: expected a dense tensor.')
        elif isinstance(value, Tensor) and not value.is_meta and not value.isfinite().all():
            errors.append(f'{prefix}{name} is out of range: it has values that are not finite.')


def _filter_bank(M: int, N: int, scales: List[int], L: int, dtype: torch.dtype, like: Tensor) -> Tensor:
    """`morlet.filter_bank` where `like` is, for reading only: it may be out of the cache."""
    if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
        return operator(like, M, N, scales, L, dtype)
    # A tensor subclass may be fake, and must not get into the cache.
    plain = type(like) in (Tensor, nn.Parameter) and not torch.compiler.is_compiling()
    build = cached_filter_bank if plain else cached_filter_bank.__wrapped__
    return build(M, N, tuple(scales), L, dtype, like.device)


@torch.library.custom_op('scat_zoo::filter_bank', mutates_args=())
def operator(like: Tensor, M: int, N: int, scales: List[int], L: int, dtype: torch.dtype) -> Tensor:
    """A copy of it for `torch.compile`, to which sizes may be symbols, that math cannot take."""
    return _filter_bank(M, N, scales, L, dtype, like).clone()


@operator.register_fake
def _(like: Tensor, M: int, N: int, scales: List[int], L: int, dtype: torch.dtype) -> Tensor:
    return like.new_empty(len(scales) + scales[0] * L, M, N, dtype=dtype)


@functools.lru_cache(maxsize=4)
def cached_filter_bank(M: int, N: int, scales: Tuple[int, ...], L: int, dtype: torch.dtype,
                        device: torch.device) -> Tensor:
    # A function of its arguments alone, so it can't go stale; nobody may write into the result.
    with torch.inference_mode(False), torch.no_grad():
        return morlet.filter_bank((M, N), list(scales), L, dtype, device)
