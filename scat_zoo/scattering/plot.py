"""Pictures of filters, with matplotlib (the extra `plot`)."""
import math
from pathlib import Path
from typing import List, Sequence, Tuple

import numpy as np
from torch import Tensor

Filters = Tuple[List[Tensor], List[List[Tensor]]]


def draw_change(before: Filters, after: Filters, path: Path) -> None:
    """Draw what training did to every filter (phi, psi) at its finest level, as a PNG.

    For each scale j, the wavelets of all orientations side by side: in Fourier and (real part, around the centre) in
    space, before, after, and the difference on a colour scale of its own. Last comes the low-pass.
    """
    # The object-oriented interface: pyplot would pick a backend for the whole process.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    J, L = len(after[1]), after[1][0][0].shape[0]
    columns, rows = max(L, 8), 6 * J + 1
    figure = Figure(figsize=(1.7 * columns + 1, 1.95 * rows + 1), dpi=100, layout='constrained')
    FigureCanvasAgg(figure)
    figure.suptitle('Scattering filters before and after training', fontsize=16)
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for j in range(J):
        for t in range(L):
            title = f'j={j}, θ={orientation(t, L):.4g}°'
            panels = axes[6 * j:6 * j + 6, t]
            _draw_filter(panels, title, before[1][j][0][t], after[1][j][0][t])
            if t == 0:
                for ax, label in zip(panels, PANELS):
                    ax.set_ylabel(label, fontsize=9)
    low_pass = axes[-1, :6]
    _draw_filter(low_pass, f'low-pass, J={J}', before[0][0], after[0][0])
    for ax, label in zip(low_pass, PANELS):
        ax.set_xlabel(label.replace('\n', ', '), fontsize=9)
    figure.savefig(path, format='png')


def orientation(t: int, L: int) -> float:
    """Angle of the wave vector of orientation t, in degrees from the image's row axis (downwards) to its columns."""
    return math.degrees((int(L - L / 2 - 1) - t) * math.pi / L)


PANELS = [f'{domain}\n{state}' for domain in ('Fourier', 'space') for state in ('before', 'after', 'difference')]


def _draw_filter(axes: Sequence, title: str, before: Tensor, after: Tensor) -> None:
    """The six panels of one filter."""
    a, b = (hat.detach().cpu().double().numpy() for hat in (before, after))
    for view, panels in ((np.fft.fftshift, axes[:3]), (_in_space, axes[3:])):
        peak, change = np.abs(view(a)).max(), np.abs(view(b - a)).max() or 1.0
        for ax, hat, limit in zip(panels, (a, b, b - a), (peak, peak, change)):
            ax.set_axis_on()
            ax.set_xticks([])
            ax.set_yticks([])
            ax.imshow(view(hat), cmap='RdBu_r', vmin=-limit, vmax=limit)
            ax.set_title(title, fontsize=8)
        panels[2].set_title(f'{title}\n(up to {change:.1g})', fontsize=8)


def _in_space(hat: np.ndarray) -> np.ndarray:
    """Real part of the impulse response, the middle half of it."""
    kernel = np.fft.fftshift(np.fft.ifft2(hat).real)
    rows, columns = (n // 4 for n in kernel.shape)
    return kernel[rows:kernel.shape[0] - rows, columns:kernel.shape[1] - columns]
