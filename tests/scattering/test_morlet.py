"""The closed forms against the definitions in space that they come from."""
import math
import time

import numpy as np
import pytest
import torch

from scat_zoo.scattering import geometry, morlet

CPU = torch.device('cpu')
# Small and large, slanted either way, fine enough that several aliases count.
GABORS = [
    (0.3, 2.356, 0.8, 0.5), (-1.2, 1.18, 1.6, 0.5), (0.0, 2.356, 0.8, 4.0), (2.0, 0.6, 3.2, 1.0), (0.7, 3.0, 0.4, 0.5),
]


def gabor_in_space(size, theta, xi, sigma, slant, tiles=8):
    """The Gabor filter sampled on Z^2 and periodised, by its definition."""
    M, N = size
    u = np.arange(-tiles * M, (tiles + 1) * M)[:, None]
    v = np.arange(-tiles * N, (tiles + 1) * N)[None, :]
    along = u * math.cos(theta) + v * math.sin(theta)
    across = -u * math.sin(theta) + v * math.cos(theta)
    g = np.exp(-(along ** 2 + slant ** 2 * across ** 2) / (2 * sigma ** 2) + 1j * xi * along)
    g /= 2 * 3.1415 * sigma ** 2 / slant
    return g.reshape(2 * tiles + 1, M, 2 * tiles + 1, N).sum((0, 2))


@pytest.mark.parametrize('gabor', GABORS)
@pytest.mark.parametrize('size', [(16, 16), (24, 12), (7, 9)])
def test_gabor_is_the_transform_of_its_definition(size, gabor):
    expected = np.fft.fft2(gabor_in_space(size, *gabor))
    actual = morlet.gabor_hat(size, *gabor, CPU).numpy()
    # 1e-13: rounding in the sum over 289 tiles in space.
    assert np.abs(expected - actual).max() < 1e-13


@pytest.mark.parametrize('gabor', GABORS)
def test_morlet_has_zero_mean(gabor):
    assert abs(morlet.morlet_hat((32, 24), *gabor, CPU)[0, 0]) < 1e-15


@pytest.mark.parametrize('J', [1, 2, 3, 4])
def test_littlewood_paley_sum_of_the_fixed_bank(J):
    bank = morlet.filter_bank(geometry.padded_size(64, 64, J), [J], 8, torch.float64, CPU)
    phi, psi = bank[0] ** 2, (bank[1:] ** 2).sum(0)
    mirrored = torch.roll(torch.flip(psi, [0, 1]), [1, 1], [0, 1])
    total = phi + 0.5 * (psi + mirrored)
    # Bounds known for kymatio's tight frame with L = 8.
    assert total.min() > 0.12
    assert total.max() < 1.05


@pytest.mark.parametrize('side', [224, 1024])
def test_bank_builds_fast(side):
    # Measured in Fourier transforms of as many maps, as machines differ and others use them too: 4 to 6 such;
    # kymatio takes hundreds.
    size = geometry.padded_size(side, side, 3)
    maps = torch.zeros(25, *size, dtype=torch.complex128)

    def seconds(work):
        start = time.process_time()
        work()
        return time.process_time() - start

    builds, transforms = zip(*[(seconds(lambda: morlet.filter_bank(size, [3], 8, torch.float32, CPU)),
                                seconds(lambda: torch.fft.fft2(maps))) for _ in range(5)])
    assert min(builds) < 20 * min(transforms)


def test_bank_on_the_meta_device():
    assert morlet.filter_bank((40, 40), [2], 8, torch.float32, torch.device('meta')).shape == (17, 40, 40)
