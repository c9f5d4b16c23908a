"""What a GPU does between FFTs, in Triton: every function launches one kernel, which reads and writes each map once.

Maps are real (B, T, m, n). Of their spectra only the columns up to half are kept, (B, T, m, n / 2 + 1), as
`torch.fft.rfft2` gives them. All axes but the first are contiguous: an image's maps may be some among more. Inverse
FFTs divide by nothing: `fold` does it for them.

This module needs Triton, so nobody imports it who has no GPU. TRITON_INTERPRET=1 runs it on a CPU, for tests.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 256             # frequencies or samples in a program
PROGRAMS = 4096         # that keep all processors of a GPU busy, where a sum could be split into more or fewer

# Sizes are no part of what is compiled, or each new one would take seconds.
SIZES = ['blocks', 'count', 'M', 'N', 'm', 'n', 'step', 'T', 'T1', 'T2', 'h', 'w', 'margin', 'share', 'apart',
         'out_apart']


@triton.jit
def _pairs(pointer, places):
    """Where the real and imaginary parts at these places are: neighbours, for one access."""
    return pointer + 2 * places[:, None] + tl.arange(0, 2)[None, :]


@triton.jit
def _half(pointer, row, col, M, N, mask):
    """A real map's spectrum (M, N) at any frequency, of which columns up to N / 2 are stored."""
    beyond = col > N // 2
    row = tl.where(beyond & (row > 0), M - row, row)
    col = tl.where(beyond, N - col, col)
    re, im = tl.split(tl.load(_pairs(pointer, row * (N // 2 + 1) + col), mask=mask[:, None], other=0.))
    return re, tl.where(beyond, -im, im)


@triton.jit(do_not_specialize=SIZES)
def _fold(spectra, hats, out, blocks, M, N, m, n, step, T1, T2, apart, out_apart, scale, BLOCK: tl.constexpr):
    place = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    which = (tl.program_id(0) // blocks).to(tl.int64)
    spectrum = spectra + 2 * (which // T1 * apart + which % T1 * (M * (N // 2 + 1)))
    target = out + 2 * (which // T1 * out_apart + which % T1 * (T2 * m * n))
    row, col, mask = place // n, place % n, place < m * n
    for t in range(T2):
        re = tl.zeros([BLOCK], dtype=out.dtype.element_ty)
        im = tl.zeros([BLOCK], dtype=out.dtype.element_ty)
        for a in range(step):
            for b in range(step):
                ky, kx = row + a * m, col + b * n
                u, v = _half(spectrum, ky, kx, M, N, mask)
                hat = tl.load(hats + (t * M + ky) * N + kx, mask=mask, other=0.)
                re += u * hat
                im += v * hat
        tl.store(_pairs(target + 2 * t * (m * n), place), tl.join(re * scale, im * scale), mask=mask[:, None])


def fold(spectra: Tensor, hats: Tensor, out: Tensor) -> None:
    """Filter, and sample every s pixels: spectra of maps (B, T1, M, N), filters (T2, M, N) -> all spectra (B, T1 T2,
    M / s, N / s), complex, divided by M N.
    """
    (B, T1), (T2, M, N), (m, n) = spectra.shape[:2], hats.shape, out.shape[-2:]
    blocks = triton.cdiv(m * n, BLOCK)
    _fold[(blocks * B * T1,)](
        torch.view_as_real(spectra), hats, torch.view_as_real(out), blocks, M, N, m, n, M // m, T1, T2,
        spectra.stride(0), out.stride(0), 1 / (M * N), BLOCK)


@triton.jit(do_not_specialize=SIZES)
def _fold_to_maps(grads, hats, out, blocks, M, N, m, n, T1, T2, apart, out_apart, scale,
                  ADD: tl.constexpr, BLOCK: tl.constexpr):
    place = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    which = (tl.program_id(0) // blocks).to(tl.int64)
    grad = grads + 2 * (which // T1 * apart + which % T1 * (T2 * m * n))
    half = N // 2 + 1
    ky, kx, mask = place // half, place % half, place < M * half
    # A real map has the same at the opposite frequency, conjugated.
    oy, ox = tl.where(ky > 0, M - ky, 0), tl.where(kx > 0, N - kx, 0)
    here, there = (ky % m) * n + kx % n, (oy % m) * n + ox % n
    re = tl.zeros([BLOCK], dtype=out.dtype.element_ty)
    im = tl.zeros([BLOCK], dtype=out.dtype.element_ty)
    for t in range(T2):
        hat = tl.load(hats + (t * M + ky) * N + kx, mask=mask, other=0.)
        opposite = tl.load(hats + (t * M + oy) * N + ox, mask=mask, other=0.)
        u, v = tl.split(tl.load(_pairs(grad, here), mask=mask[:, None], other=0.))
        a, b = tl.split(tl.load(_pairs(grad, there), mask=mask[:, None], other=0.))
        re += u * hat + a * opposite
        im += v * hat - b * opposite
        grad += 2 * m * n
    target = _pairs(out + 2 * (which // T1 * out_apart + which % T1 * (M * half)), place)
    both = tl.join(re * scale, im * scale)
    if ADD:
        both += tl.load(target, mask=mask[:, None], other=0.)
    tl.store(target, both, mask=mask[:, None])


def fold_to_maps(grads: Tensor, hats: Tensor, out: Tensor, add: bool) -> None:
    """From the spectra of gradients (B, T1 T2, m, n), complex, to the results of `fold` and an inverse FFT, those of
    gradients to its maps (B, T1, M, N): written to `out`, or added to what is there.
    """
    (B, T1), (T2, M, N), (m, n) = out.shape[:2], hats.shape, grads.shape[-2:]
    blocks = triton.cdiv(M * (N // 2 + 1), BLOCK)
    _fold_to_maps[(blocks * B * T1,)](
        torch.view_as_real(grads), hats, torch.view_as_real(out), blocks, M, N, m, n, T1, T2, grads.stride(0),
        out.stride(0), 0.5 / (M * N), add, BLOCK)


@triton.jit(do_not_specialize=SIZES)
def _fold_to_filters(spectra, grads, out, count, share, M, N, m, n, T1, T2, apart,
                     out_apart, scale, BLOCK: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    t, part = tl.program_id(1), tl.program_id(2).to(tl.int64)
    ky, kx, mask = place // N, place % N, place < M * N
    folded = (ky % m) * n + kx % n
    total = tl.zeros([BLOCK], dtype=out.dtype.element_ty)
    for i in range(tl.minimum(share, count - part * share)):
        which = part * share + i
        u, v = _half(spectra + 2 * (which // T1 * apart + which % T1 * (M * (N // 2 + 1))), ky, kx, M, N, mask)
        grad = grads + 2 * (which // T1 * out_apart + (which % T1 * T2 + t) * (m * n))
        a, b = tl.split(tl.load(_pairs(grad, folded), mask=mask[:, None], other=0.))
        total += u * a + v * b
    tl.store(out + (part * T2 + t) * (M * N) + place, total * scale, mask=mask)


def fold_to_filters(spectra: Tensor, grads: Tensor, hats: Tensor) -> Tensor:
    """The gradient to the filters (T2, M, N) of `fold`, from its maps' spectra and `grads` as for `fold_to_maps`."""
    (B, T1), (T2, M, N), (m, n) = spectra.shape[:2], hats.shape, grads.shape[-2:]
    blocks = triton.cdiv(M * N, BLOCK)
    share = triton.cdiv(B * T1, max(1, PROGRAMS // (blocks * T2)))
    parts = triton.cdiv(B * T1, share)
    out = hats.new_empty(parts, T2, M, N)
    _fold_to_filters[(blocks, T2, parts)](
        torch.view_as_real(spectra), torch.view_as_real(grads), out, B * T1, share, M, N, m, n, T1, T2,
        spectra.stride(0), grads.stride(0), 1 / (M * N), BLOCK)
    return out.sum(0)


@triton.jit(do_not_specialize=SIZES)
def _modulus(z, grads, out, count, BACK: tl.constexpr, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = place < count
    re, im = tl.split(tl.load(_pairs(z, place), mask=mask[:, None], other=0.))
    size = tl.maximum(tl.abs(re), tl.abs(im))                   # squares of tiny and of huge numbers are none
    divisor = tl.where(size == 0, 1., size)
    re, im = re / divisor, im / divisor
    u = tl.sqrt(re * re + im * im)                              # 1 or more, but where z is 0
    if BACK:
        grad = tl.load(grads + place, mask=mask, other=0.) / tl.where(u > 0, u, 1.)
        tl.store(_pairs(out, place), tl.join(re * grad, im * grad), mask=mask[:, None])
    else:
        tl.store(out + place, u * size, mask=mask)


def modulus(z: Tensor) -> Tensor:
    """|z| of complex maps."""
    real = torch.view_as_real(z)
    out = real.new_empty(z.shape)
    _modulus[(triton.cdiv(z.numel(), 4 * BLOCK),)](real, real, out, z.numel(), False, 4 * BLOCK)
    return out


def modulus_to_maps(z: Tensor, grads: Tensor) -> Tensor:
    """Gradients to z from those to |z|, 0 where z is."""
    real = torch.view_as_real(z)
    out = torch.empty_like(real)
    _modulus[(triton.cdiv(z.numel(), 4 * BLOCK),)](real, grads, out, z.numel(), True, 4 * BLOCK)
    return torch.view_as_complex(out)


@triton.jit(do_not_specialize=SIZES)
def _place(maps, table, out, count, T, h, w, margin, apart, BACK: tl.constexpr,
           BLOCK: tl.constexpr):
    # Back, all samples of the maps are written, and else those of the coefficients.
    rows, cols = (h + 2 * margin, w + 2 * margin) if BACK else (h, w)
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = place < count
    which, y, x = place // (rows * cols), place // cols % rows, place % cols
    channel = tl.load(table + which % T, mask=mask, other=0)
    target = out + which // T * apart + channel * (h * w)
    if BACK:
        inside = mask & (y >= margin) & (y < h + margin) & (x >= margin) & (x < w + margin)
        grad = tl.load(target + (y - margin) * w + x - margin, mask=inside, other=0.)
        tl.store(_pairs(maps, place), tl.join(grad, tl.zeros_like(grad)), mask=mask[:, None])
    else:
        source = (which * (h + 2 * margin) + y + margin) * (w + 2 * margin) + x + margin
        tl.store(target + y * w + x, tl.load(maps + 2 * source, mask=mask, other=0.), mask=mask)


def place(maps: Tensor, table: Tensor, out: Tensor) -> None:
    """The real parts of complex maps (B, T, h + 2 margin, w + 2 margin), without margins, to the channels `table` (T)
    of `out` (B, channels, h, w).
    """
    T, (h, w), count = maps.shape[1], out.shape[-2:], maps.shape[0] * maps.shape[1] * out.shape[-2] * out.shape[-1]
    _place[(triton.cdiv(count, BLOCK),)](
        torch.view_as_real(maps), table, out, count, T, h, w, (maps.shape[-1] - w) // 2, out.stride(0),
        False, BLOCK)


def place_to_maps(grads: Tensor, table: Tensor, margin: int) -> Tensor:
    """Gradients to complex maps as for `place`, from those (B, channels, h, w) to its results; 0 in the margins."""
    h, w = grads.shape[-2:]
    out = grads.new_empty(len(grads), len(table), h + 2 * margin, w + 2 * margin, 2)
    count = out.numel() // 2
    _place[(triton.cdiv(count, BLOCK),)](
        out, table, grads, count, len(table), h, w, margin, grads.stride(0), True, BLOCK)
    return torch.view_as_complex(out)
