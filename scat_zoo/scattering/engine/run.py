"""The CPU's way: `cascade` on a batch, with the constants that it needs of the filters, the batch in chunks, on several
threads, forward and backward. `serves`, `forward` and `backward` are as `devices.Device` tells.
"""
import concurrent.futures
import contextlib
import threading
import weakref
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from . import cascade, matrices, ranges, upstream
from .cascade import Constants
from .plan import Plan, Read, reads, shapes
from .program import Program

# Bytes of weights beyond which filters go the plain way, that are remembered, and of a thread's spare memory.
LARGEST = 1 << 29
REMEMBERED = 1 << 29
SPARED = 1 << 27


def serves(x: Tensor, filters: Sequence[Tensor]) -> bool:
    width, count = max(x.dtype.itemsize, 4), 0
    for hat in filters:
        count += hat.numel()
        if hat.device != x.device or hat.dtype.itemsize > width:
            return False
    return 8 * count * width <= LARGEST


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
            size = sum(t.nbytes for t in (hat, *tensors) if t is not None)
            entry = key, hat.clone(), result, size
        if not torch.equal(hat, hat):                           # NaN: it would never be found again
            return result
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


def constants(plan: Plan, filters: Sequence[Tensor], needs: Sequence[bool], complete: bool = True) -> List[Any]:
    """What the products need of each filter in a row: a `LowPass`, or the `Weights` of wavelets.

    Args:
        needs: which filters need a gradient, and so no shortcut.
        complete: with the weights that are too small to matter in a forward pass; a backward pass needs them.
    """
    fixed = matrices.fixed_weights if complete else matrices.large_weights
    found: List[Any] = []
    for hat, need, (low, octaves, margin) in zip(filters, needs, reads(plan)):
        args = (octaves, margin) if low else (octaves,)
        if need:
            found.append((matrices.general_lowpass if low else matrices.all_weights)(hat.detach(), *args))
        else:
            found.append(memory.get(_lowpass if low else fixed, hat.detach(), *args))
    return found


# ---- values and gradients ----

class Kept:
    """What the last programs of a thread's calls worked on: the next ones take it, since fresh memory costs time."""

    def __init__(self) -> None:
        self.arrays: List[List[Tensor]] = []
        self.forward: Dict[Any, Tuple[List[Any], Callable]] = {}    # by purpose; constants, and how to run it
        with joining:
            everyone.add(self)

    @contextlib.contextmanager
    def borrowed(self, like: Tensor, programs: int) -> Iterator[List[List[Tensor]]]:
        """Arrays of this type on this device for so many programs; kept afterwards unless they are too large."""
        fitting = [arrays for arrays in self.arrays if not arrays or arrays[0].dtype == like.dtype]
        self.arrays, fitting = [], fitting[:programs] + [[] for _ in range(programs - len(fitting))]
        yield fitting
        if sum(t.nbytes for arrays in fitting for t in arrays) <= SPARED:
            self.arrays = fitting


class Spare(threading.local):
    """That of the thread that asks."""

    def __init__(self) -> None:
        self.kept = Kept()


everyone: 'weakref.WeakSet[Kept]' = weakref.WeakSet()       # of all threads that live
joining = threading.Lock()
spare = Spare()


def empty_cache() -> None:
    """Keep nothing of earlier calls, of any thread: what a call works with it still holds."""
    memory.entries = []
    with joining:
        all_kept = list(everyone)
    for kept in all_kept:
        kept.arrays, kept.forward = [], {}
    for function in matrices.CACHED:
        function.cache_clear()


def spread(prepare: Callable[..., Callable], chunks: List[Tuple[Tensor, ...]], like: Tensor) -> None:
    """Call prepare(share, arrays, *chunk) for a function of chunks of that size, and this for every chunk.

    As many threads as torch uses have a share of the chunks each: one product is too small to keep several processors
    busy. What is prepared is Python's own work, of which threads do one at a time, so it comes before.
    """
    # What watches the operations of this thread, such as a counter of flops, would not see those of others.
    threads = 1 if upstream.watched() else max(1, min(torch.get_num_threads(), len(chunks)))
    inference, before = torch.is_inference_mode_enabled(), torch.get_num_threads()
    with spare.kept.borrowed(like, threads) as arrays:
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


def forward(x: Tensor, filters: Sequence[Tensor], needs: Sequence[bool], plan: Plan,
            differentiated: bool) -> Tuple[List[Tensor], List[Any]]:
    size = ranges.steps(x)
    if not any(size):
        return _forward(x, filters, needs, plan, differentiated)
    outs, known = _forward(ranges.times(x, [-count for count in size]), filters, needs, plan, differentiated)
    return [ranges.times(out, size) for out in outs], known


def _forward(x: Tensor, filters: Sequence[Tensor], needs: Sequence[bool], plan: Plan,
             differentiated: bool) -> Tuple[List[Tensor], List[Any]]:
    known = constants(plan, filters, needs, complete=differentiated)
    outs = [x.new_empty(len(x), *shape) for shape in shapes(plan)]
    size = cascade.maps_at_a_time(plan)
    # Recording a program takes as long as a few images; the next call may have the same, if all constants were found.
    alone = len(x) <= size and True not in needs
    key = x.shape, x.dtype, plan, torch.is_inference_mode_enabled(), *map(id, known)
    mine = spare.kept.forward
    if alone and key in mine:
        mine[key][1](x, *outs)
        return outs, known

    def prepare(share: int, arrays: List[Tensor], images: Tensor, *into: Tensor) -> Callable[..., None]:
        columns, results, program = _maps_last(images), [_maps_last(out) for out in into], Program(x, arrays)
        cascade.record_forward(program, columns, Constants(*plan.by_level(known)), plan, results)

        def run(images: Tensor, *into: Tensor) -> None:
            columns.copy_(images.permute(1, 2, 0))
            program.run()
            for out, result in zip(into, results):
                out.copy_(result.permute(3, 2, 0, 1))

        if alone and sum(t.nbytes for t in arrays) <= SPARED:
            if len(mine) == 4:
                mine.clear()
            mine[key] = known, run                 # the constants, so that no other object gets their address
        return run

    spread(prepare, _chunks(size, x, *outs), x)
    return outs, known


def backward(x: Tensor, filters: Sequence[Tensor], grads: Sequence[Tensor], needs: Sequence[bool], plan: Plan,
             kept: Optional[List[Any]]) -> List[Optional[Tensor]]:
    sizes = list(zip(ranges.steps(x), ranges.steps(*grads)))
    if not any(map(any, sizes)):
        return _backward(x, filters, grads, needs, plan, kept)
    grad_x = torch.empty_like(x) if needs[0] else None
    total: List[Optional[Tensor]] = [None] * len(filters)
    for pair in sorted(set(sizes)):                                     # maps of one size at a time
        rows = torch.tensor([i for i, found in enumerate(sizes) if found == pair])
        of_x, of_grad = ([count] * len(rows) for count in pair)
        inner, *parts = _backward(ranges.times(x[rows], [-count for count in of_x]), filters,
                                  [ranges.times(grad[rows], [-count for count in of_grad]) for grad in grads],
                                  needs, plan, kept)
        if grad_x is not None and inner is not None:
            grad_x[rows] = ranges.times(inner, of_grad)
        parts = [None if part is None else ranges.times(part[None], [sum(pair)])[0] for part in parts]
        total = [part if before is None or part is None else before + part for before, part in zip(total, parts)]
    return [grad_x, *total]


def _backward(x: Tensor, filters: Sequence[Tensor], grads: Sequence[Tensor], needs: Sequence[bool], plan: Plan,
              kept: Optional[List[Any]]) -> List[Optional[Tensor]]:
    known = constants(plan, filters, needs[1:]) if kept is None else kept
    by_level = Constants(*plan.by_level(known))
    grad_x = torch.empty_like(x) if needs[0] else None

    def zeros() -> List[Optional[Tensor]]:
        return [torch.zeros_like(constant.weights) if need else None for constant, need in zip(known, needs[1:])]

    sums = {0: zeros()}                                     # gradients to the weights, by share of the chunks

    def prepare(share: int, arrays: List[Tensor], images: Tensor, into: Tensor,
                *outer: Tensor) -> Callable[..., None]:
        if share not in sums:
            sums[share] = zeros()
        columns, results, program = _maps_last(images), [_maps_last(grad) for grad in outer], Program(x, arrays)
        inner = None if grad_x is None else _maps_last(images)
        to = cascade.Gradients(*plan.by_level(sums[share]))
        cascade.record_backward(program, columns, results, by_level, to, plan, inner)

        def run(images: Tensor, into: Tensor, *outer: Tensor) -> None:
            columns.copy_(images.permute(1, 2, 0))
            for grad, result in zip(outer, results):
                result.copy_(grad.permute(2, 3, 1, 0))
            program.run()
            if inner is not None:
                into.copy_(inner.permute(2, 0, 1))
        return run

    spread(prepare, _chunks(cascade.maps_at_a_time(plan), x, x if grad_x is None else grad_x, *grads), x)
    return [grad_x, *(None if parts[0] is None else _to_filter(read, sum(parts[1:], parts[0]), hat)
                      for read, hat, parts in zip(reads(plan), filters, zip(*sums.values())))]


def _to_filter(read: Read, grad: Tensor, hat: Tensor) -> Tensor:
    """The gradient to a filter from that to its weights."""
    if read.low:
        return matrices.general_lowpass_backward(grad, hat, read.octaves, read.margin)
    return matrices.fold_weights_backward(grad, hat, read.octaves)


def _chunks(size: int, *tensors: Tensor) -> List[Tuple[Tensor, ...]]:
    """So many maps at a time; no chunk of no maps."""
    return list(zip(*[t.split(size) for t in tensors])) if len(tensors[0]) > 0 else []


def _maps_last(t: Tensor) -> Tensor:
    """Memory for (B, h, w) as (h, w, B), or for (B, paths, h, w) as (h, w, paths, B)."""
    return t.new_empty(*t.shape[-2:], *t.shape[:-2][::-1])
