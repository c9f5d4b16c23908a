"""What speaks for a class: shares that add up, in the places and under the names where they belong, and the picture."""
import importlib.util
import math
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from matplotlib.figure import Figure
from PIL import Image
from timm.models import save_for_hf

from scat_zoo import cli
from scat_zoo.models.stem import ScatteringStem
from scat_zoo.scattering import geometry
from scat_zoo.scattering.plot import orientation
from scat_zoo.train import attribution, checkpoint, explain, report_pictures
from scat_zoo.train.attribution import by_path, by_place, evidence

from ..test_plot import check_texts

CLASSES = ['cat', 'dog', 'owl']
STEMS = {'plain': {}, 'light': {'J': 2, 'channel_differences': True, 'log_input': 0.1},
         'scales': {'J': 3, 'scales': (1, 2, 3)}, 'turned': {'J': 2, 'rotation': 'average'},
         'learned': {'learnable': True, 'parametrization': 'morlet'}, 'no logarithm': {'log_floor': 0.}}


def create(name='scat_linear', seed=0, **kwargs):
    """A model in float64 whose norm and head have values as after some training."""
    torch.manual_seed(seed)
    kwargs = {'num_classes': 3, 'in_chans': 2, 'img_size': (20, 24), 'L': 3, **kwargs}
    model = timm.create_model(name, **kwargs).double()
    with torch.no_grad():
        for parameter in model.head_parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        model.train()(torch.rand(8, *model.pretrained_cfg['input_size'], dtype=torch.float64))
    return model.eval()


def image_for(model, seed=1):
    return torch.rand(1, *model.pretrained_cfg['input_size'], dtype=torch.float64,
                      generator=torch.Generator().manual_seed(seed))


def stripes(angle, side=32, period=8 / 3):
    """Stripes at this many degrees from lying ones, counter-clockwise: (side, side), from 0 to 1."""
    down, right = torch.meshgrid(torch.arange(side) / 1., torch.arange(side) / 1., indexing='ij')
    turn = math.radians(angle)
    return 0.5 + 0.5 * torch.cos(2 * math.pi / period * (right * math.sin(turn) + down * math.cos(turn)))


@pytest.mark.parametrize('pool', ['flat', 'avg', 'avgstd', 'max', 'catavgmax'])
@pytest.mark.parametrize('stem', STEMS)
def test_shares_of_a_linear_head_are_weight_times_feature(pool, stem):
    model = create(global_pool=pool, **STEMS[stem])
    x = image_for(model)
    found = evidence(model, x, target=1)
    assert found.exact
    z = model.forward_features(x).detach()
    pooled, weight = model.head.global_pool(z)[0], model.head.fc.weight.detach()
    terms = (weight[1] - weight.mean(0)) * pooled
    channels = len(model.scattering.channels)
    by_channel = terms.reshape(channels, -1).sum(1) if pool == 'flat' else terms.reshape(-1, channels).sum(0)
    torch.testing.assert_close(found.shares.sum((1, 2)), by_channel, rtol=0, atol=1e-12)
    if pool == 'flat':
        torch.testing.assert_close(found.shares, terms.reshape(z[0].shape), rtol=0, atol=1e-12)
    logits = model(x)[0].detach()
    torch.testing.assert_close(found.logits, logits)
    bias = model.head.fc.bias.detach()
    assert found.constant == pytest.approx((bias[1] - bias.mean()).item(), abs=1e-12)
    assert found.shares.sum().item() + found.constant == pytest.approx((logits[1] - logits.mean()).item(), abs=1e-12)


def test_a_flat_pool_of_fewer_cells():
    model = create(pool_grid=(2, 3))
    found = evidence(model, image_for(model))
    bias = model.head.fc.bias.detach()
    assert found.target == found.logits.argmax()
    assert found.constant == pytest.approx((bias[found.target] - bias.mean()).item(), abs=1e-12)


@pytest.mark.parametrize(('name', 'kwargs'), [
    ('scat_mlp', {}), ('scat_linear', {'head_hidden_size': 5}), ('scat_tiny', {'J': 1}),
    ('scat_resnet', {'J': 1, 'scales': (1,)}), ('scat_hybrid', {'img_size': 64, 'network': 'test_resnet'}),
    ('scat_vit_tiny', {'img_size': 64, 'rotation': 'average', 'depth': 1})])
def test_shares_behind_other_heads_are_of_first_order(name, kwargs):
    """All coefficients together a little larger: the logit changes as the sum of the shares says."""
    model = create(name, **kwargs)
    x = image_for(model)
    found = evidence(model, x, target=2)
    assert not found.exact
    norm = model.scattering_embed.norm if hasattr(model, 'scattering_embed') else model.norm

    def relative(factor):
        with norm.register_forward_hook(lambda module, inputs, z: factor * z), torch.no_grad():
            logits = model(x)[0]
        return (logits[2] - logits.mean()).item()

    step = 1e-6
    slope = (relative(1 + step) - relative(1 - step)) / (2 * step)
    assert abs(slope) > 1e-4
    assert found.shares.sum().item() == pytest.approx(slope, rel=1e-4)
    assert found.shares.sum().item() + found.constant == pytest.approx(relative(1.), abs=1e-9)


def test_levels_are_those_of_a_norm_without_weights():
    model = create()
    x = image_for(model)
    found = evidence(model, x)
    torch.testing.assert_close(found.coefficients, model.scattering(x)[0].detach())
    with torch.no_grad():
        for order in model.norm.orders:
            order.norm.weight.fill_(1.)
            order.norm.bias.zero_()
        torch.testing.assert_close(found.levels, model.forward_features(x)[0])


def test_a_model_is_left_as_it_was():
    model = create(learnable=True)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    evidence(model, image_for(model))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not model.norm._forward_hooks


@pytest.mark.parametrize('stem', STEMS)
def test_sums_by_path_lose_nothing(stem):
    kwargs = {key: value for key, value in STEMS[stem].items() if key != 'log_floor'}
    S = ScatteringStem(**{'L': 3, 'in_chans': 2, 'img_size': (21, 30), **kwargs})
    values = torch.randn(len(S.channels), 21 >> S.J, 30 >> S.J, dtype=torch.float64)
    paths = attribution.paths_of(S)
    sums = by_path(S, values)
    assert sums.shape == (len(paths), S.colours)
    torch.testing.assert_close(sums.sum(), values.sum())
    path = geometry.Path(1, 0, None if S.rotation else 2)
    own = [n for n, channel in enumerate(S.channels) if channel[:5] == path and channel.colour == 1]
    torch.testing.assert_close(sums[paths.index(path), 1], values[own].sum())
    largest = [n for n in own if S.channels[n].scale == S.J]
    torch.testing.assert_close(by_path(S, values, S.J)[paths.index(path), 1], values[largest].sum())


@pytest.mark.parametrize('kwargs', [{'J': 2}, {'J': 3, 'scales': (1, 2, 3)}, {'J': 2, 'rotation': 'average'}])
def test_places_are_where_the_detail_is(kwargs):
    S = ScatteringStem(L=4, in_chans=1, img_size=(45, 62), **kwargs)
    rows, columns = torch.meshgrid(torch.arange(45.), torch.arange(62.), indexing='ij')
    for row, column in ((13, 40), (30, 9), (22, 31)):
        blob = torch.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 18)
        x = (blob * torch.cos(0.75 * math.pi * columns)).float()[None, None]
        coefficients = S(x)[0].detach()
        orders = torch.tensor([channel.order == 1 for channel in S.channels])
        places = by_place(S, coefficients * orders[:, None, None], (45, 62))
        centre = [(places * at).sum() / places.sum() for at in (rows, columns)]
        assert math.dist(centre, (row, column)) < 1


def test_a_sample_within_a_cell_has_its_own_place():
    S = ScatteringStem(J=2, L=2, in_chans=2, img_size=(16, 16), scales=(1, 2))
    n = next(n for n, c in enumerate(S.channels) if (c.scale, c.dy, c.dx, c.colour) == (1, 1, 0, 1))
    values = torch.zeros(len(S.channels), 4, 4)
    values[n, 2, 1] = 3.                                        # centred at pixel (2 * 4 + 2, 1 * 4)
    around = torch.tensor([0.5, 1, 0.5], dtype=torch.float64)
    expected = torch.zeros(16, 16, dtype=torch.float64)
    expected[9:12, 3:6] = 4 * 3. * torch.outer(around, around)  # in 4 x 4 pixels, of one sample in 2 x 2
    assert torch.equal(by_place(S, values, (16, 16)), expected)


@pytest.mark.parametrize('stem', STEMS)
def test_windows_of_one_share_give_an_even_map(stem):
    kwargs = {key: value for key, value in STEMS[stem].items() if key != 'log_floor'}
    S = ScatteringStem(**{'L': 3, 'in_chans': 2, 'img_size': (21, 30), **kwargs})
    places = by_place(S, torch.ones(len(S.channels), 21 >> S.J, 30 >> S.J), (21, 30))
    torch.testing.assert_close(places, torch.full((21, 30), float(len(S.channels)), dtype=torch.float64))


@pytest.mark.parametrize('side', [29, 49, 65])
@pytest.mark.parametrize('kwargs', [{'J': 3}, {'J': 4}, {'J': 3, 'rotation': 'average'}])
def test_the_map_of_one_texture_is_even_to_the_border(kwargs, side):
    """Of one that every window sees alike, which goes on where it is mirrored."""
    model = create(global_pool='avg', in_chans=1, img_size=side, **kwargs)
    period = 2 ** kwargs['J']
    tile = torch.rand(period, period, dtype=torch.float64)
    at = torch.arange(side) % period
    at = torch.minimum(at, period - at)
    found = evidence(model, tile[at][:, at][None, None])
    places = by_place(model.scattering, found.shares, (side, side))
    even = found.shares.sum() / found.shares[0].numel()
    torch.testing.assert_close(places, even.expand(side, side), rtol=1e-3, atol=0)


def toy(angle, **kwargs):
    """Two classes, stripes at an angle and across it, told apart by what coefficients differ in, and by how much.

    Its logits of either are 1 and -1; in most of its training images there is nothing.
    """
    model = timm.create_model('scat_linear', **{'num_classes': 2, 'in_chans': 1, 'img_size': 32, **kwargs})
    both = torch.stack([stripes(angle), stripes(angle + 90)])[:, None]
    model.train()(torch.cat([both, torch.full((6, 1, 32, 32), 0.5)]))
    with torch.no_grad():
        s, z = model.eval().scattering(both), model.forward_features(both)
        weight = (s[0] - s[1]).flatten()
        weight /= (weight @ (z[0] - z[1]).flatten()) / 2
        model.head.fc.weight.copy_(torch.stack([weight, -weight]))
        model.head.fc.bias.copy_(torch.tensor([-1., 1.]) * (weight @ z.mean(0).flatten()))
    return model


@pytest.mark.parametrize('angle', [0, 22.5, 45, 67.5, 90, 112.5, 135, 157.5])
def test_the_stripes_that_decide_are_named(angle):
    model = toy(angle)
    for turn, target in ((0, 0), (90, 1)):
        found = evidence(model, stripes(angle + turn)[None, None])
        assert found.target == target
        first, second = (float(text.split()[0]) for text in explain.strongest(model, found).split('; ')[:2])
        assert first > 1.5 * second
        assert re.match(rf'\+\d\.\d\d strong stripes every 2.7 px at {(angle + turn) % 180:g}°;',
                        explain.strongest(model, found))
    against = explain.strongest(model, evidence(model, stripes(angle)[None, None], target=1))
    assert re.match(rf'-\d\.\d\d strong stripes every 2.7 px at {angle:g}°;', against)


def test_learned_wavelets_are_named_by_their_own_numbers():
    model = toy(0, learnable=True, parametrization='morlet')
    wavelet = next(w for w in model.scattering.filter_parameters() if (w.j, w.t) == (0, 1))
    with torch.no_grad():
        for parameter in model.scattering.bank.parameters():
            parameter.add_(0.1)
    changed = next(w for w in model.scattering.filter_parameters() if (w.j, w.t) == (0, 1))
    assert abs(changed.angle - wavelet.angle) > 1
    assert abs(changed.wavelength - wavelet.wavelength) > 0.1
    assert explain.words(model.scattering, geometry.Path(1, 0, 1)) == \
        f'stripes every {changed.wavelength:.1f} px at {round(changed.angle % 180, 1):g}°'


def test_words():
    plain = ScatteringStem(J=2, L=8, in_chans=3, img_size=(16, 16))
    turned = ScatteringStem(J=2, L=8, in_chans=1, img_size=(16, 16), rotation='average')
    lit = ScatteringStem(J=2, L=8, in_chans=3, img_size=(16, 16), channel_differences=True)
    assert [explain.words(lit, geometry.Path(0), colour) for colour in (2, 3, 4)] == [
        'brightness in blue', 'brightness in red less green', 'brightness in green less blue']
    five = ScatteringStem(J=2, L=8, in_chans=5, img_size=(16, 16), learnable=True)     # pixelwise
    assert [orientation(t, 8) % 180 for t in (7, 1)] == [90, 45]
    assert explain.words(plain, geometry.Path(0), 0) == 'brightness in red'
    assert explain.words(plain, geometry.Path(1, 1, 7), 2) == 'stripes every 5.3 px at 90° in blue'
    assert explain.words(five, geometry.Path(2, 0, 7, 1, 1), 4) == \
        'stripes every 2.7 px at 90°, which vary every 5.3 px at 45° in channel 5'
    assert explain.words(turned, geometry.Path(1, 0)) == 'stripes every 2.7 px in any direction'
    # An index more is 22.5 degrees less, here of the second wavelet against the first.
    assert explain.words(turned, geometry.Path(2, 0, None, 1, 2)) == \
        'stripes every 2.7 px in any direction, which vary every 5.3 px at 135° to them'


@pytest.fixture
def folder(tmp_path):
    """A checkpoint of a toy model, and an image that it takes for its first class."""
    checkpoint.save(toy(135), tmp_path / 'run' / 'checkpoint', ['falling', 'rising'])
    Image.fromarray((255 * stripes(135)).byte().numpy()).save(tmp_path / 'image.png')
    return tmp_path


def test_the_command_prints_and_draws(folder, monkeypatch, capsys):
    drawn = []
    draw = report_pictures.explanation
    monkeypatch.setattr(report_pictures, 'explanation', lambda *args: drawn.append(args) or draw(*args))
    asked = ['--class', 'rising']
    for options, answer in (([], r'falling: 8\d\.\d\d %'), (asked, r'rising: 1\d\.\d\d %, likeliest falling')):
        out = folder / f'out{len(options)}.png'
        assert cli.main(['explain', str(folder / 'run'), str(folder / 'image.png'), '-o', str(out), *options]) == 0
        first, second = capsys.readouterr().out.splitlines()
        sign = r'\-' if options else r'\+'
        assert re.fullmatch(rf'{answer}; logit {sign}\d+\.\d\d against the mean of all classes; picture \S+', first)
        assert re.match(rf'exact shares \(linear head\), {sign}\d+\.\d\d in all and [-+]\d\.\d\d bias: '
                        rf'{sign}\d\.\d\d strong stripes every 2.7 px at 135°; ', second)
        with Image.open(out) as picture:
            assert picture.format == 'PNG'
            assert picture.size == (1166, 792)
            assert len(picture.convert('RGB').getcolors(1 << 20)) > 500
    _, _, image, paths, means, shares, places, window = drawn[0]
    with Image.open(folder / 'image.png') as picture:
        assert np.allclose(image, np.asarray(picture) / 255, atol=0.01)
    model = timm.create_model('scat_linear', in_chans=1, img_size=32)
    normalised = (torch.tensor(image)[None, None] - model.pretrained_cfg['mean'][0]) / model.pretrained_cfg['std'][0]
    assert np.allclose(means, model.scattering(normalised)[0].mean((1, 2)), atol=1e-5)
    assert paths[int(means[1:].argmax()) + 1] == paths[int(shares.argmax())] == geometry.Path(1, 0, 5)
    assert places.shape == (32, 32)
    assert places[::window, ::window].sum() == pytest.approx(shares.sum(), rel=1e-5)       # at the windows' centres
    assert np.allclose(shares, -drawn[1][5], atol=1e-5)         # of two classes one speaks against the other


@pytest.mark.parametrize(('name', 'kwargs'), [
    ('scat_linear', {'in_chans': 3, 'scales': (1, 2), 'global_pool': 'avgstd', 'learnable': True}),
    ('scat_linear', {'in_chans': 3, 'rotation': 'average', 'global_pool': 'avg', 'max_order': 1, 'img_size': (40, 28)}),
    ('scat_linear', {'in_chans': 3, 'J': 5, 'rotation': 'average', 'img_size': (32, 90)}),
    ('scat_resnet', {'in_chans': 1, 'J': 1}), ('scat_convnext_atto', {'in_chans': 3, 'depths': (1, 1, 1, 1)})])
def test_pictures_of_all_kinds(name, kwargs, tmp_path, monkeypatch):
    saved = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, 'savefig', lambda figure, *args, **how: saved.append(figure) or save(
        figure, *args, **how))
    model = timm.create_model(name, num_classes=2, **{'img_size': 32, 'L': 2, **kwargs})
    classes = ['$a$_{ \N{CJK UNIFIED IDEOGRAPH-4E00}', 'a long name, ' * 30]
    checkpoint.save(model, tmp_path / 'model', classes)
    pixels = np.random.RandomState(0).randint(0, 256, (50, 40, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'image.png')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        explain.show(str(tmp_path / 'model'), tmp_path / 'image.png', tmp_path / 'out.png', classes[0])
    with Image.open(tmp_path / 'out.png') as picture:
        assert picture.height == 792
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')                         # of signs that the font lacks
        check_texts(*saved)


def test_an_image_of_another_range_than_the_training_images_is_told(folder, capsys):
    checkpoint.save(toy(135), folder / 'deep', ['falling', 'rising'], value_range=(0, 4095))
    explain.show(str(folder / 'deep'), folder / 'image.png', folder / 'out.png')
    assert capsys.readouterr().err.startswith('scat-zoo: warning: 1 of 1 images have values of another range ')


def test_a_map_where_there_are_places():
    kept = {'flat': True, 'avg': True, 'max': True, 'avgstd': False}
    for pool, wanted in kept.items():
        assert attribution.keeps_places(create(global_pool=pool), torch.zeros(1, 2, 2)) == wanted
    assert attribution.keeps_places(create('scat_resnet', global_pool='avgstd'), torch.zeros(1, 2, 2))
    assert not attribution.keeps_places(create(), torch.zeros(1, 1, 1))
    assert attribution.keeps_places(create(scales=(1, 2)), torch.zeros(1, 1, 1))


def test_a_picture_is_whole_or_not_there(folder, monkeypatch):
    def fail(figure, file, **kwargs):
        Path(file).write_bytes(b'half')
        raise OSError(28, 'No space left on device')

    before = sorted(path.name for path in folder.iterdir())
    monkeypatch.setattr('matplotlib.figure.Figure.savefig', fail)
    assert cli.main(['explain', str(folder / 'run'), str(folder / 'image.png'), '-o', str(folder / 'out.png')]) == 2
    assert sorted(path.name for path in folder.iterdir()) == before


def write_others(folder):
    for name, kwargs in (('one', {'num_classes': 1}), ('unpooled', {'num_classes': 2, 'global_pool': ''}),
                         ('five', {'num_classes': 2, 'in_chans': 5})):
        checkpoint.save(timm.create_model('scat_linear', L=2, img_size=16, **{'in_chans': 1, **kwargs}), folder / name)
    save_for_hf(timm.create_model('test_vit'), str(folder / 'vit'), model_config={}, safe_serialization=True)
    (folder / 'text.png').write_text('hello')


@pytest.mark.parametrize(('args', 'phrase'), [
    (['AT/run', 'AT/absent.png'], 'no image /'),
    (['AT/run', 'AT/run'], 'run is no file'),
    (['AT/run', 'AT/text.png'], 'cannot read the image '),
    (['AT/run', 'AT/image.png', '--class', 'risng'], "no class 'risng'; did you mean rising?"),
    (['AT/run', 'AT/image.png', '--class', 'x' * 999], '; known: falling, rising'),
    (['AT/run', 'AT/image.png', '-o', 'AT/image.png'], 'the picture would replace the image /'),
    (['AT/run', 'AT/image.png', '-o', 'AT/absent/out.png'], 'expected a file in a folder that can be written to'),
    (['AT/vit', 'AT/image.png'], 'expected a model with scattering filters '),
    (['resnet18', 'AT/image.png'], 'expected a model with scattering filters (`scat-zoo list`), resnet18 has none'),
    (['resnet18.a1_in1k', 'AT/image.png'], 'resnet18.a1_in1k has none'),
    (['scat_linear', 'AT/image.png'], 'scat_linear has no weights: expected the folder of a checkpoint or a run'),
    (['scat_liner', 'AT/image.png'], 'scat_liner is not there'),
    (['AT/one', 'AT/image.png'], 'expected a model of two classes or more, got 1'),
    (['AT/unpooled', 'AT/image.png'], "ScatLinear has global_pool='' and so no logits of the image as a whole"),
    (['AT/five', 'AT/image.png'], 'channels, the model takes 5: only grey and colour')])
def test_bad_input(args, phrase, folder, monkeypatch, capsys):
    write_others(folder)
    (folder / 'here').mkdir()
    monkeypatch.chdir(folder / 'here')
    try:
        code = cli.main(['explain', *(arg.replace('AT/', f'{folder}/') for arg in args)])
    except SystemExit as stop:                                  # argparse's own
        code = stop.code
    message = capsys.readouterr().err.splitlines()[-1]
    assert code == 2
    assert phrase in message
    assert not list((folder / 'here').iterdir())


def test_values_that_are_not_finite():
    model = toy(0)
    with pytest.raises(ValueError, match="the model's output is not finite"):
        evidence(model, torch.full((1, 1, 32, 32), math.nan))


def test_without_matplotlib_it_says_what_to_install(folder, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *args: None if name == 'matplotlib' else find(name))
    with pytest.raises(ValueError, match='needs matplotlib: install it, or scat_zoo with the extra plot'):
        explain.show(str(folder / 'run'), folder / 'image.png', folder / 'out.png')


def test_names_that_no_file_can_have(tmp_path):
    for names, phrase in ((('x' * 5000, 'a.png'), '^xxx.* is not there'),
                          (('scat_linear.fashion_mnist', 'x' * 5000), 'no image xxx')):
        with pytest.raises(ValueError, match=phrase):
            explain.show(names[0], Path(names[1]), tmp_path / 'a.png', None)
