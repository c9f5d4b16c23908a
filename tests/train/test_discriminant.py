"""The classifier in closed form: against the textbook's formula, for any number of classes, bad input."""
import importlib.util
import json

import numpy as np
import pytest
import timm
import torch
from torch.utils.data import TensorDataset

from scat_zoo import cli
from scat_zoo.train import discriminant


def images(classes, each=12):
    """Noise about a picture of each class."""
    torch.manual_seed(0)
    targets = torch.arange(classes).repeat_interleave(each)
    return TensorDataset(torch.randn(classes, 1, 16, 16)[targets] + 0.5 * torch.randn(len(targets), 1, 16, 16), targets)


def fitted(classes):
    model = timm.create_model('scat_linear', img_size=16, in_chans=1, num_classes=classes, global_pool='avg', L=2)
    data = images(classes)
    discriminant.fit(model, data, 1, torch.device('cpu'))
    x, y = data.tensors
    with torch.no_grad():
        features = model.forward_head(model.forward_features(x), pre_logits=True)
    return model, x, y, features


def test_the_boundaries_are_those_of_gaussians_with_one_covariance():
    model, x, y, features = fitted(3)
    f, y = features.double().numpy(), y.numpy()
    # Shrinkage is scikit-learn's: the direction of a boundary is where the shrunk covariance sends it.
    from sklearn.covariance import ledoit_wolf
    from sklearn.preprocessing import StandardScaler
    covariance = np.zeros((f.shape[1], f.shape[1]))
    for c in range(3):
        scaler = StandardScaler().fit(f[y == c])
        shrunk, _ = ledoit_wolf(scaler.transform(f[y == c]))
        covariance += scaler.scale_[:, None] * shrunk * scaler.scale_ / 3
    means = np.stack([f[y == c].mean(0) for c in range(3)])
    weight = np.linalg.solve(covariance, means.T).T
    bias = -0.5 * (weight * means).sum(1)
    expected = f @ weight.T + bias
    with torch.no_grad():
        logits = model(x).double().numpy()
    error = (logits - logits[:, :1]) - (expected - expected[:, :1])
    assert np.abs(error).max() < 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize('classes', [2, 5])
def test_it_separates_what_can_be_separated(classes):
    model, x, y, _ = fitted(classes)
    with torch.no_grad():
        logits = model(x)
    assert logits.shape == (len(y), classes)
    assert (logits.argmax(1) == y).float().mean() > 0.95


def test_the_command_ends_in_it(tmp_path):
    options = ['--model-kwargs', 'L=2', 'global_pool=avg', '--epochs', '1', '--no-learnable']
    found = {}
    for name, more in (('trained', []), ('lda', ['--lda', '1'])):
        assert cli.main(['train', *options, '--output', str(tmp_path / name), *more]) == 0
        found[name] = json.loads((tmp_path / name / 'results.json').read_text())['frozen']['test_accuracy']
    assert found['lda'] > found['trained'] + 5                      # one epoch is not enough for the other
    settings = json.loads((tmp_path / 'lda' / 'settings.json').read_text())
    assert settings['training']['lda'] == 1


def test_several_passes_see_several_changes_of_the_images():
    class Noisy(TensorDataset):
        def __getitem__(self, i):
            x, y = super().__getitem__(i)
            return x + torch.randn_like(x), y

    model = timm.create_model('scat_linear', img_size=16, in_chans=1, num_classes=3, global_pool='avg', L=2)
    weights = []
    for passes in (1, 1, 4):
        torch.manual_seed(0)
        discriminant.fit(model, Noisy(*images(3).tensors), passes, torch.device('cpu'))
        weights.append(model.head.fc.weight.clone())
    assert torch.equal(weights[0], weights[1])
    assert not torch.allclose(weights[0], weights[2], rtol=0.1)


def test_missing_scikit_learn_is_one_sentence_before_training(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *args: None if name == 'sklearn' else find(name))
    discriminant.check(0)
    with pytest.raises(ValueError, match='needs scikit-learn: install it, or scat_zoo with the extra lda'):
        discriminant.check(1)
