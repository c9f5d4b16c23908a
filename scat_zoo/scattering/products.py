"""The transform as a program of real matrix products, for a few images at a time: no FFT, no complex numbers.

Images and coefficients are (rows, columns, R), R being filters times maps, and the innermost axis; `matrices` tells
their order. So every product is one BLAS call on arrays as they lie. A chunk of maps goes through these steps:

1. analysis of the images to coefficients, in two steps on each axis (`analyse_cols`, `_band`, `_groups`);
2. for each scale, `gather` of the coefficients by class, and `wavelets`: the fold, and half of the synthesis on rows;
3. `layer`, the rest of the synthesis to real and imaginary parts, modulus, and on the modulus, the low-pass on columns
   and the analysis for order 2, band after band of rows, so that nothing of it leaves the processor's cache;
4. for order 2, steps 2 and 3 again.

Backward recomputes the chunk and takes the same steps transposed: analysis and synthesis are each other's transposes.
"""
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

from torch import Tensor

from .matrices import Axis, LowPass, Weights, axis, gathering, reflection, repeated_cols
from .program import Program

# Multiplications below which torch.bmm takes a loop of its own in place of the BLAS, which is several times slower.
SMALLEST = 400
# Numbers that the processor's cache holds beside what else it has to hold, those of a chunk, and maps that are enough.
CACHED, CHUNK, MAPS = 1 << 17, 1 << 19, 24
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


# ---- axes ----

def analyse_cols(p: Program, u: Tensor, out: Tensor) -> None:
    """Samples to coefficients on columns, (rows, N, R); the transpose of `synthesise_cols`, and its inverse."""
    rows, N, R = u.shape
    mark, cols = p.top, axis(N, u.dtype, u.device)
    if cols.samples is not None:
        half = p.take(rows, cols.r, cols.m * R)
        p.call('bmm', half, cols.samples.expand(rows, -1, -1), u.view(half.shape))
        u = half
    shape = rows * len(cols.cols), -1, R
    p.call('bmm', out.view(shape), repeated_cols(N, rows, u.dtype, u.device), u.view(shape))
    p.top = mark


def synthesise_cols(p: Program, d: Tensor, out: Tensor) -> None:
    """Coefficients to samples on columns, (rows, N, R)."""
    rows, N, R = d.shape
    mark, cols = p.top, axis(N, d.dtype, d.device)
    half = out if cols.samples is None else p.take(rows, N, R)
    shape = rows * len(cols.cols), -1, R
    p.call('bmm', half.view(shape), repeated_cols(N, rows, d.dtype, d.device).transpose(1, 2), d.view(shape))
    if cols.samples is not None:
        shape = rows, cols.r, -1
        p.call('bmm', out.view(shape), cols.samples.t().expand(rows, -1, -1), half.view(shape))
    p.top = mark


def synthesise_band(p: Program, rows: Axis, half: Tensor, band: int) -> Tensor:
    """One band of rows (r, N, R) from what `synthesise_groups` gives, (M, N, R); all of it if there is one step."""
    if rows.samples is None:
        return half
    out = p.take(rows.r, *half.shape[1:])
    p.call('mm', out.view(rows.r, -1), rows.samples.t(), half.view(rows.r, rows.m, -1)[:, band])
    return out


def analyse_band(p: Program, rows: Axis, u: Tensor, half: Tensor, band: int) -> None:
    """The transpose of `synthesise_band`, into half; with one step, u is half already."""
    if rows.samples is not None:
        p.call('mm', half.view(rows.r, rows.m, -1)[:, band], rows.samples, u.view(rows.r, -1))


def analyse_groups(p: Program, rows: Axis, half: Tensor) -> Tensor:
    """Coefficients on rows (M, N, R) from the bands."""
    out = p.take(*half.shape)
    shape = len(rows.rows), -1, half[0].numel()
    p.call('bmm', out.view(shape), rows.rows, half.view(shape))
    return out


def synthesise_groups(p: Program, rows: Axis, d: Tensor) -> Tensor:
    """The transpose of `analyse_groups`."""
    out = p.take(*d.shape)
    shape = len(rows.rows), -1, d[0].numel()
    p.call('bmm', out.view(shape), rows.rows.transpose(1, 2), d.view(shape))
    return out


# ---- filters ----

def gather(p: Program, coefficients: Tensor, octaves: int, take: Optional[Tensor] = None) -> Tensor:
    """Coefficients (M, N, R) by classes: (classes, functions, R), the functions at `take` or all."""
    M, N, R = coefficients.shape
    if take is None:
        take = gathering(M, N, octaves, coefficients.device).take.view(-1, 4 << 2 * octaves)
    out = p.take(*take.shape, R)
    p.call('select', out.view(-1, R), coefficients.view(M * N, R), take.flatten())
    return out


def scatter(p: Program, grad: Tensor, octaves: int, out: Tensor, add: bool) -> None:
    """The transpose of `gather`, into out (M, N, R) or added to it."""
    M, N, R = out.shape
    mark, back = p.top, gathering(M, N, octaves, grad.device).back
    direct = out.is_contiguous() and not add
    ordered = out.view(M * N, R) if direct else p.take(M * N, R)
    p.call('select', ordered, grad.view(-1, R), back)
    if not direct:
        p.call('add' if add else 'copy', out, ordered.view(M, N, R))
    p.top = mark


def fold(p: Program, weights: Tensor, c: Tensor) -> Tensor:
    """One group of coefficients after sampling, (2, classes, 2 * planes * L, R), from those before by class."""
    d = p.take(*weights.shape[:-1], c.shape[-1])
    _, C, rows, m = weights.shape
    least = -(-SMALLEST // (rows * m))
    if c.shape[-1] >= least:
        for f in (0, 1):
            p.call('bmm', d[f], weights[f], c)
    else:
        mark, wide, out = p.top, p.take(C, m, least), p.take(C, rows, least)
        p.call('copy', wide[:, :, :c.shape[-1]], c)
        for f in (0, 1):
            p.call('bmm', out, weights[f], wide)
            p.call('copy', d[f], out[:, :, :c.shape[-1]])
        p.top = mark
    return d


def fold_backward(p: Program, weights: Tensor, d: Tensor, c: Tensor, grad_weights: Optional[Tensor],
                  grad: Optional[Tensor]) -> None:
    """The transpose, into grad, and the gradient to the weights, added to grad_weights; each where it is given."""
    for f in (0, 1):
        if grad_weights is not None:
            p.call('add_bmm', grad_weights[f], d[f], c.transpose(1, 2))
        if grad is not None:
            p.call('add_bmm' if f else 'bmm', grad, weights[f].transpose(1, 2), d[f])


def wavelets(p: Program, weights: Tensor, c: Tensor, M: int, N: int) -> Tensor:
    """Filtered signals after the first step of synthesis on rows, (M, N, 2 * L * R), from coefficients by class."""
    rows = axis(M, weights.dtype, weights.device)
    half = p.take(M, N, weights.shape[3] // 2 * c.shape[-1])
    mark, by_group = p.top, (len(weights), len(rows.rows[0]), -1)
    for w, part, matrix, out in zip(weights, c.unflatten(0, (len(weights), -1)), rows.rows, half.view(by_group)):
        p.call('mm', out, matrix.t(), fold(p, w, part).view(out.shape))
        p.top = mark
    return half


def wavelets_backward(p: Program, weights: Tensor, half: Tensor, c: Tensor, grad_weights: Optional[Tensor],
                      needs_c: bool) -> Optional[Tensor]:
    """From the gradient to half to that to c, if needed; that to the weights is added to grad_weights, if given."""
    rows = axis(len(half), weights.dtype, weights.device)
    result = p.take(*c.shape) if needs_c else None
    mark, by_group = p.top, (len(weights), len(rows.rows[0]), -1)
    for g, (w, matrix, part) in enumerate(zip(weights, rows.rows, half.view(by_group))):
        d = p.take(*part.shape)
        p.call('mm', d, matrix, part)
        part, grad = (None if t is None else t.unflatten(0, (len(weights), -1))[g] for t in (c, result))
        fold_backward(p, w, d.view(*w.shape[:-1], -1), part, None if grad_weights is None else grad_weights[g], grad)
        p.top = mark
    return result


# ---- low-pass ----

def lowpass_cols(p: Program, low: LowPass, u: Tensor, out: Optional[Tensor] = None) -> Tensor:
    """(rows, N, R) to (rows, w, R)."""
    out = p.take(len(u), len(low.cols), u.shape[-1]) if out is None else out
    p.call('bmm', out, low.cols.expand(len(u), -1, -1), u)
    return out


def lowpass_rows(p: Program, low: LowPass, half: Tensor) -> Tensor:
    """(M, w, R) to (h, w, R)."""
    out = p.take(len(low.rows), *half.shape[1:])
    p.call('mm', out.view(len(out), -1), low.rows, half.view(len(half), -1))
    return out


def lowpass_whole(p: Program, weights: Tensor, u: Tensor, out: Tensor, add: bool = False) -> None:
    """Images, or a part of their samples, (samples, R), into (h, w, R) or added to it."""
    p.call('add_mm' if add else 'mm', out.flatten(0, 1), weights.flatten(0, 1), u)


def lowpass_whole_backward(p: Program, weights: Tensor, grad: Tensor, u: Tensor, grad_weights: Optional[Tensor],
                           grad_u: Optional[Tensor]) -> None:
    """The transpose, into grad_u (samples, R), and the gradient to the weights, added; each where it is given."""
    grad = grad.flatten(0, 1)
    if grad_weights is not None:
        p.call('add_mm', grad_weights.flatten(0, 1), grad, u.t())
    if grad_u is not None:
        p.call('mm', grad_u, weights.flatten(0, 1).t(), grad)


def lowpass_general(p: Program, low: LowPass, c: Tensor) -> Tensor:
    """(h, w, R) from coefficients by class (classes, functions, R)."""
    d = p.take(*low.weights.shape[:-1], c.shape[-1])
    for weights, part, out in zip(low.weights, c.unflatten(0, (len(d), -1)), d):
        for f in (0, 1):
            p.call('bmm', out[f], weights[f], part)
    return lowpass_rows(p, low, lowpass_cols(p, low, d.view(low.rows.shape[1], -1, c.shape[-1])))


def lowpass_rows_backward(p: Program, low: LowPass, grad: Tensor) -> Tensor:
    """(h, w, R) to (M, w, R)."""
    out = p.take(low.rows.shape[1], *grad.shape[1:])
    p.call('mm', out.view(len(out), -1), low.rows.t(), grad.view(len(grad), -1))
    return out


def lowpass_cols_backward(p: Program, low: LowPass, grad: Tensor) -> Tensor:
    """(rows, w, R) to (rows, N, R)."""
    out = p.take(len(grad), low.cols.shape[1], grad.shape[-1])
    p.call('bmm', out, low.cols.t().expand(len(grad), -1, -1), grad)
    return out


def lowpass_general_backward(p: Program, low: LowPass, grad: Tensor, c: Tensor, grad_weights: Optional[Tensor],
                             needs_c: bool) -> Optional[Tensor]:
    """Gradient to the coefficients by class, if needed."""
    d = lowpass_rows_backward(p, low, lowpass_cols_backward(p, low, grad)).view(*low.weights.shape[:-1], -1)
    result = p.take(*c.shape) if needs_c else None
    for g, weights in enumerate(low.weights):
        part, out = (None if t is None else t.unflatten(0, (len(d), -1))[g] for t in (c, result))
        fold_backward(p, weights, d[g], part, None if grad_weights is None else grad_weights[g], out)
    return result


# ---- a layer ----

def modulus(p: Program, z: Tensor, u: Tensor) -> None:
    """|z| of (rows, N, 2 planes * R) into u (rows, N, R)."""
    real, imag = z.unflatten(2, (2, -1)).unbind(2)
    p.call('square', u, real)
    p.call('add_square', u, imag)
    p.call('sqrt', u)


def modulus_backward(p: Program, grad: Tensor, u: Tensor, z: Tensor) -> None:
    """Write the gradient to z over z: grad z / |z|, and 0 where z = 0. Overwrites u and grad too."""
    p.call('infinite_if_zero', u)
    p.call('div', grad, u)
    p.call('mul', z.unflatten(2, (2, -1)), grad.unsqueeze(2))


def tiles(count: int, row: int) -> List[slice]:
    """Rows to take at a time for the cache to hold them, of `row` numbers each."""
    size = -(-count // -(-count * row // CACHED))
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def samples_of(rows: Axis, N: int, band: int, tile: slice) -> slice:
    """The samples of a tile of rows of a band, among all of them."""
    return slice((band * rows.r + tile.start) * N, (band * rows.r + tile.stop) * N)


class Moduli(NamedTuple):
    """Filtered signals z (bands, r, N, 2 * R) and their moduli u (bands, r, N, R), kept for a backward pass."""
    z: Tensor
    u: Tensor


def keep_moduli(p: Program, half: Tensor) -> Moduli:
    """Arrays for what `layer` is to keep of what `wavelets` gives."""
    (_, N, R), rows = half.shape, axis(len(half), half.dtype, half.device)
    return Moduli(p.take(rows.m, rows.r, N, R), p.take(rows.m, rows.r, N, R // 2))


def layer(p: Program, half: Tensor, lows: List[LowPass], read: bool,
          kept: Optional[Moduli] = None) -> Tuple[List[Tensor], Optional[Tensor]]:
    """Moduli of what `wavelets` gives: low-passed, (h, w, R) each, and their coefficients if they are read."""
    M, N, R = half.shape[0], half.shape[1], half.shape[2] // 2
    rows = axis(M, half.dtype, half.device)
    lowered = [p.take(*low.weights.shape[:2], R) if low.whole else p.take(rows.m, rows.r, len(low.cols), R)
               for low in lows]
    analysed = p.take(M, N, R) if read else None
    mark = p.top
    for band in range(rows.m):
        e = synthesise_band(p, rows, half, band)
        a = analysed if rows.samples is None else p.take(rows.r, N, R) if read else None
        inner = p.top
        for tile in tiles(rows.r, N * 2 * R):
            z = p.take(*e[tile].shape) if kept is None else kept.z[band, tile]
            u = p.take(*z.shape[:2], R) if kept is None else kept.u[band, tile]
            synthesise_cols(p, e[tile], z)
            modulus(p, z, u)
            for low, out in zip(lows, lowered):
                if low.whole:
                    samples = samples_of(rows, N, band, tile)
                    lowpass_whole(p, low.weights[..., samples], u.view(-1, R), out, add=samples.start > 0)
                else:
                    lowpass_cols(p, low, u, out[band, tile])
            if read:
                analyse_cols(p, u, a[tile])
            p.top = inner
        if read:
            analyse_band(p, rows, a, analysed, band)
        p.top = mark
    lowered = [out if low.whole else lowpass_rows(p, low, out.view(M, -1, R)) for low, out in zip(lows, lowered)]
    return lowered, analyse_groups(p, rows, analysed) if read else None


def layer_backward(p: Program, half: Tensor, kept: Optional[Moduli], lows: List[LowPass], lowered: List[Tensor],
                   coefficients: Optional[Tensor], grad_weights: List[Optional[Tensor]]) -> None:
    """Write the gradient to half over half, from those to what `layer` gives; overwrites what it kept.

    The gradient to the weights of each low-pass of images is added to its grad_weights, if given.
    """
    M, N, R = half.shape[0], half.shape[1], half.shape[2] // 2
    rows, outer = axis(M, half.dtype, half.device), p.top
    analysed = None if coefficients is None else synthesise_groups(p, rows, coefficients)
    lowered = [s if low.whole else lowpass_rows_backward(p, low, s).view(rows.m, rows.r, -1, R)
               for low, s in zip(lows, lowered)]
    mark = p.top
    for band in range(rows.m):
        if kept is None or rows.samples is None:
            e = synthesise_band(p, rows, half, band)
        else:
            e = p.take(rows.r, N, 2 * R)
        a = None if analysed is None else synthesise_band(p, rows, analysed, band)
        inner = p.top
        for tile in tiles(rows.r, N * 2 * R):
            if kept is None:
                z, u = p.take(*e[tile].shape), p.take(*e[tile].shape[:2], R)
                synthesise_cols(p, e[tile], z)
                modulus(p, z, u)
            else:
                z, u = kept.z[band, tile], kept.u[band, tile]
            grads = []
            for low, s, weights in zip(lows, lowered, grad_weights):
                if low.whole:
                    grads.append(p.take(*u.shape))
                    samples = samples_of(rows, N, band, tile)
                    lowpass_whole_backward(p, low.weights[..., samples], s, u.view(-1, R),
                                           None if weights is None else weights[..., samples], grads[-1].view(-1, R))
                else:
                    grads.append(lowpass_cols_backward(p, low, s[band, tile]))
            if a is not None:
                grads.append(p.take(*u.shape))
                synthesise_cols(p, a[tile], grads[-1])
            modulus_backward(p, summed(p, grads), u, z)
            analyse_cols(p, z, e[tile])
            p.top = inner
        analyse_band(p, rows, e, half, band)
        p.top = mark
    p.top = outer


def summed(p: Program, terms: List[Tensor]) -> Tensor:
    """The sum of at least one, written over the last."""
    for term in terms[:-1]:
        p.call('add', terms[-1], term)
    return terms[-1]


# ---- the transform ----

def image(p: Program, x: Tensor, g: Plan) -> Tuple[Tensor, Tensor]:
    """Images (h, w, B), reflected to (M, N, B), and the coefficients of that."""
    h, w, B = x.shape
    rows = axis(g.M, x.dtype, x.device)
    y, z = reflection((h, w), (g.M, g.N), x.device)
    u, analysed = p.take(g.M, g.N, B), p.take(g.M, g.N, B)
    p.call('select', u.view(-1, B), x.view(-1, B), (y[:, None] * w + z).flatten())
    mark, a = p.top, analysed if rows.samples is None else p.take(g.M, g.N, B)
    analyse_cols(p, u, a)
    for band in range(rows.m):
        analyse_band(p, rows, a.view(rows.m, rows.r, g.N, B)[band], analysed, band)
    p.top = mark
    return u, analyse_groups(p, rows, analysed)


def image_backward(p: Program, coefficients: Tensor, u: Optional[Tensor], out: Tensor) -> None:
    """Gradient to the images, into out (h, w, B), from those to what `image` gives."""
    M, N, B = coefficients.shape
    h, w, _ = out.shape
    rows, grad = axis(M, out.dtype, out.device), p.take(M, N, B)
    analysed, mark = synthesise_groups(p, rows, coefficients), p.top
    for band, into in enumerate(grad.view(rows.m, rows.r, N, B)):
        synthesise_cols(p, synthesise_band(p, rows, analysed, band), into)
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
    lowered, coefficients = layer(p, half, direct, read or by_class)
    rest = iter(lowered)
    return [lowpass_general(p, low, gather(p, coefficients, scale - level)) if low.by_class else next(rest)
            for scale, low in zip(g.scales, lows)], coefficients


def record_forward(p: Program, x: Tensor, k: Constants, g: Plan, outs: List[Tensor]) -> None:
    """From images in x (h, w, B) to coefficients in outs, (h', w', paths, B) for each scale."""
    B, (u, X) = x.shape[-1], image(p, x, g)
    for scale, low, out in zip(g.scales, at_level(0, g, k.phi), outs):
        mark = p.top
        if low.whole:
            s = p.take(*low.weights.shape[:2], B)
            lowpass_whole(p, low.weights, u.view(-1, B), s)
        elif low.by_class:
            s = lowpass_general(p, low, gather(p, X, scale))
        else:
            s = lowpass_rows(p, low, lowpass_cols(p, low, u))
        p.call('copy', out[:, :, 0], s)
        p.top = mark
    for j1 in range(g.J if g.max_order > 0 else 0):
        outer, read = p.top, g.max_order > 1 and j1 < g.J - 1
        weights = k.psi[j1][0]
        half = wavelets(p, weights.values, gather(p, X, j1, weights.take), g.M >> j1, g.N >> j1)
        lowered, Y = lowpass_layer(p, half, at_level(j1, g, k.phi), j1, g, read)
        for s, place in zip(lowered, first_order(g, j1, outs)):
            p.call('copy', place, s.unflatten(2, (g.L, B)))
        for j2 in range(j1 + 1, g.J if read else 0):
            inner, weights = p.top, k.psi[j2][j1]
            c = gather(p, Y, j2 - j1, weights.take)
            for columns, places in parts_of(g, j1, j2, B, outs):
                mark = p.top
                half = wavelets(p, weights.values, c[:, :, columns], g.M >> j2, g.N >> j2)
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
            lowpass_whole_backward(p, low.weights, s, u.view(-1, B), to_low, grad_u.view(-1, B) if needs_x else None)
            grads_u += [grad_u] if needs_x else []
        elif not low.by_class:
            grads_u += [lowpass_cols_backward(p, low, lowpass_rows_backward(p, low, s))] if needs_x else []
        else:
            grad_c = lowpass_general_backward(p, low, s, gather(p, X, scale), to_low, needs_x)
            if needs_x:
                scatter(p, grad_c, scale, grad_X, add=True)
    for j1 in range(g.J if g.max_order > 0 else 0):
        outer, read, lows = p.top, g.max_order > 1 and j1 < g.J - 1, at_level(j1, g, k.phi)
        c1 = gather(p, X, j1)
        half1 = wavelets(p, k.psi[j1][0].values, c1, g.M >> j1, g.N >> j1)
        lowered = [contiguous(p, place).flatten(2) for place in first_order(g, j1, grads)]
        by_class = any(low.by_class for low in lows)
        kept = keep_moduli(p, half1) if read or by_class else None
        Y = layer(p, half1, [], True, kept)[1] if read or by_class else None
        grad_Y = p.take(*Y.shape) if Y is not None else None
        lows, lowered, to_lows = lowpasses_by_class_backward(
            p, lows, lowered, Y, j1, g, at_level(j1, g, to.phi), grad_Y)
        for j2 in range(j1 + 1, g.J if read else 0):
            inner, c = p.top, gather(p, Y, j2 - j1)
            for columns, places in parts_of(g, j1, j2, B, grads):
                mark, part = p.top, c[:, :, columns]
                half = wavelets(p, k.psi[j2][j1].values, part, g.M >> j2, g.N >> j2)
                second_backward(p, half, at_level(j2, g, k.phi), [contiguous(p, place).flatten(2) for place in places],
                                at_level(j2, g, to.phi), j2, g)
                grad_c = wavelets_backward(p, k.psi[j2][j1].values, half, part, to.psi[j2][j1], True)
                scatter(p, grad_c, j2 - j1, grad_Y[:, :, columns], add=by_class or j2 > j1 + 1)
                p.top = mark
            p.top = inner
        layer_backward(p, half1, kept, lows, lowered, grad_Y, to_lows)
        grad_c = wavelets_backward(p, k.psi[j1][0].values, half1, c1, to.psi[j1][0], needs_x)
        if needs_x:
            scatter(p, grad_c, j1, grad_X, add=True)
        p.top = outer
    if needs_x:
        image_backward(p, grad_X, summed(p, grads_u) if grads_u else None, grad_x)


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
            grad_c = lowpass_general_backward(p, low, s, gather(p, coefficients, scale - level), to_low, True)
            scatter(p, grad_c, scale - level, grad, add)
            add, p.top = True, mark
        else:
            others.append((low, s, to_low))
    return tuple(list(column) for column in zip(*others)) if others else ([], [], [])


def second_backward(p: Program, half: Tensor, lows: List[LowPass], lowered: List[Tensor],
                    grad_weights: List[Optional[Tensor]], level: int, g: Plan) -> None:
    """`lowpass_layer` backward, if its coefficients were not read: the gradient to half is written over half."""
    if not any(low.by_class for low in lows):
        layer_backward(p, half, None, lows, lowered, None, grad_weights)
        return
    kept = keep_moduli(p, half)
    coefficients = layer(p, half, [], True, kept)[1]
    grad = p.take(*coefficients.shape)
    lows, lowered, grad_weights = lowpasses_by_class_backward(
        p, lows, lowered, coefficients, level, g, grad_weights, grad)
    layer_backward(p, half, kept, lows, lowered, grad, grad_weights)


def contiguous(p: Program, t: Tensor) -> Tensor:
    out = p.take(*t.shape)
    p.call('copy', out, t)
    return out
