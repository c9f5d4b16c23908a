"""The seed's classes, used as it describes them: every snippet, with `from scat_zoo import` for `from model import`."""
import numpy as np
import pytest
import torch
from torch import nn

from scat_zoo import ExampleLinearClassifier, ScatteringBase


@pytest.fixture
def images():
    return torch.randn(4, 3, 32, 32)


def make(learnable):
    return ExampleLinearClassifier(
        J=3,
        shape=(32, 32),
        in_channels=3,
        num_classes=10,
        learnable=learnable,
    )


def filters(model):
    return [p for name, p in model.named_parameters() if name.startswith('scattering.')]


def test_fixed_scattering_and_linear_classifier(images):
    model = make(learnable=False)
    logits = model(images)
    assert logits.shape == (4, 10)
    assert not filters(model)


def test_learnable_filters(images):
    model = make(learnable=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    before = [p.detach().clone() for p in filters(model)]
    nn.functional.cross_entropy(model(images), torch.arange(4)).backward()
    assert all(p.grad is not None for p in model.parameters())
    optimizer.step()
    assert len(before) == 35
    assert all(not torch.equal(a, b) for a, b in zip(before, filters(model), strict=True))


def test_fine_grained_control(images):
    model = make(learnable=True)
    model.freeze_scattering()
    optimizer = torch.optim.Adam(model.head_parameters(), lr=1e-3)
    before = [p.detach().clone() for p in model.parameters()]
    model(images).square().sum().backward()
    optimizer.step()
    changed = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    assert changed == [name.startswith('classifier.') for name, _ in model.named_parameters()]

    model.unfreeze_scattering()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    model(images).square().sum().backward()
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))

    model.freeze_classifier()
    assert [p.requires_grad for p in model.classifier.parameters()] == [False, False]
    assert all(p.requires_grad for p in filters(model))
    model.unfreeze_classifier()
    assert all(p.requires_grad for p in model.parameters())


def test_runtime_toggle(images):
    model = make(learnable=False)
    expected = model(images)
    keys = list(model.state_dict())
    model.scattering.set_learnable(True)
    assert len(filters(model)) == 35
    model.scattering.set_learnable(False)
    assert not filters(model)
    assert torch.equal(model(images), expected)
    assert list(model.state_dict()) == keys


def test_freezing_leaves_buffers_alone():
    model = make(learnable=False)
    model.freeze_scattering()
    model.unfreeze_scattering()
    assert not any(b.requires_grad for b in model.buffers())


def test_custom_head(images):
    class MyModel(ScatteringBase):
        def _build_classifier(self):
            return nn.Sequential(
                nn.Linear(self.classifier_input_dim, 256),
                nn.ReLU(),
                nn.Dropout(0.3),
                nn.Linear(256, self.num_classes),
            )

    model = MyModel(2, (32, 24), 1, 5, L=4, max_order=1, learnable=True)
    assert model.classifier_input_dim == 9 * 8 * 6
    x = torch.randn(2, 1, 32, 24)
    assert model.extract_features(x).shape == (2, model.classifier_input_dim)
    assert model(x).shape == (2, 5)
    assert {id(p) for p in model.head_parameters()} == {id(p) for p in model.classifier.parameters()}


def test_features_are_channel_major():
    model = ExampleLinearClassifier(2, (16, 16), 2, 3)
    x = torch.randn(1, 2, 16, 16)
    features = model.extract_features(x).reshape(2, 81, 4, 4)
    torch.testing.assert_close(features[1], model.scattering(x[0, 1]))


def test_checkpoints_cross_over(images):
    learned, frozen = make(learnable=True), make(learnable=False)
    with torch.no_grad():
        for p in filters(learned):
            p.mul_(1.1)
    frozen.load_state_dict(learned.state_dict())
    torch.testing.assert_close(frozen(images), learned(images))


def test_bad_use():
    with pytest.raises(NotImplementedError, match='_build_classifier'):
        ScatteringBase(2, (32, 32), 3, 10)
    with pytest.raises(RuntimeError, match=r'expected images of shape \(B, 3, H, W\), got \[4, 1, 32, 32\]'):
        make(False)(torch.zeros(4, 1, 32, 32))
    with pytest.raises(RuntimeError, match=r'spatial size \(32,32\)'):
        make(False)(torch.zeros(4, 3, 28, 28))


def test_small_integers_do_not_wrap():
    model = ExampleLinearClassifier(2, (32, 32), np.uint8(3), np.uint8(10))
    assert model.classifier_input_dim == 3 * 81 * 64
    assert type(model.classifier_input_dim) is int
