"""`scat_zoo.plot`: coefficients as discs in a notebook, also those of averages over rotations."""
import io
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image

from scat_zoo import Scattering2D
from scat_zoo.models.stem import ScatteringStem
from scat_zoo.plot import discs
from scat_zoo.scattering import geometry, plot

from .scattering.test_plot import BRIGHTEST, GREY, drawn, off, places

S = Scattering2D(J=3, shape=(32, 40), L=4)
ROTATION = geometry.paths(3, 8, 2, 'average')


@pytest.fixture
def seen(monkeypatch):
    """What `draw_disc` was given, of each disc."""
    found = []
    draw = plot.draw_disc
    monkeypatch.setattr(plot, 'draw_disc', lambda ax, *args: found.append(args) or draw(ax, *args))
    return found


def test_one_window_or_the_mean_over_all(seen):
    s = S(torch.rand(32, 40))
    for values, kwargs, expected in ((s, {}, s.mean((1, 2))), (s, {'window': (3, 4)}, s[:, 3, 4]),
                                     (s[:, 1, 2].tolist(), {}, s[:, 1, 2]), (s.numpy(), {}, s.mean((1, 2)))):
        seen.clear()
        figure = discs(values, S.paths, **kwargs)
        assert isinstance(figure, Figure)
        assert [order for _, _, order, _, _ in seen] == [1, 2]
        for drawn_values, paths, *_ in seen:
            assert paths == S.paths
            assert np.allclose(drawn_values, expected, atol=1e-6)


def test_orders_limits_and_signs(seen):
    one = geometry.paths(2, 4, 1)
    assert len(discs(np.ones(9), one).axes) == 2                # a disc and its colour bar
    assert len(discs(np.ones(81), geometry.paths(2, 8, 2)).axes) == 4
    assert len(discs(np.ones(5), geometry.paths(1, 4, 2)).axes) == 2
    seen.clear()
    figure = discs(-np.ones(81), geometry.paths(2, 8, 2), limits=(2, 0.5), signed=True, title='cost: $5 and $6')
    assert [args[3:] for args in seen] == [(2, True), (0.5, True)]
    assert figure.get_suptitle() == 'cost: $5 and $6'
    figure.canvas.draw()                                        # its title is no formula


def test_a_notebook_shows_it():
    figure = discs(np.ones(9), geometry.paths(2, 4, 1), title='ones')
    for shown in (figure, pickle.loads(pickle.dumps(figure))):
        with Image.open(io.BytesIO(shown._repr_png_())) as picture:
            assert picture.format == 'PNG'
            assert picture.width > 300


def check_texts(figure):
    """No text lies on another, or beyond the edge."""
    figure.canvas.draw()
    texts = [text for ax in figure.axes for text in (*ax.texts, ax.title)] + [figure._suptitle]
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    assert len(boxes) > 3
    assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n])
    assert all(0 <= box.x0 and box.x1 <= figure.bbox.x1 and 0 <= box.y0 and box.y1 <= figure.bbox.y1 for box in boxes)


def test_texts_are_readable():
    for paths in (S.paths, ROTATION, geometry.paths(5, 8, 1)):
        check_texts(discs(np.ones(len(paths)), paths, title='some title'))


def test_order_1_of_an_average_over_rotations_fills_whole_rings():
    for j in range(3):
        values = [float(path == geometry.Path(1, j)) for path in ROTATION]
        radius, angles = places(drawn(values, ROTATION, 1), BRIGHTEST)
        assert 1 - (j + 1) / 3.5 - 0.01 < radius.min() < radius.max() < 1 - j / 3.5 + 0.01
        assert set(np.round(angles / 10)) == set(range(-18, 19))


@pytest.mark.parametrize('L', [3, 8])
def test_order_2_of_an_average_over_rotations_lies_by_the_difference(L):
    """Along the first, right and left; a larger index turns as theta2 does in the other discs."""
    paths = geometry.paths(3, L, 2, 'average')
    for path in paths:
        if path.order == 2:
            radius, angles = places(drawn([float(p == path) for p in paths], paths, 2), BRIGHTEST)
            inner = 2 - path.j1
            outside = 1 - (path.j1 + (path.j2 - path.j1 - 1) / inner) / 3.5
            assert outside - 1 / 3.5 / inner - 0.01 < radius.min() < radius.max() < outside + 0.01
            turned = plot.orientation(path.theta2, L) - plot.orientation(0, L)
            assert off(angles, 90 + turned).max() < 90 / L + 1
    assert len(places(drawn(np.ones(len(paths)), paths, 2), GREY)[0]) > 1000        # the coarsest j1 has none


def test_upright_stripes_that_vary_along_light_up_right_and_left():
    stem = ScatteringStem(J=3, L=8, in_chans=1, img_size=(64, 64), rotation='average')
    column = torch.arange(64.)
    envelope = 0.5 + 0.5 * torch.cos(0.75 * math.pi / 4 * column)
    for image, direction in ((envelope * torch.cos(0.75 * math.pi * column) * torch.ones(64, 1), 90),
                             (envelope[:, None] * torch.cos(0.75 * math.pi * column), 0)):
        mean = stem(image[None, None])[0, :, 2:-2, 2:-2].mean((1, 2))
        _, angles = places(drawn(mean, stem.paths, 2), BRIGHTEST)
        assert off(angles, direction).max() < 90 / 8 + 1


def test_signed_values_are_red_and_blue():
    paths = geometry.paths(2, 4, 1)
    values = [0., *[-2.] * 4, *[1.] * 4]
    picture = drawn(values, paths, 1, signed=True)
    for value, rings in ((0., 0), (0.75, 1)):                   # of colours from -2 to 2
        radius, _ = places(picture, np.array(colormaps['RdBu_r'](value)))
        assert len(radius) > 1000
        assert (radius.mean() > 0.6) == (rings == 0)


@pytest.mark.parametrize(('values', 'paths', 'kwargs', 'phrase'), [
    (np.ones(8), S.paths, {}, r'of 217 paths, got shape \(8,\)$'.replace('217', str(len(S.paths)))),
    (np.ones((2, 1, len(S.paths), 4, 5)), S.paths, {}, 'one image and one colour at a time'),
    (np.ones((len(S.paths), 0, 5)), S.paths, {}, 'got shape'),
    (np.full(len(S.paths), np.nan), S.paths, {}, f'expected finite coefficients, got {len(S.paths)} that are not'),
    (np.ones((len(S.paths), 4, 5)), S.paths, {'window': (4, 0)},
     r'\(row, column\) of 4 x 5 windows, got \(4, 0\)'),
    (np.ones((len(S.paths), 4, 5)), S.paths, {'window': (1, 2, 3)}, 'window must be'),
    (np.ones(len(S.paths)), S.paths, {'window': (0, 0)}, r'window must be left out for coefficients \(paths,\)'),
    (np.ones(len(S.paths)), S.paths, {'limits': (1, 0)}, 'limits must be two positive numbers'),
    (np.ones(1), [geometry.Path(0)], {}, r'expected paths of order 1 or 2, got orders \[0\]'),
    (np.ones(2 * len(S.paths)), S.paths * 2, {}, 'expected each path once, Path.* comes 2 times'),
    (['a'] * len(S.paths), S.paths, {}, 'expected an array of real coefficients, got'),
    (1j * np.ones(len(S.paths)), S.paths, {}, 'got complex128'),
    (np.ones(2), None, {}, 'expected a list of paths, such as .*, got None'),
    (np.ones(2), [(1, 0), (1, 1)], {}, 'expected a list of paths'),
    (np.ones((len(S.paths), 4, 5)), S.paths, {'window': 3}, 'window must be'),
    (np.ones((len(S.paths), 4, 5)), S.paths, {'window': (1.5, 0)}, 'window must be'),
    (np.ones(len(S.paths)), S.paths, {'limits': 3}, 'limits must be two positive numbers'),
    (np.ones(2), [geometry.Path(1, 0, 2), geometry.Path(1, 0, 3)], {}, r'all .* got orientations \[2, 3\]'),
    (np.ones(2), [geometry.Path(1, 0, 0), geometry.Path(1, 1)], {}, 'of one kind')])
def test_what_is_refused(values, paths, kwargs, phrase):
    with pytest.raises(ValueError, match=phrase):
        discs(values, paths, **kwargs)


def test_order_2_alone_has_its_place():
    second = [n for n, path in enumerate(S.paths) if path.order == 2]
    figure = discs(np.ones(len(second)), [S.paths[n] for n in second])
    assert figure.axes[0].get_title() == 'order 2'


def test_channels_of_one_scale_and_colour_are_paths_too():
    stem = ScatteringStem(J=2, L=4, in_chans=3, img_size=(16, 16), scales=(1, 2))
    chosen = [n for n, c in enumerate(stem.channels) if (c.scale, c.colour) == (2, 1)]
    s = stem(torch.rand(1, 3, 16, 16))[0, chosen]
    discs(s, [stem.channels[n] for n in chosen])
    with pytest.raises(ValueError, match='take those of one scale and colour'):
        discs(stem(torch.rand(1, 3, 16, 16))[0], stem.channels)


def test_matplotlib_is_imported_for_pictures_alone():
    code = 'import sys, scat_zoo.cli; sys.exit("matplotlib" in sys.modules or "scat_zoo.plot" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0
    code = 'import sys; sys.modules["matplotlib"] = None; import scat_zoo.plot'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith('needs matplotlib: install it, or scat_zoo with the extra plot')
