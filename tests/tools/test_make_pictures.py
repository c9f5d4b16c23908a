"""The maker of the pictures in docs: each is drawn of any picture, in a size for a page, and shows what it says."""
import re
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from scat_zoo import Scattering2D
from tools import make_pictures

DOCS = Path(make_pictures.__file__).parents[1] / 'docs'


@pytest.fixture(scope='module')
def stripes():
    """Upright, each 4 pixels after the other."""
    return (0.5 + 0.5 * torch.cos(torch.pi * torch.arange(256) / 2)).expand(256, 256).contiguous()


def test_all_pictures_are_made_and_are_those_of_the_docs(stripes, tmp_path, monkeypatch):
    monkeypatch.setattr(make_pictures, 'photograph', lambda: stripes)
    monkeypatch.setattr(sys, 'argv', ['make_pictures', str(tmp_path)])
    make_pictures.main()
    made = {file.name: Image.open(file).size for file in tmp_path.iterdir()}
    assert made == {name: Image.open(DOCS / name).size for name in make_pictures.PICTURES}
    assert set(re.findall(r'\]\((\w+\.png)\)', (DOCS / 'scattering.md').read_text())) == set(made)
    for name in made:
        assert (DOCS / name).stat().st_size < 300_000, name


def test_a_modulus_is_what_the_transform_averages(stripes):
    """Away from the edges, where nothing else is reflected."""
    S = Scattering2D(make_pictures.J, stripes.shape, make_pictures.L)
    for theta in (make_pictures.UPRIGHT, make_pictures.LYING):
        response = make_pictures.modulus(stripes, S.filters().psi[0][0][theta])
        assert response.shape == stripes.shape
        s = S(stripes)[S.paths.index((1, 0, theta, None, None))]
        torch.testing.assert_close(response[64:192, 64:192].mean(), s[4:12, 4:12].mean(), rtol=1e-3, atol=1e-6)
    upright, lying = (make_pictures.modulus(stripes, S.filters().psi[0][0][theta]).mean()
                      for theta in (make_pictures.UPRIGHT, make_pictures.LYING))
    assert upright > 50 * lying


def test_a_filter_in_space_is_centred(stripes):
    low_pass = make_pictures.in_space(Scattering2D(3, stripes.shape).filters().phi[0][0], 9)
    assert low_pass.shape == (19, 19)
    assert low_pass.argmax() == 9 * 19 + 9
    torch.testing.assert_close(low_pass, low_pass.flip(0, 1))


def test_without_scikit_image_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'skimage', None)
    with pytest.raises(SystemExit, match='pip install scikit-image'):
        make_pictures.photograph()
