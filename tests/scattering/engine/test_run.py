"""Constants that can't go stale, memory, threads, and programs that are used again."""
import copy
import threading

import pytest
import torch

from scat_zoo import ScatteringTorch2D
from scat_zoo.scattering import engine, transform
from scat_zoo.scattering.engine import cascade, run
from scat_zoo.scattering.engine.plan import Plan
from tests.scattering.reference import bank, both_ways, images, perturb


def test_the_separable_low_pass_is_only_for_separable_filters():
    """A product of the analytic bank's factors would move order 0 of a perturbed one by many per cent."""
    filters = bank((32, 32), 2, 8, perturbed=False)
    phi, psi = filters(images((32, 32)))
    phi, plan = phi[0], Plan(*phi[0][0].shape, 8, 2, (2,))

    def lows(phi, needs):
        row = plan.in_a_row([phi], psi)
        return [low.weights is None for low in run.constants(plan, row, [needs] * len(row))[:2]]

    assert lows(phi, needs=False) == [True, True]
    assert lows(phi, needs=True) == [False, False]                  # a product would have no gradient for the rest
    for place in ((0, 1), (3, 5), (0, 0)):
        changed = [hat.detach().clone() for hat in phi]
        changed[0][place] *= 1 + 1e-9
        assert lows(changed, needs=False) == [False, True]
    skew = [hat.detach().clone() for hat in phi]
    skew[1] *= 1 + 0.1 * torch.rand(20, 1, dtype=torch.float64)     # an outer product, but not symmetric
    assert lows(skew, needs=False) == [True, False]


@pytest.mark.parametrize('edit', ['in place', 'data', 'load', 'optimiser', 'set_learnable', 'to'])
def test_constants_follow_the_filters(edit):
    x = images((16, 16)).float()
    S = ScatteringTorch2D(2, (16, 16))
    twin = perturb(copy.deepcopy(S))
    before = S(x)
    hat = S.bank.psi['j0_theta3_level0'].hat
    if edit == 'in place':
        hat.mul_(2)
    elif edit == 'data':
        hat.data[3, 4] += 1
    elif edit == 'load':
        S.load_state_dict(twin.state_dict())
    elif edit == 'to':
        S.to(torch.bfloat16).to(torch.float32)
    else:
        S.set_learnable(True)
        optimiser = torch.optim.SGD(S.parameters(), lr=0.1)
        S(x).sum().backward()
        optimiser.step()
        if edit == 'set_learnable':
            S.set_learnable(False)
    with torch.no_grad():
        after = S(x)
        assert not torch.allclose(after, before, rtol=0, atol=1e-5)
        assert torch.allclose(after, transform.reference(x, S.bank(x), [2], 2)[0], rtol=0, atol=1e-5)


def test_threads_share_nothing_but_the_constants():
    S, twin = ScatteringTorch2D(2, (16, 16)), perturb(ScatteringTorch2D(2, (16, 16)))
    inputs = [images((16, 16), 7, seed).float() for seed in range(8)]
    expected = [module(x) for x in inputs for module in (S, twin)]
    found = {}

    def work(i, x):
        for _ in range(5):
            found[2 * i], found[2 * i + 1] = S(x), twin(x)

    threads = [threading.Thread(target=work, args=item) for item in enumerate(inputs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[i], s) for i, s in enumerate(expected))


def test_memory_is_bounded(monkeypatch):
    memory = run.Memory()
    monkeypatch.setattr(run, 'REMEMBERED', 2000)                # two of 400 bytes each, with as many of what was asked
    results = [memory.get(lambda hat: 2 * hat, torch.full((100,), float(i))) for i in range(5)]
    assert len(memory.entries) == 2
    assert [r[0].item() for r in results] == [0, 2, 4, 6, 8]


@pytest.mark.parametrize('inference', [False, True])
def test_several_threads_give_the_same(inference):
    filters, x = bank((16, 16), 2, 4, perturbed=True), images((16, 16), 100)
    (_, _), (expected, expected_grads) = both_ways(x, filters, 2, 2, list(filters.parameters()))
    torch.set_num_threads(3)
    try:
        if inference:
            with torch.inference_mode():
                assert torch.allclose(engine.scattering2d(x, filters(x), [2], 2)[0], expected, rtol=0, atol=1e-12)
        (s, grads), _ = both_ways(x, filters, 2, 2, list(filters.parameters()))
        seen = []
        later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        later.start()
        later.join()
        assert seen == [3]                                          # not the single one of a share
    finally:
        torch.set_num_threads(1)
    assert torch.allclose(s, expected, rtol=0, atol=1e-12)
    assert all((a - b).abs().max() <= 1e-11 * b.abs().max() for a, b in zip(grads, expected_grads, strict=True))


def test_a_program_is_used_again(monkeypatch):
    """For as many images and the same filters; also across inference mode, whose tensors can't be written to later."""
    run.spare.kept.forward.clear()
    S, x = ScatteringTorch2D(2, (16, 16)), images((16, 16)).float()
    first = S(x)
    recorded = []
    record = cascade.record_forward
    monkeypatch.setattr(cascade, 'record_forward', lambda *args: (recorded.append(args), record(*args)))
    assert torch.equal(S(x), first)
    assert not recorded
    with torch.inference_mode():
        assert torch.equal(S(x), first)
        assert torch.allclose(S(2 * x), 2 * first)
    assert torch.equal(S(x), first)
    assert len(recorded) == 1
    perturb(S)
    assert not torch.allclose(S(x), first, rtol=0, atol=1e-4)
    assert len(recorded) == 2
    kept = list(run.spare.kept.forward)
    S.set_learnable(True)
    S(x)
    assert len(recorded) == 3
    assert list(run.spare.kept.forward) == kept                    # filters that learn are others next time
