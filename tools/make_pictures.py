"""Make the pictures of docs/scattering.md: what scattering does to a photograph, step by step.

    python tools/make_pictures.py docs

The photograph is the cameraman of scikit-image (CC0 by the photographer, Lav Varshney): pip install scikit-image.
"""
import argparse
import io
import pathlib
from typing import Any, Callable, Dict, Tuple

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from PIL import Image
from torch import Tensor

from scat_zoo import Scattering2D
from scat_zoo.scattering import transform
from scat_zoo.scattering.geometry import Path
from scat_zoo.scattering.plot import draw_disc

J, L = 4, 8
UPRIGHT, LYING, SLANTED = 7, 3, 1               # theta of wavelets for edges that stand, that lie, that rise
# Row and column of places in the photograph, in windows of 2^J pixels.
PLACES = {'tripod': (12, 9), 'back': (6, 1), 'grass': (13, 14), 'sky': (1, 11)}
FRAME = 'red'


def photograph() -> Tensor:
    """Grey values (256, 256) from 0 to 1, those of scikit-image at half the size."""
    try:
        from skimage import data
    except ImportError as error:
        raise SystemExit('make_pictures: the photograph comes with scikit-image: pip install scikit-image') from error
    return F.avg_pool2d(torch.from_numpy(data.camera())[None] / 255, 2)[0]


def modulus(photo: Tensor, hat: Tensor) -> Tensor:
    """|photo * wavelet|, of the photograph's size; the wavelet's Fourier transform is of the padded size."""
    (H, W), (M, N) = photo.shape, hat.shape
    padded = transform.pad(photo[None], M, N)[0]
    top, left = (M - H) // 2, (N - W) // 2
    return torch.fft.ifft2(torch.fft.fft2(padded) * hat).abs()[top:top + H, left:left + W]


def in_space(hat: Tensor, radius: int) -> Tensor:
    """Real part of a filter, out to this many pixels from its centre."""
    kernel = torch.fft.fftshift(torch.fft.ifft2(hat)).real
    row, column = kernel.shape[0] // 2, kernel.shape[1] // 2
    return kernel[row - radius:row + radius + 1, column - radius:column + radius + 1]


def draw_overview(photo: Tensor) -> Figure:
    """Picture, three wavelets, where they respond, averages, and all coefficients of one window as discs."""
    S = Scattering2D(J, photo.shape, L)
    s, filters = S(photo), S.filters()
    figure = Figure(figsize=(8, 4.4))
    for left, title, more in (
            (2.3, 'Wavelets', 'small waves'), (3.2, 'Responses', '|picture * wavelet|'),
            (4.75, 'Averaged', f'in windows of {2 ** J} pixels'), (6.4, 'One window', 'all wavelets')):
        _write(figure, left, 4.22, title, weight='bold', size=10)
        _write(figure, left, 4.05, more)
    _write(figure, 0.05, 3.06, 'A picture', weight='bold', size=10)
    ax = _axes(figure, 0.05, 0.92, 2.05)
    ax.imshow(photo.numpy(), cmap='gray', vmin=0, vmax=1)
    _mark(ax, *PLACES['tripod'], 2 ** J)
    for row, (j, theta) in enumerate(((0, UPRIGHT), (0, LYING), (1, SLANTED))):
        bottom = 2.75 - 1.3 * row
        hat = filters.psi[j][0][theta]
        _show_wave(_axes(figure, 2.3, bottom + 0.3, 0.6), in_space(hat, 7))
        _axes(figure, 3.2, bottom, 1.2).imshow(modulus(photo, hat).numpy(), cmap='viridis')
        ax = _axes(figure, 4.75, bottom, 1.2)
        ax.imshow(s[S.paths.index(Path(1, j, theta))].numpy(), cmap='viridis')
        _mark(ax, *PLACES['tripod'], 1)
        for start, end in ((2.12, 2.29), (2.93, 3.18), (4.44, 4.73)):
            _arrow(figure, (start, bottom + 0.6), (end, bottom + 0.6))
    values = s[(slice(None), *PLACES['tripod'])]
    for order, bottom, text in ((1, 2.48, 'order 1: upright stripes left\nand right, fine ones outside'),
                                (2, 0.42, 'order 2: the responses,\nfiltered once more')):
        draw_disc(_axes(figure, 6.4, bottom, 1.5), values, S.paths, order)
        _arrow(figure, (6.0, bottom + 0.75), (6.36, bottom + 0.75))
        _write(figure, 7.15, bottom - 0.04, text, ha='center', va='top')
    return figure


def draw_wavelets(photo: Tensor) -> Figure:
    """The real parts of all wavelets of J = 3, and of the low-pass, in space."""
    scales = 3
    filters = Scattering2D(scales, photo.shape, L).filters()
    figure = Figure(figsize=(8, 2.55))
    for theta in range(L):
        left = 0.4 + 0.82 * theta
        _write(figure, left + 0.38, 2.42, f'θ = {theta}', ha='center')
        for j in range(scales):
            _show_wave(_axes(figure, left, 1.62 - 0.8 * j, 0.76), in_space(filters.psi[j][0][theta], 12))
    for j in range(scales):
        _write(figure, 0.02, 1.96 - 0.8 * j, f'j = {j}')
    _write(figure, 7.45, 2.42, 'low-pass', ha='center')
    _show_wave(_axes(figure, 7.07, 1.62, 0.76), in_space(filters.phi[0][0], 12))
    return figure


def draw_places(photo: Tensor) -> Figure:
    """What is seen at four places of the photograph, and their coefficients as discs."""
    S = Scattering2D(J, photo.shape, L)
    s = S(photo)
    side, reach = 2 ** J, 24
    figure = Figure(figsize=(8, 5.7))
    for column, (name, (row, col)) in enumerate(PLACES.items()):
        left = 0.75 + 1.85 * column
        _write(figure, left + 0.8, 5.53, name, ha='center', weight='bold', size=10)
        ax = _axes(figure, left, 3.85, 1.6)
        ax.imshow(photo.numpy(), cmap='gray', vmin=0, vmax=1)
        _mark(ax, row, col, side)
        top, start = (row + 0.5) * side - 0.5, (col + 0.5) * side - 0.5
        ax.set(xlim=(start - reach, start + reach), ylim=(top + reach, top - reach))
        for order, bottom in ((1, 2.05), (2, 0.2)):
            chosen = [n for n, path in enumerate(S.paths) if path.order == order]
            largest = s[chosen, row, col].max()
            draw_disc(_axes(figure, left, bottom, 1.6), s[:, row, col], S.paths, order)
            _write(figure, left + 0.8, bottom - 0.12, f'up to {largest:.1g}', ha='center')
    for order, bottom in ((1, 2.05), (2, 0.2)):
        _write(figure, 0.05, bottom + 0.8, f'order {order}')
    return figure


def draw_scales(photo: Tensor) -> Figure:
    """Where the finest upright wavelet responds, averaged at four scales J."""
    figure = Figure(figsize=(8, 2.25))
    for column, scale in enumerate((2, 3, 4, 5)):
        S = Scattering2D(scale, photo.shape, L, max_order=1)
        averages = S(photo)[S.paths.index(Path(1, 0, UPRIGHT))]
        left = 0.05 + 2 * column
        _write(figure, left + 0.95, 2.05, f'J = {scale}: windows of {2 ** scale} pixels', ha='center')
        _axes(figure, left, 0.05, 1.9).imshow(averages.numpy(), cmap='viridis')
    return figure


def _axes(figure: Figure, left: float, bottom: float, width: float, height: float = 0) -> Any:
    """Axes without ticks; inches."""
    w, h = figure.get_size_inches()
    ax = figure.add_axes((left / w, bottom / h, width / w, (height or width) / h))
    ax.set_xticks([])
    ax.set_yticks([])
    for side in ax.spines.values():
        side.set_visible(False)
    return ax


def _write(figure: Figure, left: float, bottom: float, text: str, **how: Any) -> None:
    w, h = figure.get_size_inches()
    figure.text(left / w, bottom / h, text, **{'size': 8, **how})


def _show_wave(ax: Any, values: Tensor) -> None:
    """Grey is zero."""
    limit = values.abs().max().item()
    ax.imshow(values.numpy(), cmap='gray', vmin=-limit, vmax=limit, interpolation='bicubic')


def _mark(ax: Any, row: int, column: int, side: int) -> None:
    """A frame round a window of so many pixels."""
    ax.add_patch(Rectangle((column * side - 0.5, row * side - 0.5), side, side, fill=False, color=FRAME, linewidth=1.5))


def _arrow(figure: Figure, start: Tuple[float, float], end: Tuple[float, float]) -> None:
    w, h = figure.get_size_inches()
    figure.add_artist(FancyArrowPatch((start[0] / w, start[1] / h), (end[0] / w, end[1] / h), color='0.4',
                                      arrowstyle='-|>', mutation_scale=9, transform=figure.transFigure))


PICTURES: Dict[str, Callable[[Tensor], Figure]] = {
    'scattering.png': draw_overview, 'wavelets.png': draw_wavelets, 'places.png': draw_places,
    'scales.png': draw_scales}


def save(figure: Figure, path: pathlib.Path, colours: int = 256) -> None:
    """As a PNG with a palette, a third of the size."""
    content = io.BytesIO()
    figure.savefig(content, format='png', dpi=200)
    Image.open(content).convert('RGB').quantize(colours, kmeans=1, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('output', type=pathlib.Path)
    args = parser.parse_args()
    photo = photograph()
    for name, draw in PICTURES.items():
        save(draw(photo), args.output / name)


if __name__ == '__main__':
    main()
