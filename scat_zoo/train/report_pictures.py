"""The pictures in `report.html`, each as the bytes of a PNG, and that of `scat-zoo explain`.

All but `thumbnail` need matplotlib.
"""
import io
import pathlib
import textwrap
import warnings
from typing import Any, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np
from PIL import Image
from torch import Tensor

from ..scattering.geometry import Path
from ..scattering.plot import draw_disc, draw_labelled_disc

SIDE = 160                      # pixels of a thumbnail's longer side, at most
STEPS = 9                       # colours that tell a colour scale


def thumbnail(picture: Union[Image.Image, Tensor]) -> bytes:
    """A picture that `images.prepare` gave: of channels that are neither grey nor colour, their mean."""
    if isinstance(picture, Tensor):                                         # (C, H, W), from 0 to 1
        values = picture if len(picture) in (1, 3) else picture.mean(0, keepdim=True)
        array = (255 * values.clamp(0, 1)).round().byte().movedim(0, 2).numpy()
        picture = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
    small = picture.copy()
    small.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    small.save(stream, format='png')
    return stream.getvalue()


def curve(lines: Mapping[str, Sequence[float]], level: Mapping[str, float], what: str) -> bytes:
    """A curve a way, by epoch from 1, and a dashed line for what has no epochs."""
    figure, ax = _figure(5, 3.4)
    for name, values in lines.items():
        marker = 'o' if len(values) < 20 else None
        ax.plot(np.arange(1, len(values) + 1), values, marker=marker, markersize=4, label=name)
    for name, value in level.items():
        ax.axhline(value, linestyle='--', color='0.35', label=name)
    ax.set(xlabel='epoch', ylabel=what)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(alpha=0.3)
    figure.legend(loc='outside upper left', fontsize=9)
    return _png(figure)


def disc(values: np.ndarray, paths: Sequence[Path], order: int) -> bytes:
    """What `draw_disc` draws, and nothing around it."""
    figure, ax = _figure(2.4, 2.4)
    figure.set_layout_engine('none')
    ax.set_position([0, 0, 1, 1])
    draw_disc(ax, values, paths, order)
    return _png(figure, transparent=True)


def colours() -> List[str]:
    """Those of the discs' scale, from its beginning, in CSS."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps['viridis'](i / (STEPS - 1))) for i in range(STEPS)]


def explanation(file: pathlib.Path, title: str, image: np.ndarray, paths: Sequence[Path], means: np.ndarray,
                shares: np.ndarray, places: Optional[np.ndarray], window: int) -> None:
    """Draw an image, its coefficients and what speaks for a class, as a PNG of about 1170 x 790 pixels.

    Args:
        image: (H, W) or (H, W, 3), from 0 to 1.
        means, shares: of each path, the mean coefficient and the share in the logit.
        places: the share in a window's area around each pixel (H, W); None if there is none.
        window: pixels along the side of a window.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    orders = [order for order in (1, 2) if any(path.order == order for path in paths)]
    figure = Figure(figsize=(3.6 * len(orders) + 3.4, 7.2), dpi=110,
                    layout=ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.08))
    FigureCanvasAgg(figure)
    lines = [textwrap.fill(line, int(11 * figure.get_figwidth())) for line in title.splitlines()]
    figure.suptitle('\n'.join(lines), fontsize=11, parse_math=False)
    axes = figure.subplots(2, 1 + len(orders))
    axes[0, 0].imshow(image, cmap='gray', vmin=0, vmax=1)
    axes[0, 0].set_title(f'the image as the model sees it,\n{image.shape[0]} x {image.shape[1]} pixels', fontsize=10)
    _draw_places(axes[1, 0], image, places, window)
    for ax in axes[:, 0]:
        ax.tick_params(labelsize=8)
    for column, order in enumerate(orders, 1):
        total = shares[[path.order == order for path in paths]].sum()
        draw_labelled_disc(axes[0, column], means, paths, order, f'coefficients of order {order},\nmean over the image')
        draw_labelled_disc(axes[1, column], shares, paths, order, f'shares of order {order},\n{total:+.2f} in all',
                           signed=True)
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Glyph')              # names of classes may have signs that the font lacks
        figure.savefig(file, format='png')


def _draw_places(ax: Any, image: np.ndarray, places: Optional[np.ndarray], window: int) -> None:
    """Shares in colours over the image, red for, blue against."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    if places is None:
        ax.set_axis_off()
        ax.text(0.5, 0.5, 'no map of places:\nthe head does not keep them', fontsize=9, color='0.3', ha='center',
                va='center', transform=ax.transAxes)
        return
    limit = float(np.abs(places).max()) or 1.
    colours = ScalarMappable(Normalize(-limit, limit), colormaps['RdBu_r'])
    grey = image if image.ndim == 2 else image.mean(2)
    ax.imshow(colours.to_rgba(places)[..., :3] * (0.8 + 0.2 * grey[..., None]))
    ax.set_title(f'where: share in {window} x {window} pixels,\nred for the class, blue against it', fontsize=10)
    bar = ax.figure.colorbar(colours, ax=ax, shrink=0.8, aspect=18, pad=0.04)
    bar.ax.tick_params(labelsize=8)


def _figure(width: float, height: float) -> Tuple[Any, Any]:
    """A figure of this size in inches, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout='constrained')
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _png(figure: Any, transparent: bool = False) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format='png', transparent=transparent)
    small = io.BytesIO()
    Image.open(stream).quantize(128, Image.Quantize.FASTOCTREE).save(small, format='png', optimize=True)
    return small.getvalue()
