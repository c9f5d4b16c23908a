"""The matrices of the fast transform: each equals what it stands for."""
import pytest
import torch

from scat_zoo.scattering import transform
from scat_zoo.scattering.engine import matrices, program, steps

SIZES = [2, 6, 20, 40, 48, 60, 120, 254]
CPU = torch.device('cpu')


@pytest.mark.parametrize(('n', 'r'), [(16, 16), (24, 24), (40, 8), (232, 8), (256, 16), (254, 254), (15, 15)])
def test_long_axes_take_two_products(n, r):
    assert matrices.radix(n) == r


@pytest.mark.parametrize('n', [*SIZES, 3, 7])
def test_functions_are_orthonormal(n):
    basis = matrices.functions(n).flatten(1)
    gram = basis.t() @ basis
    if n % 2 == 1:                                                  # its last function is zero
        assert gram[(n + 1) // 2].eq(0).all()
        gram = gram[gram.diagonal() > 0.5][:, gram.diagonal() > 0.5]
    assert torch.allclose(gram, torch.eye(n, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize('n', SIZES)
def test_groups_hold_every_class_once(n):
    assert sorted(c for group in matrices.groups(n) for c in group) == list(range(n // 2))


def run(record, *tensors):
    p = program.Program(tensors[0], [])
    result = record(p, *tensors)
    p.run()
    return result


@pytest.mark.parametrize('n', SIZES)
def test_one_axis_in_steps_is_the_whole_basis(n):
    """Columns and rows, forwards and back."""
    u = torch.randn(2, n, 3, dtype=torch.float64)
    rows, cols = matrices.ordered(n)
    out, back = torch.empty_like(u), torch.empty_like(u)
    run(lambda p, u: steps.analyse_cols(p, u, out), u)
    assert torch.allclose(out, torch.einsum('ync,nk->ykc', u, cols), atol=1e-12)
    run(lambda p, d: steps.synthesise_cols(p, d, back), out)
    assert torch.allclose(back, u, atol=1e-12)

    u = u.transpose(0, 1).contiguous()                              # (n, 2, 3)
    axis = matrices.axis(n, torch.float64, CPU)

    def analyse(p, u):
        half = p.take(n, 2, 3) if axis.samples is not None else u
        for band, part in enumerate(u[matrices.banded(n)].view(axis.m, axis.r, 2, 3)):
            steps.analyse_band(p, axis, part, half, band)
        return steps.analyse_groups(p, axis, half)

    def synthesise(p, d):
        half = steps.synthesise_groups(p, axis, d)
        return [steps.synthesise_band(p, axis, half, band) for band in range(axis.m)]

    d = run(analyse, u)
    assert torch.allclose(d, torch.einsum('nyc,nk->kyc', u, rows), atol=1e-12)
    assert torch.allclose(torch.cat(run(synthesise, d)), u[matrices.banded(n)], atol=1e-12)


@pytest.mark.parametrize(('size', 'octaves'), [
    ((8, 12), 0), ((8, 12), 1), ((16, 24), 2), ((120, 60), 1), ((6, 10), 1), ((24, 56), 3)])
def test_fold_weights_filter_and_sample(size, octaves):
    """Against a product of spectra and samples in space; 6 and 10 fold to odd sizes."""
    M, N = size
    x, hat = torch.randn(M, N, 3, dtype=torch.float64), torch.randn(2, M, N, dtype=torch.float64)
    spectrum = torch.fft.fft2(x.permute(2, 0, 1))[None] * hat[:, None]
    expected = torch.fft.ifft2(spectrum)[..., ::2 ** octaves, ::2 ** octaves]
    rows, cols = matrices.ordered(M)[0], matrices.ordered(N)[1]
    c = run(lambda p, d: steps.gather(p, d, octaves), torch.einsum('yxr,yk,xl->klr', x, rows, cols).contiguous())
    weights = matrices.fold_weights(hat, octaves)
    d = torch.einsum('gqcom,gcmr->gqcor', weights, c.unflatten(0, (len(weights), -1)))
    rows, cols = matrices.ordered(M >> octaves)[0], matrices.ordered(N >> octaves)[1]
    d = d.reshape(rows.shape[1], cols.shape[1], 2, 2, 3)
    z = torch.einsum('klpfr,yk,xl->pfryx', d, rows, cols)
    assert torch.allclose(torch.complex(*z), expected, atol=1e-12)


@pytest.mark.parametrize('planes', [1, 2])
@pytest.mark.parametrize('octaves', [0, 1, 2])
def test_fold_weights_backward_is_the_transpose(octaves, planes):
    hat = torch.randn(3, 24, 40, dtype=torch.float64)
    weights = matrices.fold_weights(hat, octaves, planes)
    grad = torch.randn_like(weights)
    transposed = matrices.fold_weights_backward(grad, hat, octaves, planes)
    assert torch.allclose((weights * grad).sum(), (hat * transposed).sum(), rtol=1e-10)


@pytest.mark.parametrize(('size', 'n'), [(32, 40), (28, 36), (33, 64), (8, 24), (2, 4), (9, 16)])
def test_reflected_is_the_plain_padding(size, n):
    x = torch.rand(1, size, size)
    y = matrices.reflected(size, n)
    assert torch.equal(x[:, y][:, :, y], transform.pad(x, n, n))


@pytest.mark.parametrize('octaves', [0, 1, 2])
def test_scatter_undoes_gather(octaves):
    x = torch.randn(24, 40, 3, dtype=torch.float64)
    back = torch.empty_like(x)
    run(lambda p, x: steps.scatter(p, steps.gather(p, x, octaves), octaves, back, add=False), x)
    assert torch.equal(back, x)
