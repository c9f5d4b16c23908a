"""`torch.compile(dynamic=True)`, and traces, at sizes that they were not made for."""
import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.testing import CompileCounterWithBackend

from scat_zoo.models.heads import pool_to
from tests.models.architectures import create

# The second and the third are padded to one size, the fourth as the model's own, and the last is that.
SIZES = [(2, 24, 36), (4, 21, 23), (5, 20, 20), (3, 18, 19), (2, 16, 16)]


def model_of(name, mode, **kwargs):
    if mode != 'fixed':
        kwargs.update(learnable=True, parametrization='pixelwise' if mode == 'frozen' else mode)
    model = create(name, img_size=16, L=1, **kwargs)
    if mode == 'frozen':
        model.scattering.set_learnable(False)
    return model


def compiled(model, backend):
    """It, and a backend that counts its graphs."""
    torch.compiler.reset()
    counter = CompileCounterWithBackend(backend)
    return torch.compile(model, dynamic=True, fullgraph=True, backend=counter), counter


def check(way, model, x, tolerance=1e-5):
    """The same values, and the same gradients to all parameters."""
    results = []
    for module in (way, model):
        y = module(x)
        parameters = [p for p in model.parameters() if p.requires_grad] if y.requires_grad else []
        found = torch.autograd.grad(y.square().sum(), parameters, allow_unused=True) if parameters else []
        results.append([y, *(g for g in found if g is not None)])
    assert len(results[0]) == len(results[1])
    for a, b in zip(*results, strict=True):
        assert a.shape == b.shape
        assert torch.allclose(a, b, rtol=0, atol=tolerance * max(1, float(b.detach().abs().max())))


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(('name', 'mode', 'train', 'options', 'graphs'), [
    ('scat_linear', 'fixed', True, {}, 2),
    ('scat_linear', 'pixelwise', True, {'scales': (2, 1), 'max_order': 1}, 2),
    ('scat_mlp', 'frozen', False, {'max_order': 1}, 2),
    ('scat_tiny', 'morlet', True, {}, 1),
    ('scat_resnet', 'equivariant', False, {'max_order': 1, 'global_pool': 'flat'}, 1),
])
def test_compiled_for_all_sizes(name, mode, train, options, graphs):
    """A graph for the size of the stored filters and one for all others, not one for each."""
    model = model_of(name, mode, **options).train(train)
    way, counter = compiled(model, 'eager')
    for batch, *size in SIZES:
        # Running statistics move twice as far as in one call, in both.
        check(way, model, torch.randn(batch, 1, *size), tolerance=1e-4)
    assert counter.frame_count == graphs


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(('backend', 'learned'), [('aot_eager', True), ('inductor', False)])
def test_backends_take_symbols(backend, learned):
    model = model_of('scat_linear', 'fixed').scattering
    way, counter = compiled(model, backend)
    for batch, *size in [(2, 24, 36), (3, 20, 20), (4, 48, 40)]:
        x = torch.randn(batch, 1, *size, requires_grad=learned)
        results = [module(x) for module in (way, model)]
        assert torch.allclose(*results, atol=1e-5)
        if learned:
            a, b = (torch.autograd.grad(s.square().sum(), x)[0] for s in results)
            assert torch.allclose(a, b, atol=1e-4)
    assert counter.frame_count == 1


def test_pooling_in_a_graph_is_adaptive_pooling():
    ways = [torch.compile(pool_to, backend='eager', fullgraph=True, dynamic=dynamic) for dynamic in (False, True)]
    for size in [(4, 4), (5, 12), (2, 3)]:
        x = torch.randn(3, 3, *size, dtype=torch.float64)
        for way in ways:
            assert torch.allclose(way(x, (4, 4)), F.adaptive_avg_pool2d(x, (4, 4)), rtol=0, atol=1e-14)
    x = torch.randn(3, 3, 4, 4)
    assert ways[0](x, (4, 4)).data_ptr() == x.data_ptr()        # nothing to average


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(('name', 'options', 'train'), [
    ('scat_linear', {}, False),
    ('scat_mlp', {'scales': (2, 1)}, True),
    ('scat_resnet', {'learnable': True}, True),
    ('scat_linear', {'learnable': True, 'parametrization': 'morlet'}, True),
    ('scat_tiny', {'learnable': True, 'parametrization': 'morlet'}, False),
    ('scat_linear', {'global_pool': 'avg'}, False),
], ids=str)
def test_a_trace_is_right_or_refuses(name, options, train):
    """Of any batch, statistics included; another image size is none that it knows, as many pixels as it may have."""
    model = create(name, img_size=16, L=2, **options).train(train)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    traced = torch.jit.trace(model, torch.rand(2, 1, 16, 16), check_trace=False)
    for shape in [(5, 1, 16, 16), (1, 1, 16, 16), (3, 1, 18, 19), (2, 1, 8, 32), (2, 1, 12, 16), (2, 1, 32, 32)]:
        if train and shape[0] == 1:
            continue
        results, x = [], torch.rand(shape)
        for way in (model, traced):
            model.load_state_dict(state)
            try:
                results.append([way(x), *(buffer.clone() for buffer in model.norm.buffers())])
            except RuntimeError:
                assert way is traced
                assert shape[2:] != (16, 16)
                break
        else:
            assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(*results, strict=True))
