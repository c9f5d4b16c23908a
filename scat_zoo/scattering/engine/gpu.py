"""A GPU's way: FFTs by torch, and between them kernels of our own. `serves`, `forward` and `backward` are as
`devices.Device` tells.

What takes time on a GPU is to launch kernels and to move maps, so both are kept few. All maps of a level, of both
orders, go through the same launches: at level l there are L of the first order (j1 = l), then for each j1 < l the L x L
of the second (j2 = l). Their low-passes are taken from the spectra of the moduli, which the next levels need too. Parts
of the batch take turns, so that memory is bounded, and backward computes a part's maps again.
"""
import functools
import math
import warnings
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

from ...wording import brief
from .. import geometry
from ..transform import pad
from . import matrices
from .plan import Plan, reads, shapes

# Of a GPU's memory: what maps are worked on in at a time, if an image's fit in; and the most for those of one image.
AT_A_TIME, MOST = 1 / 32, 1 / 4
MAP = 24                # bytes that the forward pass takes for each sample of a map, complex, filtered and in Fourier


def serves(x: Tensor, filters: Sequence[Tensor]) -> bool:
    if any(t.device != x.device or t.dtype.itemsize > 4 for t in (x, *filters)):
        return False
    # Large images go the plain way, orientation by orientation: here, all of an image's maps are there at once.
    samples = sum(hat.numel() * (len(hat) if hat.ndim == 3 else 1) for hat in filters)
    return MAP * samples <= MOST * _memory(x.device) and _compiles(x.device)


@torch.compiler.assume_constant_result
@functools.cache
def _memory(device: torch.device) -> int:
    """Bytes of a GPU."""
    return torch.cuda.get_device_properties(device).total_memory


@torch.compiler.assume_constant_result
@functools.cache
def _compiles(device: torch.device) -> bool:
    """Whether kernels can be compiled for a GPU, found out by trying."""
    if torch.version.cuda is None:              # AMD's GPUs are `cuda` to torch, too, and nobody has tried them
        return False
    try:
        from . import kernels
        with torch.cuda.device(device):
            kernels.modulus(torch.zeros(1, dtype=torch.complex64, device=device))
    except Exception as error:
        warnings.warn('the scattering transform takes several times as long as it could on this GPU, for which Triton '
                      f'compiles nothing: {type(error).__name__}: {brief(error, 120)}', stacklevel=2)
        return False
    return True


# ---- levels ----

class Part(NamedTuple):
    """Maps of a level that come from the same source: the image (0), or the first order's of level j1 (j1 + 1); where
    they are among the level's, and at which level the wavelets are read.
    """
    source: int
    where: slice
    read: int


def _parts(plan: Plan, level: int) -> List[Part]:
    L, second = plan.L, plan.L ** 2
    return [Part(0, slice(0, L), 0), *(Part(j1 + 1, slice(L + j1 * second, L + (j1 + 1) * second), j1)
                                       for j1 in range(level if plan.max_order > 1 else 0))]


def _shape(plan: Plan, level: int) -> Tuple[int, int, int]:
    """(maps, rows, columns) of a level."""
    return _parts(plan, level)[-1].where.stop, plan.M >> level, plan.N >> level


@matrices.cached
def _channels(plan: Plan, level: int, scale: int, device: torch.device) -> Tensor:
    """At which place among the paths of that scale each map of a level is; at level -1 the image."""
    paths = geometry.paths(scale, plan.L, plan.max_order) if plan.max_order > 0 else [geometry.Path(0)]
    places = {path: i for i, path in enumerate(paths)}
    thetas = range(plan.L)
    if level < 0:
        wanted = [geometry.Path(0)]
    else:
        wanted = [geometry.Path(1, level, t) for t in thetas]
        if plan.max_order > 1:
            wanted += [geometry.Path(2, j1, t1, level, t2) for j1 in range(level) for t1 in thetas for t2 in thetas]
    return torch.tensor([places[path] for path in wanted], device=device)


class LowPass(NamedTuple):
    """A low-pass of the maps of a level: its filter (1, m, n), the samples on each side of its results that are
    padding, the channels of the results, the number of its scale, and where its gradient is added up, if at all.
    """
    hat: Tensor
    margin: int
    table: Tensor
    scale: int
    grad: Optional[Tensor]


def _lowpasses(plan: Plan, filters: Sequence[Tensor], grads: Sequence[Optional[Tensor]]) -> List[List[LowPass]]:
    """Those of each level, and last, of the image."""
    (phi, _), (to, _), (read, _) = (plan.by_level(row) for row in (filters, grads, reads(plan)))
    levels = [*range(plan.J if plan.max_order > 0 else 0), -1]
    return [[LowPass(phi[i][max(level, 0)][None], read[i][max(level, 0)].margin,
                     _channels(plan, level, scale, filters[0].device), i, to[i][max(level, 0)])
             for i, scale in enumerate(plan.scales) if scale > level] for level in levels]


# The kernels read maps as they lie in memory, which torch promises of no FFT. Inverse ones divide by nothing.

def _rfft(maps: Tensor) -> Tensor:
    return torch.fft.rfft2(maps).contiguous()


def _irfft(spectra: Tensor, M: int, N: int) -> Tensor:
    return torch.fft.irfft2(spectra, s=(M, N), norm='forward').contiguous()


def _fft(maps: Tensor) -> Tensor:
    return torch.fft.fft2(maps).contiguous()


def _ifft(spectra: Tensor) -> Tensor:
    return torch.fft.ifft2(spectra, norm='forward').contiguous()


def _wavelets(plan: Plan, level: int, sources: Sequence[Tensor], psi: Sequence[Sequence[Tensor]]) -> Tensor:
    """Complex maps (B, maps, m, n) of a level, from the spectra of the image and of the levels before."""
    from . import kernels
    spectra = sources[0].new_empty(len(sources[0]), *_shape(plan, level))
    for part in _parts(plan, level):
        kernels.fold(sources[part.source], psi[level][part.read], spectra[:, part.where])
    return _ifft(spectra)


def _lowpass(spectra: Tensor, lows: Sequence[LowPass], outs: Sequence[Tensor], plan: Plan) -> None:
    """Write the coefficients of real maps with these spectra (B, maps, m, n / 2 + 1)."""
    from . import kernels
    for low in lows:
        scale = plan.scales[low.scale]
        small = spectra.new_empty(*spectra.shape[:2], plan.M >> scale, plan.N >> scale)
        kernels.fold(spectra, low.hat, small)
        kernels.place(_ifft(small), low.table, outs[low.scale])


def _lowpass_backward(spectra: Tensor, lows: Sequence[LowPass], grads: Sequence[Tensor]) -> Tensor:
    """Gradients to the spectra; those to the filters are added up."""
    from . import kernels
    inner = torch.empty_like(spectra)
    for i, low in enumerate(lows):
        outer = _fft(kernels.place_to_maps(grads[low.scale], low.table, low.margin))
        if low.grad is not None:
            low.grad.add_(kernels.fold_to_filters(spectra, outer, low.hat)[0])
        kernels.fold_to_maps(outer, low.hat, inner, add=i > 0)
    return inner


# ---- the transform ----

def _split(x: Tensor, plan: Plan, times: int) -> int:
    """Images at a time, in parts that are about as large, if each sample of a map takes so many times `MAP` bytes."""
    samples = plan.M * plan.N + sum(math.prod(_shape(plan, level)) for level in range(plan.J))
    most = max(1, int(AT_A_TIME * _memory(x.device)) // (MAP * times * samples))
    parts = -(-len(x) // most)
    return -(-len(x) // parts)


def _image(x: Tensor, plan: Plan) -> Tensor:
    return _rfft((x if x.shape[1:] == (plan.M, plan.N) else pad(x, plan.M, plan.N)).unsqueeze(1))


def forward(x: Tensor, filters: Sequence[Tensor], needs: Sequence[bool], plan: Plan,
            differentiated: bool) -> Tuple[List[Tensor], None]:
    outs = [x.new_empty(len(x), *shape) for shape in shapes(plan)]
    filters = [hat.contiguous() for hat in filters]
    size = _split(x, plan, 1)
    with torch.cuda.device_of(x):
        lows, (_, psi) = _lowpasses(plan, filters, [None] * len(filters)), plan.by_level(filters)
        for images, *into in zip(x.split(size), *(out.split(size) for out in outs)):
            _forward(images, psi, lows, plan, into)
    return outs, None


def _forward(x: Tensor, psi: List[List[Tensor]], lows: List[List[LowPass]], plan: Plan, outs: List[Tensor]) -> None:
    from . import kernels
    sources = [_image(x, plan)]
    _lowpass(sources[0], lows[-1], outs, plan)
    for level, low in enumerate(lows[:-1]):
        spectra = _rfft(kernels.modulus(_wavelets(plan, level, sources, psi)))
        _lowpass(spectra, low, outs, plan)
        sources.append(spectra[:, :plan.L])


def backward(x: Tensor, filters: Sequence[Tensor], grads: Sequence[Tensor], needs: Sequence[bool], plan: Plan,
             kept: Any) -> List[Optional[Tensor]]:
    filters, grads = [hat.contiguous() for hat in filters], [grad.contiguous() for grad in grads]
    sums = [torch.zeros_like(hat) if need else None for hat, need in zip(filters, needs[1:])]
    size, inner = _split(x, plan, 2), []
    with torch.cuda.device_of(x):
        lows, (_, psi), (_, to) = _lowpasses(plan, filters, sums), plan.by_level(filters), plan.by_level(sums)
        for images, *outer in zip(x.split(size), *(grad.split(size) for grad in grads)):
            found = _backward(images, psi, to, lows, plan, outer, needs[0])
            if needs[0]:
                inner.append(_unpadded(_irfft(found, plan.M, plan.N).squeeze(1), images, plan))
    return [torch.cat(inner) if inner else None, *sums]


def _backward(x: Tensor, psi: List[List[Tensor]], to: List[List[Optional[Tensor]]], lows: List[List[LowPass]],
              plan: Plan, grads: List[Tensor], needed: bool) -> Tensor:
    """Gradients to the spectra of the padded images, right if they are needed; those to the filters are added up."""
    from . import kernels
    maps, spectra, sources = [], [], [_image(x, plan)]
    for level in range(len(lows) - 1):
        maps.append(_wavelets(plan, level, sources, psi))
        spectra.append(_rfft(kernels.modulus(maps[-1])))
        sources.append(spectra[-1][:, :plan.L])
    inner = [_lowpass_backward(own, low, grads) for own, low in zip([*spectra, sources[0]], lows)]
    into = [inner[-1], *(own[:, :plan.L] for own in inner[:-1])]                # gradients to the sources
    for level in reversed(range(len(maps))):
        z, own = maps.pop(), inner[level]
        outer = _fft(kernels.modulus_to_maps(z, _irfft(own, z.shape[-2], z.shape[-1])))
        for part in _parts(plan, level):
            hats, grad, mine = psi[level][part.read], to[level][part.read], outer[:, part.where]
            if grad is not None:
                grad.add_(kernels.fold_to_filters(sources[part.source], mine, hats))
            if needed or part.source > 0:
                kernels.fold_to_maps(mine, hats, into[part.source], add=True)
    return inner[-1]


@matrices.cached
def _reflections(size: int, n: int, device: torch.device) -> Tuple[Tensor, Tensor]:
    """For each of `size` samples, where it stands in their reflection to n, and whether it does so: (times, size)."""
    source = matrices.reflected(size, n)
    places = [(source == i).nonzero().flatten().tolist() for i in range(size)]
    times = max(map(len, places))
    index = torch.tensor([[mine[k] if k < len(mine) else 0 for mine in places] for k in range(times)])
    there = torch.tensor([[float(k < len(mine)) for mine in places] for k in range(times)])
    return index.to(device), there.to(device)


def _unpadded(grad: Tensor, x: Tensor, plan: Plan) -> Tensor:
    """Gradients to images from those to padded ones: sums in a fixed order, which `index_add_` has not."""
    if x.shape[1:] == (plan.M, plan.N):
        return grad
    for dim, n in ((1, plan.M), (2, plan.N)):
        index, there = _reflections(x.shape[dim], n, x.device)
        shape = [-1 if d == dim else 1 for d in range(3)]
        parts = [grad.index_select(dim, i) * t.to(grad.dtype).view(shape) for i, t in zip(index, there)]
        grad = sum(parts[1:], parts[0])
    return grad
