"""The picture of a bank of filters, with matplotlib (the extra `plot`)."""
import textwrap
from pathlib import Path
from typing import Any, List, Sequence, Tuple

import numpy as np

from . import frame, morlet
from .filters import Filters
from .plot import around_centre, as_array, degrees, orientation

LEGEND = ('each wavelet in Fourier, and its real and imaginary part in space; grey is 0, light more, dark less; '
          'θ is the angle of the stripes: 0° lie, 45° rise to the right, 90° stand')
SIDE, STEP, HEADING = 1.28, 1.32, 0.24      # inches: of a panel, from one to the next, and of the titles above a block


def draw_bank(filters: Filters, start: Filters, wavelets: Sequence[morlet.Wavelet], title: str, path: Path) -> None:
    """Draw a bank at its finest level, as a PNG: its filters, what moved them, and its Littlewood-Paley sum.

    For each scale j, the wavelets of all orientations side by side: in Fourier, real and imaginary part in space around
    the centre, and the difference in Fourier to those in `start`, if 0.001 anywhere, on a colour scale of its own.

    Args:
        wavelets: the numbers behind the filters, for the titles; without them, the orientation is that at the start.
    """
    J, L = len(filters.psi), filters.psi[0][0].shape[0]
    moved = any(np.abs(as_array(a[0]) - as_array(b[0])).max() > 1e-3 for a, b in zip(filters.psi, start.psi))
    kinds = ['Fourier', 'real', 'imaginary'] + ['moved'] * moved
    figure, axes = _grid([len(kinds)] * J + [1], max(L, 4), title)
    for j in range(J):
        for t in range(L):
            hat, before = as_array(filters.psi[j][0][t]), as_array(start.psi[j][0][t])
            name = f'θ={degrees(orientation(t, L))}'
            if wavelets:
                wavelet = wavelets[j * L + t]
                name = f'θ={degrees(wavelet.angle)}, λ={wavelet.wavelength:.1f} px'
            space = _square(hat, 5 << j)
            views = [np.fft.fftshift(hat), space.real, space.imag, np.fft.fftshift(hat - before)]
            limits = [np.abs(hat).max(), np.abs(space).max(), np.abs(space).max(), np.abs(hat - before).max()]
            panels = axes[j * len(kinds):(j + 1) * len(kinds), t]
            for row, (ax, kind) in enumerate(zip(panels, kinds)):
                _show(ax, views[row], limits[row], '' if row else name, '' if t else f'j={j}, {kind}')
            if moved:
                panels[-1].text(0.04, 0.05, f'up to {limits[3]:.1g}', fontsize=7, transform=panels[-1].transAxes,
                                bbox={'color': 'white', 'alpha': 0.7, 'pad': 1})
    low_pass = as_array(filters.phi[0][0])
    space = _square(low_pass, 5 << (J - 1)).real
    _show(axes[-1, 0], np.fft.fftshift(low_pass), low_pass.max(), f'low-pass, J={J},\nin Fourier')
    _show(axes[-1, 1], space, np.abs(space).max(), 'low-pass,\nin space')
    _draw_sum(axes[-1, 2], axes[-1, 3:], as_array(frame.littlewood_paley(filters)[0]))
    figure.savefig(path, format='png')


def _grid(blocks: Sequence[int], columns: int, title: str) -> Tuple[Any, np.ndarray]:
    """A figure of square panels, even and close but for titles above each block of so many rows, and its axes.

    They are off until something is shown. A layout engine would part columns for the numbers along one of their axes.
    """
    # The object-oriented interface: pyplot would pick a backend for the whole process.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width = 0.4 + STEP * columns
    lines, legend = textwrap.wrap(title, int(8 * width)), textwrap.wrap(LEGEND, int(14 * width))
    top = 0.2 + 0.25 * len(lines) + 0.15 * len(legend)
    height = top + HEADING * (len(blocks) + 1) + STEP * sum(blocks) + 0.4
    figure = Figure(figsize=(width, height), dpi=100)
    FigureCanvasAgg(figure)
    figure.suptitle('\n'.join(lines), fontsize=13, y=1 - 0.1 / height, parse_math=False)
    figure.text(0.5, 1 - (top - 0.05) / height, '\n'.join(legend), fontsize=8, ha='center', va='bottom')
    axes: List[List[Any]] = []
    bottom = height - top
    for n, rows in enumerate(blocks):
        bottom -= HEADING if n + 1 < len(blocks) else 2 * HEADING           # the last has titles of two lines
        for row in range(rows):
            boxes = [(0.35 + STEP * column, bottom - STEP * (row + 1), SIDE, SIDE) for column in range(columns)]
            axes.append([figure.add_axes(tuple(np.divide(box, (width, height) * 2))) for box in boxes])
        bottom -= STEP * rows
    for ax in figure.axes:
        ax.set_axis_off()
    return figure, np.array(axes)


def _square(hat: np.ndarray, radius: int) -> np.ndarray:
    """Impulse response, out to this many pixels or half the image's shorter side."""
    return around_centre(hat, min(radius, *(n // 2 for n in hat.shape)))


def _show(ax: Any, image: np.ndarray, limit: float, title: str, side: str = '') -> None:
    """An image on a scale from -limit, black, over zero, grey, to limit, white."""
    ax.set_axis_on()
    ax.set(xticks=[], yticks=[])
    ax.imshow(image, cmap='gray', vmin=-(limit or 1.0), vmax=limit or 1.0, aspect='auto')
    ax.set_title(title, fontsize=8, pad=3)
    ax.set_ylabel(side, fontsize=9)


def _draw_sum(image: Any, rest: np.ndarray, total: np.ndarray) -> None:
    """The Littlewood-Paley sum over all frequencies, and along the rows' and the columns' axis in the other panels."""
    image.set_axis_on()
    image.set(xticks=[], yticks=[])
    image.imshow(np.fft.fftshift(total), cmap='viridis', aspect='auto')
    image.set_title(f'Littlewood-Paley sum,\n{total.min():.2g} to {total.max():.2g} (yellow)', fontsize=8, pad=3)
    profile, first, last = rest[0], rest[0].get_position(), rest[-1].get_position()
    indent = 0.25 * first.width                                 # for the numbers
    profile.set_position((first.x0 + indent, first.y0, last.x1 - first.x0 - indent, first.height))
    profile.set_axis_on()
    for values, label, style in ((total[:, 0], 'along rows', '-'), (total[0], 'along columns', '--')):
        half = values[:len(values) // 2 + 1]
        profile.plot(np.linspace(0, 1, len(half)), half, style, label=label)
    profile.axhline(1, color='grey', linewidth=0.5)
    profile.set_xlim(0, 1)
    profile.set_ylim(bottom=0)
    profile.tick_params(labelsize=7)
    profile.set_xlabel('frequency / π', fontsize=8)
    profile.legend(fontsize=7, handlelength=1, borderaxespad=0.2, borderpad=0.2)
