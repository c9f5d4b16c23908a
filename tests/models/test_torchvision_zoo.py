"""torchvision's registry."""
import copy
import importlib
import pickle

import pytest
import torch
import torchvision
from torchvision.models import get_model, get_model_builder, get_model_weights, list_models

from scat_zoo.models import torchvision_zoo, upstream

from .architectures import MODELS

NAMES = [name for name in MODELS if hasattr(torchvision_zoo, name)]


def test_the_zoo():
    assert set(NAMES) == {name for name in list_models() if name.startswith('scat_')}


@pytest.mark.parametrize('name', NAMES)
def test_get_model(name):
    model = get_model(name, weights=None, num_classes=3, in_chans=1, img_size=16, L=2, learnable=True)
    assert model(torch.randn(2, 1, 16, 16)).shape == (2, 3)
    assert get_model_builder(name)(num_classes=4).num_classes == 4


@pytest.mark.parametrize('name', NAMES)
def test_weights(name):
    weights = get_model_weights(name)
    assert weights.__name__.lower() == f'{name.replace("_", "")}_weights'
    assert list(weights) == [weights.FASHION_MNIST] == [weights.DEFAULT]
    for member in weights:
        assert copy.deepcopy(member) is pickle.loads(pickle.dumps(member)) is member
    known = 'FASHION_MNIST, DEFAULT'
    with pytest.raises(ValueError, match=rf"unknown weights 'NOTHING' for {weights.__name__}; known: {known}"):
        get_model(name, weights='NOTHING')
    with pytest.raises(ValueError, match=r"unknown weights 'Other_Weights\.FASHION_MNIST'"):
        get_model(name, weights='Other_Weights.FASHION_MNIST')
    assert get_model(name, weights=f'{weights.__name__}.FASHION_MNIST').num_classes == 10
    with pytest.raises(TypeError):
        get_model(name, weights=torchvision.models.ResNet18_Weights.DEFAULT)


def test_a_reload_registers_again():
    importlib.reload(torchvision_zoo)
    assert get_model_builder('scat_linear') is torchvision_zoo.scat_linear


@pytest.mark.parametrize(('register', 'zoo'), [
    (upstream.register_model, 'timm'), (upstream.register_torchvision, 'torchvision')])
def test_a_model_of_another_is_never_replaced(register, zoo):
    def resnet18():
        raise AssertionError
    with pytest.raises(RuntimeError, match=rf"{zoo} has a model 'resnet18' already, from {zoo}\.models\.resnet"):
        register(resnet18)
    model = get_model('resnet18')
    assert isinstance(model, torchvision.models.ResNet)

