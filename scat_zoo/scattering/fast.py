"""The transform as everybody calls it: the rule that chooses between the plain one and matrix products, and the
gradients and constants of the latter.
"""
import concurrent.futures
import contextlib
import threading
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from . import cascade, geometry, matrices, transform
from .cascade import Constants, Gradients, Plan
from .program import Program

# Bytes of weights beyond which filters go the plain way, of those remembered, of a thread's spare memory.
LARGEST = REMEMBERED = 1 << 29
SPARED = 1 << 27


@torch.fx.wrap
def scattering2d(x: Tensor, phi: List[Tensor], psi: List[List[Tensor]], J: int, max_order: int,
                 pre_pad: bool) -> Tensor:
    """`transform.scattering2d`, by matrix products wherever they serve.

    They serve in float32 and float64 on a CPU and on a GPU, for filters of at most 1/2 GiB in weights (8 numbers for
    each of a filter: 1024 x 1024 images with J = 5 are beyond). TorchScript, traces, exports, the transforms of
    torch.func, double backward and vectorised Jacobians take the plain way. To `torch.compile` the whole is one
    operator.
    """
    return at_scales(x, [phi], psi, [J], max_order, pre_pad)[0]


def at_scales(x: Tensor, phi: List[List[Tensor]], psi: List[List[Tensor]], scales: List[int], max_order: int,
              pre_pad: bool) -> List[Tensor]:
    """`transform.at_scales`, in the same way."""
    if not torch.jit.is_scripting():
        if _serves(x, phi, psi):
            return _by_products(x, phi, psi, scales, max_order, pre_pad)
    return transform.at_scales(x, phi, psi, scales, max_order, pre_pad)


def _by_products(x: Tensor, phi: List[List[Tensor]], psi: List[List[Tensor]], scales: List[int], max_order: int,
                 pre_pad: bool) -> List[Tensor]:
    J, finer = scales[0], tuple(scales[1:])
    transform.check(x, phi[0][0], J, pre_pad)
    g = Plan(*phi[0][0].shape, J, psi[0][0].shape[0] if max_order > 0 else 0, max_order, finer)
    dtype = torch.promote_types(x.dtype, torch.float32)
    images = x.reshape(-1, *x.shape[-2:]).to(dtype)
    phi = [levels[:geometry.phi_levels(s, max_order)] for s, levels in zip(scales, phi)]
    psi = [levels[:geometry.psi_levels(j, max_order)] for j, levels in enumerate(psi)]
    filters = [hat.to(dtype) for levels in phi + psi for hat in levels]
    if not torch.is_grad_enabled():
        filters = [hat.detach() for hat in filters]
    if torch.compiler.is_compiling():
        results = operator(images, filters, [*g[:5], *finer], [hat.requires_grad for hat in filters])
    else:
        results = Products.apply(images, g, *filters)
    return [s.reshape(x.shape[:-2] + s.shape[1:]).to(x.dtype) for s in results]


def _serves(x: Tensor, phi: List[List[Tensor]], psi: List[List[Tensor]]) -> bool:
    filters = [hat for levels in phi + psi for hat in levels]
    if torch.jit.is_tracing() or x.device.type not in ('cpu', 'cuda') or not x.is_floating_point():
        return False
    if any(hat.device != x.device or hat.dtype.itemsize > max(x.dtype.itemsize, 4) for hat in filters):
        return False
    if 8 * sum(hat.numel() for hat in filters) * max(x.dtype.itemsize, 4) > LARGEST:
        return False
    if torch.compiler.is_compiling():
        return not torch.compiler.is_exporting()
    # Subclasses stand for something else, such as shapes without values, and an empty batch is nothing to plan for.
    return (x.numel() > 0 and all(type(t) in (Tensor, torch.nn.Parameter) for t in [x, *filters])
            and not torch._C._are_functorch_transforms_active())


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
        # On a GPU a comparison of values would wait for it, and take longer than the weights.
        if need or hat.device.type != 'cpu':
            return function(hat.detach(), *args)
        return memory.get(fixed, hat.detach(), *args)

    fixed = matrices.fixed_weights if complete else matrices.large_weights
    (phi, psi), (phi_needs, psi_needs) = _by_scale(g, filters), _by_scale(g, needs)
    low = [[constant(matrices.general_lowpass, _lowpass, hat, need, s - level, g.margin(s))
            for level, (hat, need) in enumerate(zip(*levels))]
           for s, levels in zip(g.scales, zip(phi, phi_needs))]
    return Constants(low, [[constant(matrices.all_weights, fixed, hat, need, j - level)
                            for level, (hat, need) in enumerate(zip(*levels))]
                           for j, levels in enumerate(zip(psi, psi_needs))])


def _by_scale(g: Plan, filters: Sequence[Any]) -> Tuple[List[List[Any]], List[List[Any]]]:
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
        if like.device.type == 'cpu' and sum(t.nbytes for arrays in fitting for t in arrays) <= SPARED:
            self.arrays = fitting


spare = Spare()


def spread(prepare: Callable[..., Callable], chunks: List[Tuple[Tensor, ...]], like: Tensor) -> None:
    """Call prepare(share, arrays, *chunk) for a function of chunks of that size, and this for every chunk.

    As many threads as torch uses have a share of the chunks each: one product is too small to keep several processors
    busy. What is prepared is Python's own work, of which threads do one at a time, so it comes before.
    """
    threads = max(1, min(torch.get_num_threads(), len(chunks))) if like.device.type == 'cpu' else 1
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
    outs = _outputs(x, g)
    chunks = _chunks(g, x, *outs)
    # Recording a program takes as long as a few images.
    purpose = g, x.dtype, torch.is_inference_mode_enabled(), *(id(constant) for constant in _in_a_row(k))

    def prepare(share: int, arrays: List[Tensor], images: Tensor, *into: Tensor) -> Callable[..., None]:
        alone, key = remembered and len(chunks) == 1 and x.device.type == 'cpu', (images.shape, *purpose)
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
    phi, psi = _by_scale(g, needs[1:])

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
    """As the filters are; the reverse of `_by_scale`."""
    return [weights for levels in constants.phi + constants.psi for weights in levels]


def _outputs(x: Tensor, g: Plan) -> List[Tensor]:
    return [x.new_empty(len(x), len(geometry.paths(s, g.L, g.max_order)),
                        *((n >> s) - 2 * g.margin(s) for n in (g.M, g.N))) for s in g.scales]


def _chunks(g: Plan, *tensors: Tensor) -> List[Tuple[Tensor, ...]]:
    """A few maps at a time on a CPU, all at once elsewhere; no chunk of no maps."""
    size = cascade.maps_at_a_time(g) if tensors[0].device.type == 'cpu' else len(tensors[0])
    return list(zip(*(t.split(size) for t in tensors))) if len(tensors[0]) > 0 else []


def _maps_last(t: Tensor) -> Tensor:
    """Memory for (B, h, w) as (h, w, B), or for (B, paths, h, w) as (h, w, paths, B)."""
    return t.new_empty(*t.shape[-2:], *t.shape[:-2][::-1])


class Products(torch.autograd.Function):
    """The transform of images (B, h, w); backward recomputes it, and is itself differentiated the plain way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, g: Plan, *filters: Tensor) -> Tuple[Tensor, ...]:
        needs = [hat.requires_grad for hat in filters]
        ctx.g, ctx.k = g, constants(g, filters, needs, complete=any(ctx.needs_input_grad))
        ctx.save_for_backward(x, *filters)
        return tuple(forward(x, ctx.k, g, not any(needs)))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tuple[Optional[Tensor], ...]:
        (x, *filters), g = ctx.saved_tensors, ctx.g
        needs = [ctx.needs_input_grad[0], *ctx.needs_input_grad[2:]]
        create_graph = torch.is_grad_enabled()
        # is_grads_batched=True (vectorised Jacobians) hands over tensors that stand for many.
        if create_graph or any(torch._C._functorch.is_legacy_batchedtensor(grad) for grad in grads):
            # The levels of a filter may be computed from one another, which the graph outside sees to: aliases keep
            # their gradients apart here.
            with torch.enable_grad():
                x, *filters = (t.view_as(t) for t in (x, *filters))
                padded = x.shape[1:] == (g.M, g.N)
                s = transform.at_scales(x, *_by_scale(g, filters), list(g.scales), g.max_order, padded)
            wanted = [t for t, need in zip([x, *filters], needs) if need]
            found = iter(torch.autograd.grad(s, wanted, grads, create_graph=create_graph))
            results = [next(found) if need else None for need in needs]
        else:
            results = backward(x, filters, grads, ctx.k, g, needs)
        return results[0], None, *results[1:]


@torch.library.custom_op('scat_zoo::scattering2d', mutates_args=())
def operator(x: Tensor, filters: List[Tensor], plan: List[int], needs: List[bool]) -> List[Tensor]:
    """The same for `torch.compile`; `plan` has the finer scales in a row with the rest."""
    g = _plan(plan)
    return forward(x, constants(g, filters, needs), g, not any(needs))


def _plan(plan: List[int]) -> Plan:
    return Plan(*plan[:5], tuple(plan[5:]))


@operator.register_fake
def _(x: Tensor, filters: List[Tensor], plan: List[int], needs: List[bool]) -> List[Tensor]:
    return _outputs(x, _plan(plan))


@torch.library.custom_op('scat_zoo::scattering2d_backward', mutates_args=())
def operator_backward(x: Tensor, filters: List[Tensor], grads: List[Tensor], plan: List[int],
                      needs: List[bool]) -> List[Tensor]:
    """Gradients to x and to the filters; empty where not needed."""
    g = _plan(plan)
    results = backward(x, filters, grads, constants(g, filters, needs[1:]), g, needs)
    return [x.new_empty(0) if t is None else t for t in results]


@operator_backward.register_fake
def _(x: Tensor, filters: List[Tensor], grads: List[Tensor], plan: List[int], needs: List[bool]) -> List[Tensor]:
    return [torch.empty_like(t) if need else x.new_empty(0) for t, need in zip([x, *filters], needs)]


def _save(ctx: Any, inputs: Tuple[Any, ...], output: List[Tensor]) -> None:
    x, filters, ctx.plan, ctx.needs = inputs
    ctx.save_for_backward(x, *filters)


def _operator_gradient(ctx: Any, grads: List[Tensor]) -> Tuple[Any, ...]:
    x, *filters = ctx.saved_tensors
    needs = [ctx.needs_input_grad[0], *ctx.needs]
    results = [t if need else None for t, need in zip(operator_backward(x, filters, grads, ctx.plan, needs), needs)]
    return results[0], results[1:], None, None


operator.register_autograd(_operator_gradient, setup_context=_save)
