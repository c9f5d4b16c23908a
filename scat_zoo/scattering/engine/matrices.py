"""Matrices of the transform in real products: of an axis, of a filter, of a low-pass. Numbers only, no calls.

Everywhere, `rows` and `cols` are what belongs to the axis of rows and to that of columns, k is a frequency, s a step of
sampling.

**Axis.** A signal of n samples is written in the orthonormal functions cos(2 pi k (y + 1/2) / n) and
sin(2 pi k (y + 1/2) / n); the pair of class c is cosine and sine of k = c, but in class 0 the sine of k = n/2. Short
axes take one product. Longer ones, n = r m, take two: one of r samples at distance m, whose classes form r/2 groups,
and one for each group, between its 2m results and the 2m functions that equal them on every m-th sample.

**Fold.** Sampling every s-th pixel mixes frequencies that are equal modulo n' = n / s. Together with signs, which real
functions don't tell apart, that leaves n'/2 classes on an axis, of 2s functions before and 2 after. For a pair of
classes, on rows and columns, a filter is a real matrix from (2s)^2 functions to four, and four more for the imaginary
part. These matrices are linear in the filter (`fold_weights`).

**Order.** Coefficients on rows stand by group, function and class; on columns by group, class and function. Samples on
rows stand every m-th from 0 on, then from 1 on, and so on (`banded`); on columns in their own order.
"""
import functools
import math
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

# Results of a low-pass for which one product with a matrix of their size by the image's costs less than two changes of
# basis, gathers and a fold.
FEW = 64
T = TypeVar('T')


CACHED: 'List[functools._lru_cache_wrapper[Any]]' = []      # all functions that are


def cached(function: Callable[..., T]) -> 'functools._lru_cache_wrapper[T]':
    """Keep the latest results, made outside of inference mode, whose tensors no gradient could pass."""
    found = functools.lru_cache(maxsize=128)(torch.inference_mode(False)(function))
    CACHED.append(found)
    return found


def functions(n: int) -> Tensor:
    """The orthonormal basis (n samples, cosine and sine, classes), float64; an odd n has zeros for class 0's sine."""
    classes = (n + 1) // 2
    k = torch.arange(classes, dtype=torch.float64)
    phase = 2 * math.pi / n * (torch.arange(n, dtype=torch.float64) + 0.5).unsqueeze(1)
    sine = torch.where(k == 0, n / 2 if n % 2 == 0 else 0., k)
    values = torch.stack([torch.cos(phase * k), torch.sin(phase * sine)], dim=1)
    norm = values.square().sum(0).sqrt()
    return values / torch.where(norm > 1e-9, norm, torch.inf)


def radix(n: int) -> int:
    """The r of the two products for n = r m; n itself for a single one.

    By the multiplications of both, a second pass over memory being worth about 12.
    """
    pairs = [(r + 2 * (n // r) + 12, r) for r in range(2, n, 2) if n % r == 0]
    return min([(n, n), *pairs])[1]


def groups(n: int) -> List[List[int]]:
    """The classes of each group, in the order of the coefficients."""
    r, classes = radix(n), (n + 1) // 2
    if r == n:
        return [list(range(classes))]
    return [[c for c in range(classes) if min(c % r, -c % r) in ((0, r // 2) if g == 0 else (g,))]
            for g in range(r // 2)]


class Axis(NamedTuple):
    """Matrices of one axis, and its numbers n = r m.

    `samples` (r, r): from every m-th sample to (group, function); None if r = n. For each group, `rows` (groups, 2m,
    2m) from (function of r, sample) to (function, class), and `cols` to (class, function).
    """
    samples: Optional[Tensor]
    rows: Tensor
    cols: Tensor
    r: int
    m: int


@cached
def axis(n: int, dtype: torch.dtype, device: torch.device) -> Axis:
    r, basis = radix(n), functions(n)
    by_group = torch.stack([basis[:, :, mine] for mine in groups(n)])               # (groups, n, 2, classes)
    samples = None
    if r < n:
        samples = functions(r).transpose(1, 2).reshape(r, r)                        # (r, (group, function))
        by_group = torch.einsum('ago,gabfc->gobfc', samples.view(r, r // 2, 2), by_group.unflatten(1, (r, n // r)))
        samples = samples.t().to(device, dtype).contiguous()
    by_group = by_group.reshape(len(by_group), -1, 2, by_group.shape[-1])
    rows, cols = by_group.flatten(2), by_group.transpose(2, 3).flatten(2)
    rows, cols = (matrix.transpose(1, 2).to(device, dtype).contiguous() for matrix in (rows, cols))
    return Axis(samples, rows, cols, r, n // r)


@cached
def repeated_cols(n: int, times: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The matrices for columns, for each of as many rows: a batched product can't step through two axes of a batch."""
    cols = axis(n, dtype, device).cols
    if len(cols) == 1:
        return cols.expand(times, -1, -1)
    return cols.repeat(times, 1, 1)


def banded(n: int) -> Tensor:
    """The samples of rows in the order in which they are worked on: every m-th, from 0 on, from 1 on, ..."""
    r = radix(n)
    return torch.arange(n).view(r, n // r).t().flatten()


def reflected(size: int, n: int) -> Tensor:
    """Which of `size` samples stands at each place of their reflection to n, as `transform.pad` does it."""
    period = 2 * (size - 1)
    y = (torch.arange(n) - (n - size) // 2).abs() % period
    return torch.minimum(y, period - y)


@cached
def reflection(size: Tuple[int, int], padded: Tuple[int, int], device: torch.device) -> Tuple[Tensor, Tensor]:
    """`reflected` on rows, in the order of `banded`, and on columns."""
    return (reflected(size[0], padded[0])[banded(padded[0])].to(device), reflected(size[1], padded[1]).to(device))


def ordered(n: int) -> Tuple[Tensor, Tensor]:
    """The basis (n samples, coefficients) in the order of the coefficients on rows and on columns, float64."""
    parts = [functions(n)[:, :, mine] for mine in groups(n)]
    return (torch.cat([part.flatten(1) for part in parts], dim=1),
            torch.cat([part.transpose(1, 2).flatten(1) for part in parts], dim=1))


class Classes(NamedTuple):
    """What folding n frequencies to n' does on one axis: C classes, each of 2s functions.

    `rows` and `cols` (C, 2s): the functions, as places among the coefficients. `k` (C, 2s): their frequencies, as bins
    of an FFT. `weights` (C, 2, 2s), complex: the step from a function before (last) to one after (second), where a
    filter is 1 at k and 0 elsewhere; halved for k = 0 and n / 2, which are their own negatives. Class 0 of an odd n'
    has fewer functions; zeros fill it.
    """
    rows: Tensor
    cols: Tensor
    k: Tensor
    weights: Tensor


@cached
def classes(n: int, octaves: int) -> Classes:
    s, coarse = 1 << octaves, n >> octaves
    row: Dict[Tuple[int, int], int] = {}                    # place of (function, class)
    col: Dict[Tuple[int, int], int] = {}
    for mine in groups(n):
        start = len(row)
        for i, c in enumerate(mine):
            for f in (0, 1):
                row[f, c], col[f, c] = start + f * len(mine) + i, start + 2 * i + f
    before = torch.fft.fft(functions(n), dim=0)             # (frequencies, 2, classes)
    after = torch.fft.fft(functions(coarse), dim=0)
    result = []
    for c in (c for group in groups(coarse) for c in group):
        bins = [(k + m * coarse) % n for m in range(s) for k in ((0, coarse // 2) if c == 0 else (c, -c))]
        if c == 0 and coarse % 2 == 1:
            bins = bins[::2]
        members = [(0, k) for k in bins if k < n / 2] + [(1, k % (n // 2)) for k in bins if 0 < k <= n / 2]
        sine, at = (torch.tensor(part) for part in zip(*members))
        k = torch.where((sine == 1) & (at == 0), n // 2, at)
        weights = after[k % coarse, :, c].conj_physical().t() * before[k, sine, at] / n
        weights = weights * torch.where((k == 0) | (2 * k == n), 0.5, 1.)
        missing = 2 * s - len(members)
        result.append([F.pad(torch.tensor([place[key] for key in members]), (0, missing)) for place in (row, col)]
                      + [F.pad(k, (0, missing)), F.pad(weights, (0, missing))])
    return Classes(*(torch.stack(column) for column in zip(*result)))


class Folding(NamedTuple):
    """From filters (M, N) to their weights. `places` (4, classes * functions): the frequencies (ky, kx), (-ky, -kx),
    (ky, -kx) and (-ky, kx) of a pair of functions. `real` and `imag`, two each: the share in the weights of the sum, or
    the difference, of the first two values, and of the last two; (row groups, 2, classes of the group, 2, functions).
    """
    places: Tensor
    real: Tensor
    imag: Tensor


@cached
def folding(M: int, N: int, octaves: int, dtype: torch.dtype, device: torch.device) -> Folding:
    rows, cols = classes(M, octaves), classes(N, octaves)
    y, x = rows.k[:, None, :, None], cols.k[None, :, None, :]
    places = torch.stack([(sy * y % M * N + sx * x % N).flatten() for sy, sx in ((1, 1), (-1, -1), (1, -1), (-1, 1))])
    # Not the lazy `conj`: under a custom operator, nothing would ever resolve it.
    shares = torch.stack([torch.einsum('aqj,bpi->qabpji', rows.weights, weights)
                          for weights in (cols.weights, cols.weights.conj_physical())])
    shares = shares.unflatten(2, (len(groups(M >> octaves)), -1)).movedim(2, 1).flatten(3, 4).flatten(-2)
    return Folding(places.to(device), shares.real.to(device, dtype).contiguous(),
                   shares.imag.to(device, dtype).contiguous())


def _signs(plane: int) -> int:
    """Sum of the values at k and -k for the real part of what a filter gives, difference for the imaginary part."""
    return 1 - 2 * plane


def fold_weights(hat: Tensor, octaves: int, planes: int = 2, once: bool = False) -> Tensor:
    """What filters do to coefficients before sampling every 2^octaves pixels; linear in the filters.

    Args:
        hat: real filters in Fourier, (L, M, N).
        planes: 2 for the real and the imaginary part, 1 for the real part.
        once: whether not to keep the table, which is as large as three filters, since the weights will be kept.

    Returns:
        (row groups, row functions 2, classes of the group, column functions 2 * planes * L, functions 4^(octaves + 1)).
    """
    make = folding.__wrapped__ if once else folding
    table = make(hat.shape[1], hat.shape[2], octaves, hat.dtype, hat.device)
    _, G, Q, C, P, m = table.real.shape
    weights = hat.new_empty(G, Q, C, P, planes, len(hat), m)
    values = hat.flatten(1).index_select(1, table.places.flatten()).view(len(hat), 2, 2, G, 1, C, 1, m)
    for plane, shares in zip(range(planes), (table.real, table.imag)):
        part = (values[:, :, 0] + _signs(plane) * values[:, :, 1]).movedim(0, -2)           # (2, G, 1, C, 1, L, m)
        torch.mul(shares[0].unsqueeze(-2), part[0], out=weights[:, :, :, :, plane])
        weights[:, :, :, :, plane].addcmul_(shares[1].unsqueeze(-2), part[1])
    return weights.view(G, Q, C, P * planes * len(hat), m)


def fold_weights_backward(grad: Tensor, hat: Tensor, octaves: int, planes: int = 2) -> Tensor:
    """Gradient to filters (L, M, N), or to one (M, N), from that to their weights."""
    M, N = hat.shape[-2:]
    table = folding(M, N, octaves, hat.dtype, hat.device)
    _, G, Q, C, P, m = table.real.shape
    grad = grad.view(G, Q, C, P, planes, -1, m)
    values = hat.new_zeros(2, 2, G, C, grad.shape[-2], m)
    for plane, shares in zip(range(planes), (table.real, table.imag)):
        for share, value in zip(shares, values):
            part = torch.zeros_like(value[0])
            for q in range(Q):
                for p in range(P):
                    part.addcmul_(share[:, q, :, p].unsqueeze(-2), grad[:, q, :, p, plane])
            value[0] += part
            value[1].add_(part, alpha=_signs(plane))
    result = hat.new_zeros(values.shape[-2], M * N)
    result.index_add_(1, table.places.flatten(), values.movedim(-2, 0).flatten(1))
    return result.view(hat.shape)


class Gather(NamedTuple):
    """`take` orders coefficients (M * N, R) by classes; `back` undoes it."""
    take: Tensor
    back: Tensor


@cached
def gathering(M: int, N: int, octaves: int, device: torch.device) -> Gather:
    rows, cols = classes(M, octaves), classes(N, octaves)
    take = (rows.rows[:, None, :, None] * N + cols.cols[None, :, None, :]).flatten()
    # Not those that fill class 0 of an odd n'.
    true_rows, true_cols = (axis.weights.abs().amax(1) > 0 for axis in (rows, cols))
    true = (true_rows[:, None, :, None] & true_cols[None, :, None, :]).flatten()
    back = torch.empty(M * N, dtype=torch.long)
    back[take[true]] = torch.arange(len(take))[true]
    return Gather(take.to(device), back.to(device))


class Weights(NamedTuple):
    """`weights`, as of `fold_weights`, of the functions that stand at `take` (classes, functions); None for all."""
    weights: Tensor
    take: Optional[Tensor]


def all_weights(hat: Tensor, octaves: int) -> Weights:
    """Those of filters (L, M, N) that may change."""
    return Weights(fold_weights(hat, octaves), None)


def fixed_weights(hat: Tensor, octaves: int) -> Weights:
    """The same for filters that stay."""
    return Weights(fold_weights(hat, octaves, once=True), None)


def large_weights(hat: Tensor, octaves: int) -> Weights:
    """Without functions to which every filter gives less than a rounding error of the largest weight.

    The wavelets of a coarse scale are small on most of the plane: of 256 functions in a class for an analytic bank's
    fourth scale, 36 are left. The same number is for all classes, the small ones filling up some.
    """
    weights = fold_weights(hat, octaves, once=True)
    G, Q, C, R, m = weights.shape
    sizes = weights.abs().amax((1, 3)).flatten(0, 1)                                    # (classes, functions)
    small = sizes <= sizes.max() * torch.finfo(hat.dtype).eps / 16                       # not for NaN
    count = max(1, int((~small).sum(1).max()))
    if count > 7 * m // 8:
        return Weights(weights, None)
    order = sizes.argsort(dim=1, descending=True)[:, :count].sort(dim=1).values
    place = order.view(G, 1, C, 1, count).expand(G, Q, C, R, count)
    take = gathering(hat.shape[1], hat.shape[2], octaves, hat.device).take
    return Weights(weights.gather(-1, place), take.view(-1, m).gather(1, order))


class LowPass(NamedTuple):
    """Low-pass, sampling and unpadding, in one of three ways.

    Of images, by `rows` (h, M) and `cols` (w, N) if the filter is separable, `weights` being None. Of images, by
    `weights` (h, w, M * N), the others being None, if there are few results. Else of coefficients, by the fold
    `weights`, then by rows and cols of the classes after it.
    """
    rows: Optional[Tensor]
    cols: Optional[Tensor]
    weights: Optional[Tensor]

    @property
    def whole(self) -> bool:
        return self.rows is None

    @property
    def by_class(self) -> bool:
        return self.rows is not None and self.weights is not None


def separable(hat: Tensor) -> bool:
    """Whether a filter (M, N) is an outer product of symmetric ones, to float precision."""
    rows, cols = hat[:, 0], hat[0] / hat[0, 0]
    eps = 4 * torch.finfo(hat.dtype).eps
    return bool(((torch.outer(rows, cols) - hat).abs().max() <= eps * rows.abs().max())
                & ((rows[1:] - rows[1:].flip(0)).abs().max() <= eps * rows.abs().max())
                & ((cols[1:] - cols[1:].flip(0)).abs().max() <= eps))


def distances(n: int, octaves: int, margin: int, order: Tensor) -> Tensor:
    """From samples in that order to the results, without the margins, modulo n: (results, n)."""
    s = 1 << octaves
    return (torch.arange(margin * s, n - margin * s, s)[:, None] - order) % n


def separable_lowpass(hat: Tensor, octaves: int, margin: int = 1) -> LowPass:
    """For a separable filter (M, N); `margin` is the number of results on each side that are padding."""
    def matrix(factor: Tensor, order: Tensor) -> Tensor:
        kernel = torch.fft.ifft(factor.double()).real
        return kernel[distances(len(factor), octaves, margin, order).to(hat.device)].to(hat.dtype)

    M, N = hat.shape
    return LowPass(matrix(hat[:, 0], banded(M)), matrix(hat[0] / hat[0, 0], torch.arange(N)), None)


@cached
def unpadded(M: int, N: int, margin: int, dtype: torch.dtype, device: torch.device) -> Tuple[Tensor, Tensor]:
    """`ordered` without the first and last samples, on rows of M and columns of N."""
    rows, cols = ordered(M)[0][margin:M - margin], ordered(N)[1][margin:N - margin]
    return rows.to(device, dtype), cols.to(device, dtype)


@cached
def whole_places(M: int, N: int, octaves: int, margin: int, device: torch.device) -> Tensor:
    """Which value of a kernel (M * N) is the weight of a sample in a result: (h, w, M * N)."""
    rows, cols = distances(M, octaves, margin, banded(M)), distances(N, octaves, margin, torch.arange(N))
    return (rows[:, None, :, None] * N + cols[None, :, None, :]).flatten(2).to(device)


def general_lowpass(hat: Tensor, octaves: int, margin: int = 1) -> LowPass:
    """For any filter (M, N); `margin` as for `separable_lowpass`."""
    M, N = hat.shape[0] >> octaves, hat.shape[1] >> octaves
    if (M - 2 * margin) * (N - 2 * margin) <= FEW:
        kernel = torch.fft.ifft2(hat.double()).real.flatten()
        return LowPass(None, None, kernel[whole_places(*hat.shape, octaves, margin, hat.device)].to(hat.dtype))
    rows, cols = unpadded(M, N, margin, hat.dtype, hat.device)
    return LowPass(rows, cols, fold_weights(hat.unsqueeze(0), octaves, 1))


def general_lowpass_backward(grad: Tensor, hat: Tensor, octaves: int, margin: int = 1) -> Tensor:
    """Gradient to a filter (M, N) from that to its weights."""
    if grad.ndim > 3:
        return fold_weights_backward(grad, hat, octaves, 1)
    kernel = grad.new_zeros(hat.numel(), dtype=torch.float64)
    kernel.index_add_(0, whole_places(*hat.shape, octaves, margin, hat.device).flatten(), grad.double().flatten())
    return (torch.fft.fft2(kernel.view(hat.shape)).real / hat.numel()).to(hat.dtype)
