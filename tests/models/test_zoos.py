"""timm, torchvision and torch.hub hold the same models and the same weights. No name is written here."""
import inspect
import shutil
from pathlib import Path

import pytest
import timm
import torch
from torchvision.models import get_model, get_model_weights, list_models

import hubconf
from scat_zoo.models import shipped

ROOT = Path(__file__).parents[2]
MODELS = timm.list_models('scat_*')
WEIGHTS = timm.list_pretrained('scat_*')


def hub_entrypoints():
    """Names of what hubconf.py defines for torch.hub, without running it through torch.hub."""
    return sorted(name for name, value in vars(hubconf).items() if inspect.isfunction(value) and name[0] != '_')


def test_every_zoo_has_the_same_models(tmp_path, monkeypatch):
    # torch.hub lists what lies in its cache, and has no other way to list a folder.
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path))
    cached = tmp_path / 'someone_scat_zoo_main'
    cached.mkdir()
    shutil.copy(ROOT / 'hubconf.py', cached)
    listed = torch.hub.list('someone/scat_zoo:main', trust_repo=True, skip_validation=True)
    assert MODELS
    assert MODELS == list_models(include='scat_*') == sorted(listed) == hub_entrypoints()


def test_every_zoo_has_the_same_weights():
    of_torchvision = [f'{name}.{member.name.lower()}' for name in list_models(include='scat_*')
                      for member in get_model_weights(name)]
    assert WEIGHTS
    assert WEIGHTS == shipped.names() == sorted(of_torchvision)


def test_every_zoo_knows_which_models_have_weights():
    """And the others raise, in every zoo."""
    for name in MODELS:
        loaders = [lambda name=name: get_model(name, weights='DEFAULT'),
                   lambda name=name: torch.hub.load(str(ROOT), name, source='local', pretrained=True)]
        for load in loaders:
            if shipped.tags(name):
                load()
            else:
                with pytest.raises((RuntimeError, ValueError), match=r'[Nn]o (pretrained )?weights') as refused:
                    load()
                assert len(str(refused.value)) < 300


@pytest.mark.parametrize('name', WEIGHTS)
def test_every_zoo_loads_the_same_bits(name):
    architecture, _, tag = name.partition('.')
    models = [
        timm.create_model(name, pretrained=True),
        timm.create_model(f'local-dir:{shipped.WEIGHTS / name}', pretrained=True),
        get_model(architecture, weights=tag.upper())]
    if tag == shipped.tags(architecture)[0]:
        models += [get_model(architecture, weights='DEFAULT'),
                   torch.hub.load(str(ROOT), architecture, source='local', pretrained=True)]
    x = torch.randn(4, *timm.data.resolve_data_config({}, model=models[0])['input_size'])
    logits = [model.eval()(x) for model in models]
    assert all(torch.equal(other, logits[0]) for other in logits[1:])
    state, own = get_model_weights(architecture)[tag.upper()].get_state_dict(progress=False), models[0].state_dict()
    assert own.keys() == state.keys()
    assert all(torch.equal(own[key], value) for key, value in state.items())
