"""What all models share: keywords, input size, freezing, and groups for optimisers, the zoo's and timm's."""
import inspect
import json

import pytest
import timm
import torch
from timm.optim import create_optimizer_v2

import scat_zoo
from scat_zoo.models.model import ScatteringModel
from scat_zoo.models.stem import ScatteringStem
from scat_zoo.scattering.parametric import KINDS
from scat_zoo.train import checkpoint

from . import architectures
from .architectures import MODELS, jolt

FIXED = {'learnable': False}
STATES = [FIXED, *({'learnable': True, 'parametrization': kind} for kind in KINDS),
          {'learnable': False, 'frozen_filters': True}]


def create(name, parametrization='pixelwise', learnable=True, **kwargs):
    return architectures.create(name, learnable=learnable, parametrization=parametrization,
                                **{'L': 2, 'img_size': 16, 'in_chans': 3, **kwargs})


@pytest.mark.parametrize('name', MODELS)
def test_a_misspelt_keyword_is_told_with_the_nearest_that_there_is(name):
    with pytest.raises(TypeError, match=r'has no keyword learnible; did you mean learnable\?'):
        timm.create_model(name, learnible=True)
    with pytest.raises(TypeError, match='has no keyword zzz; known: num_classes'):
        timm.create_model(name, zzz=True)
    model = create(name)
    known = type(model).keywords()
    assert set(known) == {*type(model).keywords(), *ScatteringStem.keywords()}
    assert {*inspect.signature(type(model)).parameters, *inspect.signature(ScatteringModel).parameters} - {
        'args', 'kwargs', 'filters'} <= set(known)
    assert len(known) == len(set(known))
    assert len(inspect.signature(type(model)).parameters) <= 12


@pytest.mark.parametrize('state', STATES, ids=str)
@pytest.mark.parametrize('name', MODELS)
def test_another_input_size(name, state, tmp_path):
    """Outputs are those of before for images of that size, and what is saved is a model of that size."""
    model = jolt(create(name, global_pool='flat', **state))
    grid = model.head.grid
    x = torch.rand(2, 3, 24, 44)
    with torch.no_grad():
        before = model(x)
    model.set_input_size((24, 44))
    assert model.scattering.img_size == (24, 44)
    assert model.head.grid == grid
    assert all(p.requires_grad for p in model.parameters())
    cfg = model.pretrained_cfg
    assert cfg['input_size'] == (3, 24, 44)
    with torch.no_grad():
        after = model(x)
        assert model.forward_features(x).shape[2:] == cfg['pool_size']
    # The same filters but for rounding, where they are resampled; then the logarithms of small coefficients.
    assert torch.allclose(after, before, atol=0 if state is FIXED else 1e-4)
    timm.models.save_for_hf(model, tmp_path / 'timm', safe_serialization=True)
    checkpoint.save(model, tmp_path / 'ours')
    for again in (timm.create_model(f'local-dir:{tmp_path}/timm', pretrained=True).eval(),
                  checkpoint.load(tmp_path / 'ours')):
        assert torch.equal(again(x), after)
        assert again.pretrained_cfg['input_size'] == (3, 24, 44)
        assert again.scattering.img_size == (24, 44)


@pytest.mark.parametrize('name', MODELS)
def test_another_input_size_leaves_frozen_what_is(name):
    model = create(name)
    model.freeze_scattering()
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    model.set_input_size(44)
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == frozen
    assert model.pretrained_cfg['input_size'] == (3, 44, 44)


def test_an_input_size_that_is_too_small():
    model = create('scat_linear')
    with pytest.raises(ValueError, match=r'J=2 needs images of at least 4 pixels a side, img_size is \(8, 3\)'):
        model.set_input_size((8, 3))
    assert model.scattering.img_size == (16, 16)
    assert model.pretrained_cfg['input_size'] == (3, 16, 16)


def test_an_input_size_of_a_model_that_timm_did_not_make():
    model = scat_zoo.ScatLinear(num_classes=3, L=2)
    model.set_input_size(20)
    assert model(torch.rand(1, 3, 20, 20)).shape == (1, 3)


def test_a_pool_grid_fits_a_classifier_to_another_size(tmp_path):
    """Weights of a flat head load into a model for larger images, with the grid that they have."""
    model = jolt(create('scat_linear'))
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    assert 'pool_grid' not in json.loads((tmp_path / 'config.json').read_text())['model_args']
    larger = timm.create_model(f'local-dir:{tmp_path}', pretrained=True, img_size=40, pool_grid=(4, 4)).eval()
    model.set_input_size(40)
    x = torch.rand(2, 3, 40, 40)
    assert torch.allclose(larger(x), model(x), atol=1e-5)


def test_a_checkpoint_that_says_its_size_is_fixed_loads_as_one_of_any_size(tmp_path):
    """As those of 0.1.0 with pixelwise filters do."""
    model = jolt(create('scat_linear'))
    checkpoint.save(model, tmp_path / 'old')
    config = json.loads((tmp_path / 'old' / 'config.json').read_text())
    config['pretrained_cfg']['fixed_input_size'] = True
    (tmp_path / 'old' / 'config.json').write_text(json.dumps(config))
    again = checkpoint.load(tmp_path / 'old')
    assert not timm.models.get_model_input_config(again)['fixed_input_size']
    again.set_input_size(24)
    checkpoint.save(again, tmp_path / 'new')
    x = torch.rand(2, 3, 24, 24)
    assert torch.equal(checkpoint.load(tmp_path / 'new')(x), again(x))


def test_hooks_see_the_norm_and_its_orders():
    model, seen = create('scat_linear'), []
    for module in (model.norm, model.norm.orders[-1]):
        module.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    features = model.forward_features(torch.rand(2, 3, 16, 16))
    assert len(seen) == 2
    assert all(torch.equal(output, features) for output in seen)


def names(model, params):
    wanted = {id(p) for p in params}
    return {name for name, p in model.named_parameters() if id(p) in wanted}


@pytest.mark.parametrize('parametrization', KINDS)
@pytest.mark.parametrize('name', MODELS)
def test_param_groups(name, parametrization):
    model = create(name, parametrization)
    filters, plain, decayed = scat_zoo.param_groups(model, lr=0.1, weight_decay=0.05)
    assert names(model, filters['params']) == {n for n, _ in model.named_parameters() if n.startswith('scattering.')}
    assert sum(len(group['params']) for group in (filters, plain, decayed)) == len(list(model.parameters()))
    assert all(p.dim() > 1 for p in decayed['params'])
    assert all(p.dim() == 1 for p in plain['params'])
    assert [(g['lr'], g['weight_decay']) for g in (filters, plain, decayed)] == [
        (1e-3 if parametrization == 'pixelwise' else 1e-2, 0), (0.1, 0), (0.1, 0.05)]
    assert scat_zoo.param_groups(model, lr=0.1, filter_lr=0.3)[0]['lr'] == 0.3
    optimizer = torch.optim.AdamW([filters, plain, decayed])
    model(torch.randn(2, 3, 16, 16)).sum().backward()
    optimizer.step()


def test_param_groups_of_a_compiled_model():
    model = create('scat_linear', 'morlet')
    plain, compiled = (scat_zoo.param_groups(m, lr=0.1, weight_decay=0.05) for m in (model, torch.compile(model)))
    assert [[id(p) for p in group['params']] for group in plain] == [
        [id(p) for p in group['params']] for group in compiled]


@pytest.mark.parametrize('name', MODELS)
def test_param_groups_leave_out_what_does_not_learn(name):
    assert len(scat_zoo.param_groups(create(name, learnable=False), lr=0.1)) == 2
    model = create(name)
    model.freeze_scattering()
    assert len(scat_zoo.param_groups(model, lr=0.1)) == 2
    model.unfreeze_scattering()
    model.freeze_classifier()
    assert [g['lr'] for g in scat_zoo.param_groups(model, lr=0.1)] == [1e-3]


def test_param_groups_of_a_classifier_on_raw_coefficients():
    model = scat_zoo.ExampleLinearClassifier(J=2, shape=(16, 16), in_channels=1, num_classes=3, L=2, learnable=True)
    filters, bias, weight = scat_zoo.param_groups(model, lr=0.1, weight_decay=0.05)
    assert len(filters['params']) == 6
    assert (filters['lr'], filters['weight_decay'], weight['weight_decay']) == (1e-3, 0, 0.05)
    assert bias['params'] == [model.classifier.bias]


@pytest.mark.parametrize('layer_decay', [None, 0.5])
@pytest.mark.parametrize('parametrization', KINDS)
@pytest.mark.parametrize('name', MODELS)
def test_the_optimiser_factory_of_timm(name, parametrization, layer_decay):
    """Filters take no decay; with layer decay they have the smallest rate, and the classifier the whole one."""
    model = create(name, parametrization)
    filters = {n for n, _ in model.named_parameters() if n.startswith('scattering.')}
    assert model.no_weight_decay() == filters
    optimizer = create_optimizer_v2(model, opt='adamw', lr=0.1, weight_decay=0.05, layer_decay=layer_decay)
    placed = [(n, group) for group in optimizer.param_groups for n in names(model, group['params'])]
    assert sorted(n for n, _ in placed) == sorted(n for n, _ in model.named_parameters())
    group_of = dict(placed)
    assert all(group_of[n]['weight_decay'] == 0 for n in filters)
    assert group_of['head.fc.weight']['weight_decay'] == 0.05
    assert group_of['head.fc.bias']['weight_decay'] == 0
    if layer_decay:
        scales = {n: group['lr_scale'] for n, group in group_of.items()}
        assert {scales[n] for n in filters} == {min(scales.values())} != {1.0}
        assert scales['head.fc.weight'] == max(scales.values()) == 1
        if hasattr(model, 'stages'):
            stages = [scales[next(n for n in scales if n.startswith(f'stages.{i}.0.'))] for i in (0, 1)]
            assert scales['conv_reduce.conv.weight'] <= stages[0] < stages[1]
        elif isinstance(model, scat_zoo.ScatLinear):
            assert scales['norm.orders.0.norm.weight'] < scales['norm.orders.2.norm.weight'] < 1
