"""Networks of timm behind the scattering: they are what they were but for their first layers, and train, save, load."""
import copy
import functools
import json
import pickle

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.layers import HybridEmbed
from timm.models import FeatureListNet, get_pretrained_cfg
from timm.models._features import FeatureGetterNet
from timm.optim import create_optimizer_v2
from torch.nn import functional as F
from torchvision.models.feature_extraction import create_feature_extractor

import scat_zoo
from scat_zoo import with_scattering_stem
from scat_zoo.models import seam
from scat_zoo.models.build import PrunedFeatures
from scat_zoo.models.graft import on_meta
from scat_zoo.models.hybrid import Hybrid
from scat_zoo.models.stem import ScatteringStem
from scat_zoo.train import checkpoint

from .architectures import HYBRIDS

SIDE = 64
NETWORKS = [
    'test_resnet', 'resnet10t', 'resnet14t', 'resnet18', 'resnext26ts', 'seresnext26ts', 'regnetx_002', 'regnety_002',
    'test_convnext', 'convnext_atto', 'convnextv2_atto', 'test_efficientnet', 'efficientnet_b0', 'efficientnet_lite0',
    'tf_efficientnetv2_b0', 'mobilenetv3_small_050', 'mobilenetv3_large_075', 'test_vit', 'vit_tiny_patch16_224',
    'test_maxvit']
# Of one level of modules, of several, and of patches.
KINDS = ['test_resnet', 'test_efficientnet', 'test_vit']
# The registered ones, with few layers.
SMALL = {'scat_hybrid': {'network': 'test_convnext'}, 'scat_resnet50': {'layers': (1, 1, 1, 1)},
         'scat_convnext_atto': {'depths': (1, 1, 1, 1)}, 'scat_vit_tiny': {'depth': 2}}


def create(network='test_resnet', **kwargs):
    """A small hybrid, always with the same initial values."""
    torch.manual_seed(0)
    return with_scattering_stem(network, **{'num_classes': 10, 'img_size': SIDE, 'L': 4, **kwargs})


def images(count=2, side=SIDE, channels=3):
    return torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def jolted(model):
    """With learned filters that moved, and norms that have seen data; in eval mode."""
    for p in model.scattering.parameters():
        p.add_(0.1 * torch.randn_like(p))
    model.train()(images(4, channels=model.scattering.in_chans))
    return model.eval()


@pytest.mark.parametrize('network', NETWORKS)
def test_a_network(network, tmp_path):
    """Features, forward, backward, a training step, save and load."""
    model, x, classes = create(network), images(4), torch.arange(4)
    features = create(network, features_only=True).eval()
    with torch.no_grad():
        maps = features(x)
        _, levels = model.eval().forward_intermediates(x)
    assert len(maps) == len(levels) == len(features.feature_info.channels())
    for level, same, (channels, stride) in zip(maps, levels, zip(features.feature_info.channels(),
                                                                 features.feature_info.reduction())):
        assert torch.equal(level, same)
        assert level.shape == (4, channels, SIDE // stride, SIDE // stride)
    assert min(features.feature_info.reduction()) >= 4

    optimizer = torch.optim.SGD(scat_zoo.param_groups(model.train(), lr=1e-4, filter_lr=1e-4))
    filters = [p.detach().clone() for p in model.scattering.parameters()]
    loss = F.cross_entropy(model(x), classes)
    loss.backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert all(p.grad.any() for p in model.scattering_embed.norm.parameters())
    optimizer.step()
    assert F.cross_entropy(model(x), classes) < loss
    assert all(not torch.equal(p, before) for p, before in zip(model.scattering.parameters(), filters))

    save_file(model.state_dict(), tmp_path / 'model.safetensors')
    again = with_scattering_stem(network, num_classes=10, img_size=SIDE, L=4)
    again.load_state_dict(load_file(tmp_path / 'model.safetensors'))
    assert torch.equal(again.eval()(x), model.eval()(x))


@pytest.mark.parametrize(('network', 'J'), [
    ('test_resnet', 1), ('test_resnet', 2), ('resnet18', 3), ('test_convnext', 1), ('convnext_atto', 3),
    ('regnety_002', 2), ('mobilenetv3_small_050', 2), ('efficientnet_lite0', 3), ('test_vit', 2), ('test_vit', 4)])
def test_it_is_the_network_but_for_its_first_layers(network, J):
    """With timm's weights: as if what the last of these layers gives were the convolved, normalised scattering."""
    plain = timm.create_model(network, num_classes=10, **({'img_size': SIDE} if 'vit' in network else {})).eval()
    model = create(network, J=J, max_order=2)
    own = {name: value for name, value in plain.state_dict().items() if not name.startswith('patch_embed.')}
    missing, replaced = model.load_state_dict(own, strict=False)
    embed = model._embed_name.removesuffix('.backbone')
    assert all(name.startswith(f'{embed}.') for name in missing)
    found = seam.find(on_meta(network), network, get_pretrained_cfg(network).input_size, J)
    assert all(name.startswith(tuple(f'{layer}.' for layer in found.layers)) for name in replaced)

    x, part = images(), model.scattering_embed
    jolted(model)
    seen = {name: value for name, value in model.state_dict().items() if not name.startswith('patch_embed.')}
    plain.load_state_dict(seen, strict=False)                           # what the norms have seen
    mapped = part.norm(part.scattering(x))
    assert mapped.shape == (2, len(part.scattering.paths) * 3, SIDE >> J, SIDE >> J)
    conv = model.patch_embed.proj if 'vit' in network else part.conv
    assert conv.kernel_size == conv.stride == (found.kernel, found.kernel)
    mapped = conv(mapped)
    if 'vit' in network:
        mapped = mapped.permute(0, 2, 3, 1)
    plain.get_submodule(found.layers[-1]).register_forward_hook(lambda *_: mapped)
    with torch.no_grad():
        assert torch.allclose(model(x), plain(x), atol=1e-5)            # the engine's products may go by the batch


def test_a_vit_begins_with_timms_embedding_of_maps():
    model = create('vit_tiny_patch16_224')
    assert type(model.patch_embed) is HybridEmbed
    assert model.patch_embed.proj.weight.shape == (192, 27, 4, 4)
    assert (model.patch_embed.feat_ratio(), model.patch_embed.grid_size) == (16, (4, 4))
    with pytest.raises(RuntimeError, match=r'expected images of 64 x 64, got 32 x 128: set_input_size\(\) makes'):
        model(torch.randn(1, 3, 32, 128))                               # of as many patches
    dynamic = create('vit_tiny_patch16_224', dynamic_img_size=True, dynamic_img_pad=True)
    assert dynamic(torch.randn(1, 3, 40, 100)).shape == (1, 10)


@pytest.mark.parametrize('network', KINDS)
def test_weights_of_timm_load_into_the_layers_that_are_left(network, tmp_path):
    plain = timm.create_model(network, num_classes=7)
    save_file(plain.state_dict(), tmp_path / 'plain.safetensors')
    source = {'pretrained': True, 'pretrained_cfg_overlay': {
        'file': str(tmp_path / 'plain.safetensors'), 'num_classes': 7, 'hf_hub_id': None}}
    for classes in (7, 3):
        model = with_scattering_stem(network, num_classes=classes, in_chans=1, **source)
        own = model.state_dict()
        kept = [name for name in plain.state_dict() if name in own and not name.startswith('patch_embed.')
                and (classes == 7 or not name.startswith(plain.pretrained_cfg['classifier']))]
        assert len(kept) > len(own) / 3
        assert all(torch.equal(own[name], plain.state_dict()[name]) for name in kept)
    assert model(images(channels=1, side=model.scattering.img_size[0])).shape == (2, 3)
    assert model.pretrained_cfg.get('file') is None
    features = with_scattering_stem(network, features_only=True, **source)
    theirs = {name.removeprefix('model.').replace('_', '.'): p for name, p in features.named_parameters()}
    kept = [name for name in kept if name.replace('_', '.') in theirs]
    assert len(kept) > len(theirs) / 2
    assert all(torch.equal(theirs[name.replace('_', '.')], plain.state_dict()[name]) for name in kept)


def saved(model, folder):
    timm.models.save_for_hf(model, folder, safe_serialization=True)
    return functools.partial(timm.create_model, f'local-dir:{folder}', pretrained=True)


MAKERS = [*(pytest.param(functools.partial(timm.create_model, name, num_classes=10, img_size=SIDE, L=4, **SMALL[name]),
                         id=name) for name in HYBRIDS),
          *(pytest.param(functools.partial(create, name), id=name) for name in ('test_efficientnet', 'test_vit'))]


@pytest.mark.parametrize('make', MAKERS)
def test_a_saved_model_is_made_again(make, tmp_path):
    """From timm's format: as it was, with frozen filters, for features, from fixed filters to learned ones."""
    model, x = jolted(make(learnable=True)), images()
    load = saved(model, tmp_path / 'timm')
    checkpoint.save(model, tmp_path / 'ours')
    with torch.no_grad():
        expected = model(x)
        for again in (load(), checkpoint.load(tmp_path / 'ours')):
            assert torch.equal(again.eval()(x), expected)
            assert again.scattering.mode == 'learnable'
        frozen = load(learnable=False).eval()
        assert frozen.scattering.mode == 'frozen'
        assert torch.allclose(frozen(x), expected, atol=1e-4)           # the engine goes another way
        maps, _ = load(features_only=True).eval()(x), load(num_classes=3)
        assert torch.equal(maps[-1], model.forward_intermediates(x, intermediates_only=True)[-1])
    fixed = jolted(make(learnable=False))
    learnable = saved(fixed, tmp_path / 'fixed')(learnable=True).eval()
    assert learnable.scattering.mode == 'learnable'
    assert torch.allclose(learnable(x), fixed(x), atol=1e-4)


@pytest.mark.parametrize('network', KINDS)
def test_copies(network, tmp_path):
    model, x = jolted(create(network)), images()
    ema = timm.utils.ModelEmaV3(model)
    save_file(model.state_dict(), tmp_path / 'model.safetensors')
    loaded = create(network, checkpoint_path=str(tmp_path / 'model.safetensors'))
    torch.save(model, tmp_path / 'whole.pt')
    with torch.no_grad():
        for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), ema.module, loaded,
                      torch.load(tmp_path / 'whole.pt', weights_only=False)):
            assert type(again) is type(model)
            assert torch.equal(again.eval()(x), model(x))
            assert again.scattering is not model.scattering


@pytest.mark.parametrize('make', MAKERS)
def test_weights_adapt_to_other_channels(make, tmp_path):
    """A grey image repeated in every channel gives the same logits, where the norms treat the colours alike."""
    model, grey = make(learnable=False).train(), images(8, channels=1)
    model(grey.expand(-1, 3, -1, -1))
    adapted = saved(model, tmp_path)(in_chans=1).eval()
    assert torch.allclose(adapted(grey), model.eval()(grey.expand(-1, 3, -1, -1)), atol=1e-4)


@pytest.mark.parametrize('make', MAKERS)
def test_another_input_size(make, tmp_path):
    model = jolted(make(learnable=True, parametrization='pixelwise'))
    model.set_input_size((96, 80))
    x = torch.rand(2, 3, 96, 80)
    with torch.no_grad():
        expected, cfg = model(x), model.pretrained_cfg
        assert cfg['input_size'] == (3, 96, 80)
        features = model.forward_features(x)
        assert cfg['pool_size'] in (None, features.shape[2:])
        again = saved(model, tmp_path)().eval()
        assert torch.equal(again(x), expected)
    assert again.scattering.img_size == (96, 80)


def test_names_stand_for_networks():
    """A registered name is what `with_scattering_stem` makes, with fixed filters."""
    for name, network in (('scat_resnet50', 'resnet50'), ('scat_convnext_atto', 'convnext_atto')):
        torch.manual_seed(0)
        model = timm.create_model(name, **SMALL[name]).eval()
        torch.manual_seed(0)
        same = with_scattering_stem(network, learnable=False, **SMALL[name]).eval()
        assert torch.equal(model(images()), same(images()))
        cfg, own = model.pretrained_cfg, get_pretrained_cfg(network)
        assert (cfg['architecture'], cfg['first_conv'], cfg['crop_pct']) == (name, [], own.crop_pct)
        assert not get_pretrained_cfg(name).has_weights
    model = timm.create_model('scat_hybrid', network='test_convnext')
    assert isinstance(model, timm.models.ConvNeXt)
    assert model.pretrained_cfg['input_size'] == (3, 160, 160)
    assert with_scattering_stem('test_resnet.r160_in1k')._model_args['network'] == 'test_resnet.r160_in1k'


def test_the_vit_by_name_gives_maps():
    model = timm.create_model('scat_vit_tiny', num_classes=10, depth=4).eval()
    plain = create('vit_tiny_patch16_224', img_size=224, L=8, depth=4, learnable=False, class_token=False,
                   global_pool='avg', dynamic_img_size=True).eval()
    plain.load_state_dict(model.state_dict())
    for side in (64, 224):
        x = images(1, side)
        assert torch.allclose(model(x), plain(x), atol=1e-5)
        maps = model.forward_features(x)
        assert maps.shape == (1, 192, side // 16, side // 16)
        assert torch.allclose(maps.flatten(2).transpose(1, 2), plain.forward_features(x), atol=1e-5)
        assert torch.equal(model.forward_head(maps), model(x))
        for ours, theirs in zip(model.forward_intermediates(x, [3, -1], norm=True)[1],
                                plain.forward_intermediates(x, [3, -1], norm=True)[1]):
            assert torch.allclose(ours, theirs, atol=1e-5)
    with pytest.raises(ValueError, match='scat_vit_tiny has no class_token, since its features are maps'):
        timm.create_model('scat_vit_tiny', class_token=True)


def test_feature_levels_of_finer_strides_are_gone():
    for J, strides in ((1, [2, 4, 8, 16, 32]), (2, [4, 8, 16, 32]), (3, [8, 16, 32])):
        levels = create(J=J, features_only=True)
        assert type(levels) is FeatureListNet
        assert levels.feature_info.reduction() == strides
    last = create(features_only=True, out_indices=(-1,))
    assert last(images())[0].shape == (2, *last.feature_info.channels(), 2, 2)
    assert isinstance(create('test_vit', features_only=True), PrunedFeatures)
    getter = create(features_only=True, feature_cls='getter', out_indices=(0, 1))
    assert [m.shape[-1] for m in getter(images())] == [16, 8]
    assert not any(name.startswith(('model.layer3', 'model.layer4')) for name, _ in getter.named_parameters())
    model = create()
    said = r'there are 4 feature levels, of strides 4, 8, 16, 32, got .*: the scattering stands in the place of finer'
    for wrong in ((0, 4), [-5], 5, 0):
        with pytest.raises(IndexError, match=said):
            model.forward_intermediates(images(), wrong)
        with pytest.raises(IndexError, match=said):
            model.prune_intermediate_layers(wrong)
    with pytest.raises(IndexError, match=said):
        create(features_only=True, out_indices=(1, 4))


@pytest.mark.parametrize('network', KINDS)
def test_freezing(network):
    model = create(network)
    filters = {name for name, _ in model.named_parameters() if '.scattering.' in name}
    assert len(filters) == 4
    model.freeze_scattering()
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == filters
    model.unfreeze_scattering()
    model.freeze_classifier()
    assert {name for name, p in model.named_parameters() if p.requires_grad} == filters
    model.unfreeze_classifier()
    assert len(list(model.head_parameters())) == len(list(model.parameters())) - len(filters)
    timm.utils.freeze(model, ['scattering'])
    assert not any(p.requires_grad for p in model.scattering.parameters())
    model.scattering.set_learnable(False)
    assert not list(model.scattering.parameters())
    model.reset_classifier(3)
    assert model.get_classifier().out_features == 3
    assert model(images()).shape == (2, 3)


@pytest.mark.parametrize('network', KINDS)
def test_the_optimiser_factory_of_timm(network):
    """Filters take no decay; with layer decay they have the smallest rate, and the classifier the whole one."""
    model = create(network)
    optimizer = create_optimizer_v2(model, opt='adamw', lr=0.1, weight_decay=0.05, layer_decay=0.5)
    names = {id(p): name for name, p in model.named_parameters()}
    groups = {names[id(p)]: group for group in optimizer.param_groups for p in group['params']}
    assert groups.keys() == dict(model.named_parameters()).keys()
    scales = {name: group['lr_scale'] for name, group in groups.items()}
    filters = [name for name in groups if '.scattering.' in name]
    assert {groups[name]['weight_decay'] for name in filters} == {0}
    assert {scales[name] for name in filters} == {min(scales.values())}
    classifier = f'{model.pretrained_cfg["classifier"]}.weight'
    assert (scales[classifier], groups[classifier]['weight_decay']) == (1, 0.05)
    if network == 'test_vit':
        assert groups['pos_embed']['weight_decay'] == 0


@pytest.mark.parametrize('network', KINDS)
def test_gradient_checkpointing(network):
    gradients = []
    for enable in (False, True):
        model = create(network).train()
        model.set_grad_checkpointing(enable)
        assert model.scattering_embed.grad_checkpointing == enable
        model(images()).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for a, b in zip(*gradients):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('network', KINDS)
def test_scripted_traced_and_exported(network):
    # Where positions are resampled, timm's own ViT cannot be traced symbolically.
    fixed = {'dynamic_img_size': False} if network == 'test_vit' else {}
    model, x = jolted(create(network, learnable=False, **fixed)), images()
    with torch.no_grad():
        expected = model(x)
        traced = create_feature_extractor(model, [model.pretrained_cfg['classifier']])
        for other in (lambda x: next(iter(traced(x).values())), torch.export.export(model, (x,)).module()):
            assert torch.allclose(other(x), expected, atol=1e-4)
        if network == 'test_resnet':
            assert torch.allclose(torch.jit.script(model)(x), expected, atol=1e-4)
            getter = FeatureGetterNet(model, out_indices=(0, 1))
            assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(torch.jit.script(getter)(x), getter(x)))


@pytest.mark.parametrize('network', KINDS)
def test_initial_values_are_restored(network):
    model = create(network, device='meta').to_empty(device='cpu')
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.fill_(float('nan') if tensor.is_floating_point() else -1)
    model.init_weights()
    fresh = create(network)
    assert all(tensor.isfinite().all() for tensor in (*model.parameters(), *model.buffers()))
    assert model.eval()(images()).isfinite().all()
    for name, value in fresh.named_buffers():
        assert torch.equal(dict(model.named_buffers())[name], value), name


def test_initial_values_go_by_the_seed():
    """Whether or not the seam had to be looked for; and the network's own are those that it has alone."""
    first, second = (create('test_efficientnet', drop_rate=0.25) for _ in range(2))
    torch.manual_seed(0)
    alone = timm.create_model('test_efficientnet', num_classes=10)
    for name, p in first.named_parameters():
        assert torch.equal(p, second.get_parameter(name))
    assert torch.equal(first.conv_head.weight, alone.conv_head.weight)


def test_a_stem_of_several_scales_and_a_norm_without_logarithm():
    model = create(scales=(1, 2), log_floor=0, parametrization='pixelwise', max_order=2)
    assert model.scattering.scales == [2, 1]
    assert all(order.log_floor == 0 for order in model.scattering_embed.norm.orders)
    assert model(images()).shape == (2, 10)
    assert model.scattering_embed.conv.in_channels == sum(model.scattering.order_channels())


def test_what_it_is():
    model = create()
    assert isinstance(model, timm.models.ResNet)
    assert isinstance(model, Hybrid)
    assert isinstance(model.scattering, ScatteringStem)
    assert [name for name, _ in model.named_children()] == [name for name, _ in timm.create_model(
        'test_resnet').named_children()]
    assert 'the first weights' not in json.dumps(model.pretrained_cfg)
    assert repr(model).startswith('HybridResNet(')


@pytest.mark.parametrize(('network', 'kwargs', 'error', 'said'), [
    ('test_resnet', {'learnible': True}, TypeError, r'^test_resnet behind .* no keyword learnible; did you mean lea'),
    ('test_resnet', {'outputs': 8}, TypeError, 'no keyword outputs; known: J, L'),
    ('resnett18', {}, ValueError, 'timm has no network resnett18; did you mean resnet18'),
    ('resnet18.nope', {}, ValueError, 'timm has no weights resnet18.nope; known: resnet18.'),
    (3, {}, TypeError, 'network must be a name of timm, got 3'),
    ('test_resnet', {'in_chans': 0}, ValueError, 'in_chans must be at least 1, got 0'),
    ('test_resnet', {'num_classes': -1}, ValueError, 'num_classes must be at least 0, got -1'),
    ('scat_linear', {}, ValueError, 'scat_linear begins with a scattering as it is'),
    ('test_resnet', {'J': 7}, ValueError, 'test_resnet cannot begin with a scattering of J=7: none of its first'),
    ('crossvit_9_240', {}, ValueError, 'what comes before its layer patch_embed.0.proj is read behind it as well'),
    ('test_resnet', {'J': 0}, ValueError, 'J and L must be at least 1'),
    ('test_resnet', {'log_floor': -1}, ValueError, 'log_floor must be 0, for no logarithm, or positive, got -1'),
    ('test_resnet', {'parametrization': 'fft'}, ValueError, "unknown parametrization 'fft'"),
    ('test_resnet', {'img_size': 'big'}, ValueError, 'img_size must be'),
])
def test_refusals(network, kwargs, error, said):
    with pytest.raises(error, match=said):
        with_scattering_stem(network, **kwargs)


def test_weights_that_do_not_fit_are_refused_by_key_and_shape(tmp_path):
    load = saved(create(), tmp_path)
    with pytest.raises(RuntimeError, match=r'^these weights do not fit scat_hybrid with .*: size mismatch for conv1'):
        load(L=2)
    model = create()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match='size mismatch'):
        model.load_state_dict(create(L=2).state_dict())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
