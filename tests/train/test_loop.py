"""Training: resuming to the same bits, learning at all, divergence."""
import signal

import numpy as np
import pytest
import timm
import torch
from torch.utils.data import Dataset

from scat_zoo.train.loop import Training, evaluate, fit

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
    assert not (tmp_path / 'state.partial').exists()
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


def test_a_broken_state_is_refused(tmp_path):
    (tmp_path / 'state').write_bytes(b'nonsense')
    with pytest.raises(ValueError, match='cannot resume from'):
        run(tmp_path / 'state', Stripes())


def test_divergence_is_told(tmp_path):
    with pytest.raises(FloatingPointError, match=r'loss is (nan|inf) in epoch 1'):
        run(tmp_path / 'state', Stripes(), opt='sgd', lr=1e30, warmup_epochs=0)
