"""What every kind of learned bank must be; a new one is among them by its line in `KINDS`."""
import copy
import pickle

import pytest
import torch

from scat_zoo.scattering import transform
from scat_zoo.scattering.banks import FixedBank
from scat_zoo.scattering.parametric import KINDS
from tests.scattering.reference import flat

pytestmark = pytest.mark.parametrize('kind', KINDS)


def jolt(bank, size):
    with torch.no_grad():
        for p in bank.parameters():
            p.add_(size * torch.randn_like(p))
    return bank


@pytest.mark.parametrize('max_order', [0, 1, 2])
@pytest.mark.parametrize('scales', [None, (1, 2)])
def test_the_start_is_the_fixed_bank_at_every_size(kind, scales, max_order):
    bank = KINDS[kind](2, 4, (16, 16), scales=scales, dtype=torch.float64)
    bank.set_max_order(max_order)
    for size in [(16, 16), (40, 24), (33, 47)]:
        fixed = FixedBank(2, 4, size, max_order, scales, dtype=torch.float64)
        pairs = list(zip(flat(bank(torch.empty(size))), flat(fixed(torch.empty(size))), strict=True))
        assert all((a - b).abs().max() < 1e-9 for a, b in pairs)


def test_sparse_values_are_refused(kind):
    bank = KINDS[kind](2, 2, (8, 8), learnable=True)
    state = {name: value.to_sparse() for name, value in bank.state_dict().items()}
    with pytest.raises(RuntimeError, match='is sparse: expected a dense tensor'):
        bank.load_state_dict(state)


def test_gradients(kind):
    """To the coefficients, a step along one direction in each parameter, against finite differences."""
    bank = jolt(KINDS[kind](2, 2, (8, 8), dtype=torch.float64), 0.05)
    learned, x = dict(bank.named_parameters()), torch.randn(1, 8, 8, dtype=torch.float64)
    directions = [torch.randn_like(p) for p in learned.values()]

    def coefficients(*steps):
        moved = {name: p.detach() + step * d for (name, p), step, d in zip(learned.items(), steps, directions)}
        return transform.reference(x, torch.func.functional_call(bank, moved, (x,)), [2], 2)[0]
    steps = tuple(s.requires_grad_() for s in torch.zeros(len(learned), dtype=torch.float64).unbind())
    assert torch.autograd.gradcheck(coefficients, tuple(s.detach().requires_grad_() for s in steps))


@pytest.mark.parametrize('max_order', [0, 1, 2])
def test_every_parameter_is_read(kind, max_order):
    bank = KINDS[kind](2, 2, (8, 8))
    bank.set_max_order(max_order)
    hats = [hat for hat in flat(bank(torch.empty(8, 8))) if hat.requires_grad]
    if hats:
        sum(hat.square().sum() for hat in hats).backward()
    assert all(p.grad is not None for p in bank.parameters())
    assert bank.learnable == bool(list(bank.parameters()))


@pytest.mark.parametrize('size', [1e-2, 1.0, 1e3])
def test_filters_stay_finite_and_real(kind, size):
    bank = jolt(KINDS[kind](2, 2, (8, 8)), size)
    hats = flat(bank(torch.empty(8, 8)))
    assert all(hat.isfinite().all() and hat.dtype == torch.float32 for hat in hats)


def test_states(kind):
    """Learnable and frozen have the same keys, in one order, that no other kind has; copies and loading keep values."""
    bank = jolt(KINDS[kind](2, 3, (16, 16), dtype=torch.float64), 0.1)
    keys, filters = list(bank.state_dict()), flat(bank(torch.empty(16, 16)))
    for learnable in (False, True, True, False):
        bank.set_learnable(learnable)
        assert list(bank.state_dict()) == keys
        assert [p.requires_grad for p in bank.parameters()] == [True] * len(list(bank.parameters()))
        assert bank.learnable == learnable == bool(list(bank.parameters()))
        again = KINDS[kind](2, 3, (16, 16), learnable=learnable, dtype=torch.float64)
        again.load_state_dict(bank.state_dict())
        for twin in (copy.deepcopy(bank), pickle.loads(pickle.dumps(bank)), again):
            assert all(torch.equal(a, b) for a, b in zip(flat(twin(torch.empty(16, 16))), filters, strict=True))
    assert [name for name, other in KINDS.items() if other(2, 3, (16, 16)).fits(bank.state_dict())] == [kind]
    defaults = {name: value for name, value in KINDS[kind].OPTIONS.items() if name != 'init'}
    assert bank.options() == defaults
    assert all(value is False for value in defaults.values())


def test_meta_and_back(kind):
    bank = KINDS[kind](2, 3, (16, 16), device='meta').to_empty(device='cpu')
    bank.reset_parameters()
    expected = KINDS[kind](2, 3, (16, 16)).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in bank.state_dict().items())
