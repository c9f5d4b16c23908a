"""Gradients of each image by torch alone."""
import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call, grad, replace_all_batch_norm_modules_, vmap

from scat_zoo.scattering.parametric import KINDS
from tests.models.architectures import create


@pytest.mark.parametrize('held', [False, True])
@pytest.mark.parametrize(('name', 'parametrization'), [*(('scat_linear', kind) for kind in KINDS),
                                                       ('scat_tiny', 'morlet')])
def test_vmap_of_grad(name, parametrization, held):
    """Where batch normalisation is held, or has no running statistics, as `torch.func` wants it."""
    model = create(name, img_size=16, L=2, learnable=True, parametrization=parametrization).double()
    model = model.eval() if held else replace_all_batch_norm_modules_(model)
    images, classes = torch.randn(4, 1, 16, 16, dtype=torch.float64), torch.tensor([0, 1, 2, 1])

    def loss(parameters, x, y):
        return F.cross_entropy(functional_call(model, parameters, (x[None],)), y[None])

    parameters = {key: p.detach() for key, p in model.named_parameters()}
    found = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, images, classes)
    for i in range(len(images)):
        expected = torch.autograd.grad(F.cross_entropy(model(images[i:i + 1]), classes[i:i + 1]),
                                       list(model.parameters()))
        for a, b in zip(found.values(), expected, strict=True):
            assert (a[i] - b).abs().max() <= 1e-9 * max(1, float(b.abs().max()))
