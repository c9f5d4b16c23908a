"""The transform of a few images as a program of the steps in `products`, and of its gradients. A chunk of maps goes
through these:

1. analysis of the images to coefficients, in two steps on each axis (`analyse_cols`, `_band`, `_groups`);
2. for each scale, `gather` of the coefficients by class, and `wavelets`: the fold, and half of the synthesis on rows;
3. `layer`, the rest of the synthesis to real and imaginary parts, modulus, and on the modulus, the low-pass on columns
   and the analysis for order 2, band after band of rows, so that nothing of it leaves the processor's cache;
4. for order 2, steps 2 and 3 again.

Backward recomputes the chunk and takes the same steps transposed.
"""
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

from torch import Tensor

from . import products
from .matrices import LowPass, Weights, axis, reflection
from .program import Program

# Numbers of a chunk, and maps that are enough.
CHUNK, MAPS = 1 << 19, 24
# Columns from which on products run well, and for which they run best.
LEAST, MOST = 16, 48


class Constants(NamedTuple):
    """What the products need of the filters, by scale and level: low-passes, and weights of the wavelets."""
    phi: List[List[LowPass]]
    psi: List[List[Weights]]


class Gradients(NamedTuple):
    """Those to the weights in `Constants`, None where not needed."""
    phi: List[List[Optional[Tensor]]]
    psi: List[List[Optional[Tensor]]]


class Plan(NamedTuple):
    """Size of the padded image, log-2 of the scale, orientations, order; further scales to low-pass at, descending."""
    M: int
    N: int
    J: int
    L: int
    max_order: int
    finer: Tuple[int, ...] = ()

    @property
    def scales(self) -> Tuple[int, ...]:
        return (self.J, *self.finer)

    def margin(self, scale: int) -> int:
        """Coefficients of that scale on each side that are padding: those of a cell of the coarsest grid."""
        return 1 << (self.J - scale)


def at_level(level: int, g: Plan, by_scale: Sequence[Sequence[Any]]) -> List[Any]:
    """What belongs to the low-passes at a level, one for each scale that is above it."""
    return [levels[level] for scale, levels in zip(g.scales, by_scale) if scale > level]


def maps_at_a_time(g: Plan) -> int:
    """Size of a chunk on a CPU."""
    return min(MAPS, max(4, CHUNK // (2 * g.M * g.N)))


def image(p: Program, x: Tensor, g: Plan) -> Tuple[Tensor, Tensor]:
    """Images (h, w, B), reflected to (M, N, B), and the coefficients of that."""
    h, w, B = x.shape
    rows = axis(g.M, x.dtype, x.device)
    y, z = reflection((h, w), (g.M, g.N), x.device)
    u, analysed = p.take(g.M, g.N, B), p.take(g.M, g.N, B)
    p.call('select', u.view(-1, B), x.view(-1, B), (y[:, None] * w + z).flatten())
    mark, a = p.top, analysed if rows.samples is None else p.take(g.M, g.N, B)
    products.analyse_cols(p, u, a)
    for band in range(rows.m):
        products.analyse_band(p, rows, a.view(rows.m, rows.r, g.N, B)[band], analysed, band)
    p.top = mark
    return u, products.analyse_groups(p, rows, analysed)


def image_backward(p: Program, coefficients: Tensor, u: Optional[Tensor], out: Tensor) -> None:
    """Gradient to the images, into out (h, w, B), from those to what `image` gives."""
    M, N, B = coefficients.shape
    h, w, _ = out.shape
    rows, grad = axis(M, out.dtype, out.device), p.take(M, N, B)
    analysed, mark = products.synthesise_groups(p, rows, coefficients), p.top
    for band, into in enumerate(grad.view(rows.m, rows.r, N, B)):
        products.synthesise_cols(p, products.synthesise_band(p, rows, analysed, band), into)
        p.top = mark
    if u is not None:
        p.call('add', grad, u)
    half, (y, z) = p.take(h, N, B), reflection((h, w), (M, N), out.device)
    p.call('zero', half)
    p.call('add_at', half, grad, y)
    p.call('zero', out)
    p.call('add_at', out.transpose(0, 1), half.transpose(0, 1), z)


class Part(NamedTuple):
    """Second wavelets on some of the first: their columns, and their places in the outputs, (h, w, L of t2, t1, B)."""
    columns: slice
    places: List[Tensor]


def parts_of(g: Plan, j1: int, j2: int, B: int, outs: List[Tensor]) -> List[Part]:
    """The second wavelets of scale j2 on the first of j1, in parts of about the best number of columns."""
    mine = [second_order(scale, g.L, j1, j2, out) for scale, out in zip(g.scales, outs) if scale > j2]
    # Reading the weights of a filter costs as much as products with as many columns as there are functions in a class.
    columns = max(LEAST, 4 << 2 * (j2 - j1), min(MOST, CHUNK // (g.M * g.N * 2 * g.L >> 2 * j2)))
    size = min(g.L, -(-columns // B))
    return [Part(slice(t * B, min(t + size, g.L) * B), [out[:, :, t:t + size].transpose(2, 3) for out in mine])
            for t in range(0, g.L, size)]


def first_order(g: Plan, j1: int, outs: List[Tensor]) -> List[Tensor]:
    """Places in the outputs (h, w, paths, B) of the first wavelets of scale j1."""
    return [out[:, :, 1 + j1 * g.L:1 + (j1 + 1) * g.L] for scale, out in zip(g.scales, outs) if scale > j1]


def second_order(J: int, L: int, j1: int, j2: int, out: Tensor) -> Tensor:
    """Place (h, w, L of t1, L of t2, B) in the output of scale J of the second wavelets of j2 on the first of j1."""
    scales = J - 1 - j1
    start = 1 + J * L + sum(J - 1 - j for j in range(j1)) * L ** 2
    return out[:, :, start:start + scales * L ** 2].unflatten(2, (L, scales, L))[:, :, :, j2 - j1 - 1]


def lowpass_layer(p: Program, half: Tensor, lows: List[LowPass], level: int, g: Plan,
                  read: bool) -> Tuple[List[Tensor], Optional[Tensor]]:
    """Moduli of what `wavelets` gives: low-passed, (h, w, R) each, and their coefficients if they are read."""
    direct, by_class = [low for low in lows if not low.by_class], any(low.by_class for low in lows)
    lowered, coefficients = products.layer(p, half, direct, read or by_class)
    rest = iter(lowered)
    return [products.lowpass_by_class(p, low, coefficients, scale - level) if low.by_class else next(rest)
            for scale, low in zip(g.scales, lows)], coefficients


def record_forward(p: Program, x: Tensor, k: Constants, g: Plan, outs: List[Tensor]) -> None:
    """From images in x (h, w, B) to coefficients in outs, (h', w', paths, B) for each scale."""
    B, (u, X) = x.shape[-1], image(p, x, g)
    for scale, low, out in zip(g.scales, at_level(0, g, k.phi), outs):
        mark = p.top
        if low.whole:
            s = p.take(*low.weights.shape[:2], B)
            products.lowpass_whole(p, low.weights, u.view(-1, B), s)
        elif low.by_class:
            s = products.lowpass_by_class(p, low, X, scale)
        else:
            s = products.lowpass_rows(p, low, products.lowpass_cols(p, low, u))
        p.call('copy', out[:, :, 0], s)
        p.top = mark
    for j1 in range(g.J if g.max_order > 0 else 0):
        outer, read = p.top, g.max_order > 1 and j1 < g.J - 1
        weights = k.psi[j1][0]
        half = products.wavelets(p, weights.values, products.gather(p, X, j1, weights.take), g.M >> j1, g.N >> j1)
        lowered, Y = lowpass_layer(p, half, at_level(j1, g, k.phi), j1, g, read)
        for s, place in zip(lowered, first_order(g, j1, outs)):
            p.call('copy', place, s.unflatten(2, (g.L, B)))
        for j2 in range(j1 + 1, g.J if read else 0):
            inner, weights = p.top, k.psi[j2][j1]
            c = products.gather(p, Y, j2 - j1, weights.take)
            for columns, places in parts_of(g, j1, j2, B, outs):
                mark = p.top
                half = products.wavelets(p, weights.values, c[:, :, columns], g.M >> j2, g.N >> j2)
                lowered, _ = lowpass_layer(p, half, at_level(j2, g, k.phi), j2, g, False)
                for s, place in zip(lowered, places):
                    p.call('copy', place, s.view(*s.shape[:2], *place.shape[2:]))
                p.top = mark
            p.top = inner
        p.top = outer


def record_backward(p: Program, x: Tensor, grads: List[Tensor], k: Constants, to: Gradients, g: Plan,
                    grad_x: Optional[Tensor]) -> None:
    """From images (h, w, B) and the gradients to their coefficients, (h', w', paths, B) for each scale, to the others.

    Args:
        to: to which gradients to the weights are added, None where none is needed.
        grad_x: into which the gradient to x is put, if needed.
    """
    B, needs_x = x.shape[-1], grad_x is not None
    u, X = image(p, x, g)
    grad_X, grads_u = p.take(*X.shape) if needs_x else None, []
    if needs_x:
        p.call('zero', grad_X)
    for scale, low, grad, to_low in zip(g.scales, at_level(0, g, k.phi), grads, at_level(0, g, to.phi)):
        s = contiguous(p, grad[:, :, 0])
        if low.whole:
            grad_u = p.take(*u.shape) if needs_x else None
            products.lowpass_whole_backward(
                p, low.weights, s, u.view(-1, B), to_low, grad_u.view(-1, B) if needs_x else None)
            grads_u += [grad_u] if needs_x else []
        elif low.by_class:
            grad_c = products.lowpass_by_class_backward(p, low, s, X, scale, to_low, needs_x)
            if needs_x:
                products.scatter(p, grad_c, scale, grad_X, add=True)
        elif needs_x:
            grads_u.append(products.lowpass_cols_backward(p, low, products.lowpass_rows_backward(p, low, s)))
    for j1 in range(g.J if g.max_order > 0 else 0):
        outer, read, lows = p.top, g.max_order > 1 and j1 < g.J - 1, at_level(j1, g, k.phi)
        c1 = products.gather(p, X, j1)
        half1 = products.wavelets(p, k.psi[j1][0].values, c1, g.M >> j1, g.N >> j1)
        lowered = [contiguous(p, place).flatten(2) for place in first_order(g, j1, grads)]
        by_class = any(low.by_class for low in lows)
        kept = products.keep_moduli(p, half1) if read or by_class else None
        Y = products.layer(p, half1, [], True, kept)[1] if read or by_class else None
        grad_Y = p.take(*Y.shape) if Y is not None else None
        lows, lowered, to_lows = lowpasses_by_class_backward(
            p, lows, lowered, Y, j1, g, at_level(j1, g, to.phi), grad_Y)
        for j2 in range(j1 + 1, g.J if read else 0):
            inner, c = p.top, products.gather(p, Y, j2 - j1)
            for columns, places in parts_of(g, j1, j2, B, grads):
                mark, part = p.top, c[:, :, columns]
                half = products.wavelets(p, k.psi[j2][j1].values, part, g.M >> j2, g.N >> j2)
                second_backward(p, half, at_level(j2, g, k.phi), [contiguous(p, place).flatten(2) for place in places],
                                at_level(j2, g, to.phi), j2, g)
                grad_c = products.wavelets_backward(p, k.psi[j2][j1].values, half, part, to.psi[j2][j1], True)
                products.scatter(p, grad_c, j2 - j1, grad_Y[:, :, columns], add=by_class or j2 > j1 + 1)
                p.top = mark
            p.top = inner
        products.layer_backward(p, half1, kept, lows, lowered, grad_Y, to_lows)
        grad_c = products.wavelets_backward(p, k.psi[j1][0].values, half1, c1, to.psi[j1][0], needs_x)
        if needs_x:
            products.scatter(p, grad_c, j1, grad_X, add=True)
        p.top = outer
    if needs_x:
        image_backward(p, grad_X, products.summed(p, grads_u) if grads_u else None, grad_x)


def lowpasses_by_class_backward(
        p: Program, lows: List[LowPass], lowered: List[Tensor], coefficients: Optional[Tensor], level: int, g: Plan,
        grad_weights: List[Optional[Tensor]],
        grad: Optional[Tensor]) -> Tuple[List[LowPass], List[Tensor], List[Optional[Tensor]]]:
    """Backward through the low-passes that work by class, into the gradient to the coefficients; returns the others.

    The first of them overwrites the gradient.
    """
    others, add = [], False
    for scale, low, s, to_low in zip(g.scales, lows, lowered, grad_weights):
        if low.by_class:
            mark = p.top
            grad_c = products.lowpass_by_class_backward(p, low, s, coefficients, scale - level, to_low, True)
            products.scatter(p, grad_c, scale - level, grad, add)
            add, p.top = True, mark
        else:
            others.append((low, s, to_low))
    return tuple(list(column) for column in zip(*others)) if others else ([], [], [])


def second_backward(p: Program, half: Tensor, lows: List[LowPass], lowered: List[Tensor],
                    grad_weights: List[Optional[Tensor]], level: int, g: Plan) -> None:
    """`lowpass_layer` backward, if its coefficients were not read: the gradient to half is written over half."""
    if not any(low.by_class for low in lows):
        products.layer_backward(p, half, None, lows, lowered, None, grad_weights)
        return
    kept = products.keep_moduli(p, half)
    coefficients = products.layer(p, half, [], True, kept)[1]
    grad = p.take(*coefficients.shape)
    lows, lowered, grad_weights = lowpasses_by_class_backward(
        p, lows, lowered, coefficients, level, g, grad_weights, grad)
    products.layer_backward(p, half, kept, lows, lowered, grad, grad_weights)


def contiguous(p: Program, t: Tensor) -> Tensor:
    out = p.take(*t.shape)
    p.call('copy', out, t)
    return out
