"""opacus: gradients of each image, of learnable filters too."""
import copy

import pytest
import torch
import torch.nn.functional as F
from opacus import GradSampleModule, PrivacyEngine
from opacus.validators import ModuleValidator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import scat_zoo.opacus
from scat_zoo import ExampleLinearClassifier
from tests.models.architectures import create

IMAGES, CLASSES = torch.randn(6, 1, 16, 16, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0, 2])


def model_of(name, **options):
    if name == 'ExampleLinearClassifier':
        return ExampleLinearClassifier(2, (16, 16), 1, 3, L=2, learnable=True).double()
    return create(name, img_size=16, num_classes=3, L=2, learnable=True, **options).double()


def one_by_one(model):
    """Gradients of each image alone, as opacus has them: (images, ...) of each parameter."""
    rows = [torch.autograd.grad(F.cross_entropy(model(x[None]), y[None]), list(model.parameters()))
            for x, y in zip(IMAGES, CLASSES)]
    return [torch.stack(column) for column in zip(*rows)]


def check(found, expected):
    assert all(a is not None for a in found)
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() <= 1e-9 * max(1, float(b.abs().max()))


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(('name', 'options'), [
    ('ExampleLinearClassifier', {}),
    ('scat_linear', {}),
    ('scat_linear', {'parametrization': 'morlet', 'learn_lowpass': True}),
    ('scat_mlp', {'parametrization': 'equivariant'}),
    ('scat_tiny', {'scales': (2, 1)}),
    ('scat_resnet', {'parametrization': 'morlet'}),
], ids=str)
def test_gradients_of_each_image(name, options):
    model = scat_zoo.opacus.fix(model_of(name, **options)).train()
    assert ModuleValidator.is_valid(model)
    expected, keys = one_by_one(model), list(model.state_dict())
    F.cross_entropy(GradSampleModule(model)(IMAGES), CLASSES).backward()
    check([p.grad_sample for p in model.parameters()], expected)
    assert all(b.abs().max() > 0 for name, b in zip(dict(model.named_parameters()), expected) if 'bank' in name)
    assert list(model.state_dict()) == keys


@pytest.mark.filterwarnings('ignore')
def test_what_mixes_images_is_refused():
    model = model_of('scat_tiny').train()
    assert len(ModuleValidator.validate(model)) == sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    with pytest.raises(NotImplementedError):
        GradSampleModule(model)
    # Nor does anything of the fixed model depend on the other images of a batch, in training.
    model = scat_zoo.opacus.fix(model)
    assert torch.allclose(model(IMAGES)[:2], model(IMAGES[:2]), atol=1e-12)
    state = copy.deepcopy(model.state_dict())
    model(IMAGES)
    assert all(torch.equal(a, b) for a, b in zip(state.values(), model.state_dict().values(), strict=True))


@pytest.mark.filterwarnings('ignore')
def test_private_training():
    """Without noise, and a bound that no gradient reaches, it is a plain step; the filters come back by their keys."""
    model = scat_zoo.opacus.fix(model_of('scat_linear', parametrization='morlet')).train()
    expected = [p.detach() - 0.1 * g.mean(0) for p, g in zip(model.parameters(), one_by_one(model))]
    data = DataLoader(TensorDataset(IMAGES, CLASSES), len(IMAGES))
    private, optimizer, data = PrivacyEngine().make_private(
        module=model, optimizer=torch.optim.SGD(model.parameters(), 0.1), data_loader=data, noise_multiplier=0.,
        max_grad_norm=1e6, poisson_sampling=False)
    for x, y in data:
        F.cross_entropy(private(x), y).backward()
        optimizer.step()
    check(list(model.parameters()), expected)
    filters = {key: value for key, value in model.state_dict().items() if key.startswith('scattering.')}
    plain = model_of('scat_linear', parametrization='morlet')
    assert not plain.load_state_dict(filters, strict=False).unexpected_keys
    assert torch.equal(plain.scattering(IMAGES), model.scattering(IMAGES))
