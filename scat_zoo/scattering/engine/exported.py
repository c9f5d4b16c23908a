"""The transform as it stands in an exported or traced graph: real products with constant matrices, for one image size.

No FFT and no complex number, which other runtimes have slow or not at all. It is the arithmetic of `matrices`: images
are written in cosines and sines on both axes; for a pair of classes a filter is a small matrix between such functions,
which samples too; then come the values, their modulus, and the low-pass. The matrices are made when the graph is, with
the reflection of the image in the first ones; what has another size fits none of them.

Maps are last, (rows, columns, maps), so that next to nothing has to be moved between the products. Those that are
worked on at one level go through the same products: of the image, and of each earlier level in turn.
"""
import math
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import geometry, transform
from ..filters import Filters
from . import matrices, run, upstream
from .plan import Plan, shapes

# Samples on an axis up to which one product with all its functions is as fast as two short ones, and fewer nodes.
SHORT = 64
Product = List[Tensor]          # of an axis: matrices (batch..., after, before) to apply one after the other


class Fold(NamedTuple):
    """`weights` (planes, row groups, row functions, classes, R, functions) of the coefficients at `take` (row groups,
    1, classes, functions). Where one matrix is the basis of the rows, there are no groups, nor axes for them.
    """
    weights: Tensor
    take: Tensor


class LowPass(NamedTuple):
    """Low-pass, sampling and unpadding (h, w), in one of three ways.

    Of maps by products on both axes; of maps by one product with a matrix (h * w, M * N); or of coefficients, by a
    fold and then by products on both axes.
    """
    size: Tuple[int, int]
    rows: Product
    cols: Product
    whole: Product
    fold: List[Fold]


class Level(NamedTuple):
    """What happens at resolution 2^-j.

    size: (m, n) of its maps.
    folds: of the wavelets of scale j, at each level that they are read.
    rows, cols: from coefficients to samples, and back.
    lowpasses: of each scale above j.
    planes: adds up real and imaginary part, (1, 2).
    tiny: the smallest number, (1, 1), with which the derivative of the modulus at 0 is 0.
    """
    size: Tuple[int, int]
    folds: List[Fold]
    rows: Product
    cols: Product
    rows_back: Product
    cols_back: Product
    lowpasses: List[LowPass]
    planes: Tensor
    tiny: Tensor


class Constants(NamedTuple):
    """All matrices for images of one size.

    rows, cols: from an image (H, W) to its coefficients, by rows @ image @ cols.
    zeroth: the low-passes of images, of each scale.
    orders: which of the maps, as they are computed, is that of each path, of each scale.
    """
    plan: Plan
    rows: Tensor
    cols: Tensor
    zeroth: List[LowPass]
    levels: List[Level]
    orders: List[Tensor]


# ---- from the graph that is being made ----

def recording() -> bool:
    """Whether torch records a graph for others to run: an export, but not dynamo's of Python code, or a trace."""
    return torch.jit.is_tracing() or (torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling())


def known(bank: Any, x: Tensor, own: bool = False) -> Filters:
    """The filters that a bank gives for images; with their values, where a graph shall hold these as constants.

    It shall but for parameters in training mode.

    Args:
        own: those for images of the bank's own size.
    """
    def filters(images: Tensor) -> Filters:
        return bank.own() if own else bank(images)

    if not recording() or (bank.training and any(p.requires_grad for p in bank.parameters())):
        return filters(x)
    size = _size(x)
    names = [(store, name) for module in bank.modules() for store in (module._parameters, module._buffers)
             for name, tensor in store.items() if tensor is not None]
    before = [store[name] for store, name in names]
    values = [upstream.value(tensor) for tensor in before]
    if any(tensor is None for tensor in values):
        return filters(x)
    try:
        for (store, name), tensor in zip(names, values):
            store[name] = tensor
        with upstream.outside_graph():
            found = filters(torch.empty(0, *size))
            return Filters(*([[hat.detach() for hat in levels] for levels in hats] for hats in found))
    finally:
        for (store, name), tensor in zip(names, before):
            store[name] = tensor


def _size(x: Tensor) -> Tuple[int, int]:
    """(H, W) of images as numbers: the graph is for these alone, and `torch.export` says so who left them open."""
    height, width = upstream.sizes(x)[-2:]
    return int(height), int(width)


def serves(x: Tensor, filters: Sequence[Tensor]) -> bool:
    """Whether a graph is being recorded, for images of one size, in which these filters are constants."""
    if not recording() or any(type(hat) is not Tensor or hat.requires_grad for hat in filters):
        return False
    with upstream.outside_graph():
        return run.serves(filters[0], filters)


def record(x: Tensor, filters: Filters, plan: Plan, pre_pad: bool) -> List[Tensor]:
    """Coefficients of images (..., H, W), as `scattering2d` gives them."""
    size = _size(x)
    with upstream.outside_graph():
        transform.check(x, filters.phi[0][0], plan.J, pre_pad, plan.border)
        dtype = torch.promote_types(x.dtype, torch.float32)
        lead = list(x.shape[:-2])
        same = Filters(*([[hat.to(dtype) for hat in levels] for levels in hats] for hats in filters))
        found = constants(same, plan, size, pre_pad)
    results = scattering(of_this_size(x).to(dtype), found)
    return [_in_front(s, lead, shape).to(x.dtype) for s, shape in zip(results, shapes(plan))]


def of_this_size(x: Tensor) -> Tensor:
    """The same images, of which a trace refuses others than these, their number (the first axis) aside."""
    if torch.jit.is_tracing() and not torch.onnx.is_in_onnx_export():       # ONNX knows the sizes of its inputs
        shape = upstream.sizes(x)
        x = x.permute(list(range(len(shape))))
        for axis in range(1 if len(shape) > 2 else 0, len(shape)):
            x = x.unflatten(axis, [shape[axis]])
    return x


def _in_front(s: Tensor, lead: List[int], shape: Tuple[int, int, int]) -> Tensor:
    """(h, w, paths, B) to (lead..., paths, h, w), of which the first may be open."""
    paths, h, w = shape
    # Paths before the other axes of `lead`, as models want them. One axis at a time, which some runtimes move as blocks
    # of memory; else they go number by number.
    s = s.permute(3, 0, 1, 2).reshape([-1, math.prod([*lead[1:], h, w]), paths]).transpose(1, 2)
    return s.reshape([-1, paths, *lead[1:], h, w]).movedim(1, -3) if lead else s.reshape([paths, h, w])


# ---- constants ----

def constants(filters: Filters, plan: Plan, size: Tuple[int, int], padded: bool) -> Constants:
    """The matrices for images of that size.

    Args:
        padded: whether they are padded already.
    """
    finest = filters.phi[0][0]
    M, N = plan.M, plan.N
    whole = padded or plan.border == 0
    mirror = [torch.arange(n) if whole else matrices.reflected(side, n) for side, n in zip(size, (M, N))]
    mirrors = [F.one_hot(places, side).to(finest) for places, side in zip(mirror, size)]
    row, col = (matrices.ordered(n)[i].t().to(finest) @ m for i, (n, m) in enumerate(zip((M, N), mirrors)))
    planes, tiny = finest.new_ones(1, 2), finest.new_full((1, 1), torch.finfo(finest.dtype).tiny)
    levels = []
    for j in range(plan.J if plan.max_order > 0 else 0):
        m, n = M >> j, N >> j
        lowpasses = [_lowpass(phi[j], scale - j, plan.border << (plan.J - scale))
                     for scale, phi in zip(plan.scales, filters.phi) if scale > j]
        levels.append(Level((m, n), [_fold(hat, j - level) for level, hat in enumerate(filters.psi[j])],
                            _synthesis(m, 0, finest), _synthesis(n, 1, finest), _analysis(m, 0, finest),
                            _analysis(n, 1, finest), lowpasses, planes, tiny))
    # A product with all of an image at once does not refuse one of other sides: that needs the others beside it.
    few = matrices.FEW if plan.max_order > 0 else 0
    zeroth = [_unreflected(_lowpass(phi[0], scale, plan.border << (plan.J - scale), few), mirrors)
              for scale, phi in zip(plan.scales, filters.phi)]
    orders = [torch.tensor(_order(plan, scale), device=finest.device) for scale in plan.scales]
    return Constants(plan, row, col.t().contiguous(), zeroth, levels, orders)


def _order(plan: Plan, scale: int) -> List[int]:
    """The maps of a scale come by j, then by theta, then by source: the image, then the maps of each j1 < j."""
    places, L = {geometry.Path(0): 0}, plan.L
    for j in range(scale if plan.max_order > 0 else 0):
        second = [(j1, t1) for j1 in range(j) for t1 in range(L)] if plan.max_order > 1 else []
        for theta in range(L):
            places[geometry.Path(1, j, theta)] = len(places)
            for source in second:
                places[geometry.Path(2, *source, j, theta)] = len(places)
    return [places[path] for path in geometry.paths(scale, L, plan.max_order)]


def _single(n: int, short: int) -> bool:
    """Whether one product is as good as two short ones, of which there are none for some lengths."""
    return n <= short or matrices.radix(n) == n


def _whole_basis(n: int, axis: int, like: Tensor) -> Tensor:
    """(samples, coefficients); those on rows by function and class, whatever the group."""
    if axis:
        return matrices.ordered(n)[1].to(like).contiguous()
    classes = [c for group in matrices.groups(n) for c in group]
    return matrices.functions(n)[:, :, classes].flatten(1).to(like).contiguous()


def _synthesis(n: int, axis: int, like: Tensor) -> Product:
    """From coefficients on that axis, as a fold gives them, to n samples."""
    if _single(n, SHORT):
        return [_whole_basis(n, axis, like)]
    found = matrices.axis(n, like.dtype, like.device)
    assert found.samples is not None
    return [(found.cols if axis else found.rows).mT.contiguous(), found.samples.t().contiguous()]


def _analysis(n: int, axis: int, like: Tensor) -> Product:
    """From n samples to coefficients on that axis, in the order of `matrices`."""
    if _single(n, 4 * SHORT):                           # it has half the planes, and no maps of the last level
        return [matrices.ordered(n)[axis].t().to(like).contiguous()]
    return [matrix.mT.contiguous() for matrix in reversed(_synthesis(n, axis, like))]


def _fold(hat: Tensor, octaves: int) -> Fold:
    """Of wavelets (L, M, N)."""
    weights, take = matrices.large_weights(hat, octaves)
    return _placed(weights.unflatten(3, (2, 2, -1)), take, hat, octaves, _single(hat.shape[-2] >> octaves, SHORT))


def _placed(weights: Tensor, take: Optional[Tensor], hat: Tensor, octaves: int, merge: bool) -> Fold:
    """From weights (row groups, row functions, classes, column functions, planes, filters, functions).

    Args:
        merge: make one group of all.
    """
    G, _, C = weights.shape[:3]
    if take is None:
        take = matrices.gathering(hat.shape[-2], hat.shape[-1], octaves, hat.device).take
    weights, take = weights.movedim(4, 0).flatten(4, 5), take.reshape(G, 1, C, -1)
    if merge:
        weights, take = weights.transpose(1, 2).flatten(2, 3), take.flatten(0, 2)
    return Fold(weights.contiguous(), take.contiguous())


def _lowpass(hat: Tensor, octaves: int, margin: int, few: int = matrices.FEW) -> LowPass:
    (M, N), s = hat.shape, 1 << octaves
    h, w = (M >> octaves) - 2 * margin, (N >> octaves) - 2 * margin
    of_rows, of_cols = (matrices.distances(n, octaves, margin, torch.arange(n)) for n in (M, N))
    if matrices.separable(hat):
        rows, cols = (torch.fft.ifft(factor.double()).real.to(hat) for factor in (hat[:, 0], hat[0] / hat[0, 0]))
        return LowPass((h, w), [rows[of_rows]], [cols[of_cols]], [], [])
    if h * w <= few:
        kernel = torch.fft.ifft2(hat.double()).real.to(hat)
        whole = kernel[of_rows[:, None, :, None], of_cols[None, :, None, :]].reshape(h * w, M * N)
        return LowPass((h, w), [], [], [whole], [])
    rows, cols = (_whole_basis(n // s, axis, hat)[margin:n // s - margin] for axis, n in enumerate((M, N)))
    weights = matrices.fold_weights(hat.unsqueeze(0), octaves, 1).unflatten(3, (2, 1, 1))
    return LowPass((h, w), [rows], [cols], [], [_placed(weights, None, hat, octaves, True)])


def _unreflected(low: LowPass, mirrors: List[Tensor]) -> LowPass:
    """The same for images before their reflection, and to the right of them but `rows`, unless of coefficients."""
    rows, cols = mirrors
    if low.whole:
        return low._replace(whole=[(low.whole[0] @ torch.kron(rows, cols)).t().contiguous()])
    if low.fold:
        return low
    return low._replace(rows=[low.rows[0] @ rows], cols=[(low.cols[0] @ cols).t().contiguous()])


# ---- arithmetic ----

def scattering(x: Tensor, constants: Constants) -> List[Tensor]:
    """Images (..., H, W) to coefficients (h', w', paths, B) of each scale, B all of `...`."""
    plan = constants.plan
    # These products, of the image as it comes, are those that refuse another size.
    coefficients = torch.matmul(constants.rows, torch.matmul(x, constants.cols))
    known = [coefficients.reshape([-1, plan.M * plan.N]).t()]                   # by level of the maps
    # What is folded at all levels is sampled at once, and images with the first order's maps of their size.
    of_scales = [[low, *(level.lowpasses[i] for level in constants.levels[:plan.scales[i]])]
                 for i, low in enumerate(constants.zeroth)]
    together = [all(low.fold for low in lows) for lows in of_scales]
    later = [all_fold and len(constants.levels) > 1 and plan.max_order > 1 for all_fold in together]
    results = [[] if wait else [_low_of_images(x, known[0], low, all_fold)]
               for low, wait, all_fold in zip(constants.zeroth, later, together)]
    for j, level in enumerate(constants.levels):
        u = _moduli(_beside([_folded(c, fold) for c, fold in zip(known, level.folds)]), level)
        sources = 1 + j * plan.L if plan.max_order > 1 else 1
        goes_on = plan.max_order > 1 and j < plan.J - 1
        c = u
        if goes_on or any(low.fold for low in level.lowpasses):
            c = _coefficients(u, level.rows_back, level.cols_back, level.size)
        if goes_on:
            # The order of a map is 1 if its source is the image, the first one.
            first = c if j == 0 else c.reshape([math.prod(level.size), plan.L, sources, -1])[:, :, 0].flatten(1)
            known = [_beside([known[0], first])] if j == 0 else [*known, first]
        for result, low, wait, all_fold in zip(results, level.lowpasses, later, together):
            result.append(_low(u, known[0] if wait and j == 0 else c, low, all_fold))
    found = []
    for parts, low, all_fold, order, (paths, h, w) in zip(
            results, constants.zeroth, together, constants.orders, shapes(plan)):
        y = _sampled(_beside(parts), low) if all_fold else torch.cat(parts, dim=2)
        found.append(y.reshape([h, w, paths, -1]).index_select(2, order))
    return found


def _beside(parts: List[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def _along(y: Tensor, product: Product, lead: List[int]) -> Tensor:
    """(lead..., before, rest) to (lead..., after, rest), of which some axes may be one or more."""
    for matrix in product:
        y = torch.matmul(matrix, y.reshape([*lead, *matrix.shape[:-2], matrix.shape[-1], -1]))
    return y


def _coefficients(maps: Tensor, rows: Product, cols: Product, size: Sequence[int]) -> Tensor:
    """Maps (m, n, B) to coefficients (m * n, B)."""
    return _along(_along(maps, cols, [size[0]]), rows, []).reshape([size[0] * size[1], -1])


def _folded(coefficients: Tensor, fold: Fold) -> Tensor:
    """Coefficients (M * N, B) to those of filtered and sampled maps (planes, row functions and classes, R, B)."""
    # An embedding is one node; indexing by a matrix would be several.
    return torch.matmul(fold.weights, F.embedding(fold.take, coefficients))


def _moduli(coefficients: Tensor, level: Level) -> Tensor:
    """Of the complex maps with these coefficients, all in a row."""
    y = _along(_along(coefficients, level.rows, [2]), level.cols, [2, level.size[0]])
    # Not a norm over the planes: a sum along an axis takes some runtimes several times as long as this product.
    squares = (y * y).reshape([2, -1])
    if torch.onnx.is_in_onnx_export():
        return torch.sqrt(torch.matmul(level.planes, squares))
    return torch.sqrt(torch.addmm(level.tiny, level.planes, squares))


def _low_of_images(x: Tensor, coefficients: Tensor, low: LowPass, only_fold: bool) -> Tensor:
    """Images (..., H, W) with these coefficients, as `_low` of maps."""
    if low.fold:
        return _low(x, coefficients, low, only_fold)
    if low.whole:
        y = torch.matmul(x.flatten(-2), low.whole[0])
    else:
        y = torch.matmul(low.rows[0], torch.matmul(x, low.cols[0]))
    return y.reshape([-1, math.prod(low.size)]).t().reshape([*low.size, -1])


def _low(maps: Tensor, coefficients: Tensor, low: LowPass, only_fold: bool) -> Tensor:
    """Maps (m, n, B), in whatever axes, with these coefficients to (h, w, B), or to what `_sampled` takes."""
    h, w = low.size
    if low.whole:
        return _along(maps, low.whole, []).reshape([h, w, -1])
    if low.fold:
        maps = _folded(coefficients, low.fold[0])
        if only_fold:
            return maps
    return _sampled(maps, low)


def _sampled(maps: Tensor, low: LowPass) -> Tensor:
    """Maps (m, n, B), or what a low-pass has folded, to (h, w, B)."""
    return _along(_along(maps, low.rows, []), low.cols, [low.size[0]])
