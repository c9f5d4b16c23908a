"""What holds for every model of the zoo: learning, precision, layouts, channels, sizes."""
import copy

import pytest
import timm
import torch
from torchvision.transforms.v2.functional import to_dtype, to_image

from scat_zoo.train.data import Prepared, load
from scat_zoo.train.loop import Training, evaluate, fit

from .architectures import MODELS, create

CPU = torch.device('cpu')


def to_tensor(image):
    return (to_dtype(to_image(image), torch.float32, scale=True) - 0.286) / 0.353


@pytest.fixture(scope='module')
def images():
    data = load('sample', val_fraction=0.2)
    return Prepared(data.train, 1, to_tensor), Prepared(data.val, 1, to_tensor)


@pytest.mark.parametrize('learnable', [True, False])
@pytest.mark.parametrize('name', MODELS)
def test_one_epoch(name, learnable, images, tmp_path):
    """One epoch on 800 images gains 20 points of accuracy at least; learnable filters move, fixed ones do not."""
    train, val = images
    model = create(name, learnable=learnable)
    x = torch.stack([val[i][0] for i in range(4)])
    before, start = model.scattering(x).detach(), evaluate(model, val, CPU)
    training = Training(epochs=1, batch_size=16, lr=2e-3, warmup_epochs=0, label_smoothing=0.)
    history = fit(model, train, val, training, CPU, tmp_path / 'state', name)
    assert history[0]['val_accuracy'] >= start + 20
    filters = [p for p in model.scattering.parameters() if p.requires_grad]
    assert bool(filters) == learnable
    assert torch.equal(model.scattering(x), before) != learnable


@pytest.fixture(scope='module', params=MODELS)
def trained(request):
    """A model with norms that have seen data, in eval mode."""
    model = create(request.param, in_chans=3, img_size=32).train()
    for _ in range(20):
        model(torch.randn(8, 3, 32, 32))
    return model.eval()


def relative(actual, expected):
    return ((actual.float() - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_lower_precision(trained, dtype):
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        expected = trained(x)
        with torch.autocast('cpu', dtype):
            mixed = trained(x)
        low = copy.deepcopy(trained).to(dtype)(x.to(dtype))
    assert low.dtype == dtype
    # Relative to the largest logit. The mantissa of bfloat16 has 8 bits, of float16 11; a dozen layers add up.
    tolerance = 0.1 if dtype == torch.bfloat16 else 0.02
    for actual in (mixed, low):
        assert actual.isfinite().all()
        assert relative(actual, expected) < tolerance


def test_layouts(trained):
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        expected = trained(x)
        for view in (x.to(memory_format=torch.channels_last), x.transpose(2, 3).contiguous().transpose(2, 3),
                     x.repeat(1, 2, 1, 1)[:, :3], x.repeat_interleave(2, dim=3)[..., ::2]):
            # The convolutions of a resnet may add in another order.
            assert torch.allclose(trained(view), expected, atol=1e-5)


@pytest.mark.parametrize('size', [(28, 28), (32, 32), (96, 96), (127, 131), (224, 224), (288, 288)])
def test_sizes(trained, size):
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        logits = trained(x)
        one_by_one = torch.cat([trained(image[None]) for image in x])
    assert logits.shape == (2, 10)
    assert logits.isfinite().all()
    assert torch.allclose(logits, one_by_one, atol=1e-4)


@pytest.mark.parametrize('kwargs', [{}, {'J': 3}, {'J': 1}, {'img_size': (44, 30)}, {'img_size': 28, 'in_chans': 1}])
@pytest.mark.parametrize('name', MODELS)
def test_the_cfg_tells_input_and_pool_size(name, kwargs):
    model = timm.create_model(name, L=2, **kwargs).eval()
    cfg = model.pretrained_cfg
    features = model.forward_features(torch.randn(1, *cfg['input_size']))
    assert features.shape[2:] == cfg['pool_size']
    if kwargs.get('img_size') == 28:
        assert cfg['input_size'] == (1, 28, 28)


@pytest.mark.parametrize('in_chans', [1, 3, 4, 12])
@pytest.mark.parametrize('name', MODELS)
def test_channels(name, in_chans):
    model = create(name, in_chans=in_chans, L=2).train()
    logits = model(torch.randn(2, in_chans, 28, 28))
    assert logits.isfinite().all()
    assert model.pretrained_cfg['input_size'] == (in_chans, 28, 28)
    assert len(model.pretrained_cfg['mean']) == in_chans
    with pytest.raises(RuntimeError, match=rf'expected images of shape \(B, {in_chans}, H, W\)'):
        model(torch.randn(2, in_chans + 1, 28, 28))


@pytest.mark.parametrize('name', MODELS)
def test_freezing(name):
    model = create(name, learnable=True)
    model.freeze_scattering()
    assert {n.split('.')[0] for n, p in model.named_parameters() if not p.requires_grad} == {'scattering'}
    model.unfreeze_scattering()
    timm.utils.freeze(model, ['scattering'])
    assert not any(p.requires_grad for p in model.scattering.parameters())
    model.freeze_classifier()
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize('name', MODELS)
def test_learned_filters_reach_a_frozen_model_by_every_loader(name, tmp_path):
    learned = create(name, learnable=True).eval()
    with torch.no_grad():
        for p in learned.scattering.parameters():
            p.mul_(1 + 0.1 * torch.randn_like(p))
    timm.models.save_for_hf(learned, tmp_path, safe_serialization=True)
    weights = tmp_path / 'model.safetensors'
    x = torch.randn(2, 1, 28, 28)
    loaders = {
        'local-dir': lambda: timm.create_model(f'local-dir:{tmp_path}', pretrained=True, learnable=False),
        'checkpoint_path': lambda: create(name, checkpoint_path=str(weights)),
        'pretrained file': lambda: create(name, pretrained=True, pretrained_cfg_overlay={
            'file': str(weights), 'num_classes': 10, 'input_size': (1, 28, 28)}),
    }
    for loader, load_model in loaders.items():
        model = load_model().eval()
        assert not list(model.scattering.parameters()), loader
        assert torch.equal(model(x), learned(x)), loader
    features = timm.create_model(f'local-dir:{tmp_path}', pretrained=True, learnable=False, features_only=True).eval()
    assert torch.equal(features(x)[-1], learned.forward_features(x))


@pytest.mark.parametrize('output_stride', [8, 16, 32])
def test_output_stride(output_stride):
    model = timm.create_model('scat_resnet18', output_stride=output_stride, features_only=True).eval()
    strides = [min(stride, output_stride) for stride in (4, 8, 16, 32)]
    assert model.feature_info.reduction() == strides
    maps = model(torch.randn(1, 3, 64, 96))
    assert [tuple(m.shape[-2:]) for m in maps] == [(64 // stride, 96 // stride) for stride in strides]


def test_impossible_stages():
    with pytest.raises(ValueError, match=r'of one length, the number of stages, got \(64, 128, 256\), \(2, 3\) and'):
        timm.create_model('scat_resnet', channels=(64, 128, 256))
    with pytest.raises(ValueError, match='output_stride must be 8, 16 or 32, got 4'):
        timm.create_model('scat_resnet18', output_stride=4)
    with pytest.raises(ValueError, match='of one length, the number of stages'):
        timm.create_model('scat_resnet', channels=(), depths=(), strides=())


@pytest.mark.parametrize(('keywords', 'phrase'), [
    ({'channels': (8, None)}, 'each of channels must be an integer, got None'),
    ({'depths': (0, 1)}, 'each of depths must be at least 1, got 0'),
    ({'strides': (1, 10 ** 30)}, 'each of strides must be at most 2,147,483,648'),
    ({'reduce_size': 'x'}, "reduce_size must be an integer, got 'x'"),
    ({'block': []}, r'unknown block \[\]; known: basic, separable'),
    ({'num_classes': 10 ** 30}, 'num_classes must be at most 2,147,483,648'),
])
def test_impossible_keywords(keywords, phrase):
    with pytest.raises((ValueError, TypeError), match=phrase):
        timm.create_model('scat_resnet', **{'num_classes': 2, **keywords})


def test_an_impossible_hidden_layer():
    with pytest.raises(TypeError, match="head_hidden_size must be an integer, got 'x'"):
        timm.create_model('scat_mlp', head_hidden_size='x')


@pytest.mark.parametrize('pool', ['flat', 'avg'])
@pytest.mark.parametrize(('old', 'new'), [(3, 1), (1, 3), (3, 4)])
@pytest.mark.parametrize('name', MODELS)
def test_weights_adapt_to_other_channels(name, old, new, pool, tmp_path):
    """A grey image repeated in every channel gives the same logits, where the norms treat the colours alike."""
    model = create(name, in_chans=old, global_pool=pool, learnable=True).train()
    model(torch.randn(8, 1, 28, 28).expand(-1, old, -1, -1))
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    adapted = timm.create_model(f'local-dir:{tmp_path}', pretrained=True, in_chans=new)
    grey = torch.randn(2, 1, 28, 28)
    expected, actual = (m.eval()(grey.expand(-1, m.in_chans, -1, -1)) for m in (model, adapted))
    assert torch.allclose(actual, expected, atol=1e-4)
    other_head = timm.create_model(f'local-dir:{tmp_path}', pretrained=True, in_chans=new, num_classes=3).eval()
    assert torch.allclose(other_head.forward_features(grey.expand(-1, new, -1, -1)),
                          adapted.forward_features(grey.expand(-1, new, -1, -1)), atol=1e-4)
    assert other_head(grey.expand(-1, new, -1, -1)).shape == (2, 3)


@pytest.mark.parametrize('name', MODELS)
def test_weights_that_do_not_fit_are_refused_by_key_and_shape(name, tmp_path):
    timm.models.save_for_hf(create(name, L=2), tmp_path, safe_serialization=True)
    with pytest.raises(RuntimeError, match=r'size mismatch for norm\.orders\.1\.norm\.weight: .*\[4\].*\[8\]'):
        timm.create_model(f'local-dir:{tmp_path}', pretrained=True, L=4)
