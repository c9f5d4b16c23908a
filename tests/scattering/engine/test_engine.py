"""The transform by matrix products: against the plain one, its gradients, and where it serves."""
import subprocess
import sys

import pytest
import torch

import scat_zoo
from scat_zoo import ScatteringTorch2D
from scat_zoo.scattering import engine, geometry, transform
from scat_zoo.scattering.banks import PixelwiseBank
from scat_zoo.scattering.engine import autograd, cascade, devices, matrices, program, run
from scat_zoo.scattering.engine.plan import Plan
from scat_zoo.scattering.filters import Filters
from scat_zoo.scattering.parametric import KINDS
from tests.scattering.reference import bank, both_ways, counted, images, perturb

# One and two products on an axis; an odd size after the last fold; rows unlike columns; 2^J the size.
CASES = [((32, 32), 2, 8), ((28, 28), 2, 8), ((33, 47), 3, 6), ((16, 16), 4, 4), ((64, 48), 4, 8), ((100, 230), 1, 3),
         ((9, 130), 2, 1)]


def is_fast(s):
    """Whether s was computed the fast way."""
    return 'Transform' in repr([s.grad_fn, *s.grad_fn.next_functions])


@pytest.mark.parametrize('perturbed', [False, True])
@pytest.mark.parametrize('max_order', [0, 1, 2])
@pytest.mark.parametrize(('size', 'J', 'L'), CASES)
def test_equals_the_plain_way(size, J, L, max_order, perturbed):
    filters = bank(size, J, L, perturbed, max_order)
    x = images(size).requires_grad_()
    (s, grads), (expected, expected_grads) = both_ways(x, filters, J, max_order, [x, *filters.parameters()])
    assert is_fast(s)
    assert not is_fast(expected)
    assert torch.allclose(s, expected, rtol=0, atol=1e-12)
    for a, b in zip(grads, expected_grads, strict=True):
        assert (a - b).abs().max() <= 1e-11 * b.abs().max()


@pytest.mark.parametrize('learned', ['phi', 'psi', 'both'])
@pytest.mark.parametrize(('size', 'scales'), [
    ((32, 32), [2, 1]), ((33, 47), [3, 1]), ((64, 48), [4, 3, 1]), ((16, 16), [4, 3, 2, 1]), ((100, 130), [2, 1])])
def test_several_scales_equal_the_plain_way(size, scales, learned):
    """Low-passes of images and by class, side by side on the same moduli."""
    filters = perturb(PixelwiseBank(scales[0], 3, size, dtype=torch.float64, scales=scales))
    filters.psi.requires_grad_(learned != 'phi')                    # a filter that stays may be separable
    filters.phi.requires_grad_(learned != 'psi')
    if learned == 'psi':
        analytic = PixelwiseBank(scales[0], 3, size, dtype=torch.float64, scales=scales)
        filters.phi.load_state_dict(analytic.phi.state_dict())
    x = images(size, 3).requires_grad_()
    wanted = [x, *(p for p in filters.parameters() if p.requires_grad)]
    results = []
    for way in (engine.scattering2d, transform.reference):
        s = way(x, filters(x), scales, 2)
        generator = torch.Generator().manual_seed(1)
        loss = sum((t * torch.randn(t.shape, generator=generator, dtype=t.dtype)).sum() for t in s)
        results.append([*s, *torch.autograd.grad(loss, wanted)])
    s = engine.scattering2d(x, filters(x), scales, 2)
    assert is_fast(s[-1])
    for a, b in zip(*results, strict=True):
        assert (a - b).abs().max() <= 1e-11 * b.abs().max()


def test_second_derivatives_at_several_scales():
    filters, x = perturb(PixelwiseBank(2, 2, (8, 9), dtype=torch.float64, scales=[2, 1])), images((8, 9), 1)
    results = []
    for way in (engine.scattering2d, transform.reference):
        x = x.detach().requires_grad_()
        fine = way(x, filters(x), [2, 1], 2)[1]
        grad, = torch.autograd.grad(fine.square().sum(), x, create_graph=True)
        results.append(torch.autograd.grad(grad.square().sum(), [x, *filters.parameters()], allow_unused=True))
    for a, b in zip(*results, strict=True):
        assert (a is None or a.eq(0).all()) if b is None else (a - b).abs().max() <= 1e-10 * b.abs().max()


@pytest.mark.parametrize('scales', [(3,), (3, 2)])
@pytest.mark.parametrize('mode', KINDS)
def test_a_graph_of_the_gradient_does_not_change_it(mode, scales):
    """Where levels of a filter are computed from one another."""
    filters = KINDS[mode](3, 4, (16, 16), learnable=True, dtype=torch.float64, scales=list(scales))
    x = images((16, 16), 1).requires_grad_()
    results = []
    for create_graph in (False, True):
        coarse, *_ = engine.scattering2d(x, filters(x), list(scales), 2)
        results.append(torch.autograd.grad(coarse.square().sum(), [x, *filters.parameters()], allow_unused=True,
                                           create_graph=create_graph))
    for a, b in zip(*results, strict=True):
        assert (a is None and b is None) or (a - b).abs().max() <= 1e-10 * a.abs().max()


@pytest.mark.parametrize('create_graph', [False, True])
@pytest.mark.parametrize('mode', KINDS)
def test_gradients_of_many_coefficients_at_once(mode, create_graph):
    """As vectorised Jacobians ask for them."""
    filters = KINDS[mode](2, 2, (8, 8), learnable=True, dtype=torch.float64)
    x = images((8, 8), 1).requires_grad_()
    s = engine.scattering2d(x, filters(x), [2], 2)[0]
    assert is_fast(s)
    wanted, outer = [x, *filters.parameters()], torch.randn(5, *s.shape, dtype=torch.float64)
    together = torch.autograd.grad(s, wanted, outer, is_grads_batched=True, retain_graph=True,
                                   create_graph=create_graph, allow_unused=True)
    for i, grad in enumerate(outer):
        for a, b in zip(torch.autograd.grad(s, wanted, grad, retain_graph=True, allow_unused=True), together,
                        strict=True):
            assert (a is None and b is None) or (a - b[i]).abs().max() <= 1e-11 * a.abs().max()


@pytest.mark.parametrize(('to_x', 'to_phi', 'to_psi'), [
    (True, False, False), (False, True, False), (False, False, True), (True, False, True)])
@pytest.mark.parametrize('size', [(32, 32), (100, 60)])
def test_only_the_gradients_that_are_needed(size, to_x, to_phi, to_psi):
    filters = bank(size, 2, 4, perturbed=False)
    filters.phi.requires_grad_(to_phi)
    filters.psi.requires_grad_(to_psi)
    x = images(size).requires_grad_(to_x)
    wanted = [t for t in [x, *filters.parameters()] if t.requires_grad]
    (s, grads), (expected, expected_grads) = both_ways(x, filters, 2, 2, wanted)
    assert torch.allclose(s, expected, rtol=0, atol=1e-12)
    for a, b in zip(grads, expected_grads, strict=True):
        assert (a - b).abs().max() <= 1e-11 * b.abs().max()


@pytest.mark.parametrize('count', [1, 3, 24, 25, 49])
def test_every_size_of_batch(count):
    """Whole chunks, a rest, less than a chunk."""
    filters, x = bank((12, 12), 1, 2, perturbed=True), images((12, 12), count)
    (s, grads), (expected, expected_grads) = both_ways(x, filters, 1, 2, list(filters.parameters()))
    assert torch.allclose(s, expected, rtol=0, atol=1e-12)
    assert all((a - b).abs().max() <= 1e-11 * b.abs().max() for a, b in zip(grads, expected_grads, strict=True))


def test_python_executes_the_same(monkeypatch):
    """Where there is no TorchScript."""
    monkeypatch.setattr(program, 'execute', program.executed_by_python())
    filters, x = bank((33, 47), 3, 2, perturbed=True), images((33, 47)).requires_grad_()
    (s, grads), (expected, expected_grads) = both_ways(x, filters, 3, 2, [x, *filters.parameters()])
    assert torch.allclose(s, expected, rtol=0, atol=1e-12)
    assert all((a - b).abs().max() <= 1e-11 * b.abs().max() for a, b in zip(grads, expected_grads, strict=True))


def test_autocast_changes_nothing():
    """Neither that of torch nor that of TorchScript, which has one of its own."""
    S, x = ScatteringTorch2D(2, (16, 16), learnable=True), images((16, 16)).float()
    results = []
    for enabled in (False, True):
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            s = S(x)
        results.append([s, *torch.autograd.grad(s.sum(), list(S.parameters()))])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_gradient_is_zero_where_the_modulus_is():
    x = torch.zeros(2, 32, 32, requires_grad=True)
    S = ScatteringTorch2D(2, (32, 32), learnable=True)
    S(x).sum().backward()
    assert x.grad.isfinite().all()
    grads = [p.grad for p in S.parameters()]
    assert all(g.eq(0).all() for g in grads)


def test_what_the_products_do_not_serve_goes_the_plain_way(monkeypatch):
    x = images((16, 16)).float().requires_grad_()
    S = ScatteringTorch2D(2, (16, 16))
    s = S(x)
    assert is_fast(s)
    grad, = torch.autograd.grad(s.square().sum(), x)
    assert torch.allclose(torch.func.grad(lambda x: S(x).square().sum())(x.detach()), grad, atol=1e-4)
    assert torch.allclose(torch.func.vmap(S)(x.detach()), s, atol=1e-5)
    monkeypatch.setattr(run, 'LARGEST', 0)
    assert not is_fast(S(x))


def test_the_engine_can_be_switched_off():
    S, x = ScatteringTorch2D(2, (16, 16)), images((16, 16)).float().requires_grad_()
    fast = S(x)
    with scat_zoo.use_engine(False):
        plain = S(x)
        with scat_zoo.use_engine(True):
            assert is_fast(S(x))
        assert not is_fast(S(x))
    assert not is_fast(plain)
    assert is_fast(fast)
    assert torch.equal(plain, transform.reference(x, S.bank.own(), [2], 2)[0])
    assert is_fast(S(x))
    try:
        scat_zoo.use_engine(False)                              # without a with, for good
        assert not is_fast(S(x))
    finally:
        scat_zoo.use_engine(True)
    assert is_fast(S(x))


def test_a_device_is_a_module_and_a_line(monkeypatch):
    """Of which the rest knows nothing: autograd, the operator and the plain way work as they are."""
    calls = []
    S, x = ScatteringTorch2D(2, (16, 16), learnable=True), images((16, 16), 2).float()
    expected = torch.autograd.grad(S(x).square().sum(), list(S.parameters()))
    monkeypatch.setitem(devices.DEVICES, 'cpu', counted(run, calls, lambda x, filters: len(x) < 3))
    for way in (S, torch.compile(S, backend='aot_eager')):
        grads = torch.autograd.grad(way(x).square().sum(), list(S.parameters()))
        assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-4 * b.abs().max()) for a, b in zip(grads, expected))
    assert calls == ['forward', 'backward'] * 2
    S(torch.cat([x, x]))                                        # more than it serves
    assert len(calls) == 4


@pytest.mark.parametrize('missing', ['_are_functorch_transforms_active', '_functorch'])
def test_torch_without_the_private_names(monkeypatch, missing):
    """Slower, and as right."""
    S, x = ScatteringTorch2D(2, (8, 8), learnable=True), images((8, 8), 2).float()
    expected, grads = S(x), torch.autograd.grad(S(x).square().sum(), list(S.parameters()))
    monkeypatch.delattr(torch._C, missing)
    assert torch.allclose(S(x), expected, atol=1e-5)
    again = torch.autograd.grad(S(x).square().sum(), list(S.parameters()))
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-4 * b.abs().max()) for a, b in zip(again, grads))


@pytest.mark.parametrize('needs', [(True, False), (True, True), (False, True)])
def test_the_operators_keep_torchs_rules(needs):
    """What torch's own checks ask of schema, fake tensors, autograd and functionalisation."""
    needs_x, needs_filters = needs
    filters = bank((8, 8), 1, 2, perturbed=False).requires_grad_(needs_filters)
    x = images((8, 8), 2).requires_grad_(needs_x)
    plan = Plan(12, 12, 2, 2, (1,))
    row = plan.in_a_row(*filters(x))
    needs = [hat.requires_grad for hat in row]
    numbers = plan.numbers()
    torch.library.opcheck(autograd.operator, (x, row, numbers, needs))
    grads = [torch.randn_like(s) for s in autograd.operator(x, row, numbers, needs)]
    torch.library.opcheck(autograd.operator_backward, (
        x.detach(), [hat.detach() for hat in row], grads, numbers, [needs_x, *needs]))


def test_to_a_compiler_the_transform_is_one_operator():
    targets = []

    def backend(graph, _):
        targets.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    S, x = ScatteringTorch2D(2, (16, 16), L=2), images((16, 16), 2).float()
    torch.compiler.reset()
    assert torch.equal(torch.compile(S, fullgraph=True, backend=backend)(x), S(x))
    assert [target for target in targets if 'scattering2d' in target or 'fft' in target] == [
        'scat_zoo.scattering2d.default']


def test_the_first_call_may_be_a_compiled_one():
    """In a new process, where no table has been made before."""
    script = '''if True:
        import torch
        from scat_zoo import ScatteringTorch2D
        from scat_zoo.scattering import transform
        S, x = ScatteringTorch2D(2, (16, 16), learnable=True), torch.randn(3, 16, 16)
        compiled = torch.compile(S.scattering, fullgraph=True, backend='aot_eager')
        expected = transform.reference(x, S.bank(x), [2], 2)[0]
        for way in (compiled, S):
            assert torch.allclose(way(x), expected, atol=1e-5), way
        compiled(x).square().sum().backward()
        grads = [p.grad for p in S.parameters()]
        wanted = torch.autograd.grad(expected.square().sum(), list(S.parameters()))
        assert all((a - b).abs().max() <= 1e-4 * b.abs().max() for a, b in zip(grads, wanted))
    '''
    subprocess.run([sys.executable, '-c', script], check=True)


@pytest.mark.parametrize('size', [(32, 32), (100, 60)])
def test_second_wavelets_fill_their_places(size):
    """Parts of the second order cover its paths, each once."""
    J, L, B = 4, 3, 2
    plan = Plan(*geometry.padded_size(*size, J), L, 2, (J, 3, 1))
    outs = [torch.zeros(1, 1, len(geometry.paths(scale, L, 2)), B) for scale in plan.scales]
    for j1 in range(J):
        for place in cascade.first_order(plan, j1, outs):
            place.add_(1)
        for j2 in range(j1 + 1, J):
            for part in cascade.parts_of(plan, j1, j2, B, outs):
                for place in part.places:
                    place.add_(1)
    assert all(out[0, 0, 0].eq(0).all() for out in outs)
    assert all(out[0, 0, 1:].eq(1).all() for out in outs)


@pytest.mark.parametrize('learned', [False, True])
@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_weights_below_precision_are_left_out(dtype, tolerance, learned):
    """Of an analytic bank, where nothing needs a gradient; large mean values bring no more error than that of float."""
    J, size = 4, (96, 80)
    phi, psi = bank(size, J, 4, perturbed=False).requires_grad_(False).to(dtype)(images(size))
    if learned:
        psi = [[hat + 1e-3 * torch.randn(hat.shape, dtype=dtype) for hat in levels] for levels in psi]
    taken = [matrices.large_weights(hat, j - level).weights.shape[-1] / (4 << 2 * (j - level))
             for j, levels in enumerate(psi) for level, hat in enumerate(levels)]
    assert (min(taken) == 1) == learned
    for x in (images(size).to(dtype), images(size).to(dtype) + 100):
        s = engine.scattering2d(x, Filters(phi, psi), [J], 2)[0]
        whole = engine.scattering2d(x.requires_grad_(), Filters(phi, psi), [J], 2)[0]
        assert (s - whole).abs().max() <= tolerance * whole.abs().max()
        expected = transform.reference(x.double(), Filters(*([[hat.double() for hat in levels] for levels in bank]
                                                              for bank in (phi, psi))), [J], 2)[0]
        for order in range(3):
            paths = [i for i, path in enumerate(geometry.paths(J, 4, 2)) if path.order == order]
            error, before = ((t.double() - expected)[:, paths].abs().max() for t in (s, whole))
            assert error <= 1.5 * before + tolerance * expected[:, paths].abs().max()
