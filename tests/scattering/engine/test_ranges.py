"""Images and gradients whose squares no float32 holds: what comes back is that of usual ones, as large or as small."""
import pytest
import torch

import scat_zoo
from scat_zoo import ScatteringTorch2D
from scat_zoo.scattering.engine import ranges, run
from tests.scattering.reference import images

SIZES = [1e-38, 1e-30, 1e-12, 1e12, 1e30]


@pytest.fixture(params=['engine', 'plain'])
def way(request):
    with scat_zoo.use_engine(request.param == 'engine'):
        yield request.param


def gradients(S, x, outer):
    """Coefficients, and gradients to the images and the filters."""
    x = x.clone().requires_grad_()
    s = S(x)
    return s.detach(), *torch.autograd.grad(s, [x, *S.parameters()], outer)


def close(found, right, size, tolerance=1e-5):
    """Whether it is `size` times what is right, to a part of the largest."""
    return (found.double() / size - right.double()).abs().max() <= tolerance * right.abs().max()


@pytest.mark.parametrize('size', SIZES)
def test_images(way, size):
    S, x = ScatteringTorch2D(2, (16, 16)), images((16, 16)).float()
    assert close(S(x * size), S(x), size)


def test_images_of_which_sums_overflow():
    S, x = ScatteringTorch2D(2, (16, 16)), images((16, 16)).float()
    assert close(S(x * 5e37), S(x), 5e37)


def test_a_batch_of_all_sizes(way):
    S, x = ScatteringTorch2D(2, (16, 16)), images((16, 16), len(SIZES)).float()
    found, right = S(x * torch.tensor(SIZES)[:, None, None]), S(x)
    assert all(close(a, b, size) for a, b, size in zip(found, right, SIZES))


@pytest.mark.parametrize('size', [1e-30, 1., 1e30])
@pytest.mark.parametrize('of_grad', [1e-30, 1e-15, 1e15, 1e30])
def test_gradients(way, size, of_grad):
    """That to the images is as large as the outer one, whatever the images are; those to the filters grow with both.

    The plain way multiplies by the moduli before it divides by them.
    """
    if way == 'plain' and not 1e-31 < size * of_grad < 1e31:
        pytest.skip('this product is beyond float32')
    S, x = ScatteringTorch2D(2, (16, 16), L=2, learnable=True), images((16, 16)).float()
    outer = torch.randn(S(x).shape, generator=torch.Generator().manual_seed(0))
    right = gradients(S, x, outer)
    found = gradients(S, x * size, outer * of_grad)
    assert close(found[1], right[1], of_grad)
    if 1e-31 < size * of_grad < 1e31:
        assert all(close(a, b, size * of_grad) for a, b in zip(found[2:], right[2:]))


def test_gradients_of_a_batch_of_all_sizes(way):
    S = ScatteringTorch2D(2, (16, 16), L=2, learnable=True)
    x = images((16, 16), 4).float()
    outer = torch.randn(S(x).shape, generator=torch.Generator().manual_seed(0))
    sizes, of_grads = torch.tensor([[1e-30, 1e30, 1., 1.], [1e30, 1e-30, 1., 1e-30]])[..., None, None]
    right = gradients(S, x, outer)
    found = gradients(S, x * sizes, outer * of_grads[..., None])
    assert all(close(a, b, size) for a, b, size in zip(found[1], right[1], of_grads))
    # To the filters: those of the first three, whose product of sizes is 1; the last one adds nothing.
    outer[3] = 0
    assert all(close(a, b, 1) for a, b in zip(found[2:], gradients(S, x, outer)[2:]))


def test_where_moduli_are_as_small_as_numbers_go(way):
    """Beside a bright dot, maps fall to nothing: gradients stay finite, however large the outer ones."""
    S, x = ScatteringTorch2D(1, (64, 64), L=2, learnable=True), torch.zeros(2, 64, 64)
    x[:, 32, 32] = torch.tensor([1., 1e-38])
    outer = torch.full_like(S(x), 1e30)
    assert all(t.isfinite().all() for t in gradients(S, x, outer))


@pytest.mark.parametrize('value', [0., float('nan'), float('inf')])
def test_what_has_no_size(value):
    x = torch.full((1, 8, 8), value)
    assert ranges.steps(x) == [0]
    assert ScatteringTorch2D(1, (8, 8))(x).eq(0).all() == (value == 0)


def test_usual_images_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(ranges, 'times', None)
    S = ScatteringTorch2D(2, (16, 16), L=2, learnable=True)
    for size in (1e-6, 1., 65535.):
        x = size * images((16, 16)).float()
        gradients(S, x, torch.full_like(S(x), 1e-6))


def test_filters_that_are_no_numbers_are_not_remembered():
    S, x = ScatteringTorch2D(2, (16, 16), L=2), images((16, 16)).float()
    S(x)
    next(S.bank.buffers()).fill_(float('nan'))
    before = len(run.memory.entries)
    for _ in range(3):
        assert S(x).isnan().any()
    assert len(run.memory.entries) == before
