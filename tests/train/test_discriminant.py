"""The classifier in closed form: against the textbook's formula, filters trained through it, resuming, bad input."""
import importlib.util
import json
import signal

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch.utils.data import TensorDataset

from scat_zoo import cli
from scat_zoo.train import augment, checkpoint, discriminant, loop
from scat_zoo.train.data import Prepared, load
from scat_zoo.train.loop import Training

CPU = torch.device('cpu')


def images(classes, each=12, noise=0.5):
    """Noise about a picture of each class."""
    torch.manual_seed(0)
    targets = torch.arange(classes).repeat_interleave(each)
    x = torch.randn(classes, 1, 16, 16)[targets] + noise * torch.randn(len(targets), 1, 16, 16)
    return TensorDataset(x, targets)


def fitted(classes):
    model = timm.create_model('scat_linear', img_size=16, in_chans=1, num_classes=classes, global_pool='avg', L=2)
    data = images(classes)
    discriminant.fit(model, data, 1, CPU)
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
    found, expected = logits - logits[:, :1], expected - expected[:, :1]
    expected *= (found * expected).sum() / (expected ** 2).sum()    # the scale is another test's
    assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()


def test_the_scale_makes_the_cross_entropy_smallest():
    torch.manual_seed(0)
    model = timm.create_model('scat_linear', img_size=16, in_chans=1, num_classes=3, global_pool='avg', L=2)
    x, y = torch.randn(60, 1, 16, 16), torch.arange(3).repeat(20)  # nothing in them to learn but chance
    discriminant.fit(model, TensorDataset(x, y), 1, CPU)
    with torch.no_grad():
        logits = model(x)
    smallest = F.cross_entropy(logits, y)
    assert smallest < F.cross_entropy(0.97 * logits, y)
    assert smallest < F.cross_entropy(1.03 * logits, y)


@pytest.mark.parametrize('classes', [2, 5])
def test_it_separates_what_can_be_separated(classes):
    model, x, y, _ = fitted(classes)
    with torch.no_grad():
        logits = model(x)
    assert logits.shape == (len(y), classes)
    assert (logits.argmax(1) == y).float().mean() > 0.95


def test_the_command_ends_in_it(tmp_path):
    options = ['--model-kwargs', 'L=2', 'global_pool=avg', '--epochs', '1', '--no-learnable', '--val-fraction', '0']
    assert cli.main(['train', *options, '--output', str(tmp_path), '--lda', '1']) == 0
    settings = json.loads((tmp_path / 'settings.json').read_text())
    assert settings['training']['lda'] == 1
    assert json.loads((tmp_path / 'results.json').read_text())['kept'] == 'fixed'
    model = checkpoint.load(tmp_path)
    weight = model.head.fc.weight.clone()
    train = Prepared(load('sample', val_fraction=0.).train, 1, augment.eval_transform(model))
    discriminant.fit(model, train, 1, CPU)
    assert torch.allclose(model.head.fc.weight, weight, rtol=1e-3, atol=1e-6)


def through_it(folder, stop_at=None):
    torch.manual_seed(0)
    model = timm.create_model('scat_linear', img_size=16, in_chans=1, num_classes=3, global_pool='avg', L=2,
                              learnable=True, parametrization='morlet')
    x, y = images(3, noise=3.).tensors
    training = Training(epochs=2, batch_size=12, label_smoothing=0., lda=1, lda_epochs=3)
    loop.fit(model, TensorDataset(x, y), None, training, CPU, folder / 'state', 'test')
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train, val = Stopping(x, y, stop_at=stop_at), TensorDataset(x, y)
    history = discriminant.finish(model, train, val, training, CPU, folder / 'filters', 'test')
    return model, before, history


class Stopping(TensorDataset):
    """Presses Ctrl-C at the given image, counted from the first epoch of the filters."""

    def __init__(self, *tensors, stop_at):
        super().__init__(*tensors)
        self.seen, self.stop_at = 0, stop_at

    def __getitem__(self, i):
        self.seen += 1
        if self.seen == self.stop_at:
            signal.raise_signal(signal.SIGINT)
        return super().__getitem__(i)


def test_filters_are_trained_through_it_and_nothing_else(tmp_path):
    model, before, history = through_it(tmp_path)
    assert [set(epoch) for epoch in history] == 3 * [{'loss', 'val_accuracy'}]
    assert history[-1]['loss'] < history[0]['loss']
    for name, value in model.state_dict().items():
        if name.startswith('scattering.') and model.get_parameter(name).requires_grad:
            assert not torch.equal(value, before[name]), name
        elif name.startswith('norm.'):
            assert torch.equal(value, before[name]), name
    assert all(p.requires_grad for p in model.parameters())
    # The classifier at the end is that of the filters at the end.
    weight = model.head.fc.weight.clone()
    discriminant.fit(model, images(3, noise=3.), 1, CPU)
    assert torch.equal(weight, model.head.fc.weight)


# In the first analysis, in the first epoch, in the second analysis.
@pytest.mark.parametrize('stop_at', [30, 120, 170])
def test_interrupted_and_resumed_is_bit_equal(tmp_path, stop_at):
    for name in ('whole', 'stopped'):
        (tmp_path / name).mkdir()
    expected, _, history = through_it(tmp_path / 'whole')
    with pytest.raises(KeyboardInterrupt):
        through_it(tmp_path / 'stopped', stop_at)
    model, _, resumed = through_it(tmp_path / 'stopped')
    assert resumed == history
    assert all(torch.equal(a, b) for a, b in zip(expected.state_dict().values(), model.state_dict().values(),
                                                 strict=True))


def test_fixed_filters_have_no_such_epochs(tmp_path):
    model = timm.create_model('scat_linear', img_size=16, in_chans=1, num_classes=3, global_pool='avg', L=2)
    training = Training(epochs=1, lda=1, lda_epochs=3)
    assert discriminant.finish(model, images(3), None, training, CPU, tmp_path / 'filters', 'test') == []
    assert not (tmp_path / 'filters').exists()


def test_several_passes_see_several_changes_of_the_images():
    class Noisy(TensorDataset):
        def __getitem__(self, i):
            x, y = super().__getitem__(i)
            return x + torch.randn_like(x), y

    model = timm.create_model('scat_linear', img_size=16, in_chans=1, num_classes=3, global_pool='avg', L=2)
    weights = []
    for passes in (1, 1, 4):
        torch.manual_seed(0)
        discriminant.fit(model, Noisy(*images(3).tensors), passes, CPU)
        weights.append(model.head.fc.weight.clone())
    assert torch.equal(weights[0], weights[1])
    assert not torch.allclose(weights[0], weights[2], rtol=0.1)


def test_missing_scikit_learn_is_one_sentence_before_training(monkeypatch):
    small = timm.create_model('scat_linear', num_classes=5, L=2)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *args: None if name == 'sklearn' else find(name))
    discriminant.check(Training(epochs=1), small)
    with pytest.raises(ValueError, match='needs scikit-learn: install it, or scat_zoo with the extra train'):
        discriminant.check(Training(epochs=1, lda=1), small)


def test_epochs_through_it_need_it_at_the_end():
    small = timm.create_model('scat_linear', num_classes=5, L=2)
    with pytest.raises(ValueError, match='--lda-epochs 3 needs a discriminant analysis at the end too'):
        discriminant.check(Training(epochs=1, lda_epochs=3), small)


def test_more_features_than_memory_holds_the_covariance_of():
    large = timm.create_model('scat_linear', img_size=64, num_classes=5, device='meta')
    with pytest.raises(ValueError, match='of 62,208 features needs several matrices of 31 GB'):
        discriminant.check(Training(epochs=1, lda=1), large)
    discriminant.check(Training(epochs=1), large)
