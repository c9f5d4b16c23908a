"""Parameter groups, the zoo's and those of timm's optimiser factory."""
import pytest
import timm
import torch
from timm.optim import create_optimizer_v2

import scat_zoo
from scat_zoo.scattering.parametric import PARAMETRIZATIONS

MODELS = timm.list_models('scat_*')


def create(name, parametrization='pixelwise', learnable=True):
    return timm.create_model(
        name, learnable=learnable, parametrization=parametrization, L=2, img_size=16, num_classes=3)


def names(model, params):
    wanted = {id(p) for p in params}
    return {name for name, p in model.named_parameters() if id(p) in wanted}


@pytest.mark.parametrize('parametrization', PARAMETRIZATIONS)
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
@pytest.mark.parametrize('parametrization', PARAMETRIZATIONS)
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
        else:
            assert scales['norm.orders.0.norm.weight'] < scales['norm.orders.2.norm.weight'] < 1
