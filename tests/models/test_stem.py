"""The front end in its parametrisations: options, states, state dicts, conversions."""
import copy
import json
import pickle

import pytest
import timm
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils import parameters_to_vector

import scat_zoo
from scat_zoo.models.stem import ScatteringStem
from scat_zoo.scattering.banks import FixedBank, PixelwiseBank
from scat_zoo.scattering.parametric import KINDS, EquivariantBank, MorletBank
from scat_zoo.train import checkpoint
from tests.models.architectures import MODELS
from tests.scattering.reference import flat

FOLLOWING = [name for name, bank in KINDS.items() if 'nonexpansive' in bank.OPTIONS]
OPTIONS = [{'parametrization': name} for name in KINDS] + [
    {'parametrization': name, option: True} for name in FOLLOWING for option in ('nonexpansive', 'learn_lowpass')]


def create(name='scat_linear', **kwargs):
    return timm.create_model(name, **{'num_classes': 5, 'in_chans': 1, 'img_size': 16, 'L': 3, **kwargs})


def learned(name='scat_linear', **kwargs):
    model = create(name, learnable=True, **kwargs)
    with torch.no_grad():
        for p in model.scattering.parameters():
            p.add_(0.3 * torch.randn_like(p) * p.abs().max().clamp(min=0.5))
    return model.eval()


@pytest.mark.parametrize(('kwargs', 'phrase'), [
    ({'parametrization': 'gabor'}, "unknown parametrization 'gabor'; known: pixelwise, morlet, equivariant"),
    ({'init': 'zeros'}, "unknown init 'zeros'; known: tight_frame, random"),
    ({'nonexpansive': True}, "nonexpansive=True needs parametrization 'morlet' or 'equivariant': pixelwise"),
])
@pytest.mark.parametrize('name', MODELS)
def test_bad_options(name, kwargs, phrase):
    for learnable in (False, True):
        with pytest.raises(ValueError, match=phrase):
            create(name, learnable=learnable, **kwargs)


@pytest.mark.parametrize(('parametrization', 'count'), [
    ('pixelwise', 7 * 24 * 24 + 12 * 12), ('morlet', 4 * 6), ('equivariant', 4 * 2)])
@pytest.mark.parametrize('name', MODELS)
def test_the_tight_frame_gives_the_fixed_coefficients(name, parametrization, count):
    x = torch.randn(2, 1, 16, 16)
    fixed = create(name).scattering
    stem = create(name, learnable=True, parametrization=parametrization).scattering
    assert torch.allclose(stem(x), fixed(x), atol=1e-6)
    assert sum(p.numel() for p in stem.parameters()) == count
    assert stem.parametrization == parametrization
    assert f'mode=learnable, parametrization={parametrization}' in repr(stem)


@pytest.mark.parametrize('parametrization', FOLLOWING)
@pytest.mark.parametrize('name', MODELS)
def test_one_checkpoint_serves_every_image_size(name, parametrization, tmp_path):
    model = learned(name, parametrization=parametrization, global_pool='avg')
    checkpoint.save(model, tmp_path / 'checkpoint')
    again = checkpoint.load(tmp_path / 'checkpoint')
    elsewhere = timm.create_model(f'local-dir:{tmp_path}/checkpoint', pretrained=True, img_size=32).eval()
    for size in [(16, 16), (32, 32), (30, 45), (96, 64)]:
        x = torch.randn(2, 1, *size)
        assert torch.equal(again(x), model(x))
        assert torch.equal(elsewhere.scattering(x), model.scattering(x))
    # The same filters at every size: where two grids share a frequency they agree.
    small, large = (model.scattering.filters(size)[1][0][0] for size in ((12, 12), (28, 28)))       # padded: 20, 36
    assert torch.allclose(small[:, ::5, ::5], large[:, ::9, ::9], atol=2e-5)


@pytest.mark.parametrize('learnable', [True, False])
def test_pixelwise_filters_serve_every_image_size(learnable, tmp_path):
    """By their impulse responses, whether on the way, by `set_input_size` or on loading; and back again."""
    model = learned(global_pool='avg', scales=(1, 2))
    checkpoint.save(model, tmp_path / 'checkpoint')
    x = torch.randn(2, 1, 33, 26)
    expected, at_home = model(x), model(torch.ones(2, 1, 16, 16))
    loaded = timm.create_model(f'local-dir:{tmp_path}/checkpoint', pretrained=True, img_size=(33, 26),
                               learnable=learnable).eval()
    plain = create(img_size=(33, 26), global_pool='avg', scales=(1, 2)).eval()
    plain.load_state_dict(model.state_dict())
    moved = copy.deepcopy(model)
    moved.set_input_size((33, 26))
    for other in (loaded, plain, moved):
        assert other.scattering.bank.psi['j1_theta0_level0'].hat.shape == (40, 32)
        assert torch.allclose(other(x), expected, atol=1e-5)
        assert not torch.allclose(create(global_pool='avg', scales=(1, 2)).eval()(x), expected, atol=1e-3)
        assert other.scattering.img_size == other.scattering.bank.image_size == (33, 26)
        other.set_input_size(16)
        assert torch.allclose(other(torch.ones(2, 1, 16, 16)), at_home, atol=1e-5)
        assert all(torch.allclose(value, model.state_dict()[key], atol=1e-5)
                   for key, value in other.state_dict().items())
    assert loaded.scattering.learnable == learnable
    assert [p.requires_grad for p in moved.scattering.parameters()] == [True] * len(list(model.scattering.parameters()))


def test_a_bad_size_changes_nothing():
    for options in ({}, *({'learnable': True, **options} for options in OPTIONS)):
        model = create(**options)
        for size in ((32, 32, 32), (32,), 32.5, None, '32', (2, 32)):
            with pytest.raises(ValueError, match=r'img_size'):
                model.set_input_size(size)
        assert model.scattering.img_size == model.scattering.bank.image_size == (16, 16)


def test_states_without_values_load():
    with torch.device('meta'):
        a, b = create(learnable=True), create(learnable=True)
    b.load_state_dict(a.state_dict())
    with pytest.raises(RuntimeError, match='While copying the parameter'):
        create(learnable=True).load_state_dict({**create(learnable=True).state_dict(),
                                                'scattering.bank.phi.level0.hat': 3})


@pytest.mark.parametrize('name', ['learnable', 'frozen_filters', 'nonexpansive', 'learn_lowpass'])
def test_switches_are_booleans(name):
    with pytest.raises(ValueError, match=f"{name} must be True or False, got 'false'"):
        create(**{'parametrization': 'morlet', name: 'false'})


def test_filters_of_no_image_size_are_refused():
    """Levels that do not belong together, sides that no padding gives."""
    state = learned().state_dict()
    psi = 'scattering.bank.psi.j0_theta0_level0.hat'
    odd = {key: value[:10, :10] for key, value in state.items() if '.hat' in key}
    for broken in ({psi: state[psi][:20, :20]}, odd):
        for learnable in (True, False):
            with pytest.raises(RuntimeError, match=r'size mismatch|Unexpected key'):
                create(learnable=learnable).load_state_dict({**state, **broken})


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_set_learnable(options):
    model = learned(**options)
    x = torch.randn(2, 1, 16, 16)
    expected, keys = model(x), list(model.state_dict())
    for learnable in (False, True):
        model.scattering.set_learnable(learnable)
        assert torch.allclose(model(x), expected, atol=1e-5)                    # another way to add it up may be faster
        assert model.scattering.learnable == learnable
        assert list(model.state_dict()) == keys
        assert bool(list(model.scattering.parameters())) == learnable


@pytest.mark.parametrize('parametrization', KINDS)
def test_set_learnable_gives_fixed_filters_their_parametrization(parametrization):
    model = create(parametrization=parametrization).eval()
    x = torch.randn(2, 1, 16, 16)
    expected = model(x)
    assert isinstance(model.scattering.bank, FixedBank)
    assert model.scattering.parametrization == parametrization
    model.scattering.set_learnable(True)
    assert type(model.scattering.bank) is KINDS[parametrization]
    assert torch.allclose(model(x), expected, atol=1e-6)
    assert all(p.requires_grad for p in model.scattering.parameters())


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_train_learnable_deploy_frozen(options, tmp_path):
    model = learned(**options)
    x = torch.randn(2, 1, 16, 16)
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    plain = create()                                            # which does not know how they were learned
    plain.load_state_dict(model.state_dict())
    again = create()
    again.load_state_dict(plain.state_dict())
    file = create(checkpoint_path=str(tmp_path / 'model.safetensors'))
    folder = timm.create_model(f'local-dir:{tmp_path}', pretrained=True, learnable=False)
    for frozen in (plain, again, file, folder):
        assert torch.allclose(frozen.eval()(x), model(x), atol=1e-5)
        assert all(torch.equal(value, model.state_dict()[key]) for key, value in frozen.state_dict().items())
        assert not list(frozen.scattering.parameters())
        assert frozen.scattering.parametrization == options['parametrization']
        assert frozen.scattering.nonexpansive == options.get('nonexpansive', False)
        assert frozen.scattering.bank.options().get('learn_lowpass', False) == options.get('learn_lowpass', False)
        assert repr(frozen.scattering).count('mode=frozen') == 1


@pytest.mark.parametrize('loaded', OPTIONS, ids=str)
@pytest.mark.parametrize('into', OPTIONS, ids=str)
def test_what_does_not_fit_is_refused(into, loaded):
    state = learned(**loaded).state_dict()
    if into == loaded:
        create(learnable=True, **into).load_state_dict(state)
        return
    with pytest.raises(RuntimeError, match=r'(Missing|Unexpected) key|size mismatch'):
        create(learnable=True, **into).load_state_dict(state)


def test_other_numbers_of_orientations_are_refused():
    with pytest.raises(RuntimeError, match=r'size mismatch for scattering\.bank\.theta'):
        create(L=4).load_state_dict(learned(parametrization='morlet').state_dict(), strict=False)


@pytest.mark.parametrize('key', ['phi.level0.hat', 'theta', 'limit'])
def test_one_stray_filter_leaves_the_fixed_ones(key):
    model = create()
    stray = {f'scattering.bank.{key}': torch.ones(24, 24)}
    assert model.load_state_dict({**model.state_dict(), **stray}, strict=False).unexpected_keys == list(stray)
    assert isinstance(model.scattering.bank, FixedBank)
    with pytest.raises(RuntimeError, match='Unexpected key'):
        model.load_state_dict({**model.state_dict(), **stray})


@pytest.mark.parametrize('options', [{}, *({'learnable': True, **options} for options in OPTIONS)], ids=str)
def test_the_filters_given_out_are_copies(options):
    x = torch.randn(1, 1, 16, 16)
    stem = create(**options).scattering
    expected = stem(x)
    for size in [(16, 16), (40, 24)]:
        for hat in flat(stem.filters(size)):
            hat.zero_()
        assert all(hat.any() for hat in flat(stem.filters(size)))
    assert torch.equal(stem(x), expected)
    assert torch.equal(create(**options).scattering(x), expected)


@pytest.mark.parametrize('options', [{}, {'learnable': True}], ids=str)
def test_fake_filters_do_not_get_into_real_models(options):
    with FakeTensorMode():
        create(img_size=20, **options)
    stem = create(img_size=20, **options).scattering
    assert stem(torch.randn(1, 1, 20, 20)).isfinite().all()


@pytest.mark.parametrize('state', ['learnable', 'frozen', 'pixelwise', 'loaded', 'random'])
@pytest.mark.parametrize('options', OPTIONS[1:], ids=str)
def test_the_checkpoint_tells_the_present_state(options, state, tmp_path):
    model = learned(init='random' if state == 'random' else 'tight_frame', **options)
    if state == 'frozen':
        model.scattering.set_learnable(False)
    elif state == 'pixelwise':
        model.scattering.to_pixelwise()
    elif state == 'loaded':
        plain = create().eval()
        plain.load_state_dict(model.state_dict())
        model = plain
    checkpoint.save(model, tmp_path / 'checkpoint')
    again = checkpoint.load(tmp_path / 'checkpoint')
    x = torch.randn(2, 1, 16, 16)
    assert torch.equal(again(x), model(x))
    for name in ('learnable', 'parametrization', 'nonexpansive'):
        assert getattr(again.scattering, name) == getattr(model.scattering, name), name
    config = json.loads((tmp_path / 'checkpoint' / 'config.json').read_text())
    rebuilt = timm.create_model(config['architecture'], **{**config['model_args'], 'num_classes': 5})
    assert list(rebuilt.state_dict()) == list(model.state_dict())


@pytest.mark.parametrize('options', OPTIONS, ids=str)
@pytest.mark.parametrize('init', ['tight_frame', 'random'])
def test_weights_trained_on_fixed_filters_start_a_learnable_model(init, options, tmp_path):
    """At the analytic values, whatever init: the weights were trained on these."""
    fixed = create().eval()
    timm.models.save_for_hf(fixed, tmp_path, safe_serialization=True)
    model = timm.create_model(f'local-dir:{tmp_path}', pretrained=True, learnable=True, init=init, **options).eval()
    assert model.scattering.learnable
    plain = create(learnable=True, **options).scattering
    x = torch.randn(2, 1, 16, 16)
    assert torch.equal(model.scattering(x), plain(x))
    if 'nonexpansive' not in options:
        assert torch.allclose(model(x), fixed(x), atol=1e-5)


@pytest.mark.parametrize('parametrization', KINDS)
def test_random_filters_that_are_not_learned_are_kept(parametrization):
    model = create(parametrization=parametrization, init='random').eval()
    assert not list(model.scattering.parameters())
    other = create(parametrization=parametrization, init='random').eval()
    x = torch.randn(2, 1, 16, 16)
    assert not torch.allclose(other.scattering(x), model.scattering(x))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), model(x))


@pytest.mark.parametrize('parametrization', FOLLOWING)
def test_nonexpansive_filters_that_are_not_learned(parametrization):
    model = create(parametrization=parametrization, nonexpansive=True)
    assert not list(model.scattering.parameters())
    assert model.scattering.nonexpansive
    assert model.scattering.frame_bounds()[1] <= 1 + 1e-6


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_to_pixelwise(options):
    model = learned(**options)
    x = torch.randn(2, 1, 16, 16)
    with torch.no_grad():
        expected = model(x)
        bounds = model.scattering.frame_bounds()
        model.scattering.to_pixelwise()
        assert torch.equal(model(x), expected)
    assert torch.allclose(model(x), expected, atol=1e-5)
    assert isinstance(model.scattering.bank, PixelwiseBank)
    assert model.scattering.learnable
    assert model.scattering.filter_parameters() == []
    assert model.scattering.frame_bounds() == bounds
    model.scattering.set_learnable(False)
    model.scattering.to_pixelwise()
    assert not model.scattering.learnable
    fixed = create().scattering
    fixed.to_pixelwise()
    assert not fixed.learnable
    assert torch.equal(fixed(x), create().scattering(x))


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('options', [OPTIONS[1], OPTIONS[-1]], ids=str)
def test_script_trace_export_and_compile_equal_eager(options):
    model = learned(**{**options, 'L': 2})
    scripted = torch.jit.script(model)
    for size in [(16, 16), (32, 24)]:
        x = torch.randn(2, 1, *size)
        exported = torch.export.export(model, (x,), dynamic_shapes={'x': {0: torch.export.Dim('batch')}}).module()
        compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
        for other in (scripted, torch.jit.trace(model, x), exported, compiled, torch.fx.symbolic_trace(model)):
            assert torch.allclose(other(x), model(x), atol=1e-5)
    x = torch.randn(2, 1, 16, 16)
    grads = [torch.autograd.grad(m(x).square().sum(), list(m.parameters())) for m in (scripted, compiled, model)]
    assert all(torch.allclose(a, c, rtol=1e-3, atol=1e-3) and torch.allclose(b, c, rtol=1e-3, atol=1e-3)
               for a, b, c in zip(*grads, strict=True))


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_copies_and_lower_precision(options):
    model = learned(**options)
    x = torch.randn(2, 1, 16, 16)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(x), model(x))
    expected = model(x)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.allclose(model(x).float(), expected, atol=0.1)
    for dtype in (torch.bfloat16, torch.float16):
        actual = copy.deepcopy(model).to(dtype)(x.to(dtype))
        assert actual.dtype == dtype
        assert torch.allclose(actual.float(), expected, atol=0.2)
    double = create(learnable=True, dtype=torch.float64, **options)
    assert double(x.double()).dtype == torch.float64


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_filters_learn(options):
    model = create(learnable=True, **options).train()
    optimizer = torch.optim.Adam(model.scattering.parameters(), lr=1e-2)
    before = parameters_to_vector(model.scattering.parameters()).detach()
    x, target = torch.randn(16, 1, 16, 16), torch.arange(16) % 5
    losses = []
    for _ in range(10):
        loss = torch.nn.functional.cross_entropy(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    moved = parameters_to_vector(model.scattering.parameters()) != before
    assert moved.float().mean() > 0.9                           # some pixelwise values have no gradient


def test_filter_parameters():
    stem = create(learnable=True, parametrization='equivariant', L=8, J=3).scattering
    with torch.no_grad():
        stem.bank.theta[1] = 0.1
        stem.bank.sigma[1] = 0.2
    wavelets = stem.filter_parameters()
    assert [(w.j, w.t) for w in wavelets] == [(j, t) for j in range(3) for t in range(8)]
    assert wavelets[3] == pytest.approx((0, 3, 0., 8 / 3, 0.8, 0.5))
    assert wavelets[8 + 3].angle == pytest.approx(5.7296, abs=1e-3)
    assert 1.6 * 1.15 < wavelets[8].scale < 1.6 * 1.25
    assert wavelets[16].wavelength == pytest.approx(32 / 3)


def test_frame_bounds():
    fixed = ScatteringStem(J=2, L=8, img_size=(32, 32))
    A, B = fixed.frame_bounds()
    assert isinstance(A, float)
    assert 0.12 < A < B < 1.05
    for parametrization in KINDS:
        stem = ScatteringStem(J=2, L=8, img_size=(32, 32), learnable=True, parametrization=parametrization)
        assert stem.frame_bounds() == pytest.approx((A, B), abs=1e-6)
    assert stem.frame_bounds((64, 48)) == pytest.approx(fixed.frame_bounds((64, 48)), abs=1e-6)
    assert ScatteringStem(J=2, L=1, img_size=(64, 64)).frame_bounds()[1] == pytest.approx(2.58, abs=0.01)
    pixelwise = ScatteringStem(J=2, L=8, img_size=(32, 32), learnable=True)
    assert pixelwise.frame_bounds((33, 34)) == pixelwise.frame_bounds()             # padded to the same size
    assert pixelwise.frame_bounds((64, 64)) == pytest.approx(fixed.frame_bounds((64, 64)), abs=1e-6)
    for bank_class in (MorletBank, EquivariantBank):
        stem.bank = bank_class(2, 1, (32, 32), nonexpansive=True)
        assert stem.frame_bounds()[1] == pytest.approx(1, abs=1e-6)
    assert scat_zoo.ScatLinear(L=2, learnable=True, parametrization='morlet').scattering.frame_bounds()[1] > 1
