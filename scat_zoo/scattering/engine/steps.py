"""The steps that the transform takes as real matrix products: no FFT, no complex numbers. `cascade` puts them together.

Images and coefficients are (rows, columns, R), R being filters times maps, and the innermost axis; `matrices` tells
their order. So every product is one BLAS call on arrays as they lie. A step's transpose, which backward takes, is named
for it; analysis and synthesis are each other's transposes.
"""
from typing import List, NamedTuple, Optional, Tuple

from torch import Tensor

from .matrices import Axis, LowPass, axis, gathering, repeated_cols
from .program import Program

# Multiplications below which torch.bmm takes a loop of its own in place of the BLAS, which is several times slower.
SMALLEST = 400
# Samples that a product may add one after the other.
BLOCK = 64
# Numbers that the processor's cache holds beside what else it has to hold.
CACHED = 1 << 17


# ---- axes ----

def analyse_cols(p: Program, u: Tensor, out: Tensor) -> None:
    """Samples to coefficients on columns, (height, N, R); the transpose of `synthesise_cols`, and its inverse."""
    height, N, R = u.shape
    mark, cols = p.top, axis(N, u.dtype, u.device)
    if cols.samples is not None:
        half = p.take(height, cols.r, cols.m * R)
        p.call('bmm', half, cols.samples.expand(height, -1, -1), u.view(half.shape))
        u = half
    shape = height * len(cols.cols), -1, R
    p.call('bmm', out.view(shape), repeated_cols(N, height, u.dtype, u.device), u.view(shape))
    p.top = mark


def synthesise_cols(p: Program, d: Tensor, out: Tensor) -> None:
    """Coefficients to samples on columns, (height, N, R)."""
    height, N, R = d.shape
    mark, cols = p.top, axis(N, d.dtype, d.device)
    half = out if cols.samples is None else p.take(height, N, R)
    shape = height * len(cols.cols), -1, R
    p.call('bmm', half.view(shape), repeated_cols(N, height, d.dtype, d.device).transpose(1, 2), d.view(shape))
    if cols.samples is not None:
        shape = height, cols.r, -1
        p.call('bmm', out.view(shape), cols.samples.t().expand(height, -1, -1), half.view(shape))
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
    _, C, outputs, m = weights.shape
    least = -(-SMALLEST // (outputs * m))
    if c.shape[-1] >= least:
        for f in (0, 1):
            p.call('bmm', d[f], weights[f], c)
    else:
        mark, wide, out = p.top, p.take(C, m, least), p.take(C, outputs, least)
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
    for i, (w, matrix, part) in enumerate(zip(weights, rows.rows, half.view(by_group))):
        d = p.take(*part.shape)
        p.call('mm', d, matrix, part)
        part, grad = (None if t is None else t.unflatten(0, (len(weights), -1))[i] for t in (c, result))
        fold_backward(p, w, d.view(*w.shape[:-1], -1), part, None if grad_weights is None else grad_weights[i], grad)
        p.top = mark
    return result


# ---- low-pass ----

def lowpass_cols(p: Program, low: LowPass, u: Tensor, out: Optional[Tensor] = None) -> Tensor:
    """(height, N, R) to (height, w, R)."""
    out = p.take(len(u), len(low.cols), u.shape[-1]) if out is None else out
    p.call('bmm', out, low.cols.expand(len(u), -1, -1), u)
    return out


def lowpass_rows(p: Program, low: LowPass, half: Tensor) -> Tensor:
    """(M, w, R) to (h, w, R)."""
    out = p.take(len(low.rows), *half.shape[1:])
    p.call('mm', out.view(len(out), -1), low.rows, half.view(len(half), -1))
    return out


def lowpass_whole(p: Program, weights: Tensor, u: Tensor, out: Tensor, add: bool = False) -> None:
    """Images, or a part of their samples, (samples, R), into (h, w, R) or added to it.

    One product over thousands of samples would add them one after the other in float32, with ten times the error of
    Fourier transforms. So blocks of samples have products of their own, and their results are added in pairs.
    """
    weights, blocks, mark = weights.flatten(0, 1), 1, p.top
    while len(u) % (2 * blocks) == 0 and len(u) // blocks > BLOCK:
        blocks *= 2
    sums = p.take(blocks, len(weights), u.shape[1])
    p.call('bmm', sums, weights.unflatten(1, (blocks, -1)).transpose(0, 1), u.view(blocks, -1, u.shape[1]))
    while blocks > 1:
        blocks //= 2
        p.call('add', sums[:blocks], sums[blocks:2 * blocks])
    p.call('add' if add else 'copy', out.flatten(0, 1), sums[0])
    p.top = mark


def lowpass_whole_backward(p: Program, weights: Tensor, grad: Tensor, u: Tensor, grad_weights: Optional[Tensor],
                           grad_u: Optional[Tensor]) -> None:
    """The transpose, into grad_u (samples, R), and the gradient to the weights, added; each where it is given."""
    grad = grad.flatten(0, 1)
    if grad_weights is not None:
        p.call('add_mm', grad_weights.flatten(0, 1), grad, u.t())
    if grad_u is not None:
        p.call('mm', grad_u, weights.flatten(0, 1).t(), grad)


def lowpass_by_class(p: Program, low: LowPass, coefficients: Tensor, octaves: int) -> Tensor:
    """(h, w, R) from coefficients (M, N, R), that many octaves finer."""
    c = gather(p, coefficients, octaves)
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
    """(height, w, R) to (height, N, R)."""
    out = p.take(len(grad), low.cols.shape[1], grad.shape[-1])
    p.call('bmm', out, low.cols.t().expand(len(grad), -1, -1), grad)
    return out


def lowpass_by_class_backward(p: Program, low: LowPass, grad: Tensor, coefficients: Tensor, octaves: int,
                              grad_weights: Optional[Tensor], needs_c: bool) -> Optional[Tensor]:
    """Gradient to the coefficients by class, (classes, functions, R), if needed; `scatter` orders it."""
    c = gather(p, coefficients, octaves)
    d = lowpass_rows_backward(p, low, lowpass_cols_backward(p, low, grad)).view(*low.weights.shape[:-1], -1)
    result = p.take(*c.shape) if needs_c else None
    for i, weights in enumerate(low.weights):
        part, out = (None if t is None else t.unflatten(0, (len(d), -1))[i] for t in (c, result))
        fold_backward(p, weights, d[i], part, None if grad_weights is None else grad_weights[i], out)
    return result


# ---- a layer ----

def modulus(p: Program, z: Tensor, u: Tensor) -> None:
    """|z| of (height, N, 2 planes * R) into u (height, N, R)."""
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
