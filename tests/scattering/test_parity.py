"""Coefficients and gradients against kymatio 0.3.0: analytic filters, and filters of arbitrary values."""
import copy

import pytest
import torch

from scat_zoo import ScatteringTorch2D
from tests.scattering.reference import as_parameters, error_by_order, kymatio, perturb

# Every J up to 5, square or not, odd sizes, and 2^J equal to the size.
SHAPES = {
    1: [(32, 32), (28, 28), (33, 47), (64, 48), (2, 2)],
    2: [(32, 32), (28, 28), (33, 47), (64, 48), (4, 4)],
    3: [(32, 32), (28, 28), (33, 47), (64, 48), (8, 16), (224, 224)],
    4: [(32, 32), (28, 28), (33, 47), (64, 48), (16, 16)],
    5: [(32, 32), (33, 47), (64, 48)],
}
CASES = [(J, shape, L) for J, shapes in SHAPES.items() for shape in shapes for L in (1, 4, 6, 8)
         if L == 8 or max(shape) < 100]                     # kymatio takes seconds to build a large bank


def image(shape, batch=(2,), seed=0):
    return torch.randn(*batch, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def check_float32(ours, theirs, x, J, L, max_order):
    """Our float32 error, order by order, at most three times kymatio's own or 1e-6 of the largest coefficient."""
    truth = copy.deepcopy(theirs).double()(x)
    own = error_by_order(ours(x.float()), truth, J, L, max_order)
    others = error_by_order(theirs(x.float()), truth, J, L, max_order)
    for (error, largest), (kymatio_error, _) in zip(own, others, strict=True):
        assert error <= max(3 * kymatio_error, 1e-6 * largest)


@pytest.mark.parametrize('max_order', [1, 2])
@pytest.mark.parametrize(('J', 'shape', 'L'), CASES)
def test_float32(J, shape, L, max_order):
    theirs = kymatio(J, shape, L, max_order)
    ours = ScatteringTorch2D(J, shape, L=L, max_order=max_order)
    check_float32(ours, theirs, image(shape), J, L, max_order)


@pytest.mark.parametrize('perturbed', [False, True])
@pytest.mark.parametrize(('J', 'shape', 'L'), CASES)
def test_float64_with_the_same_filters(J, shape, L, perturbed):
    theirs = kymatio(J, shape, L).double()
    if perturbed:
        perturb(theirs)
    ours = ScatteringTorch2D(J, shape, L=L, dtype=torch.float64)
    ours.load_state_dict(theirs.state_dict())
    x = image(shape)
    # Float64, and nothing but the order of additions differs: 1e-10 leaves five digits.
    assert torch.allclose(ours(x), theirs(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize('learnable', [False, True])
@pytest.mark.parametrize(('J', 'shape'), [
    (1, (28, 28)), (2, (32, 32)), (3, (33, 47)), (3, (64, 48)), (4, (16, 16)), (4, (64, 48)), (5, (64, 48))])
def test_perturbed_filters_in_float32(J, shape, learnable):
    """Of several draws: long sums in float32 pass by luck of one, and differ between processors."""
    for seed in range(5):
        theirs = perturb(kymatio(J, shape), seed)
        ours = ScatteringTorch2D(J, shape, learnable=learnable)
        ours.load_state_dict(theirs.state_dict())
        check_float32(ours, theirs, image(shape, seed=seed), J, 8, 2)


@pytest.mark.parametrize('learnable', [False, True])
def test_perturbed_filters_survive_every_round_trip(learnable):
    """Their values hold through set_learnable, and through a state dict into a model of the other kind."""
    theirs = perturb(kymatio(3, (32, 32)).double())
    x = image((32, 32))
    expected = theirs(x)

    def check(S):
        assert torch.allclose(S(x), expected, rtol=0, atol=1e-10)

    ours = ScatteringTorch2D(3, (32, 32), learnable=learnable, dtype=torch.float64)
    ours.load_state_dict(theirs.state_dict())
    check(ours)
    for state in (not learnable, learnable):
        ours.set_learnable(state)
        check(ours)
    other = ScatteringTorch2D(3, (32, 32), learnable=not learnable, dtype=torch.float64)
    other.load_state_dict(ours.state_dict())
    check(other)
    perturb(other, seed=1)                                  # in place, behind the module's back
    assert not torch.allclose(other(x), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize('perturbed', [False, True])
@pytest.mark.parametrize(('J', 'shape', 'max_order'), [
    (1, (16, 16), 2), (2, (28, 28), 2), (2, (32, 32), 1), (3, (33, 47), 2)])
def test_gradients(J, shape, max_order, perturbed):
    """Gradients to the input and to every filter, against kymatio with its buffers made parameters."""
    theirs = kymatio(J, shape, max_order=max_order).double()
    if perturbed:
        perturb(theirs)
    ours = ScatteringTorch2D(J, shape, max_order=max_order, learnable=True, dtype=torch.float64)
    ours.load_state_dict(theirs.state_dict())
    as_parameters(theirs)

    def gradients(S):
        x = image(shape).requires_grad_()
        s = S(x)
        (s * image(s.shape, batch=(), seed=1)).sum().backward()
        return x.grad, [p.grad for p in S.parameters() if p.grad is not None]

    (x_ours, filters_ours), (x_theirs, filters_theirs) = gradients(ours), gradients(theirs)
    assert len(filters_ours) == len(list(ours.parameters()))        # each of ours has a gradient
    for a, b in zip([x_ours, *filters_ours], [x_theirs, *(g.squeeze(-1) for g in filters_theirs)], strict=True):
        # Relative 1e-5 is asked for; float64 gives more.
        assert (a - b).abs().max() <= 1e-10 * b.abs().max()


@pytest.mark.parametrize('J', [1, 2, 3])
def test_pre_pad(J):
    theirs, ours = kymatio(J, (28, 33), pre_pad=True), ScatteringTorch2D(J, (28, 33), pre_pad=True)
    assert (ours._M_padded, ours._N_padded) == (theirs._M_padded, theirs._N_padded)
    x = image((ours._M_padded, ours._N_padded))
    check_float32(ours, theirs, x, J, 8, 2)


@pytest.mark.parametrize('max_order', [1, 2])
@pytest.mark.parametrize('J', [1, 3])
def test_out_type_list(J, max_order):
    theirs = kymatio(J, (32, 32), max_order=max_order, out_type='list').double()
    ours = ScatteringTorch2D(J, (32, 32), max_order=max_order, out_type='list', dtype=torch.float64)
    ours.load_state_dict(theirs.state_dict())
    x = image((32, 32), batch=(2, 3))
    for a, b in zip(ours(x), theirs(x), strict=True):
        assert {key: a[key] for key in ('j', 'n', 'theta')} == {key: b[key] for key in ('j', 'n', 'theta')}
        assert a.keys() == b.keys()
        assert torch.allclose(a['coef'], b['coef'], rtol=0, atol=1e-10)


@pytest.mark.parametrize('batch', [(), (1,), (2, 3), (2, 1, 3)])
def test_batch_dimensions(batch):
    x = image((28, 28), batch)
    theirs, ours = kymatio(2, (28, 28)).double(), ScatteringTorch2D(2, (28, 28), dtype=torch.float64)
    ours.load_state_dict(theirs.state_dict())
    assert ours(x).shape == theirs(x).shape
    assert torch.allclose(ours(x), theirs(x), rtol=0, atol=1e-10)
