"""ScatteringTorch2D's interface: kymatio's habits, its errors, and learning."""
import copy
import pickle

import pytest
import torch

from scat_zoo import Scattering2D, ScatteringTorch2D
from tests.scattering.reference import kymatio


def test_positional_arguments_and_attributes():
    S = Scattering2D(2, (32, 24), 4, 1, False, 'torch', 'list')
    assert (S.J, S.shape, S.L, S.max_order, S.pre_pad, S.out_type) == (2, (32, 24), 4, 1, False, 'list')
    assert (S._M_padded, S._N_padded) == (40, 32)
    assert len(S.scattering(torch.zeros(32, 24))) == 9


@pytest.mark.parametrize('J', [3, 4])
def test_switching_out_type_and_max_order(J):
    S = ScatteringTorch2D(J, (32, 32), max_order=1)
    x = torch.randn(2, 32, 32)
    first = S(x)
    S.max_order = 2
    both = S(x)
    assert torch.equal(both, ScatteringTorch2D(J, (32, 32))(x))
    assert torch.equal(both[:, :1 + 8 * J], first)
    S.max_order = 1
    assert torch.equal(S(x), first)
    S.out_type = 'list'
    assert torch.equal(torch.stack([s['coef'] for s in S(x)], dim=1), first)


def test_learned_levels_come_back_with_the_order():
    S = ScatteringTorch2D(3, (32, 32), learnable=True)
    with torch.no_grad():
        S.bank.psi['j2_theta0_level1'].hat.zero_()
    S.max_order = 1
    S.max_order = 2
    assert not S.bank.psi['j2_theta0_level1'].hat.any()


# The mistake; on whom it is made: (constructor arguments, input). kymatio's phrase is part of our message.
MISTAKES = {
    'a list': ({}, [[1.]], TypeError, 'The input should be a PyTorch Tensor'),
    'one dimension': ({}, torch.zeros(32), RuntimeError, 'Input tensor must have at least two dimensions'),
    'not contiguous': ({}, torch.zeros(32, 32, 3).permute(2, 0, 1), RuntimeError, 'must be contiguous'),
    'another size': ({}, torch.zeros(32, 31), RuntimeError, 'Tensor must be of spatial size (32,32)'),
    'not padded': (
        {'pre_pad': True}, torch.zeros(32, 32), RuntimeError, 'Padded tensor must be of spatial size (40,40)'),
    'float64': ({}, torch.zeros(32, 32, dtype=torch.float64), TypeError, 'Input and filter must be of the same dtype'),
    'integers': ({}, torch.zeros(32, 32, dtype=torch.uint8), RuntimeError, ''),
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_mistakes_in_the_input(mistake):
    kwargs, x, error, phrase = MISTAKES[mistake]
    with pytest.raises(error) as theirs:
        kymatio(2, (32, 32), **kwargs).scattering(x)
    with pytest.raises(error) as ours:
        ScatteringTorch2D(2, (32, 32), **kwargs)(x)
    assert phrase in str(ours.value)
    assert phrase in str(theirs.value)


def test_integers_are_named():
    with pytest.raises(RuntimeError, match=r'expected floating-point images, got torch\.uint8'):
        ScatteringTorch2D(2, (32, 32))(torch.zeros(32, 32, dtype=torch.uint8))


@pytest.mark.parametrize(('kwargs', 'error', 'phrase'), [
    ({'J': 6}, RuntimeError, 'The smallest dimension should be larger than 2^J.'),
    ({'backend': 'skcuda'}, ImportError, 'can not be called from the frontend torch'),
    ({'out_type': 'dict'}, RuntimeError, "The out_type must be one of 'array' or 'list'."),
    ({'max_order': 3}, ValueError, 'max_order must be 1 or 2, got 3'),
    ({'L': 0}, ValueError, 'at least 1'),
    ({'J': 1.5}, TypeError, 'J must be an integer'),
    ({'nonsense': 1}, TypeError, 'nonsense'),
])
def test_mistakes_in_the_constructor(kwargs, error, phrase):
    with pytest.raises(error) as raised:
        ScatteringTorch2D(**{'J': 2, 'shape': (32, 32), **kwargs})
    assert phrase in str(raised.value)


def test_an_unknown_out_type_set_later():
    S = ScatteringTorch2D(2, (32, 32))
    S.out_type = 'dict'
    with pytest.raises(RuntimeError, match="must be one of 'array' or 'list'"):
        S(torch.zeros(32, 32))


def test_float64_keeps_full_precision_and_double_does_not():
    exact = ScatteringTorch2D(2, (32, 32), dtype=torch.float64).state_dict()
    rounded = ScatteringTorch2D(2, (32, 32)).double().state_dict()
    errors = [(exact[key] - rounded[key]).abs().max().item() for key in exact]
    assert all(value.dtype == torch.float64 for value in rounded.values())
    assert 1e-10 < max(errors) < 1e-7


def test_state_dict_keys_name_level_scale_and_orientation():
    keys = list(ScatteringTorch2D(3, (32, 32), L=2).state_dict())
    assert keys[0] == 'bank.phi.level0.hat'
    assert 'bank.psi.j2_theta1_level1.hat' in keys
    # Read by the transform: 3 levels of phi, and of each orientation's psi 1 + 1 + 2.
    assert len(keys) == 3 + 2 * (1 + 1 + 2)


def test_a_state_dict_that_does_not_fit_is_refused():
    with pytest.raises(RuntimeError, match=r'size mismatch for bank\.phi\.level0\.hat'):
        ScatteringTorch2D(2, (32, 32)).load_state_dict(ScatteringTorch2D(2, (28, 28)).state_dict())
    with pytest.raises(RuntimeError, match='Missing key'):
        ScatteringTorch2D(2, (32, 32)).load_state_dict({})
    broken = kymatio(2, (32, 32)).state_dict()
    del broken['tensor3']
    with pytest.raises(RuntimeError, match='Missing key'):
        ScatteringTorch2D(2, (32, 32)).load_state_dict(broken)


def test_every_parameter_gets_a_gradient_and_buffers_none():
    x = torch.randn(2, 3, 32, 32)
    S = ScatteringTorch2D(3, (32, 32), learnable=True)
    S(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in S.parameters())
    S.set_learnable(False)
    assert not S(x).requires_grad


def test_gradients_of_a_blank_image_are_zero_and_finite():
    S = ScatteringTorch2D(2, (16, 16), learnable=True, dtype=torch.float64)
    x = torch.zeros(1, 16, 16, dtype=torch.float64, requires_grad=True)
    grads = torch.autograd.grad(S(x)[:, 1:].sum(), [x, *S.parameters()], create_graph=True, allow_unused=True)
    assert all(not g.any() for g in grads if g is not None)
    second = torch.autograd.grad(sum(g.sum() for g in grads if g is not None), [x, *S.parameters()], allow_unused=True)
    assert all(g.isfinite().all() for g in second if g is not None)


@pytest.mark.parametrize('perturbed', [False, True])
@pytest.mark.parametrize('check', [torch.autograd.gradcheck, torch.autograd.gradgradcheck])
def test_gradcheck_through_input_and_every_filter(check, perturbed):
    S = ScatteringTorch2D(2, (5, 4), L=2, learnable=True, dtype=torch.float64)
    names = [name for name, _ in S.named_parameters()]
    filters = [p.detach() for p in S.parameters()]
    if perturbed:
        filters = [f * (1 + 0.3 * torch.randn_like(f)) for f in filters]

    def run(x, *values):
        return torch.func.functional_call(S, dict(zip(names, values)), (x,))

    inputs = [t.requires_grad_() for t in (torch.randn(1, 5, 4, dtype=torch.float64), *filters)]
    assert check(run, inputs, fast_mode=check is torch.autograd.gradgradcheck)


@pytest.mark.parametrize('learnable', [False, True])
def test_copies_and_moves(learnable):
    S = ScatteringTorch2D(2, (16, 16), L=3, learnable=learnable)
    x = torch.randn(2, 16, 16)
    for twin in (copy.deepcopy(S), pickle.loads(pickle.dumps(S)), copy.deepcopy(S).to(torch.float32)):
        assert torch.equal(twin(x), S(x))
        assert twin.learnable == learnable
    empty = ScatteringTorch2D(2, (16, 16), L=3, learnable=learnable, device='meta').to_empty(device='cpu')
    empty.reset_parameters()
    assert torch.equal(empty(x), S(x))


def test_repr_tells_the_transform():
    text = repr(ScatteringTorch2D(2, (32, 32), L=8, learnable=True))
    for part in ('J=2', 'shape=(32, 32)', 'L=8', 'max_order=2', 'paths=81', 'learnable'):
        assert part in text
