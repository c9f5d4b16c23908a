"""Scattering straight from its definition, in NumPy and float64: one path after the other, whole convolutions, then
samples. It knows nothing of how the package computes, only what it says of its channels.
"""
import numpy as np


def numbers(filters):
    """A bank's filters as (phi, psi), lists of arrays by scale and level."""
    return [[[np.asarray(hat.detach().double()) for hat in levels] for levels in hats] for hats in filters]


def stem_inputs(x, log_input=0., channel_differences=False):
    """Images (B, C, H, W) to what a stem scatters."""
    if log_input:
        x = np.log(np.maximum(x, 0) + log_input)
    if channel_differences:
        x = np.concatenate([x] + [x[:, c:c + 1] - x[:, c + 1:c + 2] for c in range(x.shape[1] - 1)], 1)
    return x


def padded(x, size):
    """Reflected images, the pixel that is left over at the bottom and right."""
    before = [(n - side) // 2 for n, side in zip(size, x.shape[-2:])]
    margins = [(b, n - side - b) for b, n, side in zip(before, size, x.shape[-2:])]
    return np.pad(x, [(0, 0)] * (x.ndim - 2) + margins, mode='reflect')


def centred(x, size):
    """Reflected images whose centre is the sample at half the size: moved by half a pixel if their side is even."""
    for axis, n in zip((-2, -1), size):
        x = np.moveaxis(x, axis, -1)
        side = x.shape[-1]
        before = (n - side + side % 2) // 2
        x = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(before, n + side % 2 - side - before)], mode='reflect')
        if side % 2:
            x = np.concatenate([(x[..., :1] + x[..., n:]) / 2, x[..., 1:n]], -1)      # both ends are as far away
        else:
            spectrum = np.fft.rfft(x) * np.exp(-1j * np.pi * np.arange(n // 2 + 1) / n)
            spectrum[..., -1] = 0
            x = np.fft.irfft(spectrum, n)
        x = np.moveaxis(x, -1, axis)
    return x


def convolved(x, hat, octaves):
    """x * the filter, at every 2^octaves-th sample."""
    return np.fft.ifft2(np.fft.fft2(x) * hat)[..., ::2 ** octaves, ::2 ** octaves]


def coefficient(x, filters, scales, path, scale, level=0):
    """Of padded images (..., M, N), by one path (j1, theta1, j2, theta2), without its later Nones: all samples."""
    phi, psi = filters
    if not path:
        return convolved(x, phi[scales.index(scale)][level], scale - level).real
    j, theta, *later = path
    u = np.abs(convolved(x, psi[j][level][theta], j - level))
    return coefficient(u, filters, scales, later, scale, j)


def rotated(path, L):
    """The paths (order, j1, theta1, j2, theta2) that an average over rotations takes together as this one."""
    order, j1, _, j2, turn = path
    if order == 0:
        return [path]
    return [(order, j1, t, j2, None if order == 1 else (t + turn) % L) for t in range(L)]


def scattering(x, filters, scales, channels, border=1, rotation=None):
    """Images (B, C, H, W) to (B, channels, h, w), the channels as they say of themselves that they are."""
    J, (phi, psi) = scales[0], filters
    size, L = phi[0][0].shape, len(psi[0][0]) if psi and psi[0] else 1
    x = centred(x, size) if rotation else padded(x, size)
    found, known = [], {}
    for order, j1, theta1, j2, theta2, colour, scale, dy, dx in channels:
        path, edge, cell = (order, j1, theta1, j2, theta2), border << (J - scale), 1 << (J - scale)
        if (path, scale) not in known:
            parts = [[step for step in p[1:] if step is not None] for p in (rotated(path, L) if rotation else [path])]
            s = np.mean([coefficient(x, filters, scales, p, scale) for p in parts], 0)
            h, w = s.shape[-2:]
            inside = s[..., edge:h - edge, edge:w - edge]
            if rotation:                                            # the mean of the samples at a cell's corners
                inside = np.mean([s[..., edge + a:h - edge + a, edge + b:w - edge + b]
                                  for a in (0, 1) for b in (0, 1)], 0)
            known[path, scale] = inside
        found.append(known[path, scale][:, colour, dy::cell, dx::cell])
    return np.stack(found, 1)
