"""The pictures in `report.html`, each as the bytes of a PNG; all but `thumbnail` with matplotlib."""
import io
from typing import Any, List, Mapping, Sequence, Tuple, Union

import numpy as np
from PIL import Image
from torch import Tensor

from ..scattering.geometry import Path
from ..scattering.plot import draw_disc

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
