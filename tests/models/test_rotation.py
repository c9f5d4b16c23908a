"""Models that average over rotations: in every form, and invariant where nothing behind the scattering tells places."""
import copy

import pytest
import timm
import torch

import scat_zoo
from scat_zoo.train import checkpoint
from tests.models.architectures import MODELS


def create(name='scat_linear', **kwargs):
    torch.manual_seed(0)
    return timm.create_model(name, **{'num_classes': 5, 'in_chans': 1, 'img_size': 16, 'L': 4, 'rotation': 'average',
                                      **kwargs})


@pytest.mark.parametrize('name', [*MODELS, 'scat_hybrid'])
def test_all_models_have_it(name, tmp_path):
    other = {'network': 'test_resnet'} if name == 'scat_hybrid' else {}
    model = create(name, **other).eval()
    x = torch.randn(2, 1, 16, 16)
    assert len(model.scattering.paths) == (3 if name == 'scat_hybrid' and model.scattering.max_order == 1 else 7)
    assert 'rotation=average' in repr(model.scattering)
    expected = model(x)
    checkpoint.save(model, tmp_path / 'saved', {})
    assert torch.equal(checkpoint.load(tmp_path / 'saved')(x), expected)
    with pytest.raises(RuntimeError, match=r'size|shape'):
        create(name, rotation=None, **other).load_state_dict(model.state_dict())


@pytest.mark.parametrize(('options', 'size'), [
    ({}, 16), ({'learnable': True, 'parametrization': 'equivariant'}, 16), ({'J': 3}, 24)])
def test_a_pooled_linear_model_does_not_see_quarter_turns(options, size):
    model = create(global_pool='avg', img_size=size, **options).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    x = torch.rand(3, 1, size, size)
    right = model(x)
    assert right.std() > 1e-3
    for k in (1, 2, 3):
        torch.testing.assert_close(model(torch.rot90(x, k, (2, 3))), right, rtol=0, atol=1e-4)


@pytest.mark.parametrize('options', [{}, {'scales': (1, 2)}, {'max_order': 1}, {'img_size': (17, 24)},
                                     {'learnable': True}, {'learnable': True, 'parametrization': 'morlet'}], ids=str)
@pytest.mark.filterwarnings('ignore:.*is deprecated')
def test_in_graphs(options):
    model = create(**options).eval()
    x = torch.randn(2, 1, *model.scattering.img_size)
    expected = model(x)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim('batch')},))
    assert not [node for node in program.graph.nodes if 'fft' in str(node.target)]
    traced = torch.jit.trace(model, x)
    for way in (torch.jit.script(model), traced, program.module(), torch.compile(model, backend='aot_eager')):
        torch.testing.assert_close(way(x), expected, rtol=0, atol=1e-4)
    y = torch.randn(2, 1, 24, 16)
    torch.testing.assert_close(torch.jit.script(model.scattering)(y), model.scattering(y), rtol=0, atol=1e-4)
    with pytest.raises(RuntimeError):
        traced(y)


def test_precision():
    """Neither autocast nor half precision of the images costs more than that of the result."""
    stem, x = create().scattering, torch.rand(2, 1, 16, 16)
    expected = stem(x)
    with torch.autocast('cpu', torch.bfloat16):
        torch.testing.assert_close(stem(x), expected, rtol=0, atol=0)
    half = stem(x.half())
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), expected, rtol=1e-2, atol=2e-3)
    assert stem(x[:0]).shape == (0, 7, 4, 4)
    exact = copy.deepcopy(stem).double()(x.double())
    torch.testing.assert_close(expected.double(), exact, rtol=0, atol=1e-6)


def test_gradients_to_images_and_filters():
    stem = create(learnable=True, L=2, img_size=8).scattering.double()
    x = torch.rand(1, 1, 8, 9, dtype=torch.float64, requires_grad=True)
    hat = stem.bank.psi['j0_theta0_level0'].hat

    def of(x, hat_):
        with torch.no_grad():
            hat.copy_(hat_)
        return stem(x)

    assert torch.autograd.gradcheck(stem, (x,), fast_mode=True)
    weight = torch.randn(stem(x).shape, dtype=torch.float64)
    grad, = torch.autograd.grad((stem(x) * weight).sum(), hat)
    start, step = hat.detach().clone(), torch.randn_like(hat)
    after, before = ((of(x, start + h * step) * weight).sum().item() for h in (1e-5, -1e-5))
    assert (after - before) / 2e-5 == pytest.approx((grad * step).sum().item(), rel=1e-6)


@pytest.mark.parametrize('rotation', ['avg', '', 90, True, ['average']])
def test_bad_rotations(rotation):
    with pytest.raises(ValueError, match="rotation must be 'average' or None, got "):
        create(rotation=rotation)


def test_torchvision_and_hybrids():
    import torchvision
    model = torchvision.models.get_model('scat_mlp', rotation='average', num_classes=3)
    assert model.scattering.rotation == 'average'
    hybrid = scat_zoo.with_scattering_stem('test_resnet', J=2, max_order=2, rotation='average', num_classes=3)
    assert hybrid(torch.randn(2, 3, 160, 160)).shape == (2, 3)
    assert hybrid.scattering_embed.conv.in_channels == 3 * (1 + 2 + 8)
