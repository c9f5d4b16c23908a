"""The pieces of the plain transform, and truths of the whole."""
import numpy as np
import pytest
import torch

from scat_zoo.scattering import geometry, transform
from scat_zoo.scattering.banks import FixedBank


def filters(J, L, side, dtype=torch.float64):
    return FixedBank(J, L, (side, side), dtype=dtype)


@pytest.mark.parametrize(('size', 'J'), [
    ((32, 32), 2), ((28, 33), 3), ((33, 47), 5), ((8, 8), 3), ((16, 40), 4), ((2, 2), 1)])
def test_pad_is_reflection(size, J):
    x = torch.rand(2, *size)
    M, N = geometry.padded_size(*size, J)
    rows, cols = M - size[0], N - size[1]
    margins = ((0, 0), (rows // 2, rows - rows // 2), (cols // 2, cols - cols // 2))
    assert np.array_equal(transform.pad(x, M, N).numpy(), np.pad(x.numpy(), margins, mode='reflect'))


@pytest.mark.parametrize('octaves', [0, 1, 2])
def test_fold_samples_in_space(octaves):
    x = torch.randn(3, 8, 16, dtype=torch.complex128)
    folded = transform.fold(torch.view_as_real(torch.fft.fft2(x)), octaves)
    sampled = torch.fft.ifft2(torch.view_as_complex(folded.contiguous()))
    assert torch.allclose(sampled, x[:, ::2 ** octaves, ::2 ** octaves], atol=1e-14)


def test_modulus_at_zero():
    z = torch.tensor([[0., 0.], [3., 4.]], dtype=torch.float64, requires_grad=True)
    m = transform.modulus(z)
    assert m.tolist() == [0., 5.]
    grad, = torch.autograd.grad(m.sum(), z, create_graph=True)
    assert grad[0].tolist() == [0., 0.]
    assert torch.allclose(grad[1], torch.tensor([0.6, 0.8], dtype=torch.float64))
    second, = torch.autograd.grad(grad.sum(), z)
    assert second[0].tolist() == [0., 0.]
    assert second.isfinite().all()


def test_a_constant_image_has_only_order_zero():
    x = torch.full((1, 32, 32), 7., dtype=torch.float64)
    s = transform.reference(x, filters(3, 8, 32)(x), [3], 2)[0]
    assert torch.allclose(s[:, 0], torch.full((1, 4, 4), 7. * np.pi / 3.1415, dtype=torch.float64))
    assert s[:, 1:].abs().max() < 1e-14


@pytest.mark.parametrize('J', [1, 2, 3])
def test_a_shift_by_the_stride_shifts_the_output(J):
    of_images = filters(J, 4, 32)(torch.empty(32, 32))
    x = torch.randn(1, *geometry.padded_size(32, 32, J), dtype=torch.float64)
    moved = torch.roll(x, 2 ** J, dims=2)                       # circular, on a signal that gets no padding
    s, t = (transform.reference(v, of_images, [J], 2, True)[0] for v in (x, moved))
    # Unpadding dropped a sample at either end.
    assert torch.allclose(t[..., 1:], s[..., :-1], atol=1e-14)


def test_half_precision_is_computed_in_float32():
    x = torch.randn(2, 3, 32, 32)
    filters = FixedBank(2, 8, (32, 32))(x)
    expected = transform.reference(x.bfloat16().float(), filters, [2], 2)[0]
    for dtype in (torch.bfloat16, torch.float16):
        s = transform.reference(x.to(dtype), filters, [2], 2)[0]
        assert s.dtype == dtype
    assert torch.equal(transform.reference(x.bfloat16(), filters, [2], 2)[0], expected.bfloat16())


@pytest.mark.parametrize('batch', [(0,), (0, 3), (2, 0)])
def test_an_empty_batch(batch):
    x = torch.zeros(*batch, 32, 32, requires_grad=True)
    s = transform.reference(x, FixedBank(2, 8, (32, 32))(x), [2], 2)[0]
    assert s.shape == (*batch, 81, 8, 8)
    s.sum().backward()


def test_nan_goes_through():
    x = torch.zeros(2, 32, 32)
    x[0, 3, 3] = float('nan')
    s = transform.reference(x, FixedBank(2, 8, (32, 32))(x), [2], 2)[0]
    assert s[0].isnan().all()
    assert not s[1].isnan().any()


@pytest.mark.filterwarnings('ignore:.*torch.jit')
def test_scripted_equals_eager():
    x = torch.randn(2, 32, 32)
    filters = FixedBank(2, 8, (32, 32))(x)
    scripted = torch.jit.script(transform.reference)
    assert torch.equal(scripted(x, filters, [2], 2)[0], transform.reference(x, filters, [2], 2)[0])


@pytest.mark.parametrize('sign', [-1., 1.])
def test_the_transform_of_graphs_is_a_fourier_transform(sign):
    z = torch.randn(3, 6, 8, dtype=torch.complex128)
    expected = torch.fft.fft2(z) if sign < 0 else torch.fft.ifft2(z, norm='forward')
    torch.testing.assert_close(torch.view_as_complex(transform._dft(torch.view_as_real(z), sign)), expected)
