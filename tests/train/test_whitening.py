"""A hidden layer that begins from whitened features: what it then sees, what stays, resuming, bad input."""
import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

import scat_zoo_cli
from scat_zoo.train import model as one_model
from scat_zoo.train import whitening
from scat_zoo.train.loop import Training

CPU = torch.device('cpu')


def correlated(n=400, d=6, classes=3):
    """Features of classes that overlap, of very different variances, and their targets."""
    torch.manual_seed(0)
    targets = torch.arange(n) % classes
    mixing = torch.randn(d, d).double() @ torch.diag(10. ** (-0.5 * torch.arange(d))).double()
    return torch.randn(n, d).double() @ mixing.T + torch.randn(classes, d).double()[targets] + 5, targets


def sums_of(features, targets):
    sums = whitening.Sums(int(targets.max()) + 1, features.shape[1])
    for part in (slice(0, 150), slice(150, None)):
        sums.add(features[part], targets[part])
    return sums


def within(x, targets):
    means = torch.stack([x[targets == c].mean(0) for c in range(int(targets.max()) + 1)])
    return (x - means[targets]).T.cov(correction=0)


def root_of(features, targets):
    """What the first weights are multiplied with."""
    layer = nn.Linear(6, 6).double()
    before = layer.weight.detach().clone()
    with torch.no_grad():
        whitening.whiten(layer, sums_of(features, targets))
    return torch.linalg.solve(before, layer.weight.detach())


def test_features_of_a_class_are_uncorrelated_before_the_first_weights(monkeypatch):
    monkeypatch.setattr(whitening, 'FLOOR', 0.)
    features, targets = correlated()
    seen = features @ root_of(features, targets).T
    covariance = within(seen, targets)
    torch.testing.assert_close(covariance / covariance[0, 0], torch.eye(6).double(), rtol=0, atol=1e-4)
    torch.testing.assert_close(seen.std(), features.std(), rtol=1e-6, atol=0)


def test_the_floor_bounds_what_hardly_varies():
    features, targets = correlated()
    root = root_of(features, targets)
    values = torch.linalg.eigvalsh((root + root.T) / 2)
    largest = torch.linalg.eigvalsh(within(features, targets))[-1]
    floor = whitening.FLOOR * within(features, targets).trace() / 6
    assert values[-1] / values[0] == pytest.approx(float(((largest + floor) / floor).sqrt()), rel=0.02)


def test_the_mean_image_gives_what_the_bias_was():
    features, targets = correlated()
    layer = nn.Linear(6, 4).double()
    bias = layer.bias.detach().clone()
    with torch.no_grad():
        whitening.whiten(layer, sums_of(features, targets))
        torch.testing.assert_close(layer(features.mean(0)), bias)


def images(classes=3, each=12):
    torch.manual_seed(0)
    targets = torch.arange(classes).repeat_interleave(each)
    return TensorDataset(torch.randn(classes, 1, 16, 16)[targets] + 0.5 * torch.randn(len(targets), 1, 16, 16), targets)


def scat_mlp(**kwargs):
    torch.manual_seed(0)
    return timm.create_model('scat_mlp', img_size=16, in_chans=1, num_classes=3, L=2, **kwargs)


@pytest.mark.parametrize('kwargs', [{}, {'global_pool': 'avg'}, {'drop_rate': 0.5}], ids=str)
def test_of_a_model_only_the_hidden_layer_and_the_norms_change(kwargs):
    model, before = scat_mlp(**kwargs), scat_mlp(**kwargs).state_dict()
    whitening.begin(model, images(), 2, CPU)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    statistics = {name for name in before if name.startswith('norm.') and not name.endswith(('.weight', '.bias'))}
    assert {'head.pre_logits.fc.weight', 'head.pre_logits.fc.bias'} < changed
    assert changed - {'head.pre_logits.fc.weight', 'head.pre_logits.fc.bias'} <= statistics
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_training_ends_with_a_lower_loss_in_as_many_steps():
    losses = []
    for whiten in (0, 1):
        model, (x, y) = scat_mlp(global_pool='avg'), images().tensors
        if whiten:
            whitening.begin(model, images(), 1, CPU)
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        for _ in range(20):
            optimizer.zero_grad()
            loss = F.cross_entropy(model.train()(x), y)
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[1] < 0.95 * losses[0]


def test_a_run_that_goes_on_is_not_whitened_again(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(whitening, 'begin', lambda *args: calls.append(args[2]))
    monkeypatch.setattr(one_model, 'prepared', lambda *args: images())
    states = tmp_path / 'state.pt', tmp_path / 'filters.pt'
    for epochs in (1, 2):
        one_model.train_one(scat_mlp(), None, None, None, Training(epochs, whiten=3), CPU, states, 'test')
    assert calls == [3]


def test_the_command_line(tmp_path, monkeypatch, capsys):
    for i in range(16):
        file = tmp_path / 'data' / f'class{i % 2}' / f'{i}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 128 * (1 + i % 2), (16, 16), np.uint8)).save(file)
    args = ['train', '--data', str(tmp_path / 'data'), '--epochs', '1', '--whiten', '2', '--no-learnable', '--output']
    assert scat_zoo_cli.main([*args, str(tmp_path / 'a'), '--model', 'scat_linear']) == 2
    assert 'error: --whiten 2 needs a model with a hidden layer, such as scat_mlp' in capsys.readouterr().err
    assert scat_zoo_cli.main([*args, str(tmp_path / 'a'), '--from', 'scat_mlp.fashion_mnist']) == 2
    assert 'hidden layer that begins, --from scat_mlp.fashion_mnist gives one' in capsys.readouterr().err
    assert not (tmp_path / 'a').exists()
    begin, seen = whitening.begin, []
    monkeypatch.setattr(whitening, 'begin', lambda *args: (seen.append(args[2]), begin(*args)))
    assert scat_zoo_cli.main([*args, str(tmp_path / 'b'), '--model', 'scat_mlp']) == 0
    assert seen == [2]


def test_what_cannot_be_whitened_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match=r'^--whiten takes at most 5,000 features, the hidden layer has 15,552'):
        whitening.check(Training(1, whiten=1), timm.create_model('scat_mlp', img_size=32))
    whitening.check(Training(1), timm.create_model('scat_mlp', img_size=32))
    with pytest.raises(ValueError, match=r'^--whiten needs images of a class that differ, and got 6 of 3 '):
        whitening.begin(scat_mlp(), images(each=1), 2, CPU)


def test_a_last_batch_of_one_image_is_none_to_the_norms():
    x, y = torch.rand(65, 1, 8, 8), torch.arange(65) % 3
    model = timm.create_model('scat_mlp', img_size=8, J=3, in_chans=1, num_classes=3, L=2)
    whitening.begin(model, TensorDataset(x, y), 1, CPU)
    assert model.training is False


def test_the_model_goes_to_the_device_first():
    with pytest.raises(NotImplementedError, match='meta'):          # which has no values to sum up, and takes images
        whitening.begin(scat_mlp(), images(), 1, torch.device('meta'))


def test_processes_add_their_sums(monkeypatch):
    features, targets = correlated()
    alone, parts = sums_of(features, targets), [whitening.Sums(3, 6), whitening.Sums(3, 6)]
    for rank, part in enumerate(parts):
        part.add(features[rank::2], targets[rank::2])
    monkeypatch.setattr(whitening, 'gathered', lambda _: [(p.counts, p.totals, p.products) for p in parts])
    parts[1].gather()
    torch.testing.assert_close(parts[1].within(), alone.within())
    torch.testing.assert_close(parts[1].deviation(torch.eye(6).double()), features.std(correction=0))
