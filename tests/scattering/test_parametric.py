"""Banks that learn the numbers behind Morlet wavelets: formulas, ranges, states and gradients."""
import copy
import math
import pickle

import pytest
import torch

from scat_zoo.scattering import frame, morlet, parametric, transform
from scat_zoo.scattering.banks import INITS, FixedBank, PixelwiseBank
from scat_zoo.scattering.morlet import Numbers
from scat_zoo.scattering.parametric import EquivariantBank, MorletBank
from tests.scattering.reference import flat

CPU = torch.device('cpu')
BANKS = [MorletBank, EquivariantBank]
FROM_ONE_TO_MANY = [(1, 8, 2), (2, 8, 2), (2, 1, 2), (2, 2, 2), (3, 3, 1), (5, 6, 2), (3, 16, 2)]


def jolt(bank, size=1.0):
    with torch.no_grad():
        for offset in bank.parameters():
            offset.add_(size * torch.randn_like(offset))
    return bank


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize(('J', 'L', 'max_order'), FROM_ONE_TO_MANY)
@pytest.mark.parametrize('bank_class', BANKS)
def test_the_tight_frame_is_the_fixed_bank_at_any_size(bank_class, J, L, max_order, dtype):
    fixed, bank = (cls(J, L, (32, 32), max_order, dtype=dtype) for cls in (FixedBank, bank_class))
    for size in [(32, 32), (64, 40), (33, 47)]:
        x = torch.empty(size)
        pairs = list(zip(flat(fixed(x)), flat(bank(x)), strict=True))
        # What is left out is below 1e-12; float32 may round it up to one unit, 6e-8.
        most = 1e-7 if dtype == torch.float32 else 1e-11
        assert all((a - b).abs().max() < most for a, b in pairs)
        assert all(b.dtype == dtype for _, b in pairs)


def test_gabors_are_those_of_the_other_closed_form():
    numbers = Numbers(*(number.flatten() for number in morlet.random_wavelets(3, 4)))
    hats = morlet.gabors((24, 18), numbers, 1)
    for i, hat in enumerate(hats):
        expected = morlet.gabor_hat((24, 18), *(number[i].item() for number in numbers), CPU)
        assert torch.allclose(hat, expected, rtol=0, atol=1e-8)          # half a pixel wide: 2e-5; 2/3, as here: 3e-9


@pytest.mark.parametrize('learn_lowpass', [False, True])
@pytest.mark.parametrize('nonexpansive', [False, True])
@pytest.mark.parametrize('init', INITS)
@pytest.mark.parametrize('bank_class', BANKS)
def test_gradients_are_those_of_finite_differences(bank_class, init, nonexpansive, learn_lowpass):
    bank = bank_class(3, 3, (8, 8), init=init, nonexpansive=nonexpansive, learn_lowpass=learn_lowpass,
                      dtype=torch.float64)
    if init == 'tight_frame':
        jolt(bank, 0.1)                             # the frame's maximum is attained twice at the tight frame itself

    # Sums with random weights over all values of all filters: no wrong derivative of any can hide in them all.
    learned, x = dict(bank.named_parameters()), torch.empty(8, 8)
    weights = [torch.randn(8, *hat.shape, dtype=torch.float64) for hat in flat(bank(x))]

    def sums(*offsets):
        hats = flat(torch.func.functional_call(bank, dict(zip(learned, offsets)), (x,)))
        return sum((w * hat).flatten(1).sum(1) for w, hat in zip(weights, hats, strict=True))
    assert len(learned) == 4 + learn_lowpass
    assert torch.autograd.gradcheck(sums, tuple(learned.values()))
    for name, offset in learned.items():            # every one of them has a gradient at all
        grad, = torch.autograd.grad(sums(*learned.values())[0], offset)
        assert grad.abs().min() > 1e-6, name


@pytest.mark.parametrize('options', [{}, {'learn_lowpass': True, 'scales': [2, 1]}], ids=str)
@pytest.mark.parametrize('bank_class', BANKS)
def test_gradients_through_the_transform(bank_class, options):
    bank = jolt(bank_class(2, 2, (8, 8), dtype=torch.float64, **options), 0.1)
    x, learned = torch.randn(1, 8, 8, dtype=torch.float64), dict(bank.named_parameters())

    def coefficients(*offsets):
        filters = torch.func.functional_call(bank, dict(zip(learned, offsets)), (x,))
        return tuple(transform.reference(x, filters, bank.scales, 2))
    assert torch.autograd.gradcheck(coefficients, tuple(learned.values()))


@pytest.mark.parametrize('bank_class', BANKS)
def test_wavelets_have_zero_mean_exactly(bank_class):
    for init in INITS:
        for size in (0., 0.3, 1.):
            for L in (2, 4, 8):
                bank = jolt(bank_class(3, L, (32, 32), init=init, dtype=torch.float64), size)
                assert all((hat[:, 0, 0] == 0).all() for levels in bank(torch.empty(32, 32))[1] for hat in levels)


@pytest.mark.parametrize('size', [1e-2, 1.0, 1e3, 1e30])
@pytest.mark.parametrize('L', [1, 8])
def test_no_finite_offset_leaves_the_range(L, size):
    bank = jolt(MorletBank(3, L, (16, 16), nonexpansive=True), size)
    for w in bank.wavelets():
        assert 0.5 <= w.scale <= 12.8 * (1 + 1e-12)
        assert 2 * (1 - 1e-12) <= w.wavelength <= 2 * math.pi / 0.25 * (1 + 1e-12)
        assert min(0.25, 1 / L) * (1 - 1e-12) <= w.slant <= w.scale / morlet.narrowest(L) * (1 + 1e-12)
        assert -180 < w.angle <= 180
    filters = bank(torch.empty(16, 16))
    assert all(hat.isfinite().all() for hat in flat(filters))
    assert frame.frame_bounds(filters)[1] <= 1 + 1e-6
    sum(hat.square().sum() for hat in flat(filters)).backward()
    assert all(p.grad.isfinite().all() for p in bank.parameters())


def test_offsets_are_gradual():
    """At the tight frame an offset is a change of the logarithm, and the other numbers stay, but for slant's range."""
    bank = MorletBank(2, 8, (16, 16), dtype=torch.float64)
    before = bank.wavelets()[3]
    with torch.no_grad():
        for name in Numbers._fields:
            getattr(bank, name)[0, 3] = 1e-4
    after = bank.wavelets()[3]
    assert math.isclose(after.angle - before.angle, math.degrees(1e-4), rel_tol=1e-6)
    assert math.isclose(math.log(before.wavelength / after.wavelength), 1e-4, rel_tol=1e-3)
    assert math.isclose(math.log(after.scale / before.scale), 1e-4, rel_tol=1e-3)
    assert bank.wavelets()[4] == MorletBank(2, 8, (16, 16), dtype=torch.float64).wavelets()[4]


def test_describe_the_tight_frame():
    wavelets = FixedBank(3, 8, (32, 32)).wavelets()
    assert len(wavelets) == 24
    for w, approximate in zip(wavelets, MorletBank(3, 8, (32, 32)).wavelets(), strict=True):
        assert w == pytest.approx((w.j, w.t, 22.5 * (3 - w.t), 2 ** (w.j + 3) / 3, 0.8 * 2 ** w.j, 0.5))
        assert approximate == pytest.approx(w)
    assert morlet.describe(Numbers(*(torch.full((1, 1), v) for v in (math.radians(-180), 1., 1., 1.))))[0].angle == 180
    assert PixelwiseBank(1, 1, (16, 16)).wavelets() == []


@pytest.mark.parametrize('bank_class', [*BANKS, PixelwiseBank])
def test_random_start(bank_class):
    banks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        banks.append(bank_class(3, 8, (32, 32), init='random', dtype=torch.float64))
    x = torch.empty(32, 32)
    filters = [flat(bank(x)) for bank in banks]
    assert all(torch.equal(a, b) for a, b in zip(filters[0], filters[1], strict=True))
    assert not torch.equal(filters[0][-1], filters[2][-1])
    low_pass = FixedBank(3, 8, (32, 32), dtype=torch.float64)(x).phi[0]
    assert all(torch.allclose(a, b, rtol=0, atol=1e-11) for a, b in zip(filters[0], low_pass))
    banks[0].reset_parameters()
    assert not torch.equal(flat(banks[0](x))[-1], filters[0][-1])


@pytest.mark.parametrize('bank_class', BANKS)
def test_random_numbers_are_those_of_the_paper(bank_class):
    torch.manual_seed(0)
    wavelets = [w for _ in range(40) for w in bank_class(2, 4, (16, 16), init='random', dtype=torch.float64).wavelets()]
    sigma, xi, slant, angle = zip(*((w.scale, 2 * math.pi / w.wavelength, w.slant, w.angle) for w in wavelets))
    for values, low, high in ((sigma, 1, 5), (xi, 0.5, 1), (slant, 0.5, 1.5), (angle, -180, 180)):
        assert low <= min(values) < max(values) <= high
        assert min(values) < low + 0.25 * (high - low)
        assert max(values) > high - 0.1 * (high - low)
    # sigma is the logarithm of a uniform number, which makes 3/4 of them greater than 3.6.
    assert sum(s > 3.6 for s in sigma) > 0.65 * len(sigma)


def test_random_pixelwise_filters_are_random_morlets():
    torch.manual_seed(3)
    pixelwise = PixelwiseBank(2, 4, (16, 16), init='random')
    torch.manual_seed(3)
    learned = MorletBank(2, 4, (16, 16), init='random')
    x = torch.empty(16, 16)
    # The offsets are float32: 1e-7 of a number moves a filter by little more.
    assert all(torch.allclose(a, b, atol=5e-6) for a, b in zip(flat(pixelwise(x)), flat(learned(x)), strict=True))


def test_equivariant_wavelets_are_rotations_of_one():
    bank = jolt(EquivariantBank(2, 6, (16, 16), dtype=torch.float64))
    assert sum(p.numel() for p in bank.parameters()) == 4 * 2
    for a, b in zip(bank.wavelets(), bank.wavelets()[1:]):
        if a.j == b.j:
            assert (a.angle - b.angle) % 360 == pytest.approx(180 / 6)
            assert a[3:] == pytest.approx(b[3:])
    _, psi = bank(torch.empty(16, 16))                          # three steps are a quarter turn of the picture
    first, fourth = (torch.fft.fftshift(psi[0][0][t])[1:, 1:] for t in (0, 3))
    assert torch.allclose(torch.rot90(first, -1), fourth, atol=1e-10)


@pytest.mark.parametrize('learn_lowpass', [False, True])
@pytest.mark.parametrize('nonexpansive', [False, True])
@pytest.mark.parametrize('bank_class', BANKS)
def test_states(bank_class, nonexpansive, learn_lowpass):
    options = {'nonexpansive': nonexpansive, 'learn_lowpass': learn_lowpass}
    bank = jolt(bank_class(2, 3, (16, 16), **options, dtype=torch.float64))
    before = copy.deepcopy(bank.state_dict())
    assert list(before) == [*Numbers._fields] + ['lowpass'] * learn_lowpass + ['limit'] * nonexpansive
    filters = flat(bank(torch.empty(20, 20)))
    for learnable in (True, False, False, True):
        bank.set_learnable(learnable)
        assert bank.learnable == learnable
        after = bank.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(after[key], before[key]) and after[key].dtype == torch.float64 for key in before)
        assert [p.requires_grad for p in bank.parameters()] == [True] * (4 + learn_lowpass if learnable else 0)
        for twin in (copy.deepcopy(bank), pickle.loads(pickle.dumps(bank))):
            assert twin.options() == options
            assert all(torch.equal(a, b) for a, b in zip(flat(twin(torch.empty(20, 20))), filters, strict=True))


@pytest.mark.parametrize('bank_class', BANKS)
@pytest.mark.parametrize('init', INITS)
def test_meta_and_back(bank_class, init):
    bank = bank_class(3, 4, (32, 32), init=init, nonexpansive=True, device='meta')
    assert all(t.is_meta for t in [*bank.parameters(), *bank.buffers()])
    assert all(hat.is_meta for hat in flat(bank(torch.empty(32, 32, device='meta'))))
    bank = bank.to_empty(device='cpu')
    for tensor in bank.state_dict().values():
        tensor.fill_(float('nan'))
    torch.manual_seed(5)
    bank.reset_parameters()
    torch.manual_seed(5)
    expected = bank_class(3, 4, (32, 32), init=init, nonexpansive=True).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in bank.state_dict().items())


@pytest.mark.parametrize('max_order', [0, 1])
def test_set_max_order(max_order):
    x = torch.empty(32, 32)
    bank = jolt(MorletBank(3, 2, (32, 32), nonexpansive=True))
    phi, psi = bank(x)
    bank.set_max_order(max_order)
    low_pass, wavelets = bank(x)
    assert len(low_pass[0]) == (1 if max_order == 0 else 3)
    assert [len(levels) for levels in wavelets] == [max_order] * 3
    # What is left does not change, though fewer sums would give another frame maximum.
    assert all(torch.equal(a, b) for a, b in zip(low_pass[0], phi[0]))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(wavelets, psi) if max_order)
    assert len(list(bank.parameters())) == (0 if max_order == 0 else 4)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_parameters_out_of_range_are_refused_by_name(value):
    for bank, name in [(MorletBank(2, 3, (16, 16)), 'slant'), (EquivariantBank(2, 3, (16, 16)), 'theta'),
                       (MorletBank(2, 3, (16, 16), nonexpansive=True), 'limit'),
                       (PixelwiseBank(2, 3, (16, 16)), 'psi.j1_theta2_level0.hat')]:
        state = {key: tensor.clone() for key, tensor in bank.state_dict().items()}
        state[name].view(-1)[-1] = value
        with pytest.raises(RuntimeError, match=rf'{name} is out of range'):
            bank.load_state_dict(state)
        assert all(tensor.isfinite().all() for tensor in bank.state_dict().values())
    bank = MorletBank(2, 3, (16, 16), nonexpansive=True)
    with pytest.raises(RuntimeError, match=r'limit is out of range'):
        bank.load_state_dict({**bank.state_dict(), 'limit': torch.tensor(4.)})
    assert bank.limit == 1


def test_an_image_below_the_scale_is_refused():
    with pytest.raises(RuntimeError, match=r'larger than 2\^J.*\(4,32\)'):
        MorletBank(3, 8, (32, 32))(torch.empty(4, 32))


@pytest.mark.parametrize('bank_class', BANKS)
def test_a_fixed_low_pass_requires_no_gradient_and_a_learned_one_does(bank_class):
    x = torch.empty(16, 16)
    for learn_lowpass, nonexpansive in ((False, False), (True, False), (False, True)):
        phi, psi = bank_class(2, 3, (16, 16), nonexpansive=nonexpansive, learn_lowpass=learn_lowpass)(x)
        # The bound of all filters, which is learned, divides those of a nonexpansive bank.
        assert all(hat.requires_grad == (learn_lowpass or nonexpansive) for levels in phi for hat in levels)
        assert all(hat.requires_grad for levels in psi for hat in levels)


@pytest.mark.parametrize('offset', [-1e30, -1., 0., 1e-4, 1., 1e30])
def test_the_width_of_the_low_pass_stays_in_its_range(offset):
    """All scales move together, gradually at the tight frame."""
    widths = parametric.lowpass_widths(torch.tensor(offset), [3, 1], CPU)
    tight = parametric.lowpass_widths(None, [3, 1], CPU)
    assert tight.tolist() == [3.2, 0.8]
    ratio = (widths / tight)[0].item()
    assert torch.allclose(widths, ratio * tight)
    assert 0.5 <= ratio <= 2
    if abs(offset) < 1e-3:
        assert math.log(ratio) == pytest.approx(offset, rel=1e-3, abs=1e-12)


def test_order_0_learns_the_low_pass_alone():
    bank = MorletBank(2, 3, (16, 16), learn_lowpass=True)
    bank.set_max_order(0)
    assert bank.learnable
    assert [name for name, _ in bank.named_parameters()] == ['lowpass']
    held = MorletBank(2, 3, (16, 16), learn_lowpass=True, nonexpansive=True).requires_grad_(False)
    keys = list(held.state_dict())
    held.set_max_order(0)
    assert not any(p.requires_grad for p in held.parameters())
    assert sorted(held.state_dict()) == sorted(keys)
