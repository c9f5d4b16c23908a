"""Pictures of filters, with matplotlib (the extra `plot`)."""
import math
from pathlib import Path
from typing import Any, Sequence, Tuple

import numpy as np
from torch import Tensor

from . import frame, morlet
from .filters import Filters


def draw_change(before: Filters, after: Filters, path: Path) -> None:
    """Draw what training did to every filter at its finest level, as a PNG.

    For each scale j, the wavelets of all orientations side by side: in Fourier and (real part, around the centre) in
    space, before, after, and the difference on a colour scale of its own. Last comes the low-pass.
    """
    J, L = len(after.psi), after.psi[0][0].shape[0]
    columns, rows = max(L, 8), 6 * J + 1
    figure, axes = _panels(rows, columns, 'Scattering filters before and after training')
    for j in range(J):
        for t in range(L):
            title = f'j={j}, θ={orientation(t, L):.4g}°'
            panels = axes[6 * j:6 * j + 6, t]
            _draw_filter(panels, title, before.psi[j][0][t], after.psi[j][0][t])
            if t == 0:
                for ax, label in zip(panels, PANELS):
                    ax.set_ylabel(label, fontsize=9)
    low_pass = axes[-1, :6]
    _draw_filter(low_pass, f'low-pass, J={J}', before.phi[0][0], after.phi[0][0])
    for ax, label in zip(low_pass, PANELS):
        ax.set_xlabel(label.replace('\n', ', '), fontsize=9)
    figure.savefig(path, format='png')


def draw_bank(filters: Filters, start: Filters, wavelets: Sequence[morlet.Wavelet], title: str, path: Path) -> None:
    """Draw a bank at its finest level, as a PNG: its filters, what moved them, and its Littlewood-Paley sum.

    For each scale j, the wavelets of all orientations side by side: in Fourier, real and imaginary part in space around
    the centre, and the difference in Fourier to those in `start`, if 0.001 anywhere, on a colour scale of its own.

    Args:
        wavelets: the numbers behind the filters, for the titles; without them, the orientation is that at the start.
    """
    J, L = len(filters.psi), filters.psi[0][0].shape[0]
    moved = any(np.abs(_array(a[0]) - _array(b[0])).max() > 1e-3 for a, b in zip(filters.psi, start.psi))
    kinds = ['Fourier', 'space, real', 'space, imaginary'] + ['moved,\nFourier'] * moved
    columns = max(L, 4)
    figure, axes = _panels(J * len(kinds) + 1, columns, title)
    for j in range(J):
        for t in range(L):
            hat, before = _array(filters.psi[j][0][t]), _array(start.psi[j][0][t])
            name = f'j={j}, θ={orientation(t, L):.4g}°'
            if wavelets:
                wavelet = wavelets[j * L + t]
                name = f'j={j}, θ={wavelet.angle:.1f}°, λ={wavelet.wavelength:.1f} px'
            space = _around_centre(hat, 6 << j)
            views = [np.fft.fftshift(hat), space.real, space.imag, np.fft.fftshift(hat - before)]
            limits = [np.abs(hat).max(), np.abs(space).max(), np.abs(space).max(), np.abs(hat - before).max()]
            names = [name, '', '', f'up to {limits[3]:.1g}']
            for row, kind in enumerate(kinds):
                ax = axes[j * len(kinds) + row, t]
                _show(ax, views[row], limits[row], names[row])
                if t == 0:
                    ax.set_ylabel(kind, fontsize=9)
    low_pass = _array(filters.phi[0][0])
    space = _around_centre(low_pass, 6 << (J - 1)).real
    _show(axes[-1, 0], np.fft.fftshift(low_pass), low_pass.max(), f'low-pass, J={J}')
    axes[-1, 0].set_ylabel('Fourier', fontsize=9)
    _show(axes[-1, 1], space, np.abs(space).max(), 'low-pass, space')
    _draw_sum(axes[-1, 2], axes[-1, 3], _array(frame.littlewood_paley(filters)[0]))
    figure.savefig(path, format='png')


def orientation(t: int, L: int) -> float:
    """Angle of the wave vector of orientation t, in degrees from the image's row axis (downwards) to its columns."""
    return math.degrees(morlet.tight_wavelet(0, t, L)[0])


PANELS = [f'{domain}\n{state}' for domain in ('Fourier', 'space') for state in ('before', 'after', 'difference')]


def _panels(rows: int, columns: int, title: str) -> Tuple[Any, np.ndarray]:
    """A figure and its axes (rows, columns), which are off until something is shown."""
    # The object-oriented interface: pyplot would pick a backend for the whole process.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.7 * columns + 1, 1.95 * rows + 1), dpi=100, layout='constrained')
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=16)
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    return figure, axes


def _show(ax: Any, image: np.ndarray, limit: float, title: str) -> None:
    """An image on a scale from -limit, blue, over zero, white, to limit, red."""
    ax.set_axis_on()
    ax.set_xticks([])
    ax.set_yticks([])
    ax.imshow(image, cmap='RdBu_r', vmin=-(limit or 1.0), vmax=limit or 1.0)
    ax.set_title(title, fontsize=8)


def _draw_filter(axes: np.ndarray, title: str, before: Tensor, after: Tensor) -> None:
    """The six panels of one filter."""
    a, b = _array(before), _array(after)
    for view, panels in ((np.fft.fftshift, axes[:3]), (_in_space, axes[3:])):
        peak, change = np.abs(view(a)).max(), np.abs(view(b - a)).max() or 1.0
        for ax, hat, limit in zip(panels, (a, b, b - a), (peak, peak, change)):
            _show(ax, view(hat), limit, title)
        panels[2].set_title(f'{title}\n(up to {change:.1g})', fontsize=8)


def _draw_sum(image: Any, profile: Any, total: np.ndarray) -> None:
    """The Littlewood-Paley sum over all frequencies, and along the rows' and the columns' axis."""
    image.set_axis_on()
    image.set_xticks([])
    image.set_yticks([])
    image.imshow(np.fft.fftshift(total), cmap='viridis')
    image.set_title(f'Littlewood-Paley sum,\n{total.min():.3g} (blue) to {total.max():.3g} (yellow)', fontsize=8)
    profile.set_axis_on()
    for values, label, style in ((total[:, 0], 'along rows', '-'), (total[0], 'along columns', '--')):
        half = values[:len(values) // 2 + 1]
        profile.plot(np.linspace(0, 1, len(half)), half, style, label=label)
    profile.axhline(1, color='grey', linewidth=0.5)
    profile.set_ylim(bottom=0)
    profile.tick_params(labelsize=7)
    profile.set_xlabel('frequency / π', fontsize=8)
    profile.legend(fontsize=7)


def _array(hat: Tensor) -> np.ndarray:
    return hat.detach().cpu().double().numpy()


def _around_centre(hat: np.ndarray, radius: int) -> np.ndarray:
    """Impulse response, complex, out to this many pixels or half the image."""
    kernel = np.fft.fftshift(np.fft.ifft2(hat))
    rows, columns = (max(n // 2 - radius, 0) for n in kernel.shape)
    return kernel[rows:kernel.shape[0] - rows, columns:kernel.shape[1] - columns]


def _in_space(hat: np.ndarray) -> np.ndarray:
    """Real part of the impulse response, the middle half of it."""
    return _around_centre(hat, hat.shape[0] // 4).real
