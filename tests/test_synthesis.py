"""The example that makes a texture anew: order 2 adds what order 1 lacks, Ctrl-C keeps the best, mistakes are told."""
import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scat_zoo import Scattering2D

ROOT = Path(__file__).parents[1]
# By its path: some package that is installed may be called examples.
SPEC = importlib.util.spec_from_file_location('synthesis', ROOT / 'examples' / 'synthesis.py')
synthesis = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(synthesis)


def wall():
    """Grey values (64, 64) of bricks: light joints around dark stones, every other course shifted."""
    greys = np.full((64, 64), 40, np.uint8)
    greys[::16] = 220
    for course in range(4):
        greys[16 * course:16 * course + 16, 16 * (course % 2)::32] = 220
    return greys + np.random.RandomState(0).randint(0, 20, greys.shape, np.uint8)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Pictures to be named on a command line, in the folder where it is given."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(wall()).save('wall.png')
    Image.fromarray(wall().astype(np.uint16) * 250).save('deep.png')
    Image.new('L', (50, 50), 7).save('flat.png')
    Path('text.png').write_text('hello')


def test_order_2_adds_what_order_1_lacks(files, capsys):
    synthesis.main('wall.png -o out.png --size 32 --J 3 --steps 60'.split())
    texture, one, both = capsys.readouterr().out.splitlines()
    assert texture == f'the texture: {3 * 8 + 3 * 64} moments'
    one, both = ([float(number) for number in re.findall(r'([\d.]+) %', line)] for line in (one, both))
    assert max(one[0], *both) < 5                               # what was asked for is there
    assert one[1] > 4 * both[1]                                 # and nothing else
    assert Image.open('out.png').size == (960, 360)
    assert sorted(file.name for file in Path().iterdir()) == ['deep.png', 'flat.png', 'out.png', 'text.png', 'wall.png']


def test_deep_pictures_are_those_of_8_bits(files):
    # Pillow shrinks 8 bits in two passes that round to them, and a step of these is 0.02.
    torch.testing.assert_close(synthesis.read(Path('deep.png'), 32), synthesis.read(Path('wall.png'), 32),
                               rtol=0, atol=0.04)


def test_a_picture_and_its_negative_have_the_same_moments(files):
    x = synthesis.read(Path('wall.png'), 32)
    S = Scattering2D(3, x.shape, boundary='periodic')
    assert max(synthesis.errors(S, -x, S(x).mean((-2, -1)))) < 1e-5         # float32


def test_ctrl_c_keeps_the_best_so_far(files, monkeypatch):
    """Also if the last try is worse: a line search overshoots."""
    texture = synthesis.read(Path('wall.png'), 32)
    S = Scattering2D(3, texture.shape, max_order=1, boundary='periodic')
    wanted = S(texture).mean((-2, -1))
    tried = []

    def errors(S, x, wanted):
        tried.append(x.detach().clone())
        if len(tried) == 9:
            raise KeyboardInterrupt
        return [error * (10 if len(tried) == 8 else 1) for error in true_errors(S, x, wanted)]

    true_errors = synthesis.errors
    monkeypatch.setattr(synthesis, 'errors', errors)
    best = synthesis.synthesise(texture, 3, 1, 60)
    assert len(tried) == 9
    place = [torch.equal(best, x) for x in tried].index(True)
    assert 0 < place < 7
    assert true_errors(S, best, wanted)[0] < true_errors(S, tried[0], wanted)[0]


@pytest.mark.parametrize(('line', 'message'), [
    ('nowhere.png', 'cannot read the image nowhere.png: No such file'),
    ('text.png', 'cannot read the image text.png: it is no image'),
    ('flat.png', 'expected a texture, got an image with values from 7 to 7'),
    ('wall.png -o wall.png', 'the result would replace the image wall.png'),
    ('wall.png --steps 1', 'expected at least 10 steps, got 1'),
    ('wall.png --size 100', 'needs sides that are multiples of 2^J = 32, got 100 x 100'),
    ('wall.png --size 16', 'should be larger than 2^J. (J=5, shape=(16, 16))'),
    ('wall.png --J 1', 'invalid choice'),
    ('wall.png -o nowhere/out.png', 'nowhere/out.png'),
    ('', 'pip install scikit-image, or give an IMAGE')])
def test_mistakes_are_told_before_any_work(line, message, files, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'skimage', None)
    monkeypatch.delattr(synthesis, 'synthesise')
    with pytest.raises(SystemExit, match='2'):
        synthesis.main(line.split())
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_the_bricks_of_scikit_image(files):
    pytest.importorskip('skimage')
    bricks = synthesis.read(None, 192)
    assert bricks.shape == (192, 192)
    # Level courses: rows differ more than columns do.
    assert bricks.mean(1).var() > 2 * bricks.mean(0).var()


def test_the_file_says_how_and_the_readme_shows_what_it_makes():
    source = (ROOT / 'examples' / 'synthesis.py').read_text()
    assert 'python examples/synthesis.py' in source
    assert len(source.splitlines()) < 120
    shown = ROOT / 'docs' / 'synthesis.png'
    assert Image.open(shown).size == (960, 360)
    assert shown.stat().st_size < 300_000
    assert '](docs/synthesis.png)' in (ROOT / 'README.md').read_text()
