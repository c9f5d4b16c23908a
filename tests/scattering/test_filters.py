"""Filters at other resolutions and sizes."""
import pytest
import torch

from scat_zoo.scattering.banks import FixedBank, PixelwiseBank
from scat_zoo.scattering.filters import crop, resample
from tests.scattering.reference import flat


def response(hat):
    """Impulse response, the centre in the middle of the array."""
    return torch.fft.fftshift(torch.fft.ifft2(hat), dim=(-2, -1))


@pytest.mark.parametrize('size', [(8, 12), (7, 12), (9, 9)])
def test_a_larger_image_surrounds_the_response_with_zeros(size):
    hat = torch.randn(3, *size, dtype=torch.float64)
    M, N = size[0] + 6, size[1] + 4
    moved = response(resample(hat, M, N))
    mine = response(hat)
    inner = [slice(n // 2 - size[i] // 2, n // 2 - size[i] // 2 + size[i]) for i, n in enumerate((M, N))]
    # But for the sample at half an even length, which both ends of the response share.
    core = [slice(1 - n % 2, None) for n in size]
    assert torch.allclose(moved[:, inner[0], inner[1]][:, core[0], core[1]], mine[:, core[0], core[1]], atol=1e-14)
    outside = moved.clone()
    outside[:, inner[0].start:inner[0].stop + 1, inner[1].start:inner[1].stop + 1] = 0
    assert outside.abs().max() < 1e-14
    assert torch.allclose(resample(resample(hat, M, N), *size), hat, atol=1e-13)
    assert torch.allclose(resample(hat, M, N)[:, 0, 0], hat[:, 0, 0])             # the sum of the response
    assert resample(hat, *size) == pytest.approx(hat, abs=1e-14)


def test_in_a_smaller_image_the_response_overlaps_itself():
    hat = torch.randn(16, 24, dtype=torch.float64)
    kernel = torch.fft.ifft2(hat)
    folded = kernel.unflatten(0, (2, 8)).sum(0).unflatten(1, (2, 12)).sum(1)
    small = resample(hat, 8, 12)
    assert torch.allclose(torch.fft.fft2(folded).real, small, atol=1e-13)
    assert torch.equal(small, resample(hat.clone(), 8, 12))
    assert torch.allclose(small, hat[::2, ::2], atol=1e-14)


@pytest.mark.parametrize(('size', 'tolerance'), [((64, 48), 1e-9), ((24, 40), 1e-9), ((32, 32), 0)])
def test_pixelwise_filters_follow_the_image(size, tolerance):
    """At the tight frame, where it is known what they should be; in a smaller image responses overlap themselves."""
    x = torch.empty(size)
    bank = PixelwiseBank(2, 4, (32, 32), dtype=torch.float64)
    errors = [(a - b).abs().max().item() for a, b in zip(
        flat(bank(x)), flat(FixedBank(2, 4, size, dtype=torch.float64)(x)), strict=True)]
    assert all(error <= tolerance for error in errors)
    bank.set_image_size(size)
    assert bank.image_size == size
    assert bank.psi['j1_theta2_level0'].hat.shape == (size[0] + 8, size[1] + 8)
    again = [(a - b).abs().max().item() for a, b in zip(
        flat(bank(x)), flat(FixedBank(2, 4, size, dtype=torch.float64)(x)), strict=True)]
    assert again == pytest.approx(errors, abs=1e-14)


def test_neither_autocast_nor_inference_mode_gets_into_the_filters():
    bank, x = PixelwiseBank(2, 2, (16, 16)), torch.empty(24, 24)
    expected = flat(bank(x))
    with torch.autocast('cpu', torch.bfloat16):
        assert all(torch.equal(a, b) for a, b in zip(flat(bank(x)), expected, strict=True))
        with torch.inference_mode():
            bank.set_image_size((24, 24))
    assert {p.dtype for p in bank.parameters()} == {torch.float32}
    sum(hat.square().sum() for hat in flat(bank(x))).backward()
    assert all(torch.equal(a, b) for a, b in zip(flat(bank(x)), expected, strict=True))


def test_gradients_pass_the_change_of_size():
    hat = torch.randn(2, 6, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda hat: (resample(hat, 10, 8), resample(hat, 4, 4)), (hat,))


def test_crop_keeps_the_low_frequencies():
    hat = torch.arange(64.).reshape(8, 8)
    assert crop(hat, 0) is hat
    assert torch.equal(crop(hat, 1), hat[[0, 1, 6, 7]][:, [0, 1, 6, 7]])
