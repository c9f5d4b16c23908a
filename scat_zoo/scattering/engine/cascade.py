"""The transform of a few images as a program of the steps in `steps`, and of its gradients. A chunk of maps goes
through these:

1. analysis of the images to coefficients, in two steps on each axis: `analyse_cols`, then `analyse_band` and
   `analyse_groups`;
2. for each scale, `gather` of the coefficients by class, and `wavelets`: the fold, and half of the synthesis on rows;
3. `layer`, the rest of the synthesis to real and imaginary parts, modulus, and on the modulus, the low-pass on columns
   and the analysis for order 2, band after band of rows, so that nothing of it leaves the processor's cache;
4. for order 2, steps 2 and 3 again.

Backward recomputes the chunk and takes the same steps transposed.
"""
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

from torch import Tensor

from . import steps
from .matrices import LowPass, Weights, axis, reflection
from .plan import Plan
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


def at_level(level: int, plan: Plan, by_scale: Sequence[Sequence[Any]]) -> List[Any]:
    """What belongs to the low-passes at a level, one for each scale that is above it."""
    return [levels[level] for scale, levels in zip(plan.scales, by_scale) if scale > level]


def maps_at_a_time(plan: Plan) -> int:
    """Size of a chunk on a CPU."""
    return min(MAPS, max(4, CHUNK // (2 * plan.M * plan.N)))


def image(p: Program, x: Tensor, plan: Plan) -> Tuple[Tensor, Tensor]:
    """Images (h, w, B), reflected to (M, N, B), and the coefficients of that."""
    h, w, B = x.shape
    rows = axis(plan.M, x.dtype, x.device)
    y, z = reflection((h, w), (plan.M, plan.N), x.device)
    u, analysed = p.take(plan.M, plan.N, B), p.take(plan.M, plan.N, B)
    p.call('select', u.view(-1, B), x.view(-1, B), (y[:, None] * w + z).flatten())
    mark, a = p.top, analysed if rows.samples is None else p.take(plan.M, plan.N, B)
    steps.analyse_cols(p, u, a)
    for band in range(rows.m):
        steps.analyse_band(p, rows, a.view(rows.m, rows.r, plan.N, B)[band], analysed, band)
    p.top = mark
    return u, steps.analyse_groups(p, rows, analysed)


def image_backward(p: Program, coefficients: Tensor, u: Optional[Tensor], out: Tensor) -> None:
    """Gradient to the images, into out (h, w, B), from those to what `image` gives."""
    M, N, B = coefficients.shape
    h, w, _ = out.shape
    rows, grad = axis(M, out.dtype, out.device), p.take(M, N, B)
    analysed, mark = steps.synthesise_groups(p, rows, coefficients), p.top
    for band, into in enumerate(grad.view(rows.m, rows.r, N, B)):
        steps.synthesise_cols(p, steps.synthesise_band(p, rows, analysed, band), into)
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


def parts_of(plan: Plan, j1: int, j2: int, B: int, outs: List[Tensor]) -> List[Part]:
    """The second wavelets of scale j2 on the first of j1, in parts of about the best number of columns."""
    mine = [second_order(scale, plan.L, j1, j2, out) for scale, out in zip(plan.scales, outs) if scale > j2]
    # Reading the weights of a filter costs as much as products with as many columns as there are functions in a class.
    columns = max(LEAST, 4 << 2 * (j2 - j1), min(MOST, CHUNK // (plan.M * plan.N * 2 * plan.L >> 2 * j2)))
    size = min(plan.L, -(-columns // B))
    return [Part(slice(t * B, min(t + size, plan.L) * B), [out[:, :, t:t + size].transpose(2, 3) for out in mine])
            for t in range(0, plan.L, size)]


def first_order(plan: Plan, j1: int, outs: List[Tensor]) -> List[Tensor]:
    """Places in the outputs (h, w, paths, B) of the first wavelets of scale j1."""
    return [out[:, :, 1 + j1 * plan.L:1 + (j1 + 1) * plan.L] for scale, out in zip(plan.scales, outs) if scale > j1]


def second_order(J: int, L: int, j1: int, j2: int, out: Tensor) -> Tensor:
    """Place (h, w, L of t1, L of t2, B) in the output of scale J of the second wavelets of j2 on the first of j1."""
    scales = J - 1 - j1
    start = 1 + J * L + sum(J - 1 - j for j in range(j1)) * L ** 2
    return out[:, :, start:start + scales * L ** 2].unflatten(2, (L, scales, L))[:, :, :, j2 - j1 - 1]


def lowpass_layer(p: Program, half: Tensor, lows: List[LowPass], level: int, plan: Plan,
                  read: bool) -> Tuple[List[Tensor], Optional[Tensor]]:
    """Moduli of what `wavelets` gives: low-passed, (h, w, R) each, and their coefficients if they are read."""
    direct, by_class = [low for low in lows if not low.by_class], any(low.by_class for low in lows)
    lowered, coefficients = steps.layer(p, half, direct, read or by_class)
    rest = iter(lowered)
    return [steps.lowpass_by_class(p, low, coefficients, scale - level) if low.by_class else next(rest)
            for scale, low in zip(plan.scales, lows)], coefficients


def record_forward(p: Program, x: Tensor, known: Constants, plan: Plan, outs: List[Tensor]) -> None:
    """From images in x (h, w, B) to coefficients in outs, (h', w', paths, B) for each scale."""
    B, (u, X) = x.shape[-1], image(p, x, plan)
    for scale, low, out in zip(plan.scales, at_level(0, plan, known.phi), outs):
        mark = p.top
        if low.whole:
            s = p.take(*low.weights.shape[:2], B)
            steps.lowpass_whole(p, low.weights, u.view(-1, B), s)
        elif low.by_class:
            s = steps.lowpass_by_class(p, low, X, scale)
        else:
            s = steps.lowpass_rows(p, low, steps.lowpass_cols(p, low, u))
        p.call('copy', out[:, :, 0], s)
        p.top = mark
    for j1 in range(plan.J if plan.max_order > 0 else 0):
        outer, read = p.top, plan.max_order > 1 and j1 < plan.J - 1
        weights = known.psi[j1][0]
        half = steps.wavelets(p, weights.weights, steps.gather(p, X, j1, weights.take), plan.M >> j1, plan.N >> j1)
        lowered, Y = lowpass_layer(p, half, at_level(j1, plan, known.phi), j1, plan, read)
        for s, place in zip(lowered, first_order(plan, j1, outs)):
            p.call('copy', place, s.unflatten(2, (plan.L, B)))
        for j2 in range(j1 + 1, plan.J if read else 0):
            inner, weights = p.top, known.psi[j2][j1]
            c = steps.gather(p, Y, j2 - j1, weights.take)
            for columns, places in parts_of(plan, j1, j2, B, outs):
                mark = p.top
                half = steps.wavelets(p, weights.weights, c[:, :, columns], plan.M >> j2, plan.N >> j2)
                lowered, _ = lowpass_layer(p, half, at_level(j2, plan, known.phi), j2, plan, False)
                for s, place in zip(lowered, places):
                    p.call('copy', place, s.view(*s.shape[:2], *place.shape[2:]))
                p.top = mark
            p.top = inner
        p.top = outer


def record_backward(p: Program, x: Tensor, grads: List[Tensor], known: Constants, to: Gradients, plan: Plan,
                    grad_x: Optional[Tensor]) -> None:
    """From images (h, w, B) and the gradients to their coefficients, (h', w', paths, B) for each scale, to the others.

    Args:
        to: to which gradients to the weights are added, None where none is needed.
        grad_x: into which the gradient to x is put, if needed.
    """
    u, X = image(p, x, plan)
    grad_X = p.take(*X.shape) if grad_x is not None else None
    if grad_X is not None:
        p.call('zero', grad_X)
    grad_u = zeroth_backward(p, u, X, grads, known, to, plan, grad_X)
    for j1 in range(plan.J if plan.max_order > 0 else 0):
        outer, read, lows = p.top, plan.max_order > 1 and j1 < plan.J - 1, at_level(j1, plan, known.phi)
        weights, c1 = known.psi[j1][0].weights, steps.gather(p, X, j1)
        half1 = steps.wavelets(p, weights, c1, plan.M >> j1, plan.N >> j1)
        lowered = [contiguous(p, place).flatten(2) for place in first_order(plan, j1, grads)]
        by_class = any(low.by_class for low in lows)
        kept = steps.keep_moduli(p, half1) if read or by_class else None
        Y = steps.layer(p, half1, [], True, kept)[1] if read or by_class else None
        grad_Y = p.take(*Y.shape) if Y is not None else None
        lows, lowered, to_lows = lowpasses_by_class_backward(
            p, lows, lowered, Y, j1, plan, at_level(j1, plan, to.phi), grad_Y)
        if read:
            second_backward(p, Y, grad_Y, by_class, j1, grads, known, to, plan)
        steps.layer_backward(p, half1, kept, lows, lowered, grad_Y, to_lows)
        grad_c = steps.wavelets_backward(p, weights, half1, c1, to.psi[j1][0], grad_X is not None)
        if grad_X is not None:
            steps.scatter(p, grad_c, j1, grad_X, add=True)
        p.top = outer
    if grad_X is not None:
        image_backward(p, grad_X, grad_u, grad_x)


def zeroth_backward(p: Program, u: Tensor, X: Tensor, grads: List[Tensor], known: Constants, to: Gradients, plan: Plan,
                    grad_X: Optional[Tensor]) -> Optional[Tensor]:
    """Backward through order 0: what comes to the coefficients is added to grad_X, what to the image is returned."""
    B, needs_x, grads_u = u.shape[-1], grad_X is not None, []
    for scale, low, grad, to_low in zip(plan.scales, at_level(0, plan, known.phi), grads, at_level(0, plan, to.phi)):
        s = contiguous(p, grad[:, :, 0])
        if low.whole:
            grad_u = p.take(*u.shape) if needs_x else None
            steps.lowpass_whole_backward(
                p, low.weights, s, u.view(-1, B), to_low, grad_u.view(-1, B) if needs_x else None)
            grads_u += [grad_u] if needs_x else []
        elif low.by_class:
            grad_c = steps.lowpass_by_class_backward(p, low, s, X, scale, to_low, needs_x)
            if needs_x:
                steps.scatter(p, grad_c, scale, grad_X, add=True)
        elif needs_x:
            grads_u.append(steps.lowpass_cols_backward(p, low, steps.lowpass_rows_backward(p, low, s)))
    return steps.summed(p, grads_u) if grads_u else None


def second_backward(p: Program, Y: Tensor, grad_Y: Tensor, add: bool, j1: int, grads: List[Tensor], known: Constants,
                    to: Gradients, plan: Plan) -> None:
    """Backward through the second wavelets on the first of j1, into the gradient to the coefficients Y of these.

    Args:
        add: whether there is something in grad_Y already, to which it is added.
    """
    B = grads[0].shape[-1]
    for j2 in range(j1 + 1, plan.J):
        inner, c, weights = p.top, steps.gather(p, Y, j2 - j1), known.psi[j2][j1].weights
        for columns, places in parts_of(plan, j1, j2, B, grads):
            mark, part = p.top, c[:, :, columns]
            half = steps.wavelets(p, weights, part, plan.M >> j2, plan.N >> j2)
            lowered = [contiguous(p, place).flatten(2) for place in places]
            lowpass_layer_backward(
                p, half, at_level(j2, plan, known.phi), lowered, at_level(j2, plan, to.phi), j2, plan)
            grad_c = steps.wavelets_backward(p, weights, half, part, to.psi[j2][j1], True)
            steps.scatter(p, grad_c, j2 - j1, grad_Y[:, :, columns], add=add or j2 > j1 + 1)
            p.top = mark
        p.top = inner


def lowpasses_by_class_backward(
        p: Program, lows: List[LowPass], lowered: List[Tensor], coefficients: Optional[Tensor], level: int, plan: Plan,
        grad_weights: List[Optional[Tensor]],
        grad: Optional[Tensor]) -> Tuple[List[LowPass], List[Tensor], List[Optional[Tensor]]]:
    """Backward through the low-passes that work by class, into the gradient to the coefficients; returns the others.

    The first of them overwrites the gradient.
    """
    others, add = [], False
    for scale, low, s, to_low in zip(plan.scales, lows, lowered, grad_weights):
        if low.by_class:
            mark = p.top
            grad_c = steps.lowpass_by_class_backward(p, low, s, coefficients, scale - level, to_low, True)
            steps.scatter(p, grad_c, scale - level, grad, add)
            add, p.top = True, mark
        else:
            others.append((low, s, to_low))
    return [low for low, _, _ in others], [s for _, s, _ in others], [to_low for _, _, to_low in others]


def lowpass_layer_backward(p: Program, half: Tensor, lows: List[LowPass], lowered: List[Tensor],
                           grad_weights: List[Optional[Tensor]], level: int, plan: Plan) -> None:
    """`lowpass_layer` backward, if its coefficients were not read: the gradient to half is written over half."""
    if not any(low.by_class for low in lows):
        steps.layer_backward(p, half, None, lows, lowered, None, grad_weights)
        return
    kept = steps.keep_moduli(p, half)
    coefficients = steps.layer(p, half, [], True, kept)[1]
    grad = p.take(*coefficients.shape)
    lows, lowered, grad_weights = lowpasses_by_class_backward(
        p, lows, lowered, coefficients, level, plan, grad_weights, grad)
    steps.layer_backward(p, half, kept, lows, lowered, grad, grad_weights)


def contiguous(p: Program, t: Tensor) -> Tensor:
    out = p.take(*t.shape)
    p.call('copy', out, t)
    return out
