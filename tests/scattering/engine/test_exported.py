"""The transform in exported and traced graphs: equal to the plain one, in real products, at one image size."""
import itertools
import warnings

import pytest
import torch

from scat_zoo import Scattering2D, ScatteringTorch2D
from scat_zoo.models.stem import ScatteringStem
from scat_zoo.scattering import transform
from scat_zoo.scattering.engine import exported
from scat_zoo.scattering.engine.plan import Plan

KINDS = {
    'fixed': {},
    'morlet': {'learnable': True, 'parametrization': 'morlet', 'init': 'random'},
    'nonexpansive': {'learnable': True, 'parametrization': 'equivariant', 'init': 'random', 'nonexpansive': True},
    'pixelwise': {'learnable': True, 'init': 'random'},
}


def stem_of(kind, J=2, L=4, max_order=2, size=(32, 32), in_chans=2, **kwargs):
    torch.manual_seed(0)
    stem = ScatteringStem(J, L, max_order, in_chans, size, **KINDS[kind], **kwargs)
    if kind == 'pixelwise':
        with torch.no_grad():
            for hat in stem.parameters():
                hat.add_(0.01 * torch.randn_like(hat))          # no crops of each other, and no separable low-pass
    return stem.eval()


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize(('J', 'L', 'max_order', 'size', 'scales'), [
    (2, 8, 2, (32, 32), None), (3, 4, 2, (40, 57), None), (1, 8, 2, (28, 28), None), (2, 6, 1, (32, 20), None),
    (4, 2, 2, (70, 90), None), (3, 3, 2, (33, 32), (3, 1)), (2, 2, 2, (128, 140), None), (1, 2, 2, (300, 9), None),
    (3, 2, 2, (48, 41), (3, 2, 1))])
def test_equals_the_plain_transform(kind, J, L, max_order, size, scales):
    stem = stem_of(kind, J, L, max_order, size, 1, scales=scales, dtype=torch.float64)
    filters = stem.filters()
    M, N = filters.phi[0][0].shape
    plan = Plan(M, N, L, max_order, tuple(stem.scales))
    x = torch.randn(3, *size, dtype=torch.float64)
    found = exported.scattering(x, exported.constants(filters, plan, size, padded=False))
    for mine, plain in zip(found, transform.reference(x, filters, stem.scales, max_order)):
        torch.testing.assert_close(mine.permute(3, 2, 0, 1), plain, rtol=0, atol=1e-12)


@pytest.mark.parametrize(('kwargs', 'shape'), [
    ({}, (2, 3, 24, 32)), ({}, (24, 32)), ({}, (5, 24, 32)), ({'max_order': 1}, (1, 2, 3, 24, 32)),
    ({'pre_pad': True}, (3, 32, 40)), ({'boundary': 'periodic'}, (3, 24, 32))])
def test_images_with_other_axes_and_borders(kwargs, shape):
    module = (Scattering2D if 'boundary' in kwargs else ScatteringTorch2D)(2, (24, 32), 4, **kwargs)
    x = torch.randn(shape)
    program = torch.export.export(module, (x,))
    torch.testing.assert_close(program.module()(x), module(x), rtol=0, atol=1e-5)
    assert not fourier(program)


def fourier(program):
    """The nodes that others may not have."""
    return [node for node in program.graph.nodes if 'fft' in str(node.target) or 'complex' in str(node.target)]


@pytest.mark.parametrize('kind', KINDS)
def test_export_has_constants_and_any_batch(kind):
    stem = stem_of(kind)
    x = torch.randn(2, 2, 32, 32)
    program = torch.export.export(stem, (x,), dynamic_shapes=({0: torch.export.Dim('batch')},))
    assert not fourier(program)
    assert len(list(program.graph.nodes)) < 150                 # filters, and what they do to frequencies, are computed
    for batch in (1, 2, 7):
        x = torch.randn(batch, 2, 32, 32)
        torch.testing.assert_close(program.module()(x), stem(x), rtol=0, atol=1e-5)
    with pytest.raises(Exception, match='32'):
        program.module()(torch.randn(2, 2, 36, 32))


def test_export_of_a_size_that_is_left_open_is_refused():
    dims = {2: torch.export.Dim('height', min=16, max=64)}
    with pytest.raises(Exception, match='height'):
        torch.export.export(stem_of('fixed'), (torch.randn(2, 2, 32, 32),), dynamic_shapes=(dims,))


@pytest.mark.parametrize('strict', [False, True])
def test_parameters_in_training_mode_stay_parameters(strict):
    stem = stem_of('morlet', J=1, size=(8, 8)).train()
    x = torch.randn(2, 2, 8, 8)
    program = torch.export.export(stem, (x,), strict=strict)
    assert not fourier(program)
    module = program.module()
    torch.testing.assert_close(module(x), stem(x), rtol=0, atol=1e-5)
    module(x).square().sum().backward()
    stem(x).square().sum().backward()
    torch.testing.assert_close(module.get_parameter('bank.xi').grad, stem.bank.xi.grad, rtol=1e-3, atol=1e-4)


OTHERS = [(36, 32), (32, 36), (31, 32), (64, 16), (16, 64), (64, 32), (32, 64), (64, 64), (1, 32), (32, 1), (1, 1)]


@pytest.mark.filterwarnings('ignore:.*is deprecated:FutureWarning', 'ignore:.*is deprecated:DeprecationWarning')
@pytest.mark.parametrize(('kind', 'max_order'), [*itertools.product(KINDS, [2]), ('fixed', 0), ('pixelwise', 0)])
def test_trace_refuses_other_sizes(kind, max_order):
    stem = stem_of(kind)
    stem.set_max_order(max_order)
    traced = torch.jit.trace(stem, torch.randn(2, 2, 32, 32))
    assert 'fft' not in str(traced.inlined_graph)
    x = torch.randn(5, 2, 32, 32)
    torch.testing.assert_close(traced(x), stem(x), rtol=0, atol=1e-5)
    for size in OTHERS:
        with pytest.raises(RuntimeError):
            traced(torch.randn(4, 2, *size))


@pytest.mark.filterwarnings('ignore:.*is deprecated:FutureWarning', 'ignore:.*is deprecated:DeprecationWarning')
@pytest.mark.parametrize('parameters', [False, True])
def test_trace_refuses_other_axes(parameters):
    """Channels or further axes would else be taken for images, or the reverse."""
    stem = stem_of('pixelwise', in_chans=3).train(parameters)
    traced = torch.jit.trace(stem, torch.randn(2, 3, 32, 32))
    assert traced(torch.randn(5, 3, 32, 32)).shape == (5, 75, 8, 8)
    for shape in ((3, 1, 32, 32), (1, 6, 32, 32), (3, 32, 32), (6, 32, 32), (32, 32), (2, 1, 3, 32, 32)):
        with pytest.raises(RuntimeError):
            traced(torch.randn(shape))
    S = ScatteringTorch2D(2, (16, 20), L=2)
    traced = torch.jit.trace(S, torch.randn(3, 16, 20))
    assert traced(torch.randn(4, 16, 20)).shape == (4, 9, 4, 5)
    for shape in ((2, 3, 16, 20), (16, 20)):
        with pytest.raises(RuntimeError):
            traced(torch.randn(shape))


@pytest.mark.filterwarnings('ignore:.*is deprecated:FutureWarning', 'ignore:.*is deprecated:DeprecationWarning')
def test_trace_is_as_exact_as_the_transform():
    """Sizes in a trace are tensors, of which torch computes in float32."""
    stem = stem_of('fixed', 2, 4, 2, (96, 80), dtype=torch.float64)
    x = torch.randn(2, 2, 96, 80, dtype=torch.float64)
    torch.testing.assert_close(torch.jit.trace(stem, x)(x), stem(x), rtol=0, atol=1e-13)


@pytest.mark.parametrize('size', [1e-14, 1e17])
def test_images_of_any_size_whose_squares_are_numbers(size):
    stem, x = stem_of('fixed', size=(16, 16), in_chans=1), torch.randn(2, 1, 16, 16)
    traced, right = torch.jit.trace(stem, x), stem(x)
    for order in (0, 1, 2):
        mine = [i for i, channel in enumerate(stem.channels) if channel.order == order]
        assert (traced(x * size) / size - right)[:, mine].abs().max() <= 1e-5 * right[:, mine].abs().max()


def test_low_passes_of_which_one_is_separable():
    stem = stem_of('pixelwise', 3, 2, 2, (48, 41), 1, scales=(3, 2), dtype=torch.float64)
    filters = stem.filters()
    analytic = ScatteringStem(3, 2, 2, 1, (48, 41), scales=(3, 2), dtype=torch.float64).filters()
    M, N = filters.phi[0][0].shape
    plan = Plan(M, N, 2, 2, (3, 2))
    x = torch.randn(3, 48, 41, dtype=torch.float64)
    for scale, level in ((0, 0), (0, 1), (1, 1)):
        filters.phi[scale][level] = analytic.phi[scale][level]
        found = exported.scattering(x, exported.constants(filters, plan, (48, 41), padded=False))
        for mine, plain in zip(found, transform.reference(x, filters, [3, 2], 2)):
            torch.testing.assert_close(mine.permute(3, 2, 0, 1), plain, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings('ignore:.*is deprecated:FutureWarning', 'ignore:.*is deprecated:DeprecationWarning')
def test_trace_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter('error', torch.jit.TracerWarning)
        torch.jit.trace(stem_of('fixed'), torch.randn(2, 2, 32, 32))


@pytest.mark.filterwarnings('ignore:.*is deprecated:FutureWarning', 'ignore:.*is deprecated:DeprecationWarning')
def test_gradients_pass_a_graph():
    """Of a black image too, where a square root has none."""
    stem = stem_of('fixed')
    x = torch.stack([torch.zeros(2, 32, 32), torch.randn(2, 32, 32)])
    traced = torch.jit.trace(stem, x)
    weight = torch.randn_like(stem(x))
    x.requires_grad_()
    mine, plain = (torch.autograd.grad((f(x) * weight).sum(), x)[0] for f in (traced, stem))
    torch.testing.assert_close(mine, plain, rtol=0, atol=1e-4)


def test_plain_products_equal_the_fft(monkeypatch):
    """What a graph computes whose filters are not constants."""
    stem = stem_of('pixelwise', size=(30, 41), dtype=torch.float64)
    x, filters = torch.randn(2, 30, 41, dtype=torch.float64), stem.filters()
    plain = transform.reference(x, filters, [2], 2)[0]
    monkeypatch.setattr(transform, '_in_a_graph', lambda: True)
    torch.testing.assert_close(transform.reference(x, filters, [2], 2)[0], plain, rtol=0, atol=1e-12)
