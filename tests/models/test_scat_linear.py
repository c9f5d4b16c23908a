"""scat_linear as users of timm meet it; timm's own test file is run on it besides."""
import copy
import json
import pickle

import numpy as np
import pytest
import timm
import timm.optim
import torch

import scat_zoo
from scat_zoo.scattering.banks import FixedBank, PixelwiseBank

from .architectures import jolt


def create(**kwargs):
    return timm.create_model('scat_linear', **{'num_classes': 5, 'in_chans': 1, 'img_size': 16, **kwargs})


def test_the_line_of_the_readme():
    model = timm.create_model('scat_linear', learnable=True, num_classes=10, in_chans=1, img_size=28)
    assert model(torch.randn(2, 1, 28, 28)).shape == (2, 10)
    cfg = model.pretrained_cfg
    assert (cfg['input_size'], cfg['pool_size'], cfg['fixed_input_size']) == ((1, 28, 28), (7, 7), False)
    assert timm.data.resolve_data_config({}, model=model)['input_size'] == (1, 28, 28)


@pytest.mark.parametrize(('kwargs', 'channels', 'side'), [
    ({}, 81, 4), ({'J': 3}, 217, 2), ({'L': 4, 'max_order': 1}, 9, 4), ({'J': 1}, 9, 8), ({'in_chans': 3}, 243, 4)])
def test_features(kwargs, channels, side):
    x = torch.randn(2, kwargs.get('in_chans', 1), 16, 16)
    assert create(num_classes=0, **kwargs)(x).shape == (2, channels * side * side)
    assert create(num_classes=0, global_pool='', **kwargs)(x).shape == (2, channels, side, side)
    assert create(num_classes=0, global_pool='avg', **kwargs)(x).shape == (2, channels)
    levels = create(features_only=True, **kwargs)
    maps = levels(x)
    assert [m.shape[1] for m in maps] == levels.feature_info.channels()
    assert maps[-1].shape == (2, channels, side, side)


def test_channels_are_path_major():
    model = create(in_chans=2)
    x = torch.randn(1, 2, 16, 16)
    s = scat_zoo.ScatteringTorch2D(2, (16, 16))(x)                              # (1, 2, 81, 4, 4)
    assert len(model.scattering.paths) == 81
    channels = model.scattering.channels
    assert [channel[:5] for channel in channels[1::2]] == model.scattering.paths
    assert channels[5] == (1, 0, 1, None, None, 1, 2, 0, 0)
    assert model.scattering(x).shape[1] == len(channels)
    assert torch.allclose(model.scattering(x).reshape(1, 81, 2, 4, 4), s.transpose(1, 2), atol=1e-6)


@pytest.mark.parametrize('size', [(28, 28), (32, 32), (96, 64), (63, 66)])
def test_filters_follow_the_image(size):
    x = torch.randn(2, 1, *size)
    s = scat_zoo.ScatteringTorch2D(2, size)(x)[:, 0]
    for model, tolerance in ((create(), 1e-6), (create(learnable=True), 1e-4)):     # resampled: close
        assert torch.allclose(model.scattering(x), s, atol=tolerance)
        assert model(x).shape == (2, 5)


@pytest.mark.parametrize(('kwargs', 'error', 'phrase'), [
    ({'nonsense': 1}, TypeError, 'nonsense'),
    ({'J': 5}, ValueError, 'J=5 needs images of at least 32 pixels'),
    ({'max_order': 3}, ValueError, 'max_order must be 1 or 2'),
    ({'J': '2'}, TypeError, "J must be an integer, got '2'"),
    ({'L': 2.5}, TypeError, 'L must be an integer, got 2.5'),
    ({'img_size': (3, 32, 32)}, ValueError, r'img_size must be \(H, W\) in pixels, got \(3, 32, 32\): without the ch'),
    ({'img_size': 0}, ValueError, 'J=2 needs images of at least 4 pixels'),
    ({'in_chans': 0}, ValueError, 'in_chans must be at least 1, got 0'),
    ({'in_chans': -1}, ValueError, 'in_chans must be at least 1, got -1'),
    ({'in_chans': '3'}, TypeError, "in_chans must be an integer, got '3'"),
    ({'num_classes': -1}, ValueError, 'num_classes must be at least 0, got -1'),
    ({'num_classes': 2.5}, TypeError, 'num_classes must be an integer, got 2.5'),
    ({'pool_grid': (0, 0)}, ValueError, 'pool_grid must be at least 1, got 0'),
    ({'pool_grid': (2, 2, 2)}, ValueError, r'pool_grid must be \(H, W\)'),
    ({'log_floor': -1}, ValueError, 'log_floor must be 0, for no logarithm, or positive, got -1'),
    ({'drop_rate': 2}, ValueError, 'drop_rate must be a share from 0 to 1, got 2'),
    ({'drop_rate': '0.1'}, ValueError, "drop_rate must be a share from 0 to 1, got '0.1'"),
    ({'drop_rate': [0.1]}, ValueError, r'drop_rate must be a share from 0 to 1, got \[0.1\]'),
    ({'log_floor': 10 ** 400}, ValueError, 'log_floor must be 0, for no logarithm, or positive, got 1000'),
    ({'img_size': 2 ** 63}, ValueError, 'img_size must be below 2,147,483,648 pixels a side'),
    ({'parametrization': ['morlet']}, ValueError, r"unknown parametrization \['morlet'\]; did you mean morlet\?"),
    ({'pretrained': True}, RuntimeError, 'No pretrained weights exist for scat_linear'),
])
def test_bad_arguments(kwargs, error, phrase):
    with pytest.raises(error, match=phrase):
        create(**kwargs)


@pytest.mark.parametrize(('x', 'phrase'), [
    (torch.zeros(1, 3, 16, 16), r'expected images of shape \(B, 1, H, W\), got \[1, 3, 16, 16\]: in_chans of the'),
    (torch.zeros(1, 16, 16), r'expected images of shape \(B, 1, H, W\), got \[1, 16, 16\]: one image is a batch too'),
    (torch.zeros(4, 16, 16, 1), r'got \[4, 16, 16, 1\]: channels come before height and width'),
    (torch.zeros(16, 16), r'got \[16, 16\]$'),
    (torch.zeros(1, 1, 16, 16).numpy(), r'expected a tensor of images \(B, 1, H, W\), got ndarray: torch.as_tensor'),
    ([[0.]], 'expected a tensor of images .*, got list'),
    (torch.zeros(1, 1, 16, 16, dtype=torch.uint8), r'expected floating-point images, got torch\.uint8'),
    (torch.zeros(1, 1, 16, 16, dtype=torch.complex64), r'expected real images, got torch\.complex64'),
    (torch.zeros(1, 1, 16, 16, dtype=torch.float64), r'images are torch.float64, filters torch.float32: convert'),
    (torch.zeros(1, 1, 2, 16), r'larger than 2\^J'),
])
@pytest.mark.parametrize('kwargs', [{}, {'learnable': True}, {'learnable': True, 'parametrization': 'morlet'}])
def test_bad_images(x, phrase, kwargs):
    with pytest.raises((RuntimeError, TypeError), match=phrase):
        create(**kwargs)(x)
    if not isinstance(x, torch.Tensor) or x.dtype == torch.float64:
        with pytest.raises(TypeError):
            create(**kwargs)(x)


def test_float32_images_of_a_double_model_are_refused():
    with pytest.raises(TypeError, match=r'images are torch.float32, filters torch.float64'):
        create().double()(torch.zeros(1, 1, 16, 16))


def test_default_cfg_stays_generic():
    model = timm.create_model('scat_linear')
    assert model.num_classes == 1000
    assert model.pretrained_cfg['input_size'] == (3, 32, 32)
    assert model.pretrained_cfg['first_conv'] == []
    assert not model.pretrained_cfg['fixed_input_size']


def test_set_learnable_turns_fixed_filters_into_parameters():
    model = create().eval()
    x = torch.randn(2, 1, 16, 16)
    expected = model(x)
    assert isinstance(model.scattering.bank, FixedBank)
    model.scattering.set_learnable(True)
    torch.testing.assert_close(model(x), expected)
    assert model.scattering.learnable
    jolt(model)
    learned = model(x)
    model.scattering.set_learnable(False)
    assert not list(model.scattering.parameters())
    assert torch.equal(model(x), learned)


@pytest.mark.parametrize('how', ['load_state_dict', 'local-dir', 'safetensors'])
def test_train_learnable_deploy_frozen(how, tmp_path):
    """Learned filters loaded into a model with fixed ones become frozen filters, and never get lost."""
    from safetensors.torch import load_file, save_file
    learned = jolt(create(learnable=True))
    x = torch.randn(2, 1, 16, 16)
    if how == 'local-dir':
        timm.models.save_for_hf(learned, tmp_path, safe_serialization=True)
        frozen = timm.create_model(f'local-dir:{tmp_path}', pretrained=True, learnable=False)
    else:
        frozen = create()
        state = learned.state_dict()
        if how == 'safetensors':
            save_file(state, tmp_path / 'model.safetensors')
            state = load_file(tmp_path / 'model.safetensors')
        frozen.load_state_dict(state)
    assert not list(frozen.scattering.parameters())
    assert isinstance(frozen.scattering.bank, PixelwiseBank)
    assert torch.equal(frozen.eval()(x), learned(x))
    # And again from there.
    again = create()
    again.load_state_dict(frozen.state_dict())
    assert torch.equal(again.eval()(x), learned(x))


def test_weights_trained_on_fixed_filters_start_a_learnable_model(tmp_path):
    fixed = jolt(create())
    timm.models.save_for_hf(fixed, tmp_path, safe_serialization=True)
    assert 'scattering' not in str(list(fixed.state_dict()))
    model = timm.create_model(f'local-dir:{tmp_path}', pretrained=True, learnable=True).eval()
    x = torch.randn(2, 1, 16, 16)
    assert len(list(model.scattering.parameters())) == 18
    torch.testing.assert_close(model(x), fixed(x))
    with pytest.raises(RuntimeError, match='Missing key'):          # a plain load drops nothing silently
        create(learnable=True).load_state_dict(fixed.state_dict())


@pytest.mark.parametrize('learnable', [False, True])
def test_timm_checkpoint_folder_is_bit_equal(learnable, tmp_path):
    model = jolt(create(learnable=learnable, J=3, L=4))
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    again = timm.create_model(f'local-dir:{tmp_path}', pretrained=True).eval()
    x = torch.randn(2, 1, 16, 16)
    assert torch.equal(again(x), model(x))
    assert json.loads((tmp_path / 'config.json').read_text())['model_args']['J'] == 3


@pytest.mark.parametrize('learnable', [False, True])
def test_copies(learnable):
    model = jolt(create(learnable=learnable))
    x = torch.randn(2, 1, 16, 16)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(x), model(x))


@pytest.mark.filterwarnings('ignore:.*torch.jit')
@pytest.mark.parametrize('learnable', [False, True])
def test_torchscript_equals_eager(learnable):
    model = jolt(create(learnable=learnable))
    scripted = torch.jit.script(model)
    for size in [(16, 16), (32, 24)]:                               # a script builds filters for another size too
        x = torch.randn(2, 1, *size)
        assert torch.allclose(scripted(x), model(x), atol=1e-5)     # logarithms of small coefficients
    x = torch.randn(2, 1, 16, 16)
    grads = [torch.autograd.grad(m(x).square().sum(), list(m.parameters())) for m in (scripted, model)]
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(*grads, strict=True))


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('learnable', [False, True])
def test_trace_export_and_compile_equal_eager(learnable):
    model = jolt(create(learnable=learnable, L=2))
    for size in [(16, 16), (32, 24)]:                               # another size: filters are built in the graph
        x = torch.randn(2, 1, *size)
        exported = torch.export.export(model, (x,), dynamic_shapes={'x': {0: torch.export.Dim('batch')}}).module()
        compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
        for other in (torch.jit.trace(model, x), exported, compiled):
            assert torch.allclose(other(x), model(x), atol=1e-5)
        assert torch.allclose(exported(x[:1]), model(x[:1]), atol=1e-5)
    compiled.train()(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_traced_training_updates_the_running_means():
    """They must not be dead code to a tracer."""
    model = create().train()
    traced = torch.fx.symbolic_trace(model)
    traced.graph.eliminate_dead_code()
    traced.recompile()
    before = model.norm.orders[1].running_mean.clone()
    traced(torch.randn(4, 1, 16, 16))
    assert not torch.equal(model.norm.orders[1].running_mean, before)


def test_no_images():
    assert create().eval()(torch.zeros(0, 1, 16, 16)).shape == (0, 5)


def test_a_blank_image_gives_finite_logits_and_gradients():
    model = create(learnable=True).train()
    x = torch.zeros(2, 1, 16, 16, requires_grad=True)
    logits = model(x)
    logits.square().sum().backward()
    assert logits.isfinite().all()
    assert all(p.grad.isfinite().all() for p in [x, *model.parameters()])


def test_gradient_checkpointing_changes_no_gradient():
    grads = []
    for enable in (False, True):
        torch.manual_seed(0)
        model = create(learnable=True).train()
        model.set_grad_checkpointing(enable)
        model(torch.randn(2, 1, 16, 16)).square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_log_floor_zero_leaves_the_logarithm_out():
    model = create(log_floor=0., global_pool='', num_classes=0).eval()
    x = torch.randn(2, 1, 16, 16)
    assert torch.allclose(model(x), model.scattering(x) / (1 + 1e-5) ** 0.5)


@pytest.mark.parametrize('size', [np.array(16), torch.tensor(16), np.int64(16), np.array([16, 16]), [16, 16]])
def test_sizes_of_any_kind(size):
    model = create(img_size=size, pool_grid=size)
    assert model.scattering.img_size == model.pool_grid == (16, 16)
    model.set_input_size(size)
    assert model.pretrained_cfg['input_size'] == (1, 16, 16)


@pytest.mark.parametrize('num_classes', [-1, 'x', None, 2.0, True])
def test_a_refused_classifier_leaves_the_one_that_is_there(num_classes):
    model = create()
    fc, before = model.get_classifier(), model.num_classes
    with pytest.raises((TypeError, ValueError), match='num_classes must be'):
        model.reset_classifier(num_classes)
    assert model.get_classifier() is fc
    assert model.num_classes == before
    with pytest.raises(ValueError, match='max_order must be 0, 1 or 2, got 3'):
        model.scattering.set_max_order(3)
