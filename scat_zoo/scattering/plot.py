"""Pictures of filters and of coefficients, with matplotlib (the extra `plot`).

The angle of a wavelet is that at which it oscillates, in degrees from downwards to the right, and so the angle of its
stripes, counter-clockwise: at 0 they lie, at 45 they rise to the right, at 90 they stand. Half a turn more is the same.
"""
import math
from pathlib import Path
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
from torch import Tensor

from . import geometry, morlet
from .filters import Filters

MOST = 6                        # filters that `draw_change` shows


class Moved(NamedTuple):
    """A filter at its finest level, in Fourier (M, N), and how far it moved: the norm of the change over its norm."""
    name: str
    before: np.ndarray
    after: np.ndarray
    change: float
    reach: int                  # pixels from the centre that hold nearly all of it


def draw_change(before: Filters, after: Filters, path: Path) -> None:
    """Draw what training did to the six filters that it moved most, as a PNG of about 1400 x 900 pixels.

    Each has a column: before, after and the difference, in Fourier, and as real parts in space, there in parts of the
    peak before.
    """
    filters = sorted(_moved(before, after), key=lambda f: -f.change)[:MOST]
    figure, axes = _panels(6, len(filters), _told(filters), (1.8 * len(filters) + 1.6, 9.2))
    images: List[List[Any]] = []                                            # of each filter, from above
    for column, f in zip(axes.T, filters):
        M, N = f.before.shape
        hats = [np.fft.fftshift(hat) for hat in (f.before, f.after)]
        of_bins = -1 - 1 / N, 1 - 1 / N, 1 - 1 / M, -1 - 1 / M              # rows downwards
        peak = np.abs(np.fft.ifft2(f.before).real).max()
        views = [around_centre(hat, f.reach).real / peak for hat in (f.before, f.after)]
        m, n = views[0].shape
        of_pixels = -(n // 2) - 0.5, n - n // 2 - 0.5, m - m // 2 - 0.5, -(m // 2) - 0.5
        images.append(_three(column[:3], hats, of_bins, 0.5) + _three(column[3:], views, of_pixels, min(m, n) // 4))
        column[0].set_title(f'{f.name}\nmoved by {100 * f.change:.1f} %', fontsize=10)
        column[2].set_xlabel('frequency / π', fontsize=8)
        column[5].set_xlabel('pixels', fontsize=8)
    for row, ax in enumerate(axes[:, 0]):
        ax.set_ylabel(('Fourier', 'space')[row // 3] + '\n' + ('before', 'after', 'difference')[row % 3], fontsize=10)
    for rows, what in ((slice(2), 'gain'), (slice(2, 3), 'difference'), (slice(3, 5), 'value / peak'),
                       (slice(5, 6), 'difference / peak')):
        alike = [image for column in images for image in column[rows]]
        limit = max(np.abs(image.get_array()).max() for image in alike) or 1.0
        for image in alike:
            image.set_clim(-limit, limit)
        bar = figure.colorbar(alike[0], ax=axes[rows].ravel().tolist(), aspect=12, pad=0.01)
        bar.set_label(what, fontsize=9)
        bar.ax.tick_params(labelsize=8)
    figure.savefig(path, format='png')


def _moved(before: Filters, after: Filters) -> List[Moved]:
    """All filters: wavelets, then low-passes."""
    L = after.psi[0][0].shape[0]
    named = [(f'j={j}, θ={degrees(orientation(t, L))}', a[0][t], b[0][t], 6 << j)
             for j, (a, b) in enumerate(zip(before.psi, after.psi)) for t in range(L)]
    # A low-pass of scale s is read at s levels, and as wide as the wavelets of scale s - 1.
    named += [(f'low-pass, scale {len(b)}', a[0], b[0], 6 << (len(b) - 1)) for a, b in zip(before.phi, after.phi)]
    found = []
    for name, a, b, reach in named:
        x, y = as_array(a), as_array(b)
        found.append(Moved(name, x, y, float(np.linalg.norm(y - x) / np.linalg.norm(x)), reach))
    return found


def _told(filters: Sequence[Moved]) -> str:
    """What the picture shows, in a sentence."""
    moved = [f for f in filters if f.change > 0]
    if not moved:
        return 'Training left the filters as they were.'
    total = sum(np.square(f.after - f.before).sum() for f in moved)
    own = sum(np.square((f.after - f.before)[np.abs(f.before) > 0.1 * np.abs(f.before).max()]).sum() for f in moved)
    share = own / total
    where = (f'{100 * share:.0f} % of their change lies at frequencies that they passed before' if share > 0.5 else
             f'{100 * (1 - share):.0f} % of their change lies at frequencies that they did not pass before')
    return f'The {len(filters)} filters that training moved most, by {100 * filters[-1].change:.1f} to ' \
           f'{100 * filters[0].change:.1f} %: {where}.'


def _three(axes: Sequence[Any], views: Sequence[np.ndarray], places: Tuple[float, float, float, float],
           tick: float) -> List[Any]:
    """A filter before and after, and the difference, one below the other; the images, whose colours' range is open."""
    images = []
    for ax, view in zip(axes, [*views, views[1] - views[0]]):
        ax.set_axis_on()
        images.append(ax.imshow(view, cmap='RdBu_r', extent=places))
        ax.set_xticks([-tick, 0, tick])
        ax.set_yticks([-tick, 0, tick])
        ax.tick_params(labelsize=7, length=2, pad=1, labelbottom=ax is axes[-1])
    return images


def draw_disc(ax: Any, values: Union[np.ndarray, Tensor, Sequence[float]], paths: Sequence[geometry.Path], order: int,
              limit: Optional[float] = None, signed: bool = False) -> Any:
    """Draw the coefficients of one order as a disc in the frequency plane (the display of Bruna and Mallat, 2013).

    The direction from the centre is that of the wave vector as it lies in the image, rows downwards: angles count from
    the bottom of the disc to its right. Vertical stripes light up left and right, horizontal ones above and below; a
    coefficient of a real image stands for both. Each ring is a scale j1, the finest outside, all of one width;
    each sector of a ring is an orientation theta1. For order 2 a sector is divided again: into rings j2, the finer
    outside, and, turning the way theta1 does, into orientations theta2. What has no path stays grey: order 2 of the
    coarsest j1.

    Paths of an average over rotations have no theta1: those of order 1 fill their ring, and those of order 2 lie where
    theta2 would if the first wavelet's stripes were vertical. So stripes along them light up left and right, and
    stripes across them above and below.

    Args:
        ax: axes of matplotlib, for this disc alone.
        values: one number a path, not negative unless `signed`, for instance means over space.
        paths: what they are, such as `ScatteringTorch2D.paths`; those of other orders are not drawn.
        order: 1 or 2.
        limit: the value at the end of the colours, which begin at 0; the largest of this order unless given.
        signed: colours from -limit, blue, over zero, white, to limit, red.

    Returns:
        What `figure.colorbar` takes.

    Raises:
        ValueError: if there is not one value a path, or the order is neither 1 nor 2.
    """
    from matplotlib import colormaps

    if order not in (1, 2) or len(values) != len(paths):
        raise ValueError(f'a disc shows order 1 or 2 and has one value a path: got order {order}, {len(values)} values '
                         f'for {len(paths)} paths')
    J = 1 + max(j for path in paths for j in (path.j1, path.j2) if j is not None)
    L = 1 + max((t for path in paths for t in (path.theta1, path.theta2) if t is not None), default=0)
    absolute = any(path.theta1 is not None for path in paths)
    cells, radii = _disc(as_array(values) if isinstance(values, Tensor) else np.asarray(values), paths, order, J, L)
    smooth = max(90 // cells.shape[1], 1)                           # straight pieces of an arc, for the looks
    cells = np.ma.masked_invalid(np.tile(np.repeat(cells, smooth, axis=1), 2))      # both halves
    first = math.radians((orientation(L - 1, L) if absolute else 90) - 90 / L)
    angles = np.linspace(first, first + 2 * math.pi, cells.shape[1] + 1)
    limit = limit or float(np.abs(cells).max() if cells.count() else 0) or 1.
    colours, edge = ('RdBu_r', '0.6') if signed else ('viridis', 'white')
    shown = ax.pcolormesh(np.outer(radii, np.sin(angles)), np.outer(radii, np.cos(angles)), cells,
                          cmap=colormaps[colours].with_extremes(bad='0.8'), vmin=-limit if signed else 0, vmax=limit)
    _draw_edges(ax, radii[[0, -1]], J, angles, 2 * L if absolute else 0, edge)
    ax.set(xlim=(-1.02, 1.02), ylim=(1.02, -1.02), aspect='equal')  # rows go down
    ax.set_axis_off()
    return shown


def _draw_edges(ax: Any, ends: np.ndarray, J: int, angles: np.ndarray, sectors: int, colour: str) -> None:
    """Lines between the rings j1, from the first of these radii to the last, and between the sectors theta1."""
    for radius in np.linspace(ends[0], ends[1], J + 1):
        ax.plot(radius * np.sin(angles), radius * np.cos(angles), color=colour, linewidth=0.6)
    for angle in np.linspace(angles[0], angles[0] + 2 * math.pi, sectors, endpoint=False):
        ax.plot(ends * math.sin(angle), ends * math.cos(angle), color=colour, linewidth=0.6)


def _disc(values: np.ndarray, paths: Sequence[geometry.Path], order: int, J: int, L: int
          ) -> Tuple[np.ndarray, np.ndarray]:
    """Values by ring (from outside) and by angle of half a turn (rising), NaN without a path; the rings' radii."""
    rings: List[Tuple[int, Optional[int]]] = []
    radii = [1.0]
    width = 1 / (J + 0.5)
    for j1 in range(J):
        inner = list(range(j1 + 1, J)) if order == 2 else []
        rings += [(j1, j2) for j2 in inner] or [(j1, None)]
        radii += [1 - width * (j1 + (n + 1) / max(len(inner), 1)) for n in range(max(len(inner), 1))]
    absolute = any(path.theta1 is not None for path in paths)
    cells = np.full((len(rings), L if absolute else 1, L if order == 2 else 1), np.nan)
    for path, value in zip(paths, values):
        if path.order == order and path.j1 is not None:
            # Angles fall as the index rises; a difference of two begins in the middle of its cell.
            first = 0 if path.theta1 is None else L - 1 - path.theta1
            second = 0 if path.theta2 is None else L - 1 - path.theta2 if absolute else -path.theta2 % L
            cells[rings.index((path.j1, path.j2)), first, second] = value
    return cells.reshape(len(rings), -1), np.array(radii)


def draw_labelled_disc(ax: Any, values: Union[np.ndarray, Tensor, Sequence[float]], paths: Sequence[geometry.Path],
                       order: int, title: str, limit: Optional[float] = None, signed: bool = False) -> None:
    """`draw_disc` with a title, a colour bar, the stripes' directions around it, and what the rings are below."""
    shown = draw_disc(ax, values, paths, order, limit, signed)
    absolute = any(path.theta1 is not None for path in paths)
    ax.set(xlim=(-1.25, 1.25), ylim=(1.7, -1.05))                   # with what stands around
    ax.set_title(title, fontsize=10)
    around = {(1.04, 0): '|||\n90°', (0, 1.05): '≡ 0°', (0.75, 0.75): '/// 45°', (0.75, -0.75): r'\\\ 135°'}
    if not absolute:
        around = {(1.04, 0): 'along', (0, 1.05): 'across'} if order == 2 else {}
    for (x, y), text in around.items():
        ax.text(x, y, text, fontsize=8, color='0.3', ha='left' if x else 'center', va='center' if not y or x else 'top')
    periods = ', '.join(f'{period(j):.1f}' for j in range(1 + max(path.j1 for path in paths if path.j1 is not None)))
    below = f'rings, from outside: stripes about every\n{periods} pixels{"" if absolute else ", in any direction"}'
    if order == 2:
        below = 'each cell is divided by size and direction\nof the second wavelet' if absolute else (
            "in each ring: the second wavelet's stripes,\nalong the first's or across")
    ax.text(0, 1.28, below, fontsize=8, color='0.3', ha='center', va='top')
    bar = ax.figure.colorbar(shown, ax=ax, shrink=0.8, aspect=18, pad=0.04)
    bar.ax.tick_params(labelsize=8)


def period(j: int) -> float:
    """Pixels after which the stripes of the wavelets of scale j repeat, in the tight frame."""
    return 2 * math.pi / morlet.tight_wavelet(j, 0, 1)[1]


def orientation(t: int, L: int) -> float:
    """Angle at which the wavelets of orientation t oscillate, from 0 to below 180; see above."""
    return math.degrees(morlet.tight_wavelet(0, t, L)[0]) % 180


def degrees(angle: float) -> str:
    """An angle as all pictures, tables and sentences tell it, from 0° to below 180°."""
    return f'{round(angle % 180, 1) % 180:g}°'


def _panels(rows: int, columns: int, title: str, size: Tuple[float, float]) -> Tuple[Any, np.ndarray]:
    """A figure of this size in 100 pixels, and its axes (rows, columns), which are off until something is shown."""
    # The object-oriented interface: pyplot would pick a backend for the whole process.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=100, layout='constrained')
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=13, wrap=True)
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    return figure, axes


def as_array(hat: Tensor) -> np.ndarray:
    return hat.detach().cpu().double().numpy()


def around_centre(hat: np.ndarray, radius: int) -> np.ndarray:
    """Impulse response, complex, out to this many pixels or half the image."""
    kernel = np.fft.fftshift(np.fft.ifft2(hat))
    rows, columns = (max(n // 2 - radius, 0) for n in kernel.shape)
    return kernel[rows:kernel.shape[0] - rows, columns:kernel.shape[1] - columns]
