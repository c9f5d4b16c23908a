"""A GPU's way: on one if there is one, else by Triton's interpreter, slowly (`tests/conftest.py` asks for it)."""
import contextlib
import math

import pytest
import torch

import scat_zoo
from scat_zoo import ScatteringTorch2D
from scat_zoo.scattering import geometry, transform
from scat_zoo.scattering.engine import autograd, devices, gpu
from scat_zoo.scattering.engine.plan import Plan
from tests.scattering.reference import bank, counted, images

pytest.importorskip('triton', reason='comes with torch for NVIDIA alone')
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """The kernels, as for a GPU of 1 GiB."""
    from scat_zoo.scattering.engine import kernels
    monkeypatch.setattr(gpu, '_memory', lambda device: 1 << 30)
    monkeypatch.setattr(gpu, '_compiles', lambda device: True)
    return kernels


@pytest.fixture
def instead(monkeypatch):
    """On this device, whichever it is; and what of it was called."""
    calls = []
    monkeypatch.setitem(devices.DEVICES, DEVICE, counted(gpu, calls))
    return calls


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


CASES = {
    'two levels, an odd image': dict(size=(9, 12)),
    'three levels, two scales': dict(size=(8, 9), J=3, L=1, scales=[3, 1]),
    'first order': dict(size=(10, 9), max_order=1, scales=[2, 1]),
    'one level': dict(size=(5, 6), J=1, L=3),
    'one image at a time': dict(size=(8, 9), parts=3),
    'padded already': dict(size=(16, 20), border=0),
}


@pytest.mark.parametrize('case', CASES.values(), ids=CASES.keys())
def test_values_and_gradients_are_the_plain_ways(monkeypatch, case):
    """In float64, of filters that are nothing in particular: none is symmetric, separable or the crop of another."""
    case = {'J': 2, 'L': 2, 'max_order': 2, 'scales': None, 'border': 1, 'parts': 1, **case}
    size, J, L, order, border = case['size'], case['J'], case['L'], case['max_order'], case['border']
    scales = case['scales'] or [J]
    M, N = geometry.padded_size(*size, J, border)
    plan = Plan(M, N, L, order, tuple(scales), border)
    generator = torch.Generator().manual_seed(0)
    levels = geometry.levels(scales, order)
    shapes = [(M >> level, N >> level) for count in levels[0] for level in range(count)]
    shapes += [(L, M >> level, N >> level) for count in levels[1] for level in range(count)]
    row = [torch.randn(shape, generator=generator, dtype=torch.float64).to(DEVICE).requires_grad_() for shape in shapes]
    x = images(size, 3).to(DEVICE).requires_grad_()
    if case['parts'] > 1:
        monkeypatch.setattr(gpu, 'AT_A_TIME', 1e-9)
        assert gpu._split(x, plan, 1) == 1
    right = transform.reference(x, transform.Filters(*plan.by_level(row)), scales, order, False, border)
    outer = [torch.randn(s.shape, generator=generator, dtype=torch.float64).to(DEVICE) for s in right]
    expected = torch.autograd.grad(right, [x, *row], outer)
    with torch.no_grad():
        found, _ = gpu.forward(x, row, [True] * len(row), plan, True)
        grads = gpu.backward(x, row, outer, [True] * (1 + len(row)), plan, None)
    assert all(relative(a, b) < 1e-13 for a, b in zip(found, right))
    assert all(relative(a, b) < 1e-12 for a, b in zip(grads, expected))


@pytest.mark.parametrize('needs_x', [True, False])
def test_only_the_gradients_that_are_needed(needs_x):
    filters = bank((8, 8), 2, 2, perturbed=True).to(DEVICE)
    x = images((8, 8), 2).to(DEVICE)
    phi, psi = filters(x)
    plan = Plan(*phi[0][0].shape, 2, 2, (2,))
    row = [hat.detach() for hat in plan.in_a_row(phi, psi)]
    outer = [torch.ones(2, *shape, dtype=torch.float64, device=DEVICE) for shape in gpu.shapes(plan)]
    everything = gpu.backward(x, row, outer, [True] * (1 + len(row)), plan, None)
    needs = [needs_x, *(i % 2 == 0 for i in range(len(row)))]
    for need, found, right in zip(needs, gpu.backward(x, row, outer, needs, plan, None), everything):
        assert (found is None) == (not need)
        assert found is None or torch.equal(found, right)


def test_moduli_of_any_size():
    """The modulus has the gradient 0 at 0, and there alone: of a tiny number, whose square is 0, it has its own."""
    from scat_zoo.scattering.engine import kernels
    z = torch.tensor([0, 3 + 4j, 1e-30, 3e30 + 4e30j], dtype=torch.complex64, device=DEVICE)
    assert torch.allclose(kernels.modulus(z), torch.tensor([0, 5, 1e-30, 5e30], device=DEVICE), rtol=1e-6, atol=0)
    grads = kernels.modulus_to_maps(z, torch.tensor([1., 10., 1., 1e30], device=DEVICE))
    right = torch.tensor([0, 6 + 8j, 1, 6e29 + 8e29j], dtype=torch.complex64, device=DEVICE)
    assert torch.allclose(grads, right, rtol=1e-6, atol=0)


@pytest.mark.parametrize('parametrization', ['pixelwise', 'morlet'])
def test_models_take_it(instead, parametrization):
    model = scat_zoo.scat_linear(num_classes=3, in_chans=1, img_size=8, L=2, learnable=True,
                                 parametrization=parametrization).eval().to(DEVICE)
    x = images((8, 8), 2).to(DEVICE).float()[:, None].requires_grad_()
    wanted = [x, *model.scattering.parameters()]
    found = model(x)
    grads = torch.autograd.grad(found.square().sum(), wanted)
    assert instead == ['forward', 'backward']
    with scat_zoo.use_engine(False):
        right = model(x)
        expected = torch.autograd.grad(right.square().sum(), wanted)
    assert instead == ['forward', 'backward']
    assert torch.allclose(found, right, atol=1e-5)
    assert all(relative(a, b) < 1e-4 for a, b in zip(grads, expected))


def test_under_compile_it_is_an_operator(instead):
    S = ScatteringTorch2D(1, (5, 6), L=2, learnable=True).to(DEVICE)
    x = images((5, 6), 2).to(DEVICE).float()
    expected = torch.autograd.grad(S(x).square().sum(), list(S.parameters()))
    grads = torch.autograd.grad(torch.compile(S, backend='aot_eager', fullgraph=True)(x).square().sum(),
                                list(S.parameters()))
    assert instead == ['forward', 'backward'] * 2
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(grads, expected))
    plan = Plan(8, 10, 2, 2, (1,))
    row = [hat.detach().requires_grad_() for hat in plan.in_a_row(*S.bank(x))]
    torch.library.opcheck(autograd.operator, (x, row, plan.numbers(), [True] * len(row)))


def test_the_rest_goes_the_plain_way(instead, monkeypatch):
    S, x = ScatteringTorch2D(1, (5, 6), L=2).to(DEVICE), images((5, 6), 2).to(DEVICE)
    S.double()(x)
    assert instead == []
    S.float()(x.float())
    assert instead == ['forward']
    assert torch.equal(S(x.half()), S(x.half().float()).half())
    assert instead == ['forward'] * 3
    monkeypatch.setattr(gpu, 'MOST', 1e-9)                  # more than the memory of this GPU
    S(x.float())
    assert instead == ['forward'] * 3


@pytest.mark.parametrize(('size', 'n'), [(5, 8), (8, 8), (4, 12), (2, 6), (9, 12)])
def test_gradients_of_the_padding(size, n):
    x = images((size, size + 1), 2).requires_grad_()
    plan = Plan(n, n + 1, 2, 2, (1,))
    padded = transform.pad(x, n, n + 1)
    outer = torch.randn_like(padded)
    expected, = torch.autograd.grad(padded, x, outer)
    assert torch.allclose(gpu._unpadded(outer, x, plan), expected, atol=1e-13)


def test_a_machine_on_which_nothing_compiles(monkeypatch, interpreted):
    """Such as one without a compiler for C: told once."""
    monkeypatch.undo()

    def fails(z):
        raise RuntimeError('Failed to find C compiler')

    device = torch.device('cpu')
    with monkeypatch.context() as patch:
        patch.setattr(interpreted, 'modulus', fails)
        patch.setattr(torch.version, 'cuda', '13.0')
        patch.setattr(torch.cuda, 'device', lambda device: contextlib.nullcontext())
        gpu._compiles.cache_clear()
        with pytest.warns(UserWarning, match='Triton compiles nothing: RuntimeError: Failed to find C compiler'):
            assert not gpu._compiles(device)
        assert not gpu._compiles(device)
    gpu._compiles.cache_clear()


def test_parts_of_the_batch_are_about_as_large():
    plan = Plan(240, 240, 8, 2, (3,))
    x = torch.empty(100, 1, 1)
    samples = 240 * 240 * (1 + 8 + 72 / 4 + 136 / 16)
    most = (1 << 30) // 32 / (24 * samples)
    assert gpu._split(x, plan, 1) == math.ceil(100 / math.ceil(100 / max(1, int(most))))
    assert gpu._split(x[:1], plan, 2) == 1
