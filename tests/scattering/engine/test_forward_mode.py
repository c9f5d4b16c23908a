"""Forward-mode derivatives, of images and of filters: those of the reverse mode, and of finite differences."""
import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call, jacfwd, jacrev, jvp, linearize, vmap

from scat_zoo.models.stem import ScatteringStem
from scat_zoo.scattering.parametric import KINDS
from scat_zoo.scattering.torch2d import ScatteringTorch2D
from tests.scattering.reference import perturb


def stem(**options):
    return perturb(ScatteringStem(2, 2, in_chans=1, img_size=(8, 8), learnable=True, dtype=torch.float64, **options))


def differences(function, inputs, directions, step=1e-6):
    """Central differences: for float64 and this step good to about 1e-9."""
    ends = [function(*(t + sign * step * v for t, v in zip(inputs, directions))) for sign in (1, -1)]
    return (ends[0] - ends[1]) / (2 * step)


def dual(function, inputs, directions):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(function(*map(forward_ad.make_dual, inputs, directions))).tangent


def with_torch_func(function, inputs, directions):
    return jvp(function, inputs, directions)[1]


def linearized(function, inputs, directions):
    return linearize(function, *inputs)[1](*directions)


def without_gradients(function, inputs, directions):
    with torch.no_grad():
        return dual(function, inputs, directions)


WAYS = [with_torch_func, dual, without_gradients]
OPTIONS = [*({'parametrization': kind} for kind in KINDS), {'scales': (2, 1)},
           {'parametrization': 'morlet', 'nonexpansive': True, 'learn_lowpass': True}]


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('way', [*WAYS, linearized])
def test_images(way):
    S = ScatteringTorch2D(2, (8, 8), L=2, dtype=torch.float64)
    x, v = torch.randn(2, 2, 8, 8, dtype=torch.float64)
    assert (way(S, (x,), (v,)) - differences(S, (x,), (v,))).abs().max() < 1e-8
    assert S(x).abs().max() > 0                                 # and the next call goes its usual way


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(('options', 'way'), [
    *((options, way) for options in OPTIONS for way in WAYS), (OPTIONS[0], linearized)],
    ids=lambda value: getattr(value, '__name__', str(value)))       # not str alone, which tells a function's address
def test_filters(options, way):
    model, x = stem(**options), torch.randn(2, 1, 8, 8, dtype=torch.float64)
    names, filters = zip(*((name, p.detach()) for name, p in model.named_parameters()))

    def function(*filters):
        return functional_call(model, dict(zip(names, filters)), (x,))

    directions = tuple(torch.randn_like(p) for p in filters)
    expected = differences(function, filters, directions)
    assert (way(function, filters, directions) - expected).abs().max() < 1e-7 * max(1, expected.abs().max())


def test_jacobians_agree_both_ways():
    model, x = stem(parametrization='morlet'), torch.randn(1, 1, 8, 8, dtype=torch.float64)
    filters = {name: p.detach() for name, p in model.named_parameters()}

    def function(filters, x):
        return functional_call(model, filters, (x,))

    forward, reverse = (jac(function, argnums=(0, 1))(filters, x) for jac in (jacfwd, jacrev))
    for name in filters:
        assert torch.allclose(forward[0][name], reverse[0][name], rtol=0, atol=1e-10)
    assert torch.allclose(forward[1], reverse[1], rtol=0, atol=1e-10)
    vectorised = torch.autograd.functional.jacobian(model, x, strategy='forward-mode', vectorize=True)
    assert torch.allclose(vectorised, forward[1], rtol=0, atol=1e-10)


@pytest.mark.filterwarnings('ignore')
def test_under_compile():
    """Where the operator would give no tangent, and no gradient to what torch.func transforms."""
    S, v = ScatteringTorch2D(1, (4, 4), L=1, learnable=True, dtype=torch.float64), torch.randn(2, 4, 4).double()
    x, filters = torch.randn_like(v), {name: p.detach() for name, p in S.named_parameters()}

    def function(x, v):
        per_image = vmap(torch.func.grad(lambda f, image: functional_call(S, f, (image,)).square().sum()), (None, 0))
        return [jvp(S, (x,), (v,))[1], *per_image(filters, x).values()]

    results = torch.compile(function, backend='eager', fullgraph=True)(x, v), function(x, v)
    assert all(torch.allclose(a, b, rtol=0, atol=1e-10) for a, b in zip(*results, strict=True))
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(torch.compile(S, backend='eager')(forward_ad.make_dual(x, v))).tangent
    assert torch.allclose(tangent, results[1][0], rtol=0, atol=1e-10)
