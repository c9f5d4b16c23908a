"""Several scales at once: each channel is what the table says, and every form and state of a model has them."""
import copy
import pickle

import numpy as np
import pytest
import timm
import torch

from scat_zoo.models.stem import ScatteringStem
from scat_zoo.scattering import frame, geometry, morlet
from scat_zoo.scattering.filters import Filters
from scat_zoo.scattering.parametric import KINDS
from scat_zoo.train import checkpoint
from tests.models.architectures import MODELS, jolt

OPTIONS = [{}] + [{'learnable': True, 'parametrization': name} for name in KINDS] + [
    {'learnable': True, 'parametrization': 'morlet', 'nonexpansive': True}]


def create(name='scat_linear', **kwargs):
    return timm.create_model(name, **{'num_classes': 5, 'in_chans': 1, 'img_size': 16, 'L': 3, 'scales': (1, 2),
                                      **kwargs})


def filtered(u, hat, octaves):
    """Periodic convolution, sampled every 2^octaves pixels."""
    return np.fft.ifft2(np.fft.fft2(u) * hat)[::1 << octaves, ::1 << octaves]


def coefficients(image, channel, low_passes, psi, J):
    """One channel by convolutions in numpy, at the places in the padded image that the table names."""
    H, W = image.shape
    M, N = geometry.padded_size(H, W, J)
    top, left = (M - H) // 2, (N - W) // 2
    u = np.pad(image, ((top, M - H - top), (left, N - W - left)), mode='reflect')
    level = 0
    for j, theta in ((channel.j1, channel.theta1), (channel.j2, channel.theta2)):
        if j is not None:
            u = np.abs(filtered(u, psi[j][level][theta], j - level))
            level = j
    smooth = filtered(u, low_passes[channel.scale][level], 0).real
    cell = 1 << (J - level)                                         # samples of this level along a cell
    fine = 1 << (channel.scale - level)
    rows = cell * (1 + np.arange(H >> J)) + fine * channel.dy
    columns = cell * (1 + np.arange(W >> J)) + fine * channel.dx
    return smooth[np.ix_(rows, columns)]


@pytest.mark.parametrize(('J', 'scales', 'size', 'max_order'), [
    (2, (1, 2), (16, 16), 2), (2, (2, 1), (30, 37), 2), (2, (1, 2), (7, 5), 1), (3, (1, 3), (30, 37), 2),
    (3, (3, 2), (17, 24), 2), (3, (1, 2, 3), (8, 9), 2), (1, (1,), (9, 6), 2)])
@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_every_channel_is_what_the_table_says(options, J, scales, size, max_order):
    torch.manual_seed(0)
    stem = ScatteringStem(J, 2, max_order, 2, size, scales=scales, dtype=torch.float64, **options)
    with torch.no_grad():
        for p in stem.parameters():
            p.add_(0.1 * torch.randn_like(p))
    x = torch.randn(1, 2, *size, dtype=torch.float64)
    s = stem(x)[0].detach().numpy()
    phi, psi = stem.filters()
    low_passes = {scale: [hat.detach().numpy() for hat in levels]
                  for scale, levels in zip(sorted(scales, reverse=True), phi, strict=True)}
    psi = [[hat.detach().numpy() for hat in levels] for levels in psi]
    table = stem.channels
    assert len(set(table)) == len(table) == len(s) == 2 * len(stem.paths)
    assert [channel[:5] for channel in table[::2]] == stem.paths
    for channel, actual in zip(table, s):
        expected = coefficients(x[0, channel.colour].numpy(), channel, low_passes, psi, J)
        np.testing.assert_allclose(actual, expected, atol=1e-10)
    # By order, scale, path, place, colour; all paths of each scale in each place.
    assert table == sorted(table, key=lambda c: (c.order, -c.scale, [-1 if i is None else i for i in c[1:5]],
                                                 c.dy, c.dx, c.colour))
    for scale in scales:
        places = 4 ** (J - scale)
        found = [c[:5] for c in table if c.scale == scale]
        assert found == [path for path in geometry.paths(scale, 2, max_order) for _ in range(2 * places)]
    assert stem.order_channels() == [sum(c.order == order for c in table) for order in range(table[-1].order + 1)]


@pytest.mark.parametrize('options', OPTIONS[:-1], ids=str)
def test_filters_are_those_of_the_transform_of_each_scale(options):
    stem = ScatteringStem(3, 2, 2, 1, (24, 20), scales=(2, 3), dtype=torch.float64, **options)
    for size in [(24, 20), (9, 33)]:
        phi, psi = stem.filters(size)
        for scale, levels in zip((3, 2), phi, strict=True):
            bank = morlet.filter_bank(geometry.padded_size(*size, 3), [scale], 2, torch.float64, torch.device('cpu'))
            assert len(levels) == scale
            assert torch.allclose(levels[0].double(), bank[0], atol=1e-6)
            wavelets = torch.cat([levels[0] for levels in psi[:scale]])
            assert torch.allclose(wavelets.double(), bank[1:], atol=1e-4)       # L = 2 has wavelets with far aliases


@pytest.mark.parametrize('name', MODELS)
def test_one_scale_is_the_default(name):
    x = torch.randn(2, 1, 16, 16)
    for options in OPTIONS:
        plain, one = create(name, scales=None, **options), create(name, scales=(2,), **options)
        assert list(one.state_dict()) == list(plain.state_dict())
        assert torch.equal(one.scattering(x), plain.scattering(x))
        assert one.scattering.channels == plain.scattering.channels
        assert repr(one) == repr(plain)
        assert 'scales' not in repr(plain)
        several = create(name, **options)
        keys = set(several.state_dict()) - set(plain.state_dict())
        pixelwise = options.get('parametrization') == 'pixelwise'
        assert keys == ({'scattering.bank.phi.scale1_level0.hat'} if pixelwise else set())
        assert 'scales=(2, 1)' in repr(several)
        # The channels of scale J are the same.
        chosen = [i for i, c in enumerate(several.scattering.channels) if c.scale == 2]
        if 'nonexpansive' not in options:
            assert torch.equal(several.scattering(x)[:, chosen], plain.scattering(x))


@pytest.mark.parametrize('scales', [
    (1,), (), (1, 1, 2), (0, 2), (2, 3), (1.0, 2), (True, 2), 2, '12', ('1', 2)], ids=str)
@pytest.mark.parametrize('name', MODELS)
def test_bad_scales(name, scales):
    with pytest.raises(ValueError, match='scales must be distinct integers from 1 to J=2, J itself among them, got '):
        create(name, scales=scales)


@pytest.mark.parametrize('options', OPTIONS, ids=str)
@pytest.mark.parametrize('name', MODELS)
def test_features(name, options):
    x = torch.randn(2, 1, 16, 16)
    model = create(name, **options).eval()
    assert model(x).shape == (2, 5)
    levels = create(name, features_only=True, **options).eval()
    maps = levels(x)
    assert [m.shape[1] for m in maps] == levels.feature_info.channels()
    assert maps[0].shape[-2:] == (4, 4)
    if name in ('scat_linear', 'scat_mlp'):
        assert levels.feature_info.channels() == [1 + 4, 1 + 4 + 6 + 4 * 3, 1 + 4 + 6 + 4 * 3 + 9]
        for last in range(3):
            pruned = create(name, features_only=True, out_indices=(last,), **options).eval()
            pruned.load_state_dict(levels.state_dict(), strict=False)
            assert torch.allclose(pruned(x)[0], maps[last], atol=1e-5)


@pytest.mark.parametrize('parametrization', KINDS)
def test_gradients(parametrization):
    torch.manual_seed(0)
    stem = ScatteringStem(2, 2, 2, 1, (5, 6), True, parametrization=parametrization, scales=(1, 2), dtype=torch.float64)
    names = [name for name, _ in stem.named_parameters()]
    # Filters get one step each along a random direction: there are too many values for all.
    directions = [torch.randn_like(p) for p in stem.parameters()]
    x = torch.randn(1, 1, 5, 6, dtype=torch.float64, requires_grad=True)

    def function(x, *steps):
        moved = {name: p.detach() + step * d for name, p, step, d in zip(names, stem.parameters(), steps, directions)}
        return torch.func.functional_call(stem, moved, (x,))
    steps = torch.zeros(len(names), dtype=torch.float64).requires_grad_().unbind()
    # Morlet filters come in float64 as well, so the differences are as exact.
    assert torch.autograd.gradcheck(function, (x, *(s.detach().requires_grad_() for s in steps)), atol=1e-6)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('options', [OPTIONS[0], OPTIONS[1], OPTIONS[-1]], ids=str)
def test_script_trace_export_and_compile_equal_eager(options):
    model = jolt(create(**{**options, 'L': 2}))
    scripted = torch.jit.script(model)
    x = torch.randn(2, 1, 16, 16)
    assert torch.allclose(scripted(x), model(x), atol=1e-4)
    x = torch.randn(2, 1, 32, 22)
    exported = torch.export.export(model, (x,), dynamic_shapes={'x': {0: torch.export.Dim('batch')}}).module()
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    for other in (scripted, torch.jit.trace(model, x), exported, compiled, torch.fx.symbolic_trace(model)):
        assert torch.allclose(other(x), model(x), atol=1e-4)
        assert not torch.allclose(other(x), other(x.flip(-1)), atol=1e-2)


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_copies_precision_devices_and_empty_batches(options):
    model = jolt(create(**options))
    x = torch.rand(2, 1, 16, 16)
    expected = model(x)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(x), expected)
    for dtype in (torch.bfloat16, torch.float16):
        actual = copy.deepcopy(model).to(dtype).scattering(x.to(dtype))
        assert actual.dtype == dtype
        assert torch.allclose(actual.float(), model.scattering(x), atol=0.05)
    assert torch.allclose(copy.deepcopy(model).double()(x.double()).float(), expected, atol=1e-3)
    assert model(x[:0]).shape == (0, 5)
    meta = create(device='meta', **options)
    assert meta(x.to('meta')).shape == (2, 5)
    built = meta.to_empty(device='cpu')
    built.init_weights()
    assert torch.equal(built.scattering(x), create(**options).scattering(x))


@pytest.mark.parametrize('options', OPTIONS[1:], ids=str)
@pytest.mark.parametrize('name', MODELS)
def test_train_learnable_deploy_frozen(name, options, tmp_path):
    model = jolt(create(name, **options))
    x = torch.rand(2, 1, 16, 16)
    expected = model(x)
    checkpoint.save(model, tmp_path / 'checkpoint')
    plain = create(name)
    plain.load_state_dict(model.state_dict())
    folder = timm.create_model(f'local-dir:{tmp_path}/checkpoint', pretrained=True, learnable=False)
    for frozen in (plain.eval(), folder.eval()):
        assert torch.allclose(frozen(x), expected, atol=1e-4)
        assert not list(frozen.scattering.parameters())
    again = checkpoint.load(tmp_path / 'checkpoint')
    assert torch.equal(again(x), expected)
    assert again.scattering.scales == [2, 1]
    assert again.scattering.learnable
    with torch.no_grad():
        expected = again(x)
        again.scattering.to_pixelwise()
        assert torch.equal(again(x), expected)
    again.scattering.set_learnable(False)
    assert torch.allclose(again(x), expected, atol=1e-4)


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_fixed_weights_start_a_learnable_model(options, tmp_path):
    fixed = jolt(create())
    checkpoint.save(fixed, tmp_path / 'checkpoint')
    model = timm.create_model(f'local-dir:{tmp_path}/checkpoint', pretrained=True, **options).eval()
    x = torch.rand(2, 1, 16, 16)
    assert model.scattering.learnable == bool(options)
    assert torch.equal(model.scattering(x), create(**options).scattering(x))
    fixed.scattering.set_learnable(True)
    assert [name for name, _ in fixed.scattering.named_parameters()][:3] == [
        'bank.phi.level0.hat', 'bank.phi.level1.hat', 'bank.phi.scale1_level0.hat']


@pytest.mark.parametrize(('old', 'new'), [(1, 3), (3, 1), (2, 5)])
@pytest.mark.parametrize('name', MODELS)
def test_other_image_channels(name, old, new, tmp_path):
    torch.manual_seed(0)
    model = create(name, in_chans=old)
    with torch.no_grad():
        model.train()(torch.rand(8, 1, 16, 16).expand(-1, old, -1, -1))
    checkpoint.save(model.eval(), tmp_path / 'checkpoint')
    other = timm.create_model(f'local-dir:{tmp_path}/checkpoint', pretrained=True, in_chans=new).eval()
    grey = torch.rand(4, 1, 16, 16)
    assert torch.allclose(other(grey.expand(-1, new, -1, -1)), model(grey.expand(-1, old, -1, -1)), atol=1e-4)


@pytest.mark.parametrize(('saved', 'asked'), [((1, 2), (2,)), ((2,), (1, 2))])
@pytest.mark.parametrize('channels', [1, 3, 5])
def test_other_scales_are_refused(saved, asked, channels, tmp_path):
    checkpoint.save(create(scales=saved, in_chans=5), tmp_path / 'checkpoint')
    with pytest.raises(RuntimeError, match='size mismatch'):
        timm.create_model(f'local-dir:{tmp_path}/checkpoint', pretrained=True, scales=asked, in_chans=channels)


def test_frame_bounds_count_every_low_pass():
    stem = ScatteringStem(3, 4, img_size=(24, 24), scales=(1, 2, 3), dtype=torch.float64)
    low_passes, psi = stem.filters()
    one = frame.littlewood_paley(Filters(low_passes[:1], psi))
    sums = frame.littlewood_paley(stem.filters())
    assert len(sums) == 3
    assert torch.allclose(sums[0], one[0] + low_passes[1][0] ** 2 + low_passes[2][0] ** 2)
    assert torch.allclose(sums[1], one[1] + low_passes[1][1] ** 2)
    assert torch.allclose(sums[2], one[2])
    assert stem.frame_bounds()[1] == max(total.max() for total in sums) >= 3
    for parametrization in ('morlet', 'equivariant'):
        for max_order in (1, 2):
            stem = ScatteringStem(2, 3, max_order, 1, (16, 16), True, parametrization=parametrization, init='random',
                                  nonexpansive=True, scales=(1, 2), dtype=torch.float64)
            assert stem.frame_bounds()[1] <= 1 + 1e-12
            assert stem.frame_bounds((40, 24))[1] <= 1 + 1e-12


def test_nonexpansive_divides_the_low_passes_and_spares_the_wavelets():
    options = {'img_size': (16, 16), 'parametrization': 'morlet', 'nonexpansive': True, 'dtype': torch.float64}
    phi, psi = ScatteringStem(2, scales=(1, 2), **options).filters()
    _, alone = ScatteringStem(2, **options).filters()
    one, other = (levels[0] for levels in phi)
    assert 0.8 < one[0, 0] ** 2 + other[0, 0] ** 2 <= 1
    assert one[0, 0].item() == pytest.approx(other[0, 0].item(), rel=1e-4)     # but for the aliases of one
    assert psi[1][0].max() > 0.9 * alone[1][0].max()


def test_the_filters_of_every_scale_learn():
    model = create(learnable=True).train()
    before = {name: p.detach().clone() for name, p in model.scattering.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(torch.randn(8, 1, 16, 16)), torch.arange(8) % 5).backward()
        optimizer.step()
    assert all((p != before[name]).any() for name, p in model.scattering.named_parameters())
