"""Running `cascade` on a batch: the constants that it needs of the filters, the batch in chunks, on several threads,
forward and backward.
"""
import concurrent.futures
import contextlib
import threading
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from . import cascade, geometry, matrices
from .cascade import Constants, Gradients, Plan
from .program import Program

# Bytes of weights that are remembered, of a thread's spare memory.
REMEMBERED = 1 << 29
SPARED = 1 << 27


# ---- constants ----

class Memory:
    """Results for the latest tensors, found again by the tensors' values: nothing can make them stale.

    Threads may share one; two may compute the same result.
    """

    def __init__(self) -> None:
        self.entries: List[Tuple[Any, Tensor, Any, int]] = []
        self.lock = threading.Lock()

    def get(self, function: Callable, hat: Tensor, *args: Any) -> Any:
        key = (function, hat.shape, hat.dtype, args)
        for entry in self.entries:
            if entry[0] == key and torch.equal(entry[1], hat):
                return entry[2]
        with torch.inference_mode(False), torch.no_grad():
            result = function(hat, *args)
            tensors = result if isinstance(result, tuple) else (result,)
            size = sum(t.numel() * t.element_size() for t in tensors if t is not None)
            entry = key, hat.clone(), result, size
        with self.lock:
            kept, room = [entry], REMEMBERED - size
            for other in self.entries:
                room -= other[3]
                if room >= 0:
                    kept.append(other)
            self.entries = kept
        return result


memory = Memory()


def _lowpass(hat: Tensor, octaves: int, margin: int) -> matrices.LowPass:
    return (matrices.separable_lowpass if matrices.separable(hat) else matrices.general_lowpass)(hat, octaves, margin)


def constants(g: Plan, filters: Sequence[Tensor], needs: Sequence[bool], complete: bool = True) -> Constants:
    """What the products need of the filters.

    Args:
        needs: which of these need a gradient, and so no shortcut.
        complete: with the weights that are too small to matter in a forward pass; a backward pass needs them.
    """
    def constant(function: Callable, fixed: Callable, hat: Tensor, need: bool, *args: int) -> Any:
        if need:
            return function(hat.detach(), *args)
        return memory.get(fixed, hat.detach(), *args)

    fixed = matrices.fixed_weights if complete else matrices.large_weights
    (phi, psi), (phi_needs, psi_needs) = by_level(g, filters), by_level(g, needs)
    low = [[constant(matrices.general_lowpass, _lowpass, hat, need, s - level, g.margin(s))
            for level, (hat, need) in enumerate(zip(*levels))]
           for s, levels in zip(g.scales, zip(phi, phi_needs))]
    return Constants(low, [[constant(matrices.all_weights, fixed, hat, need, j - level)
                            for level, (hat, need) in enumerate(zip(*levels))]
                           for j, levels in enumerate(zip(psi, psi_needs))])


def by_level(g: Plan, filters: Sequence[Any]) -> Tuple[List[List[Any]], List[List[Any]]]:
    """(phi, psi), each by scale and level, from all in a row."""
    rest = iter(filters)
    phi = [[next(rest) for _ in range(geometry.phi_levels(s, g.max_order))] for s in g.scales]
    return phi, [[next(rest) for _ in range(geometry.psi_levels(j, g.max_order))] for j in range(g.J)]


# ---- values and gradients ----

class Spare(threading.local):
    """What the last programs of a thread's calls worked on: the next ones take it, since fresh memory costs time."""

    def __init__(self) -> None:
        self.arrays: List[List[Tensor]] = []
        self.forward: Dict[Any, Tuple[Constants, Callable]] = {}    # by purpose; constants, and how to run it

    @contextlib.contextmanager
    def borrowed(self, like: Tensor, programs: int) -> Iterator[List[List[Tensor]]]:
        """Arrays of this type on this device for so many programs; kept afterwards unless they are too large."""
        fitting = [arrays for arrays in self.arrays if all((t.dtype, t.device) == (like.dtype, like.device)
                                                           for t in arrays)]
        self.arrays, fitting = [], fitting[:programs] + [[] for _ in range(programs - len(fitting))]
        yield fitting
        if sum(t.nbytes for arrays in fitting for t in arrays) <= SPARED:
            self.arrays = fitting


spare = Spare()


def spread(prepare: Callable[..., Callable], chunks: List[Tuple[Tensor, ...]], like: Tensor) -> None:
    """Call prepare(share, arrays, *chunk) for a function of chunks of that size, and this for every chunk.

    As many threads as torch uses have a share of the chunks each: one product is too small to keep several processors
    busy. What is prepared is Python's own work, of which threads do one at a time, so it comes before.
    """
    threads = max(1, min(torch.get_num_threads(), len(chunks)))
    inference, before = torch.is_inference_mode_enabled(), torch.get_num_threads()
    with spare.borrowed(like, threads) as arrays:
        shares = [chunks[i::threads] for i in range(threads)]
        sizes = [{len(chunk[0]): chunk for chunk in share} for share in shares]
        prepared = [{size: prepare(i, arrays[i], *chunk) for size, chunk in mine.items()}
                    for i, mine in enumerate(sizes)]

        def work(i: int) -> None:
            for chunk in shares[i]:
                prepared[i][len(chunk[0])](*chunk)

        def work_alone(i: int) -> None:
            torch.set_num_threads(1)                        # for this thread, and those that begin later
            with torch.inference_mode(inference), torch.no_grad():
                work(i)

        if threads == 1:
            work(0)
            return
        try:
            with concurrent.futures.ThreadPoolExecutor(threads) as pool:
                list(pool.map(work_alone, range(threads)))
        finally:
            torch.set_num_threads(before)


def forward(x: Tensor, k: Constants, g: Plan, remembered: bool) -> List[Tensor]:
    """Images (B, h, w) to coefficients (B, paths, h', w') of each scale.

    Args:
        remembered: whether all constants were, so that a later call may have the same objects.
    """
    outs = outputs(x, g)
    chunks = _chunks(g, x, *outs)
    # Recording a program takes as long as a few images.
    purpose = g, x.dtype, torch.is_inference_mode_enabled(), *(id(constant) for constant in _in_a_row(k))

    def prepare(share: int, arrays: List[Tensor], images: Tensor, *into: Tensor) -> Callable[..., None]:
        alone, key = remembered and len(chunks) == 1, (images.shape, *purpose)
        if alone and key in spare.forward:
            return spare.forward[key][1]
        columns, results, program = _maps_last(images), [_maps_last(out) for out in into], Program(x, arrays)
        cascade.record_forward(program, columns, k, g, results)

        def run(images: Tensor, *into: Tensor) -> None:
            columns.copy_(images.permute(1, 2, 0))
            program.run()
            for out, result in zip(into, results):
                out.copy_(result.permute(3, 2, 0, 1))

        if alone and sum(t.nbytes for t in arrays) <= SPARED:
            if len(spare.forward) == 4:
                spare.forward.clear()
            spare.forward[key] = k, run                     # k, so that no other object gets its address
        return run

    spread(prepare, chunks, x)
    return outs


def backward(x: Tensor, filters: Sequence[Tensor], grads: Sequence[Tensor], k: Constants, g: Plan,
             needs: Sequence[bool]) -> List[Optional[Tensor]]:
    """Gradients to x and to the filters, each None where `needs` says so, from those to the coefficients."""
    grad_x = torch.empty_like(x) if needs[0] else None
    phi, psi = by_level(g, needs[1:])

    def zeros() -> Gradients:
        return Gradients([[torch.zeros_like(low.weights) if need else None for low, need in zip(*levels)]
                          for levels in zip(k.phi, phi)],
                         [[torch.zeros_like(weights.values) if need else None for weights, need in zip(*levels)]
                          for levels in zip(k.psi, psi)])

    sums = {0: zeros()}                                     # gradients to the weights, by share of the chunks

    def prepare(share: int, arrays: List[Tensor], images: Tensor, into: Tensor,
                *outer: Tensor) -> Callable[..., None]:
        if share not in sums:
            sums[share] = zeros()
        columns, results, program = _maps_last(images), [_maps_last(grad) for grad in outer], Program(x, arrays)
        inner = None if grad_x is None else _maps_last(images)
        cascade.record_backward(program, columns, results, k, sums[share], g, inner)

        def run(images: Tensor, into: Tensor, *outer: Tensor) -> None:
            columns.copy_(images.permute(1, 2, 0))
            for grad, result in zip(outer, results):
                result.copy_(grad.permute(2, 3, 1, 0))
            program.run()
            if inner is not None:
                into.copy_(inner.permute(2, 0, 1))
        return run

    spread(prepare, _chunks(g, x, x if grad_x is None else grad_x, *grads), x)
    folds = [(matrices.general_lowpass_backward, s - level, g.margin(s))
             for s, levels in zip(g.scales, phi) for level in range(len(levels))]
    folds += [(matrices.fold_weights_backward, j - level) for j in range(g.J) for level in range(len(psi[j]))]
    by_share = zip(*(_in_a_row(weights) for weights in sums.values()))
    return [grad_x] + [None if parts[0] is None else unfold(sum(parts[1:], parts[0]), hat, *args)
                       for hat, (unfold, *args), parts in zip(filters, folds, by_share)]


def _in_a_row(constants: Constants) -> List[Any]:
    """As the filters are; the reverse of `by_level`."""
    return [weights for levels in constants.phi + constants.psi for weights in levels]


def outputs(x: Tensor, g: Plan) -> List[Tensor]:
    return [x.new_empty(len(x), len(geometry.paths(s, g.L, g.max_order)),
                        *((n >> s) - 2 * g.margin(s) for n in (g.M, g.N))) for s in g.scales]


def _chunks(g: Plan, *tensors: Tensor) -> List[Tuple[Tensor, ...]]:
    """A few maps at a time; no chunk of no maps."""
    return list(zip(*(t.split(cascade.maps_at_a_time(g)) for t in tensors))) if len(tensors[0]) > 0 else []


def _maps_last(t: Tensor) -> Tensor:
    """Memory for (B, h, w) as (h, w, B), or for (B, paths, h, w) as (h, w, paths, B)."""
    return t.new_empty(*t.shape[-2:], *t.shape[:-2][::-1])
