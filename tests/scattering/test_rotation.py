"""Averages over rotations: what turns into what, and how exactly."""
import pytest
import torch

from scat_zoo.models.stem import ScatteringStem
from scat_zoo.scattering import geometry, rotation


def averaged(path, L):
    """The path that the average makes of this one."""
    if path.order == 0:
        return path
    return path._replace(theta1=None, theta2=None if path.theta2 is None else (path.theta2 - path.theta1) % L)


@pytest.mark.parametrize(('J', 'L', 'max_order'), [(3, 4, 2), (2, 3, 2), (1, 5, 2), (2, 6, 1), (2, 4, 0), (4, 2, 2)])
def test_the_average_is_over_all_orientations_of_a_path_together(J, L, max_order):
    paths, left = (geometry.paths(J, L, max_order, r) for r in (None, 'average'))
    assert [len([p for p in left if p.order == n]) for n in range(max_order + 1)] == geometry.order_counts(
        J, L, max_order, 'average')
    s = torch.randn(2, len(paths), 3, 2, dtype=torch.float64)
    found = rotation.average(s, J, L, max_order)
    assert found.shape == (2, len(left), 3, 2)
    for i, path in enumerate(left):
        mine = [n for n, p in enumerate(paths) if averaged(p, L) == path]
        assert len(mine) == (1 if path.order == 0 else L)
        torch.testing.assert_close(found[:, i], s[:, mine].mean(1), rtol=0, atol=1e-14)


@pytest.mark.parametrize(('size', 'n'), [(8, 16), (9, 16), (12, 24), (5, 12), (4, 12), (1, 4), (13, 20)])
def test_centring_keeps_the_symmetry_of_an_image(size, n):
    """About n / 2, and of it periodically."""
    matrix = rotation.centring(size, n)
    mirrored = matrix.flip(1)[(-torch.arange(n)) % n]
    torch.testing.assert_close(matrix, mirrored, rtol=0, atol=1e-14)
    torch.testing.assert_close(matrix.sum(1), torch.ones(n, dtype=torch.float64), rtol=0, atol=1e-13)
    if size % 2:
        assert torch.equal(matrix[n // 2 - size // 2:n // 2 + size // 2 + 1], torch.eye(size, dtype=torch.float64))
    assert torch.linalg.matrix_norm(matrix, 2) <= torch.linalg.matrix_norm(
        rotation._reflected(torch.arange(n) - (n - size) // 2, size), 2) + 1e-12


def learned(stem):
    with torch.no_grad():
        for p in stem.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return stem


@pytest.mark.parametrize('size', [(32, 32), (33, 33), (28, 28), (36, 30), (16, 25)])
@pytest.mark.parametrize(('kwargs', 'bound'), [
    ({}, 1e-13), ({'J': 3}, 1e-5), ({'J': 3, 'scales': (3, 1), 'L': 6}, 1e-5), ({'max_order': 1}, 1e-13),
    ({'learnable': True, 'parametrization': 'equivariant'}, 1e-13)])
def test_quarter_turns_turn_the_maps(size, kwargs, bound):
    """Exactly at J = 2. Coarser filters are crops, that keep one of the two ends at half the length."""
    kwargs = {'J': 2, 'L': 4, 'in_chans': 2, 'dtype': torch.float64, **kwargs}
    stem, across = (ScatteringStem(img_size=s, rotation='average', **kwargs) for s in (size, size[::-1]))
    across.load_state_dict(learned(stem).state_dict())
    plain = ScatteringStem(img_size=size, **kwargs)
    x = torch.rand(2, 2, *size, dtype=torch.float64)
    y = stem(x)
    assert y.shape == (2, 2 * len(stem.paths), size[0] >> stem.J, size[1] >> stem.J)
    kinds = [channel._replace(dy=0, dx=0) for channel in stem.channels]
    members = torch.tensor([[a == b for b in kinds] for a in dict.fromkeys(kinds)]).double()
    worst, without = [], []
    for k in (1, 2, 3):
        turned = torch.rot90(x, k, (2, 3))
        z = (across if k % 2 else stem)(turned)
        if len(stem.scales) == 1:
            worst.append((torch.rot90(y, k, (2, 3)) - z).abs().max() / y.abs().max())
        # The samples of a finer scale within a cell trade places.
        worst.append(((y.mean((2, 3)) - z.mean((2, 3))) @ members.T).abs().max() / y.abs().max())
        if size[0] == size[1]:
            without.append((plain(x).mean((2, 3)) - plain(turned).mean((2, 3))).abs().max() / y.abs().max())
    assert max(worst) < bound
    assert not without or max(without) > 1e-3


def test_any_turn_of_a_periodic_texture():
    """A sum of waves, turned in closed form. How far off it is stands in docs/backbone.md."""
    generator = torch.Generator().manual_seed(0)
    angle, frequency = torch.rand(2, 30, generator=generator, dtype=torch.float64)
    frequency, phase = 0.15 + 0.9 * frequency, 6 * torch.rand(30, generator=generator, dtype=torch.float64)
    y, x = torch.meshgrid(*[torch.arange(128, dtype=torch.float64) - 63.5] * 2, indexing='ij')

    def texture(turn):
        a = (2 * torch.pi * angle + turn)[:, None, None]
        f = frequency[:, None, None]
        return torch.cos(f * (torch.cos(a) * x + torch.sin(a) * y) + phase[:, None, None]).mean(0)[None, None]

    worst = {}
    for kind in (None, 'average'):
        stem = ScatteringStem(3, 8, 2, 1, (128, 128), rotation=kind, dtype=torch.float64)
        maps = [stem(texture(turn))[:, 1:].mean((2, 3)) for turn in (0., 0.2, torch.pi / 8, 0.7, 1.2)]
        worst[kind] = max(((m - maps[0]).norm() / maps[0].norm()).item() for m in maps)
    assert worst['average'] < 0.02
    assert worst[None] > 0.1
