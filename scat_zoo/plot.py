"""Pictures for notebooks: the scattering coefficients of an image as discs (the extra `plot`)."""
import io
from collections import Counter
from numbers import Integral, Real
from typing import Any, Optional, Sequence, Tuple, Union

import numpy as np
from torch import Tensor

from .scattering.geometry import Path
from .scattering.plot import draw_labelled_disc
from .wording import brief

try:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError('scat_zoo.plot needs matplotlib: install it, or scat_zoo with the extra plot') from error


class Picture(Figure):
    """A Figure that a notebook shows where it is the value of a cell, without pyplot and its choice of a backend."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.savefig(stream, format='png')
        return stream.getvalue()


def discs(coefficients: Union[Tensor, np.ndarray, Sequence[float]], paths: Sequence[Path],
          window: Optional[Tuple[int, int]] = None, limits: Optional[Tuple[float, float]] = None, title: str = '',
          signed: bool = False) -> Picture:
    """Draw coefficients of order 1 and 2 as discs in the frequency plane (Bruna and Mallat, 2013).

    The radius is the scale, the finest outside, and the direction that in which stripes follow each other, so that
    vertical stripes light up left and right. The angles around it, from the bottom to the right, are those by which
    stripes rise to the right: 0° lie, 90° stand. For order 2 each cell of the disc is divided again, by scale and
    orientation of the second wavelet; what has no path is grey. Paths of `rotation='average'` have no first
    orientation: order 1 fills whole rings, and in order 2 the second wavelet's stripes lie along the first's (left and
    right) or across (above and below).

        from scat_zoo.plot import discs
        discs(S(image), S.paths)                    # the mean over all windows
        discs(S(image), S.paths, window=(3, 4))     # one window

    Args:
        coefficients: (paths,) of one window, or (paths, h, w) of all, of which the means are drawn.
        paths: what they are, such as `ScatteringTorch2D.paths`, each once.
        window: (row, column) of the one to draw, of coefficients (paths, h, w).
        limits: the values at the end of the colours of order 1 and of order 2, so that pictures compare; the largest
            of each unless given.
        title: what stands above.
        signed: for weights and differences: blue below zero, white at zero, red above.

    Returns:
        A Figure of matplotlib; `savefig` writes it.

    Raises:
        ValueError: in one sentence, if shapes and paths do not fit, a path comes twice, or values are not finite.
        ImportError: on import, without matplotlib.
    """
    orders = _orders(paths)
    values = _of_window(coefficients, len(paths), window)
    if limits is not None and (not _are(2, Real, limits) or not all(0 < limit < np.inf for limit in limits)):
        raise ValueError(f'limits must be two positive numbers, of order 1 and 2, got {brief(limits, 60)}')
    figure = Picture(figsize=(4.2 * len(orders), 4.1 if title else 3.8), dpi=100, layout='constrained')
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, fontsize=12, parse_math=False)
    for ax, order in zip(figure.subplots(1, len(orders), squeeze=False)[0], orders):
        draw_labelled_disc(ax, values, paths, order, f'order {order}', limits[order - 1] if limits else None, signed)
    return figure


def _of_window(coefficients: Union[Tensor, np.ndarray, Sequence[float]], count: int,
               window: Optional[Tuple[int, int]]) -> np.ndarray:
    """(paths,) in float64."""
    try:
        array = coefficients.detach().cpu().numpy() if isinstance(coefficients, Tensor) else np.asarray(coefficients)
        if not np.iscomplexobj(array):
            array = array.astype(float)
    except (TypeError, ValueError) as error:
        raise ValueError(f'expected an array of real coefficients, got {brief(error, 80)}') from error
    if np.iscomplexobj(array):
        raise ValueError(f'expected an array of real coefficients, got {brief(array.dtype, 20)}')
    if array.ndim not in (1, 3) or len(array) != count or not array.size:
        hint = ': one image and one colour at a time' if array.ndim > 3 else ''
        raise ValueError(f'expected coefficients (paths,) or (paths, h, w) of {count} paths, got shape '
                         f'{brief(array.shape, 60)}{hint}')
    if not np.isfinite(array).all():
        raise ValueError(f'expected finite coefficients, got {int((~np.isfinite(array)).sum()):,} that are not')
    if window is None:
        return array if array.ndim == 1 else array.mean((1, 2))
    sides = array.shape[1:]
    if len(sides) != 2 or not _are(2, Integral, window) or not all(0 <= n < side for n, side in zip(window, sides)):
        there = f'(row, column) of {sides[0]} x {sides[1]} windows' if sides else 'left out for coefficients (paths,)'
        raise ValueError(f'window must be {there}, got {brief(window, 60)}')
    return array[(slice(None), *window)]


def _orders(paths: Sequence[Path]) -> Sequence[int]:
    """Those of the paths that a disc shows."""
    if not isinstance(paths, (list, tuple)) or not all(hasattr(path, 'j1') for path in paths):
        raise ValueError(f'expected a list of paths, such as ScatteringTorch2D.paths, got {brief(repr(paths), 60)}')
    found = sorted({path.order for path in paths} - {0})
    if not found or not set(found) <= {1, 2}:
        raise ValueError(f'expected paths of order 1 or 2, got orders {brief(sorted({p.order for p in paths}), 60)}')
    (path, times), = Counter(Path(*path[:5]) for path in paths).most_common(1)      # a channel begins with its path
    if times > 1:
        raise ValueError(f'expected each path once, {brief(path, 120)} comes {times} times: take those of one scale '
                         'and colour')
    angles = {t for path in paths for t in (path.theta1, path.theta2) if t is not None}
    if len({path.theta1 is None for path in paths if path.order}) > 1 or angles - set(range(len(angles))):
        raise ValueError('expected paths of all orientations, of one kind: a disc has a place for each, got '
                         f'orientations {brief(sorted(angles), 60)}')
    return found


def _are(count: int, kind: type, values: Any) -> bool:
    return isinstance(values, (list, tuple)) and len(values) == count and all(
        isinstance(value, kind) and not isinstance(value, bool) for value in values)
