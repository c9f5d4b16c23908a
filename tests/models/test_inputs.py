"""What the stem makes of images before it scatters them: differences of channels, logarithms."""
import pytest
import timm
import torch
from timm.data import resolve_data_config

import scat_zoo
from scat_zoo.models.stem import ScatteringStem
from scat_zoo.train import checkpoint
from tests.models.architectures import MODELS

BOTH = {'channel_differences': True, 'log_input': 0.03}


def create(name='scat_linear', **kwargs):
    torch.manual_seed(0)
    return timm.create_model(name, **{'num_classes': 5, 'img_size': 16, 'L': 4, **BOTH, **kwargs})


def test_differences_are_more_channels():
    stem = ScatteringStem(L=4, img_size=(16, 16), in_chans=4, channel_differences=True)
    plain = ScatteringStem(L=4, img_size=(16, 16), in_chans=7)
    x = torch.rand(2, 4, 16, 16)
    beside = torch.stack([*x.unbind(1), x[:, 0] - x[:, 1], x[:, 1] - x[:, 2], x[:, 2] - x[:, 3]], 1)
    torch.testing.assert_close(stem(x), plain(beside), rtol=0, atol=1e-6)
    assert (stem.colours, stem.channels, stem.order_channels()) == (7, plain.channels, plain.order_channels())
    grey = ScatteringStem(L=4, img_size=(16, 16), in_chans=1, channel_differences=True)
    assert grey.colours == 1
    assert torch.equal(grey(x[:, :1]), ScatteringStem(L=4, img_size=(16, 16), in_chans=1)(x[:, :1]))


def test_they_tell_how_channels_vary_together():
    """Two channels with the same noise, or each with its own, are alike in the moduli of each."""
    own = torch.randn(16, 2, 32, 32)
    same = own[:, :1].expand(16, 2, 32, 32)
    found = [ScatteringStem(L=4, in_chans=2, channel_differences=True)(x).mean((0, 2, 3))[3:].reshape(-1, 3)
             for x in (own, same)]                              # (paths of order 1 and 2, colours)
    assert (found[0][:, :2] / found[1][:, :2] - 1).abs().max() < 0.3
    assert found[1][:, 2].abs().max() < 1e-6 < 0.1 < found[0][:, 2].max()


def test_other_light_leaves_the_logarithm_of_an_image_alone():
    x = 0.3 + 0.7 * torch.rand(2, 3, 32, 32)
    light = torch.tensor([1.0, 0.5, 0.7]).reshape(3, 1, 1)
    stem = ScatteringStem(L=4, log_input=1e-4)
    torch.testing.assert_close(stem(x), ScatteringStem(L=4)(torch.log(x + 1e-4)), rtol=0, atol=1e-6)
    change, before = stem(x * light) - stem(x), stem(x)
    torch.testing.assert_close(change[:, :3].mean((2, 3)), light.log().reshape(1, 3).expand(2, 3), rtol=0, atol=1e-3)
    assert change[:, 3:].abs().max() < 1e-3 * before[:, 3:].abs().max()
    plain = ScatteringStem(L=4)
    assert (plain(x * light) - plain(x))[:, 3:].abs().max() > 0.3 * plain(x)[:, 3:].abs().max()
    assert torch.isfinite(stem(x - 0.6)).all()                  # what interpolation makes negative is black


@pytest.mark.parametrize('name', [*MODELS, 'scat_hybrid'])
def test_all_models_have_both(name, tmp_path):
    other = {'network': 'test_resnet'} if name == 'scat_hybrid' else {}
    model = create(name, **other).eval()
    assert model.scattering.colours == 5
    assert 'channel_differences=True, log_input=0.03' in repr(model.scattering)
    config = resolve_data_config({}, model=model)               # a logarithm needs values from 0 to 1
    assert (config['mean'], config['std']) == ((0., 0., 0.), (1., 1., 1.))
    x = torch.rand(2, 3, 16, 16)
    expected = model(x)
    checkpoint.save(model, tmp_path / 'saved', {})
    again = checkpoint.load(tmp_path / 'saved')
    assert torch.equal(again(x), expected)
    assert resolve_data_config({}, model=again)['mean'] == (0., 0., 0.)
    with pytest.raises(RuntimeError, match=r'size|shape'):
        create(name, channel_differences=False, **other).load_state_dict(model.state_dict())


@pytest.mark.parametrize('options', [{}, {'rotation': 'average'}, {'learnable': True, 'parametrization': 'morlet'}],
                         ids=str)
@pytest.mark.filterwarnings('ignore:.*is deprecated')
def test_in_graphs(options, tmp_path):
    model = create(**options).eval()
    x = torch.rand(2, 3, 16, 16)
    expected = model(x)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim('batch')},))
    torch.export.save(program, tmp_path / 'model.pt2')
    program = torch.export.load(tmp_path / 'model.pt2')
    assert not [node for node in program.graph.nodes if 'fft' in str(node.target)]
    for way in (torch.jit.script(model), torch.jit.trace(model, x), program.module(),
                torch.compile(model, backend='aot_eager', fullgraph=True)):
        torch.testing.assert_close(way(x), expected, rtol=0, atol=1e-4)


def test_gradients_in_float64():
    stem = ScatteringStem(J=1, L=2, img_size=(8, 8), learnable=True, parametrization='morlet', dtype=torch.float64,
                          **BOTH)
    x = 0.1 + torch.rand(1, 3, 8, 8, dtype=torch.float64)
    assert torch.autograd.gradcheck(stem, (x.requires_grad_(),), atol=1e-6)


@pytest.mark.parametrize(('option', 'message'), [
    ({'channel_differences': 1}, 'channel_differences must be True or False, got 1'),
    ({'log_input': -0.1}, '0, for no logarithm, or a floor of at most 1, got -0.1'),
    ({'log_input': '0.1'}, 'a floor of at most 1'),
    ({'log_input': True}, 'a floor of at most 1, got .*True'),
    ({'learnable': True, 'parametrization': 'morlet', 'nonexpansive': True}, 'needs images as they are')])
def test_refused(option, message):
    with pytest.raises((ValueError, TypeError), match=message):
        create(**option)


@pytest.mark.parametrize('kwargs', [{}, BOTH, {'log_input': 0.1}, {'channel_differences': True}], ids=str)
def test_images_that_are_no_floats_are_refused_as_without(kwargs):
    model = create(**{'channel_differences': False, 'log_input': 0., **kwargs})
    for dtype in (torch.uint8, torch.bool, torch.int64):
        with pytest.raises(RuntimeError, match='expected floating-point images'):
            model(torch.ones(1, 3, 16, 16, dtype=dtype))
    with pytest.raises(RuntimeError, match='expected real images'):
        model(torch.ones(1, 3, 16, 16, dtype=torch.complex64))


@pytest.mark.parametrize(('theirs', 'ours'), [
    (BOTH, {'channel_differences': False}), (BOTH, {'log_input': 0.}), (BOTH, {'log_input': 0.1}),
    ({'channel_differences': False, 'log_input': 0., 'in_chans': 5}, {'log_input': 0.}),
    ({'channel_differences': False, 'log_input': 0.}, {'channel_differences': False}),
    ({'channel_differences': False, 'log_input': 0.}, {'channel_differences': False, 'num_classes': 7})], ids=str)
@pytest.mark.parametrize('name', ['scat_linear', 'scat_hybrid'])
def test_weights_learned_with_other_inputs_are_refused(name, theirs, ours, tmp_path):
    """Where shapes would fit, and timm be no longer strict, too."""
    other = {'network': 'test_resnet'} if name == 'scat_hybrid' else {}
    trained = create(name, **{**theirs, **other})
    checkpoint.save(trained, tmp_path / 'saved', {})
    asked = {'num_classes': 5, 'in_chans': 3, **BOTH, **ours}
    with pytest.raises(RuntimeError, match='expected weights with channel_differences=') as refused:
        timm.create_model(f'local-dir:{tmp_path / "saved"}', pretrained=True, **asked)
    assert len(str(refused.value)) < 300
    model = create(name, **asked, **other)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(RuntimeError):
        model.load_state_dict(trained.state_dict())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_shipped_weights_are_of_images_as_they_are():
    for log_input in (0.03, 0.):
        model = timm.create_model('scat_linear.fashion_mnist', pretrained=log_input == 0, log_input=log_input)
        assert ('scattering.inputs.setting' in model.state_dict()) == (log_input > 0)
    with pytest.raises(RuntimeError, match=r'got False and 0$'):
        timm.create_model('scat_linear.fashion_mnist', pretrained=True, log_input=0.03)


def test_what_a_state_dict_tells_stays_what_it_is():
    model = create()
    told = model.scattering.inputs.setting.clone()
    assert torch.equal(model.half().scattering.inputs.setting, told)
    empty = timm.create_model('scat_linear', device='meta', L=4, img_size=16, **BOTH).to_empty(device='cpu')
    empty.init_weights()
    assert torch.equal(empty.scattering.inputs.setting, told)


def test_a_nonexpansive_bank_is_refused():
    options = {'learnable': True, 'parametrization': 'morlet'}
    trained = ScatteringStem(L=4, nonexpansive=True, **options)
    ours = ScatteringStem(L=4, log_input=0.03)
    state = {**trained.state_dict(), 'inputs.setting': ours.inputs.setting}
    with pytest.raises(RuntimeError, match='not nonexpansive'):
        ours.load_state_dict(state)
    assert ours.mode == 'fixed'


def test_channels_do_not_adapt(tmp_path):
    model = create()
    checkpoint.save(model, tmp_path / 'saved', {})
    with pytest.raises(RuntimeError, match='in_chans'):
        timm.create_model(f'local-dir:{tmp_path / "saved"}', pretrained=True, in_chans=1)
    assert scat_zoo.with_scattering_stem('test_resnet', **BOTH, num_classes=3).scattering.colours == 5


def test_a_setting_that_is_no_number():
    stem = ScatteringStem(L=2, J=1, img_size=(16, 16), log_input=0.1)
    state = {**stem.state_dict(), 'inputs.setting': torch.full((2,), float('inf'))}
    with pytest.raises(RuntimeError, match=r'expected int64 for inputs\.setting, got torch\.float32'):
        stem.load_state_dict(state)
