"""The picture of a bank: an even grid that fills it, and texts that can be read."""
import numpy as np
import pytest
from matplotlib.figure import Figure

from scat_zoo.models.stem import ScatteringStem
from scat_zoo.scattering.plot_bank import draw_bank

KINDS = {'fixed': {}, 'learned': {'learnable': True, 'parametrization': 'morlet'},
         'random': {'learnable': True, 'init': 'random'}}


@pytest.fixture(params=[(2, 8, 'fixed'), (3, 4, 'random'), (1, 2, 'learned'), (4, 12, 'fixed')], ids=str)
def figure(request, tmp_path, monkeypatch):
    J, L, kind = request.param
    saved = []
    monkeypatch.setattr(Figure, 'savefig', lambda figure, *args, **how: saved.append(figure))
    stem, start = (ScatteringStem(J=J, L=L, in_chans=1, img_size=(40, 72), **kwargs) for kwargs in (KINDS[kind], {}))
    draw_bank(stem.filters(), start.filters(), stem.filter_parameters(), 'some model: ' + 'a long name, ' * 6,
              tmp_path / 'bank.png')
    figure, = saved
    figure.rows = J * (4 if kind == 'random' else 3)
    figure.of_row = L
    figure.canvas.draw()
    return figure


def panels(figure):
    """(rows, columns, 4) of the wavelets' panels, in pixels: left, bottom, right, upper edge."""
    boxes = [ax.get_window_extent().extents for ax in figure.axes if ax.get_images()]
    return np.array(boxes[:figure.rows * figure.of_row]).reshape(figure.rows, figure.of_row, 4)


def test_panels_are_an_even_close_grid(figure):
    boxes = panels(figure)
    width, height = boxes[0, 0, 2:] - boxes[0, 0, :2]
    assert width == pytest.approx(height, abs=0.1)
    assert np.allclose(boxes[..., 2:] - boxes[..., :2], width, atol=0.1)
    between = boxes[:, 1:, 0] - boxes[:, :-1, 2]
    assert np.allclose(between, between[0, 0], atol=0.1)
    assert 0 < between[0, 0] < 0.05 * width
    below = boxes[:-1, 0, 1] - boxes[1:, 0, 3]
    assert below.min() == pytest.approx(between[0, 0], abs=0.1)
    assert below.max() < 0.25 * height                          # where titles stand


def test_little_is_white(figure):
    white = (np.asarray(figure.canvas.buffer_rgba())[..., :3] > 240).all(2).mean()
    assert white < (0.4 if figure.of_row >= 4 else 0.7)         # of fewer orientations, panels on the right are empty


def test_texts_lie_on_no_other_and_not_beyond_the_edge(figure):
    texts = [*figure.texts] + [text for ax in figure.axes for text in (ax.title, ax.yaxis.label)]
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    assert len(boxes) > figure.of_row
    assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n])
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 and box.y1 <= figure.bbox.y1 for box in boxes)
