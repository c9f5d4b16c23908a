"""Training: resuming to the same bits, learning at all, divergence."""
import signal
import sys

import numpy as np
import pytest
import timm
import torch
from torch.utils.data import ConcatDataset, Dataset

from scat_zoo.train import loop
from scat_zoo.train.loop import Training, class_weights, evaluate, fit, helpful_threads, targets_of

from .terminal import Terminal

CPU = torch.device('cpu')


class Stripes(Dataset):
    """Images of stripes in one of two directions, each with noise that draws from the global random state."""

    def __init__(self, n=40, stop_at=None):
        self.n, self.stop_at, self.seen = n, stop_at, 0

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        self.seen += 1
        if self.seen == self.stop_at:
            signal.raise_signal(signal.SIGINT)
        stripes = torch.arange(16).div(2, rounding_mode='floor').remainder(2).float().expand(1, 16, 16)
        image = (stripes if i % 2 else stripes.transpose(1, 2)) + 0.5 * torch.randn(1, 16, 16)
        return image + float(np.random.rand()), i % 2


def training(**kwargs):
    return Training(**{'epochs': 3, 'batch_size': 8, 'label_smoothing': 0.1, **kwargs})


def create():
    timm.utils.random_seed(0)
    return timm.create_model('scat_linear', L=2, learnable=True, in_chans=1, img_size=16, num_classes=2, drop_rate=0.1)


def run(state_file, train, val=None, **kwargs):
    model = create()
    history = fit(model, train, val or Stripes(8), training(**kwargs), CPU, state_file, 'test')
    return model, history


# In the first step, in the middle of an epoch, in the last step of an epoch, in the last of all.
@pytest.mark.parametrize('stop_at', [3, 60, 80, 118])
def test_interrupted_and_resumed_is_bit_equal(tmp_path, stop_at):
    expected, history = run(tmp_path / 'whole', Stripes())
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / 'state', Stripes(stop_at=stop_at))
    assert not list(tmp_path.glob('*.partial'))
    assert signal.getsignal(signal.SIGINT) is handler
    model, resumed_history = run(tmp_path / 'state', Stripes())
    assert resumed_history == history
    pairs = zip(expected.state_dict().values(), model.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize('stop_at', [1, 20])                    # in the first validation, in the last
def test_interrupted_while_validating(tmp_path, stop_at):
    expected, history = run(tmp_path / 'whole', Stripes())
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / 'state', Stripes(), Stripes(8, stop_at))
    model, resumed_history = run(tmp_path / 'state', Stripes())
    assert resumed_history == history
    assert all(torch.equal(a, b) for a, b in zip(expected.parameters(), model.parameters(), strict=True))


def test_a_finished_run_resumes_to_itself(tmp_path):
    expected, history = run(tmp_path / 'state', Stripes())
    train = Stripes()
    model, again = run(tmp_path / 'state', train)
    assert (again, train.seen) == (history, 0)
    assert all(torch.equal(a, b) for a, b in zip(expected.parameters(), model.parameters(), strict=True))


def test_it_learns(tmp_path):
    torch.manual_seed(1)
    model, history = run(tmp_path / 'state', Stripes(), epochs=10)
    assert history[-1]['loss'] < 0.85 * history[0]['loss']
    assert evaluate(model, Stripes(40), CPU) >= 95


def broken(state, way, value):
    *parts, last = way
    at = state
    for part in parts:
        at = at[part]
    at[last] = value
    return state


@pytest.mark.parametrize(('way', 'value'), [
    (('progress', 'done'), 10 ** 9), (('progress', 'done'), -1), (('progress', 'done'), None),
    (('progress', 'history'), [1]), (('progress', 'loss_sum'), 'x'), (('progress', 'threads'), 10 ** 6),
    (('progress', 'more'), 1), (('progress',), None), (('random',), 3), (('random', 0), [[], [], []]),
    (('model',), {}), (('optimizer',), []),
])
def test_an_entry_of_the_state_that_is_none(tmp_path, way, value):
    run(tmp_path / 'state', Stripes(), epochs=2)
    state = torch.load(tmp_path / 'state', weights_only=True)
    torch.save(broken(state, way, value), tmp_path / 'state')
    with pytest.raises(ValueError, match='state: it is broken, or of another model or version; remove it to train'):
        run(tmp_path / 'state', Stripes(), epochs=3)


@pytest.mark.parametrize('content', [b'nonsense', b'', b'\x80\x02cos\nsystem\n'])
def test_a_broken_state_is_refused(tmp_path, content):
    (tmp_path / 'state').write_bytes(content)
    with pytest.raises(ValueError, match='cannot resume from') as caught:
        run(tmp_path / 'state', Stripes())
    assert 'weights_only' not in str(caught.value)              # torch's advice


def test_a_state_that_is_not_finite(tmp_path):
    run(tmp_path / 'state', Stripes(), epochs=2)
    state = torch.load(tmp_path / 'state', weights_only=True)
    torch.save(broken(state, ('model', 'head.fc.bias'), state['model']['head.fc.bias'] / 0), tmp_path / 'state')
    with pytest.raises(ValueError, match='its weights are not finite'):
        run(tmp_path / 'state', Stripes(), epochs=3)


def test_a_state_of_other_processes(tmp_path):
    run(tmp_path / 'state', Stripes(), epochs=2)
    state = torch.load(tmp_path / 'state', weights_only=True)
    torch.save(broken(state, ('random',), state['random'] * 2), tmp_path / 'state')
    with pytest.raises(ValueError, match='it was written by 2 processes, now there are 1'):
        run(tmp_path / 'state', Stripes(), epochs=3)


def test_divergence_is_told(tmp_path):
    with pytest.raises(FloatingPointError, match=r'loss is (nan|inf) in epoch 1'):
        run(tmp_path / 'state', Stripes(), opt='sgd', lr=1e30, warmup_epochs=0)


def test_the_bar_tells_the_epoch_and_the_loss(tmp_path, monkeypatch):
    monkeypatch.setattr('sys.stderr', Terminal())
    for epochs in (2, 3):
        _, history = run(tmp_path / 'state', Stripes(), epochs=epochs)
        lines = sys.stderr.getvalue().strip().split('\r')
        assert lines[-1].startswith(f'test, epoch {epochs}/{epochs}: 100%')
        assert 'step/s' in lines[-1]
        assert f'loss={history[-1]["loss"]:.3g}' in lines[-1]


def test_more_epochs_than_before(tmp_path):
    """The rate follows the longer schedule from the first step on, and the earlier epochs stay as they were."""
    _, history = run(tmp_path / 'state', Stripes(), epochs=2)
    rates, step = [], torch.optim.AdamW.step

    def watched(self, *args, **kwargs):
        rates.append(self.param_groups[0]['lr'])
        return step(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, 'step', watched)
        _, longer = run(tmp_path / 'state', Stripes(), epochs=8)
    assert longer[:2] == history
    assert len(longer) == 8
    assert len(rates) == 6 * 5
    assert rates == sorted(rates, reverse=True)                 # none lies at the end of the shorter one
    assert rates[0] > 1e-4 > rates[-1]


def test_after_each_epoch_the_history_is_told(tmp_path):
    told = []
    for epochs in (2, 3):
        fit(create(), Stripes(), None, training(epochs=epochs), CPU, tmp_path / 'state', 'test',
            after_epoch=lambda history: told.append(len(history)))
    assert told == [1, 2, 3]


def test_balanced_weights_weigh_classes_alike():
    data = Stripes()
    data.targets = [0] * 30 + [1] * 10
    assert class_weights(data, training()) is None
    weights = class_weights(data, training(class_weights='balanced'))
    assert torch.allclose(weights, torch.tensor([40 / 60, 2.]))
    assert weights[data.targets].mean() == pytest.approx(1)
    both = ConcatDataset([data, data])
    assert targets_of(both) == 2 * data.targets
    assert torch.equal(class_weights(both, training(class_weights='balanced')), weights)


def test_balanced_weights_turn_the_answers(tmp_path):
    """What cannot be told apart is taken for the commoner class, unless the weights make the classes alike."""
    class Same(Stripes):
        def __init__(self):
            super().__init__()
            self.targets = [int(i % 4 == 0) for i in range(self.n)]

        def __getitem__(self, i):
            return torch.randn(1, 16, 16), self.targets[i]

    shares = []
    for weights in ('none', 'balanced'):
        model = create()
        fit(model, Same(), None, training(class_weights=weights, label_smoothing=0., epochs=8, lr=0.01), CPU,
            tmp_path / weights, 'test')
        shares.append(model(torch.randn(200, 1, 16, 16)).softmax(1)[:, 1].mean().item())
    assert shares[0] + 0.1 < shares[1]


@pytest.mark.parametrize('has', [False, True])
def test_bfloat16_where_the_processor_has_it(tmp_path, monkeypatch, has):
    monkeypatch.setattr(loop, 'has_bfloat16', lambda device: has)
    (_, exact), (_, half) = (run(tmp_path / str(amp), Stripes(), amp=amp) for amp in (False, True))
    assert (half == exact) is not has


def test_threads_that_do_not_help_are_not_taken(monkeypatch):
    """One is, unless all are faster by a fifth; the random numbers and the model stay as they are."""
    train = Stripes()
    model = create()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    used, seconds, now = [4], {1: 1.}, [0.]

    def clock():
        now.append(now[-1] + seconds[used[-1]])
        return now[-1]

    monkeypatch.setattr(torch, 'get_num_threads', lambda: 4)
    monkeypatch.setattr(torch, 'set_num_threads', used.append)
    monkeypatch.setattr(loop.time, 'perf_counter', clock)
    for seconds[4], expected in ((0.5, 4), (0.9, 1), (2., 1)):
        torch.manual_seed(3)
        assert helpful_threads(model, train, 8, CPU) == expected
        assert used[-1] == 4
        numbers = torch.rand(3)
        torch.manual_seed(3)
        assert torch.equal(numbers, torch.rand(3))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
