"""ScatteringTorch2D's interface: kymatio's habits, its errors, and learning."""
import collections
import copy
import pickle

import numpy as np
import pytest
import torch
from kymatio.scattering2d.backend.torch_backend import backend as kymatio_backend
from kymatio.scattering2d.core.scattering2d import scattering2d as kymatio_transform
from kymatio.scattering2d.filter_bank import filter_bank as kymatio_filter_bank

from scat_zoo import Scattering2D, ScatteringTorch2D, use_engine
from scat_zoo.models.stem import ScatteringStem
from tests.scattering.reference import flat, kymatio, perturb


def test_positional_arguments_and_attributes():
    S = Scattering2D(2, (32, 24), 4, 1, False, 'torch', 'list')
    assert (S.J, S.shape, S.L, S.max_order, S.pre_pad, S.out_type) == (2, (32, 24), 4, 1, False, 'list')
    assert (S._M_padded, S._N_padded) == (40, 32)
    assert S.padded_size == (40, 32)
    assert len(S.scattering(torch.zeros(32, 24))) == 9


@pytest.mark.parametrize('as_number', [np.int64, np.int32, np.array, torch.tensor])
def test_numbers_of_any_kind(as_number):
    """kymatio's own stored case gives J as an array without dimensions."""
    S = ScatteringTorch2D(as_number(2), np.array([32, 24]), L=as_number(4), max_order=as_number(1),
                          pre_pad=np.array(False))
    assert all(type(n) is int for n in (S.J, S.L, S.max_order, *S.shape))
    S.max_order = as_number(2)
    x = torch.randn(32, 24)
    assert torch.equal(S(x), ScatteringTorch2D(2, (32, 24), 4)(x))


def test_front_end_and_backend_as_kymatio_is_told():
    x = torch.randn(32, 32)
    S = Scattering2D(2, (32, 32), frontend='torch', backend=kymatio_backend)
    assert torch.equal(S(x), Scattering2D(2, (32, 32))(x))
    assert S.backend is kymatio_backend


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


@pytest.mark.parametrize(('x', 'error', 'phrase'), [
    (torch.zeros(8, 32, 32, 3), RuntimeError, 'Channels come before height and width: x.movedim(-1, -3)'),
    (torch.zeros(32, 32, dtype=torch.complex64), RuntimeError, r'expected real images, got torch\.complex64: take'),
    (torch.zeros(32, 32, dtype=torch.float64), TypeError, 'torch.float64 and torch.float32: convert the input'),
])
def test_mistakes_get_a_hint(x, error, phrase):
    with pytest.raises(error, match=phrase.replace('(', r'\(').replace(')', r'\)')):
        ScatteringTorch2D(2, (32, 32))(x)


def test_integers_are_named():
    with pytest.raises(RuntimeError, match=r'expected floating-point images, got torch\.uint8'):
        ScatteringTorch2D(2, (32, 32))(torch.zeros(32, 32, dtype=torch.uint8))


@pytest.mark.parametrize(('kwargs', 'error', 'phrase'), [
    ({'J': 6}, RuntimeError, 'The smallest dimension should be larger than 2^J.'),
    ({'backend': 'skcuda'}, ImportError, 'can not be called from the frontend torch'),
    ({'out_type': 'dict'}, RuntimeError, "The out_type must be one of 'array' or 'list'."),
    ({'max_order': 3}, ValueError, 'max_order must be 1 or 2, got 3'),
    ({'L': 0}, ValueError, 'at least 1'),
    ({'J': 1.5}, TypeError, 'J must be an integer, got 1.5'),
    ({'J': '2'}, TypeError, "J must be an integer, got '2'"),
    ({'J': True}, TypeError, 'J must be an integer, got True'),
    ({'J': np.array([2, 3])}, TypeError, 'J must be an integer, got array([2, 3])'),
    ({'J': np.array(2.)}, TypeError, 'J must be an integer, got array(2.)'),
    ({'J': 10 ** 9}, RuntimeError, 'The smallest dimension should be larger than 2^J. (J=1000000000'),
    ({'shape': 32}, ValueError, 'shape must be (H, W) in pixels, got 32: a square image is (32, 32)'),
    ({'shape': (3, 32, 32)}, ValueError, 'shape must be (H, W) in pixels, got (3, 32, 32): without the channels'),
    ({'shape': (32., 32)}, ValueError, 'shape must be (H, W) in pixels, got (32.0, 32)'),
    ({'shape': '32'}, ValueError, "shape must be (H, W) in pixels, got '32'"),
    ({'shape': b'  '}, ValueError, "shape must be (H, W) in pixels, got b'  '"),
    ({'shape': (10 ** 5000, 32)}, ValueError, 'shape must be below 2,147,483,648 pixels a side'),
    ({'J': torch.tensor(True)}, TypeError, 'J must be an integer, got tensor(True)'),
    ({'learnable': 'no'}, ValueError, "learnable must be True or False, got 'no'"),
    ({'shape': (32, -32)}, RuntimeError, 'The smallest dimension'),
    ({'frontend': 'numpy'}, RuntimeError, "The frontend 'numpy' is not valid. Must be 'torch'"),
    ({'backend': collections.namedtuple('Fake', 'name')('fake')}, ImportError, 'fake is not supported by the frontend'),
    ({'backend': None}, ImportError, 'None is not supported by the frontend torch'),
    ({'boundary': 'zero'}, ValueError, "boundary must be one of reflect, periodic, got 'zero'"),
    ({'boundary': 'periodic', 'shape': (32, 30)}, ValueError, 'multiples of 2^J = 4, got 32 x 30'),
    ({'boundary': 'periodic', 'pre_pad': True}, ValueError, 'leave pre_pad out'),
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
    with pytest.raises(RuntimeError, match=r'expected torch\.Tensor'):
        ScatteringTorch2D(2, (32, 32)).load_state_dict({**kymatio(2, (32, 32)).state_dict(), 'tensor0': 'x'})
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


def test_what_the_filters_are():
    S = ScatteringTorch2D(2, (16, 16), L=2)
    learned = perturb(ScatteringTorch2D(2, (16, 16), L=2, learnable=True))
    modes = [S.mode]
    for step in (lambda: S.set_learnable(True), lambda: S.requires_grad_(False), lambda: S.set_learnable(False),
                 lambda: S.load_state_dict(learned.state_dict()), S.reset_parameters):
        step()
        modes.append(S.mode)
    assert modes == ['fixed', 'learnable', 'fixed', 'fixed', 'frozen', 'fixed']    # held, but not learned, is fixed
    assert learned.mode == 'learnable'
    assert 'mode=fixed' in repr(S)
    assert ScatteringTorch2D(2, (16, 16), device='meta').mode == 'fixed'
    assert ScatteringTorch2D(2, (16, 16)).double().mode == 'fixed'
    assert ScatteringTorch2D(2, (16, 16)).bfloat16().mode == 'fixed'
    S.load_state_dict(kymatio(2, (16, 16), L=2).state_dict())
    assert S.mode == 'fixed'                                    # kymatio's are ours to float precision


@pytest.mark.parametrize('max_order', [1, 2])
def test_filters_bounds_and_channels_are_those_of_the_stem(max_order):
    S = ScatteringTorch2D(3, (32, 24), L=4, max_order=max_order)
    stem = ScatteringStem(3, 4, max_order, in_chans=1, img_size=(32, 24))
    assert S.channels == stem.channels
    assert S.frame_bounds() == stem.frame_bounds()
    for a, b in zip(flat(S.filters()), flat(stem.filters()), strict=True):
        assert torch.equal(a, b)
    S.filters().phi[0][0].zero_()                               # they are copies
    assert S.bank.phi['level0'].hat.any()


@pytest.mark.parametrize(('J', 'size', 'learnable'), [
    (2, (16, 24), False), (3, (32, 40), True), (4, (16, 16), False), (4, (16, 48), True), (1, (2, 2), True)])
def test_periodic_images_need_no_padding(J, size, learnable):
    """Equal to kymatio's transform with its filters of that size, and no padding."""
    S = ScatteringTorch2D(J, size, L=3, boundary='periodic', dtype=torch.float64, learnable=learnable)
    assert S.padded_size == size
    x = torch.randn(2, *size, dtype=torch.float64)
    bank = kymatio_filter_bank(*size, J, 3)
    for filter_ in [bank['phi'], *bank['psi']]:
        filter_['levels'] = [torch.from_numpy(level).double().unsqueeze(-1) for level in filter_['levels']]
    expected = kymatio_transform(x, lambda t: t.reshape(*t.shape, 1), lambda t: t.squeeze(-1), kymatio_backend, J, 3,
                                 bank['phi'], bank['psi'], 2, 'array')
    with use_engine(False):
        plain = S(x)
    for s in (S(x), plain):
        assert s.shape == (2, len(S.paths), size[0] >> J, size[1] >> J)
        assert (s - expected).abs().max() <= 1e-6 * expected.abs().max()        # kymatio's filters are float32
    assert (S(x) - plain).abs().max() <= 1e-12


@pytest.mark.parametrize('learnable', [False, True])
def test_a_periodic_shift_moves_the_coefficients(learnable):
    S = perturb(ScatteringTorch2D(2, (16, 24), L=3, boundary='periodic', dtype=torch.float64, learnable=learnable))
    x = torch.randn(2, 16, 24, dtype=torch.float64, requires_grad=True)
    moved = S(x.roll((4, -8), (-2, -1)))
    assert torch.allclose(moved, S(x).roll((1, -2), (-2, -1)), rtol=0, atol=1e-12)
    loss = moved.square().sum()
    wanted = [x, *S.parameters()]
    fast = torch.autograd.grad(loss, wanted)
    with use_engine(False):
        plain = torch.autograd.grad(S(x.roll((4, -8), (-2, -1))).square().sum(), wanted)
    for a, b in zip(fast, plain, strict=True):
        assert (a - b).abs().max() <= 1e-11 * b.abs().max()
    assert 'boundary=periodic' in repr(S)
    assert torch.equal(copy.deepcopy(S)(x), S(x))


@pytest.mark.parametrize('kwargs', [{}, {'learnable': True}, {'max_order': 1}, {'boundary': 'periodic'},
                                    {'pre_pad': True}])
@pytest.mark.filterwarnings('ignore:.*torch.jit:FutureWarning', 'ignore:.*torch.jit:DeprecationWarning')
def test_torchscript(kwargs, tmp_path):
    S = ScatteringTorch2D(2, (32, 24), L=3, **kwargs)
    torch.jit.script(S).save(tmp_path / 'S.pt')
    scripted = torch.jit.load(tmp_path / 'S.pt')
    x = torch.randn(2, 3, *(S.padded_size if S.pre_pad else S.shape), requires_grad=True)
    torch.testing.assert_close(scripted(x), S(x), rtol=0, atol=1e-5)
    grad, = torch.autograd.grad(scripted(x).square().sum(), x)
    expected, = torch.autograd.grad(S(x).square().sum(), x)
    torch.testing.assert_close(grad, expected, rtol=0, atol=1e-4)
    for wrong in (x[..., 1:].contiguous(), x.double(), x.transpose(0, 1)):
        with pytest.raises(torch.jit.Error):
            scripted(wrong)
    S.out_type = 'list'
    with pytest.raises(torch.jit.Error, match='TorchScript gives arrays only'):
        torch.jit.script(S)(x)


@pytest.mark.parametrize('name', ['J', 'L', 'shape', 'padded_size'])
def test_what_the_filters_are_built_for_stays(name):
    S = ScatteringTorch2D(2, (32, 32))
    with pytest.raises(AttributeError, match='set'):
        setattr(S, name, 1)
    assert len(S.paths) == 81
