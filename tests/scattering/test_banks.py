"""Banks: sizes, states, and what survives copies, moves and changes of type."""
import copy
import pickle

import pytest
import torch

from scat_zoo.scattering import geometry, morlet
from scat_zoo.scattering.banks import FixedBank, PixelwiseBank
from tests.scattering.reference import flat


@pytest.mark.parametrize(('J', 'L', 'max_order'), [(1, 8, 2), (2, 1, 2), (3, 4, 2), (4, 3, 1), (3, 4, 0)])
def test_pixelwise_starts_as_the_fixed_bank(J, L, max_order):
    x = torch.empty(24, 40)
    fixed = FixedBank(J, L, (24, 40), max_order)
    pixelwise = PixelwiseBank(J, L, (24, 40), max_order)
    pairs = list(zip(flat(fixed(x)), flat(pixelwise(x)), strict=True))
    assert pairs
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize('shape', [(32, 32), (96, 64), (127, 131)])
def test_the_fixed_bank_follows_the_image(shape):
    phi, psi = FixedBank(2, 8, (32, 32))(torch.empty(*shape))
    expected = morlet.filter_bank(geometry.padded_size(*shape, 2), [2], 8, torch.float32, torch.device('cpu'))
    assert torch.equal(phi[0][0], expected[0])
    assert torch.equal(torch.cat([psi[0][0], psi[1][0]]), expected[1:])


def test_the_fixed_bank_refuses_an_image_below_its_scale():
    with pytest.raises(RuntimeError, match=r'larger than 2\^J.*\(4,32\)'):
        FixedBank(3, 8, (32, 32))(torch.empty(4, 32))


def test_the_fixed_bank_is_exact_after_a_change_of_type():
    bank = FixedBank(2, 8, (32, 32))
    assert torch.equal(bank.double().hat, FixedBank(2, 8, (32, 32), dtype=torch.float64).hat)
    assert torch.equal(bank.to(torch.bfloat16).float().hat, FixedBank(2, 8, (32, 32)).hat)


@pytest.mark.parametrize('bank_class', [FixedBank, PixelwiseBank])
def test_meta_and_back(bank_class):
    bank = bank_class(3, 4, (32, 32), device='meta')
    assert all(t.is_meta for t in [*bank.parameters(), *bank.buffers()])
    bank = bank.to_empty(device='cpu')
    bank.reset_parameters()
    x = torch.empty(32, 32)
    assert all(torch.equal(a, b) for a, b in zip(flat(bank(x)), flat(bank_class(3, 4, (32, 32))(x)), strict=True))


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda bank: pickle.loads(pickle.dumps(bank))])
@pytest.mark.parametrize('learnable', [False, True])
def test_copies(copied, learnable):
    bank = PixelwiseBank(2, 4, (16, 16), learnable=learnable)
    with torch.no_grad():
        bank.psi['j1_theta2_level0'].hat.mul_(2)
    twin = copied(bank)
    assert twin.learnable == learnable
    assert all(torch.equal(a, b) for a, b in zip(bank.state_dict().values(), twin.state_dict().values(), strict=True))


def test_set_learnable_keeps_everything_else():
    bank = PixelwiseBank(3, 2, (16, 16), learnable=False, dtype=torch.float64)
    before = copy.deepcopy(bank.state_dict())
    for learnable in (True, False, False, True):
        bank.set_learnable(learnable)
        after = bank.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(after[key], before[key]) and after[key].dtype == torch.float64 for key in before)
        assert len(list(bank.parameters())) == (len(before) if learnable else 0)
        assert len(list(bank.buffers())) == (0 if learnable else len(before))
        assert all(p.requires_grad for p in bank.parameters())


def test_set_learnable_leaves_parameters_to_their_optimiser():
    bank = PixelwiseBank(2, 2, (16, 16), learnable=True).requires_grad_(False)
    before = list(bank.parameters())
    bank.set_learnable(True)
    assert all(a is b and a.requires_grad for a, b in zip(before, bank.parameters(), strict=True))


def test_set_max_order_keeps_what_is_read_and_crops_what_is_missing():
    bank = PixelwiseBank(3, 2, (16, 16), max_order=2)
    names = list(bank.state_dict())
    learned = torch.randn_like(bank.psi['j2_theta1_level0'].hat)
    with torch.no_grad():
        bank.psi['j2_theta1_level0'].hat.copy_(learned)
    bank.set_max_order(1)
    assert 'j2_theta1_level1' not in bank.psi
    bank.set_max_order(2)
    assert list(bank.state_dict()) == names
    M = learned.shape[0]
    low = torch.cat([learned[:M // 4], learned[-(M // 4):]])
    low = torch.cat([low[:, :M // 4], low[:, -(M // 4):]], dim=1)
    assert torch.equal(bank.psi['j2_theta1_level1'].hat, low)
    bank.set_max_order(0)
    assert list(bank.state_dict()) == ['phi.level0.hat']


def test_filters_that_an_order_adds_can_learn():
    bank = PixelwiseBank(3, 2, (16, 16), 1, learnable=True)
    with torch.inference_mode():
        bank.set_max_order(2)
    assert not bank.psi['j2_theta1_level1'].hat.is_inference()


def test_the_cache_survives_inference_mode_and_function_transforms():
    # A filter computed in either must still serve training later.
    x = torch.randn(1, 20, 20)
    bank = FixedBank(2, 8, (32, 32))
    with torch.inference_mode():
        bank(x)
    y = torch.randn(1, 24, 24)
    torch.func.grad(lambda v: sum(hat.sum() for hat in flat(bank(v))) * v.sum())(y)
    for image in (x, y):
        scale = torch.ones((), requires_grad=True)
        sum((hat * scale).sum() for hat in flat(bank(image))).backward()
        assert scale.grad.isfinite()
