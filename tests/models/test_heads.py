"""Norms and pools."""
import pytest
import torch
import torch.nn.functional as F

from scat_zoo.models.heads import FlatPool, MeanStdPool, ScatteringHead, ScatteringNorm, _averages, log_compression


def test_order_norms_put_one_order_behind_the_other():
    norm = ScatteringNorm([1, 4, 8], log_floor=0.1)
    s = torch.rand(3, 13, 2, 2) + 0.5
    features = s[:, :0]
    widths = []
    for order in norm.orders:
        lower = features
        features = order(s, features)
        assert torch.equal(features[:, :lower.shape[1]], lower)
        widths.append(features.shape[1])
    assert widths == [1, 5, 13]
    assert torch.equal(norm(s), features)
    # Batch normalisation, in training: zero mean and unit variance in every channel.
    assert features.mean((0, 2, 3)).abs().max() < 1e-5
    assert (features.var((0, 2, 3), unbiased=False) - 1).abs().max() < 1e-2


def test_log_compression_is_relative_to_the_mean():
    x = torch.rand(4, 2, 3, 3) + 0.1
    running, mean = torch.ones(2), x.mean((0, 2, 3))
    y = log_compression(x, running, torch.tensor(0), 0.1, 0.1)
    assert torch.allclose(y, torch.log(x / x.mean((0, 2, 3), keepdim=True) + 0.1))
    assert torch.allclose(running, mean)                            # the first batch's own
    assert torch.allclose(log_compression(3 * x, running, torch.tensor(1), 0.1, 0.1), y, atol=1e-5)
    assert torch.allclose(running, 2 * mean)                        # the average of two
    # So the scale of the input does not matter, while training.
    assert torch.allclose(log_compression(1002 * x, running, torch.tensor(99), 0.1, 0.1), y, atol=1e-5)
    assert torch.allclose(running, 102 * mean)                      # moved by a tenth
    held = torch.tensor([2., 4.])
    assert torch.allclose(log_compression(x, held, None, None, 0.1)[:, 1], torch.log(x[:, 1] / 4 + 0.1))
    assert held.tolist() == [2, 4]


def test_flat_pool_is_flatten_at_its_own_grid():
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(FlatPool((4, 5))(x), x.flatten(1))
    assert FlatPool((2, 2))(x).shape == (2, 12)
    assert FlatPool((8, 8))(x).shape == (2, 192)


@pytest.mark.parametrize(('pool', 'width'), [('flat', 48), ('avg', 3), ('max', 3), ('catavgmax', 6), ('avgstd', 6)])
def test_head_width(pool, width):
    head = ScatteringHead(3, 7, pool, grid=(4, 4))
    x = torch.randn(2, 3, 4, 4)
    assert head.num_features == width
    assert head(x, pre_logits=True).shape == (2, width)
    assert head(x).shape == (2, 7)


def test_mean_and_deviation():
    x = torch.randn(3, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    expected = torch.cat([x.mean((2, 3)), x.std((2, 3), correction=0)], 1)
    torch.testing.assert_close(MeanStdPool()(x), expected)
    assert torch.autograd.gradcheck(MeanStdPool(), (x,))
    flat = torch.ones(1, 1, 2, 2, requires_grad=True)
    MeanStdPool()(flat).sum().backward()
    assert torch.equal(flat.grad, torch.full_like(flat, 0.25))          # of the mean alone


def test_an_unknown_pool_is_refused():
    with pytest.raises(ValueError, match="unknown global_pool 'nonsense'; known: flat, avgstd, avg, max"):
        ScatteringHead(3, 7, 'nonsense', grid=(4, 4))
    with pytest.raises(TypeError, match='global_pool must be the name of a pool, got None'):
        ScatteringHead(3, 7, None, grid=(4, 4))


@pytest.mark.parametrize('side', range(1, 9))
@pytest.mark.parametrize('cells', range(1, 9))
def test_averages_of_a_graph_are_those_of_adaptive_pooling(side, cells):
    x = torch.rand(3, side, dtype=torch.float64)
    torch.testing.assert_close(x @ _averages(cells, side, x).t(), F.adaptive_avg_pool1d(x, cells))
