"""Pictures of coefficients and of filters: that what is drawn lies where it should, and is what it says."""
import math

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from scat_zoo import ScatteringTorch2D
from scat_zoo.models.stem import ScatteringStem
from scat_zoo.scattering import geometry, plot

SIDE = 600                      # pixels of a drawn disc
BRIGHTEST = np.array(colormaps['viridis'](1.))
GREY = np.full(4, 0.8) + [0, 0, 0, 0.2]


def drawn(values, paths, order, **kwargs):
    """The picture (rows, columns, 4), from 0 to 1, of a disc that fills it, and where its centre and radius are."""
    figure = Figure(figsize=(6, 6), dpi=SIDE / 6)
    canvas = FigureCanvasAgg(figure)
    ax = figure.add_axes((0, 0, 1, 1))
    plot.draw_disc(ax, values, paths, order, **kwargs)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba()) / 255


def places(picture, colour):
    """Distance from the centre, in radii of the disc, and angle from downwards to the right, of pixels of a colour."""
    rows, columns = np.nonzero(np.abs(picture - colour).max(2) < 0.01)
    down, right = (np.stack([rows, columns]) + 0.5 - SIDE / 2) / (SIDE / 2 / 1.02)
    return np.hypot(down, right), np.degrees(np.arctan2(right, down))


def off(angles, angle):
    """How far these angles are from one, or from the opposite one, in degrees."""
    return np.abs((angles - angle + 90) % 180 - 90)


@pytest.mark.parametrize('L', [6, 8])
@pytest.mark.parametrize('j', [0, 1, 2])
def test_a_grating_lights_up_where_its_wave_vector_points(j, L):
    J = 4
    S = ScatteringTorch2D(J=J, shape=(128, 128), L=L)
    row, column = torch.meshgrid(torch.arange(128.), torch.arange(128.), indexing='ij')
    for t in range(L):
        angle = plot.orientation(t, L)
        along = row * math.cos(math.radians(angle)) + column * math.sin(math.radians(angle))
        mean = S(torch.cos(0.75 * math.pi / 2 ** j * along))[:, 2:-2, 2:-2].mean((1, 2))
        radius, angles = places(drawn(mean, S.paths, 1), BRIGHTEST)
        assert len(radius) > 200
        assert off(angles, angle).max() < 90 / L + 1
        assert 0.4 < np.mean(np.abs((angles - angle + 180) % 360 - 180) < 90) < 0.6     # on both sides
        assert 1 - (j + 1) / (J + 0.5) - 0.01 < radius.min() < radius.max() < 1 - j / (J + 0.5) + 0.01


def test_vertical_stripes_light_up_left_and_right():
    S = ScatteringTorch2D(J=2, shape=(32, 32))
    stripes = torch.cos(0.75 * math.pi * torch.arange(32.)).expand(32, 32).contiguous()
    picture = drawn(S(stripes).mean((1, 2)), S.paths, 1)
    middle = SIDE // 2
    for row, column in ((middle, 20), (middle, SIDE - 20)):
        assert np.allclose(picture[row, column], BRIGHTEST, atol=0.01)
    for row, column in ((20, middle + 5), (SIDE - 20, middle + 5)):
        assert np.allclose(picture[row, column], colormaps['viridis'](0.), atol=0.1)


@pytest.mark.parametrize(('J', 'L'), [(3, 4), (4, 3)])
def test_each_path_of_order_2_has_a_cell_of_its_own(J, L):
    paths = geometry.paths(J, L, 2)
    width = 1 / (J + 0.5)
    for n, path in enumerate(paths):
        if path.order < 2:
            continue
        values = np.zeros(len(paths))
        values[n] = 3.
        radius, angles = places(drawn(values, paths, 2), BRIGHTEST)
        inner = J - 1 - path.j1                                 # rings j2, the finer outside
        outside = 1 - width * (path.j1 + (path.j2 - path.j1 - 1) / inner)
        assert len(radius) > 20
        assert outside - width / inner - 0.01 < radius.min() < radius.max() < outside + 0.01
        # Within the sector of theta1, theta2 turns as theta1 does: an index more is an angle less.
        step = 180 / L
        centre = plot.orientation(path.theta1, L) + ((L - 1) / 2 - path.theta2) * step / L
        assert off(angles, centre).max() < step / L / 2 + 1


def test_the_coarsest_has_no_order_2_and_is_grey():
    J, L = 3, 4
    paths = geometry.paths(J, L, 2)
    radius, _ = places(drawn(np.ones(len(paths)), paths, 2), GREY)
    assert 0.5 / 3.5 - 0.01 < radius.min() < radius.max() < 1.5 / 3.5 + 0.01
    assert not len(places(drawn(np.ones(len(paths)), paths, 1), GREY)[0])
    one_scale = geometry.paths(1, L, 2)
    assert len(places(drawn(np.ones(len(one_scale)), one_scale, 2), GREY)[0]) > 1000


def test_colours_end_at_the_limit():
    paths = geometry.paths(2, 4, 1)
    values = torch.full((len(paths),), 0.5, requires_grad=True)
    for limit, colour in ((None, 1.), (1., 0.5), (0.25, 1.)):
        picture = drawn(values, paths, 1, limit=limit)
        assert len(places(picture, np.array(colormaps['viridis'](colour)))[0]) > 1000
    assert np.array_equal(drawn(values, paths, 1), drawn(values.tolist(), paths, 1))
    drawn(np.zeros(len(paths)), paths, 1)                       # no warning


@pytest.mark.parametrize(('count', 'order'), [(8, 1), (9, 0), (9, 3)])
def test_what_is_no_disc_is_refused(count, order):
    with pytest.raises(ValueError, match=f'got order {order}, {count} values for 9 paths'):
        plot.draw_disc(None, np.ones(count), geometry.paths(2, 4, 1), order)


@pytest.fixture
def changed(monkeypatch, tmp_path):
    """Draw the change that a function makes to a stem's parameters: the figure, its panels, and the banks."""
    found = []
    panels = plot._panels
    monkeypatch.setattr(plot, '_panels', lambda *args: found.append(panels(*args)) or found[-1])

    def draw(change, **kwargs):
        stem = ScatteringStem(learnable=True, **kwargs)
        before = stem.filters()
        with torch.no_grad():
            change(stem)
        plot.draw_change(before, stem.filters(), tmp_path / 'filters.png')
        with Image.open(tmp_path / 'filters.png') as picture:
            assert (picture.format, picture.height) == ('PNG', 920)
        return (*found[-1], before, stem.filters())

    return draw


def test_the_filters_that_moved_most_come_first(changed):
    steps = {('psi', 1, 3): 0.1, ('psi', 0, 0): 0.05, ('phi', 0, 0): 0.2}

    def change(stem):
        for (kind, j, t), step in steps.items():
            name = f'psi.j{j}_theta{t}_level0.hat' if kind == 'psi' else 'phi.level0.hat'
            stem.bank.get_parameter(name).mul_(1 + step)

    figure, axes, before, after = changed(change, J=2, L=4, in_chans=1, img_size=(16, 24))
    assert axes.shape == (6, 6)
    assert [ax.get_title() for ax in axes[0, :3]] == [
        'low-pass, scale 2\nmoved by 20.0 %', f'j=1, θ={plot.orientation(3, 4):.4g}°\nmoved by 10.0 %',
        f'j=0, θ={plot.orientation(0, 4):.4g}°\nmoved by 5.0 %']
    assert 'moved by 0.0 %' in axes[0, 5].get_title()
    shown = [ax.get_images()[0] for ax in axes[:3, 1]]
    hats = [np.fft.fftshift(bank.psi[1][0][3].double().numpy()) for bank in (before, after)]
    for image, expected in zip(shown, [*hats, hats[1] - hats[0]]):
        assert np.allclose(image.get_array(), expected)
    # One scale of colours for all filters' values, and one for their differences, zero in the middle.
    limits = {row: {ax.get_images()[0].get_clim() for ax in axes[row]} for row in range(6)}
    assert limits[0] == limits[1]
    assert [len(limits[row]) for row in range(6)] == [1] * 6
    assert all(low == -high for pairs in limits.values() for low, high in pairs)
    # The zero frequency lies at 0, the finest at -π.
    left, right, bottom, top = shown[0].get_extent()
    M, N = hats[0].shape
    assert (left + 1 / N, top + 1 / M) == (-1, -1)
    assert np.isclose(left + (N // 2 + 0.5) * (right - left) / N, 0)
    assert np.isclose(top + (M // 2 + 0.5) * (bottom - top) / M, 0)
    assert figure.get_suptitle().startswith('The 6 filters that training moved most, by 0.0 to 20.0 %: 99 % of their '
                                            'change lies at frequencies that they passed before')
    assert len(figure.axes) == 36 + 4                           # four colour bars


def test_the_sentence_tells_noise_from_tuning(changed):
    def add_noise(stem):
        for hat in stem.parameters():
            hat.add_(0.03 * torch.randn(hat.shape, generator=torch.Generator().manual_seed(0)))

    figure, _, _, _ = changed(add_noise, J=3, L=4, in_chans=1, img_size=(32, 32))
    assert 'of their change lies at frequencies that they did not pass before' in figure.get_suptitle()
    figure, axes, _, _ = changed(lambda stem: None, J=1, L=2, in_chans=1, img_size=(9, 9))
    assert figure.get_suptitle() == 'Training left the filters as they were.'
    assert axes.shape == (6, 3)
