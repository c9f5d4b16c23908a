"""torch.hub: from a clone, and offline through its cache."""
import shutil
from pathlib import Path

import pytest
import torch

from .models.architectures import NAMES

ROOT = Path(__file__).parents[1]
OFFLINE = {'trust_repo': True, 'skip_validation': True}


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository name that torch.hub finds in its cache."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.setattr(torch.hub, '_hub_dir', None)
    cached = tmp_path / 'hub' / 'someone_scat_zoo_main'
    cached.mkdir(parents=True)
    shutil.copy(ROOT / 'hubconf.py', cached)
    shutil.copytree(ROOT / 'scat_zoo', cached / 'scat_zoo', ignore=shutil.ignore_patterns('__pycache__'))
    return 'someone/scat_zoo:main'


@pytest.mark.parametrize('name', NAMES)
def test_help_and_load(repository, name):
    assert 'pretrained:' in torch.hub.help(repository, name, **OFFLINE)
    for kwargs in ({'repo_or_dir': str(ROOT), 'source': 'local'}, {'repo_or_dir': repository, **OFFLINE}):
        model = torch.hub.load(model=name, learnable=True, L=2, img_size=32, in_chans=1, num_classes=3, **kwargs)
        assert model(torch.randn(2, 1, 32, 32)).shape == (2, 3)
        assert list(model.scattering.parameters())


def test_pretrained_raises_where_there_are_no_weights():
    with pytest.raises(RuntimeError, match='No pretrained weights exist for scat_resnet18'):
        torch.hub.load(str(ROOT), 'scat_resnet18', source='local', pretrained=True)
