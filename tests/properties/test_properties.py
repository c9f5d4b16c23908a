"""What holds of every transform, whatever its options, filters and images: tried on drawn ones (`draws.Case`)."""
import math
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scat_zoo import ScatteringTorch2D
from scat_zoo.scattering import frame
from scat_zoo.scattering.engine import cascade
from scat_zoo.train.loop import _threads as threads_of_torch

from . import draws, reference, ways

SEEDS = st.integers(0, 9999)


def expected(case, stem, x):
    """What the definition gives, of images that are any tensor."""
    scattered = reference.stem_inputs(x.detach().double().numpy(), **case.inputs())
    return reference.scattering(scattered, reference.numbers(stem.filters(case.size)), stem.scales, stem.channels,
                                rotation=stem.rotation)


def check_orders(found, right, stem, error, also=0.):
    """Of each order, errors at most `error` times the largest coefficient, or `also`, where all of them are tiny."""
    assert found.shape == right.shape
    orders = np.array([channel.order for channel in stem.channels])
    for order in set(orders):
        a, b = found.numpy()[:, orders == order], right[:, orders == order]
        assert np.abs(a - b).max() <= max(error * np.abs(b).max(), also)


@pytest.mark.parametrize('way', [ways.fast, ways.plain, ways.without_torchscript, ways.scripted, ways.in_a_graph])
@given(draws.cases())
def test_float64_is_the_definition(way, case):
    stem, x = case.stem(), case.images()
    right = expected(case, stem, x)
    # What differs is the order of additions; of a flat image's details nothing but rounding is left.
    check_orders(way(stem, x), right, stem, 1e-12, 1e-14 * _largest(case, x))


@pytest.mark.parametrize(('way', 'share', 'largest'), [(ways.compiled, 3, 20), (ways.by_triton, 5, 6)])
def test_slow_ways_are_the_definition(way, share, largest):
    """Of these, fewer and smaller ones."""
    if way is ways.by_triton:
        pytest.importorskip('triton', reason='comes with torch for NVIDIA alone')

    @settings(max_examples=max(1, settings.default.max_examples // share))
    @given(draws.cases(largest=largest, J=2, L=2, batch=2))
    def check(case):
        stem, x = case.stem(), case.images()
        right = expected(case, stem, x)
        check_orders(way(stem, x), right, stem, 1e-12, 1e-14 * _largest(case, x))

    check()


@given(draws.cases())
def test_float32_errs_no_more_than_it_must(case):
    """As against kymatio: at most three times the plain way's error, or 1e-6 of the largest coefficient."""
    stem, x = case.stem(torch.float32), case.images().float()
    right, plain = expected(case, stem, x), ways.plain(stem, x)
    for found, error in ((plain, 2e-6), (ways.fast(stem, x), max(1e-6, 3 * _error(plain, right)))):
        check_orders(found, right, stem, error, 2e-7 * _largest(case, x))


def _largest(case, x):
    return np.abs(reference.stem_inputs(x.double().numpy(), **case.inputs())).max()


def _error(found, right):
    return np.abs(found.numpy() - right).max() / np.abs(right).max()


# ---- images as they lie in memory, in types, batches and chunks ----

def _strided(x):
    wide = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 3 * x.shape[3])
    return wide[..., ::2, ::3].copy_(x)


def _later(x):
    flat = torch.cat([x.new_zeros(7), x.flatten()])
    return flat[7:].view(x.shape)


LAYOUTS = {
    'channels last': lambda x: x.to(memory_format=torch.channels_last),
    'transposed': lambda x: x.mT.contiguous().mT,
    'channels first of all': lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    'strided': _strided,
    'later in memory': _later,
    'expanded': lambda x: x[:1].expand_as(x),
    'one row for all': lambda x: x[..., :1, :].expand_as(x),
    'negated by a bit': lambda x: torch.complex(x, -x).conj().imag,
}


@given(draws.cases(largest=20, J=3), st.sampled_from(sorted(LAYOUTS)), st.sampled_from([torch.float32, torch.float64]),
       st.booleans())
def test_memory_of_an_image_does_not_matter(case, layout, dtype, engine):
    stem = case.stem(dtype)
    x = LAYOUTS[layout](case.images().to(dtype))
    same, way = x.clone(memory_format=torch.contiguous_format).resolve_neg(), ways.fast if engine else ways.plain
    s, right = way(stem, x), way(stem, same)
    # Products that centre an image add in another order as it lies; all else is the same to the bit.
    error = 4 * torch.finfo(dtype).eps * _largest(case, same) if stem.rotation else 0
    assert torch.allclose(s, right, rtol=0, atol=error)
    assert torch.equal(x, same)                                             # nothing was written into it


@given(draws.cases(largest=20, J=3), st.sampled_from([torch.float16, torch.bfloat16]))
def test_half_precision_is_float32_rounded(case, half):
    stem, x = case.stem(torch.float32), case._replace(scale=1.).images().to(half)
    if stem.inputs.leaves_alone:
        assert torch.equal(ways.fast(stem, x), ways.fast(stem, x.float()).to(half))


@given(draws.cases(largest=20, J=3), st.integers(-20, 20), st.sampled_from([1, -1]))
def test_powers_of_two_go_through(case, power, sign):
    """To the bit, since nothing but exponents differs, if all are usual; the sign is left in order 0 alone."""
    if 'log_input' in case.kwargs:
        return
    stem, x = case.stem(torch.float32), case.images().float()
    s, signs = ways.fast(stem, x), torch.tensor([sign if c.order == 0 else 1 for c in stem.channels])
    found, right = ways.fast(stem, sign * 2. ** power * x), 2. ** power * signs[:, None, None] * s
    usual = 1e-5 < case.scale < 1e5
    assert torch.allclose(found, right, rtol=0, atol=0 if usual else 1e-6 * right.abs().max().item())


@given(draws.cases(largest=20, J=3, batch=16), st.integers(1, 16), st.integers(1, 3), SEEDS)
def test_batches_chunks_and_threads_do_not_matter(case, chunk, threads, seed):
    """Nor for gradients, which are sums over them."""
    stem, x = case.stem(), case.images()
    order = torch.randperm(case.batch, generator=torch.Generator().manual_seed(seed))
    right, *grads = values_and_gradients(stem, x)
    with mock.patch.object(cascade, 'MAPS', chunk), threads_of_torch(threads):
        found, *others = values_and_gradients(stem, x[order])
        pieces = torch.cat([ways.fast(stem, part) for part in x.split(chunk)])
    others[0] = others[0][order.argsort()]
    for a, b in zip([found, pieces[order], *others], [right[order], right[order], *grads], strict=True):
        assert (a - b).abs().max() <= 1e-12 * max(b.abs().max(), _largest(case, x))


def values_and_gradients(stem, x):
    """Coefficients, and the gradients of the sum of their squares to the images and to all parameters."""
    x = x.clone().requires_grad_()
    wanted = [x, *(p for p in stem.parameters() if p.requires_grad)]
    s = stem(x)
    grads = torch.autograd.grad(s.square().sum() / s.detach().abs().max(), wanted, allow_unused=True)
    return [s.detach(), *(torch.zeros_like(p) if g is None else g for p, g in zip(wanted, grads))]


@given(st.lists(st.integers(0, 3), max_size=3), st.booleans(), SEEDS)
def test_axes_before_height_and_width_are_a_batch(batch, learnable, seed):
    S = ScatteringTorch2D(1, (5, 6), L=2, learnable=learnable, dtype=torch.float64)
    x = torch.randn(*batch, 5, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    s = S(x)
    assert s.shape == (*batch, len(S.paths), 2, 3)
    for place in np.ndindex(*batch):
        assert torch.allclose(s[place], S(x[place].clone()), rtol=0, atol=1e-12)


# ---- geometry ----

@st.composite
def periodic(draw):
    """A transform of periodic images, any filters that it may have learned, and cells to turn an image by."""
    J = draw(st.integers(1, 3))
    cells = draw(st.tuples(*[st.integers(1, 20 >> J)] * 2))
    S = ScatteringTorch2D(J, [n << J for n in cells], L=draw(st.integers(1, 3)), max_order=draw(st.integers(1, 2)),
                          learnable=draw(st.booleans()), boundary='periodic', dtype=torch.float64)
    return draws.jolted(S, draw(st.sampled_from([0, 0.3])), 0), draw(st.tuples(*[st.integers(-9, 9)] * 2))


@given(periodic(), SEEDS)
def test_coefficients_move_with_a_periodic_image(made, seed):
    S, cells = made
    x = torch.randn(2, *S.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    moved = S(x.roll([n << S.J for n in cells], (-2, -1)).contiguous())
    assert torch.allclose(moved, S(x).roll(cells, (-2, -1)), rtol=0, atol=1e-12)
    filters = reference.numbers(S.filters())
    right = reference.scattering(x[:, None].numpy(), filters, [S.J], S.channels, border=0)
    assert np.abs(S(x).detach().numpy() - right).max() <= 1e-12


# ---- what a bank guarantees ----

def littlewood_paley(filters):
    """The sum at each level, from the definition."""
    phi, psi = filters
    sums = []
    for level in range(len(phi[0])):
        total = sum(levels[level] ** 2 for levels in phi if level < len(levels))
        for levels in psi:
            for hat in levels[level] if level < len(levels) else []:
                total = total + (hat ** 2 + hat[np.ix_(*(-np.arange(n) for n in hat.shape))] ** 2) / 2
        sums.append(total)
    return sums


@given(draws.cases(largest=20, J=3), SEEDS, st.sampled_from([1., 1e-2, 0.]))
def test_distances_stay_within_the_bound(case, seed, near):
    """Of coefficients from that of the padded images: of any two, of two near ones, and of a grey from another."""
    stem, x = case.stem(), case.images()
    sums = littlewood_paley(reference.numbers(stem.filters(case.size)))
    A, B = stem.frame_bounds(case.size)
    assert np.allclose([A, B], [sums[0].min(), max(total.max() for total in sums)], rtol=1e-12, atol=0)
    assert not stem.nonexpansive or B <= 1 + 1e-12
    y = x + near * case.images(seed=seed + 1) if near else torch.full_like(x, x.mean().item())
    pad, size = reference.centred if stem.rotation else reference.padded, sums[0].shape
    before = np.linalg.norm(np.subtract(*(pad(reference.stem_inputs(image.numpy(), **case.inputs()), size)
                                          for image in (x, y))))
    after = (ways.fast(stem, x) - ways.fast(stem, y)).norm().item()
    assert after <= frame.lipschitz_bound(B, case.order) * before * (1 + 1e-9) + 1e-12 * case.scale


# ---- gradients ----

@given(draws.cases(largest=12, J=3, L=3, batch=2), SEEDS)
def test_gradients_are_finite_differences_of_the_definition(case, seed):
    """In one direction for the images and all filters; moved filters, since a bank's symmetry has kinks."""
    case = case._replace(jolt=0.3, scale=1.)
    stem, x = case.stem(), case.images().requires_grad_()
    wanted = [x, *(p for p in stem.parameters() if p.requires_grad)]
    generator = torch.Generator().manual_seed(seed)
    step, outer = ([torch.randn(t.shape, generator=generator, dtype=t.dtype) for t in tensors]
                   for tensors in (wanted, [stem(x)]))
    grads = torch.autograd.grad(stem(x), wanted, outer, allow_unused=True)
    slopes = [0. if grad is None else (grad * d).sum().item() for grad, d in zip(grads, step)]
    values = []
    for t in (1e-6, -2e-6):                                         # one forth, two back
        with torch.no_grad():
            for value, d in zip(wanted, step):
                value += t * d
        values.append((expected(case, stem, x) * outer[0].numpy()).sum())
    assert abs((values[0] - values[1]) / 2e-6 - math.fsum(slopes)) <= 1e-4 * max(1, np.linalg.norm(slopes))
