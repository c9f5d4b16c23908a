"""One convention of angles: what tables, sentences and pictures say of a grating is the angle at which it was made."""
import math

import numpy as np
import pytest
import timm
import torch
from matplotlib.figure import Figure

from scat_zoo import cli
from scat_zoo.plot import discs
from scat_zoo.scattering.plot import orientation
from scat_zoo.train import explain

from .scattering.test_plot import BRIGHTEST, drawn, off, places

SIDE = 64


@pytest.fixture(scope='module')
def stem():
    return timm.create_model('scat_linear', in_chans=1, img_size=SIDE, L=8).scattering


@pytest.fixture(scope='module')
def command(tmp_path_factory):
    """What `scat-zoo filters` prints of it, and the titles in its picture."""
    with pytest.MonkeyPatch.context() as patch:
        saved, printed = [], []
        save = Figure.savefig
        patch.setattr(Figure, 'savefig', lambda figure, *args, **how: saved.append(figure) or save(
            figure, *args, **how))
        patch.setattr('builtins.print', lambda *args, **how: printed.append(args[0]))
        picture = tmp_path_factory.mktemp('filters') / 'bank.png'
        assert cli.main(['filters', 'scat_linear', '--model-kwargs', 'L=8', '-o', str(picture)]) == 0
    return printed, [ax.get_title() for ax in saved[0].axes if 'θ' in ax.get_title()]


def grating(angle, wavelength=16 / 3):
    """(SIDE, SIDE): it oscillates at this angle from downwards to the right, so its stripes rise to the right by it."""
    down, right = torch.meshgrid(torch.arange(1. * SIDE), torch.arange(1. * SIDE), indexing='ij')
    along = down * math.cos(math.radians(angle)) + right * math.sin(math.radians(angle))
    return torch.cos(2 * math.pi / wavelength * along)


@pytest.mark.parametrize('angle', [0, 22.5, 45, 67.5, 90, 112.5, 135, 157.5])
def test_all_tell_the_angle_of_the_grating(angle, stem, command):
    mean = stem(grating(angle)[None, None])[0, :, 4:-4, 4:-4].mean((1, 2))
    n = 1 + int(mean[1:].argmax())
    path = stem.paths[n]
    assert (path.order, path.j1, orientation(path.theta1, 8)) == (1, 1, angle)
    assert explain.words(stem, path) == f'stripes every 5.3 px at {angle:g}°'
    printed, titles = command
    row = next(line.split() for line in printed if line.split()[:2] == ['1', str(path.theta1)])
    assert row[2:4] == [f'{angle:.2f}', '5.333']
    assert titles[8 + path.theta1] == f'θ={angle:g}°, λ=5.3 px'
    _, angles = places(drawn(mean, stem.paths, 1), BRIGHTEST)
    assert off(angles, angle).max() < 90 / 8 + 1


def test_the_signs_around_a_disc_stand_where_such_gratings_light_up(stem):
    figure = discs(np.ones(len(stem.paths)), stem.paths)
    around = {text.get_text(): text.get_position() for text in figure.axes[0].texts if '°' in text.get_text()}
    signs = {0: '≡', 45: '///', 90: '|||', 135: 3 * chr(92)}        # backslashes
    found = {round(math.degrees(math.atan2(x, y)) % 180): text for text, (x, y) in around.items()}      # y downwards
    assert {angle: text.split() for angle, text in found.items()} == {
        angle: [sign, f'{angle}°'] for angle, sign in signs.items()}
