"""What the properties are tried on: a stem, as its keywords tell, and images for it."""
from typing import Any, Dict, NamedTuple, Tuple

import torch
from hypothesis import strategies as st

from scat_zoo.models.stem import ScatteringStem

KINDS = ['fixed', 'pixelwise', 'morlet', 'equivariant']


class Case(NamedTuple):
    """Plain values, for the report of a failure to tell all.

    kwargs: of the stem, but its dtype.
    size: (H, W) of the images, which need not be the stem's.
    jolt: how far learned values are moved from where they start, relative or as offsets.
    order: the highest that is computed.
    scale: of the values of the images.
    """
    kwargs: Dict[str, Any]
    size: Tuple[int, int]
    jolt: float
    order: int
    batch: int
    scale: float
    seed: int

    def stem(self, dtype=torch.float64):
        torch.manual_seed(self.seed)
        stem = ScatteringStem(dtype=dtype, **self.kwargs)
        stem.set_max_order(self.order)
        return jolted(stem, self.jolt, self.seed)

    def images(self, batch=None, seed=0):
        generator = torch.Generator().manual_seed(self.seed + seed)
        shape = (self.batch if batch is None else batch, self.kwargs['in_chans'], *self.size)
        x = torch.rand(shape, generator=generator, dtype=torch.float64)
        return x if self.kwargs.get('log_input') else self.scale * (x - 0.3)

    def inputs(self):
        """Which keywords tell what is scattered."""
        return {name: self.kwargs[name] for name in ('log_input', 'channel_differences') if name in self.kwargs}


@torch.no_grad()
def jolted(stem, jolt, seed):
    """Its learned values moved at random."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in stem.state_dict().items():
        if value.is_floating_point() and name.startswith('bank.') and not name.endswith('limit'):
            noise = jolt * torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value.dtype)
            value.mul_(1 + noise) if name.endswith('hat') else value.add_(noise)
    return stem


def sides(J, largest):
    return st.tuples(*[st.integers(2 ** J, max(largest, 2 ** J))] * 2)


@st.composite
def kinds(draw, any_options=True):
    """Keywords of a parametrization; with `any_options`, `nonexpansive` among them."""
    kind = draw(st.sampled_from(KINDS))
    if kind == 'fixed':
        return {}
    kwargs = {'parametrization': kind, 'learnable': draw(st.booleans())}
    if not kwargs['learnable']:
        kwargs['frozen_filters'] = True
    if draw(st.booleans()):
        kwargs['init'] = 'random'
    if kind != 'pixelwise':
        kwargs['learn_lowpass'] = draw(st.booleans())
        kwargs['nonexpansive'] = any_options and draw(st.booleans())
    return kwargs


@st.composite
def cases(draw, largest=42, J=4, L=4, batch=3):
    """All that there is, at sizes up to `largest`, at which the engine takes each of its ways."""
    J = draw(st.sampled_from([*range(2, J + 1), 1]))
    kwargs = {'J': J, 'L': draw(st.integers(1, L if J < 4 else 2)), 'in_chans': draw(st.integers(1, 3)),
              'img_size': draw(sides(J, largest))}
    more = [scale for scale in range(1, J) if draw(st.booleans())]
    if more:
        kwargs['scales'] = [*more, J]
    if draw(st.booleans()):
        kwargs['rotation'] = 'average'
    if draw(st.booleans()):
        kwargs['log_input'] = draw(st.sampled_from([1e-3, 0.03, 1.]))
    if draw(st.booleans()):
        kwargs['channel_differences'] = True
    kwargs.update(draw(kinds('log_input' not in kwargs and 'channel_differences' not in kwargs)))
    size = draw(st.one_of(st.just(kwargs['img_size']), sides(J, largest)))
    return Case(kwargs, size, draw(st.sampled_from([0., 0.3])), draw(st.sampled_from([2, 1, 0])),
                draw(st.integers(1, batch)), draw(st.sampled_from([1., 1e-4, 1e4, 1e-25, 1e25])),
                draw(st.integers(0, 9999)))
