"""The transform as everybody calls it: the rule that chooses between the plain one and matrix products, and these as
functions that torch can differentiate and compile. `execution` runs them.
"""
from typing import Any, List, Optional, Tuple

import torch
from torch import Tensor

from . import execution, geometry, transform
from .cascade import Plan

# Bytes of weights beyond which filters go the plain way.
LARGEST = 1 << 29


@torch.fx.wrap
def scattering2d(x: Tensor, phi: List[Tensor], psi: List[List[Tensor]], J: int, max_order: int,
                 pre_pad: bool) -> Tensor:
    """`transform.scattering2d`, by matrix products wherever they serve.

    They serve in float32 and float64 on a CPU, for filters of at most 1/2 GiB in weights (8 numbers for each of a
    filter: 1024 x 1024 images with J = 5 are beyond). A GPU takes longer to launch a thousand small products than to
    do all of the plain way (measured: `benchmarks/gpu.sh`). TorchScript, traces, exports, the transforms of torch.func,
    double backward and vectorised Jacobians take the plain way too. To `torch.compile` the whole is one operator.
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
    if torch.jit.is_tracing() or x.device.type != 'cpu' or not x.is_floating_point():
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


class Products(torch.autograd.Function):
    """The transform of images (B, h, w); backward recomputes it, and is itself differentiated the plain way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, g: Plan, *filters: Tensor) -> Tuple[Tensor, ...]:
        needs = [hat.requires_grad for hat in filters]
        ctx.g, ctx.k = g, execution.constants(g, filters, needs, complete=any(ctx.needs_input_grad))
        ctx.save_for_backward(x, *filters)
        return tuple(execution.forward(x, ctx.k, g, not any(needs)))

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
                s = transform.at_scales(x, *execution.by_level(g, filters), list(g.scales), g.max_order, padded)
            wanted = [t for t, need in zip([x, *filters], needs) if need]
            found = iter(torch.autograd.grad(s, wanted, grads, create_graph=create_graph))
            results = [next(found) if need else None for need in needs]
        else:
            results = execution.backward(x, filters, grads, ctx.k, g, needs)
        return results[0], None, *results[1:]


@torch.library.custom_op('scat_zoo::scattering2d', mutates_args=())
def operator(x: Tensor, filters: List[Tensor], plan: List[int], needs: List[bool]) -> List[Tensor]:
    """The same for `torch.compile`; `plan` has the finer scales in a row with the rest."""
    g = _plan(plan)
    return execution.forward(x, execution.constants(g, filters, needs), g, not any(needs))


def _plan(plan: List[int]) -> Plan:
    return Plan(*plan[:5], tuple(plan[5:]))


@operator.register_fake
def _(x: Tensor, filters: List[Tensor], plan: List[int], needs: List[bool]) -> List[Tensor]:
    return execution.outputs(x, _plan(plan))


@torch.library.custom_op('scat_zoo::scattering2d_backward', mutates_args=())
def operator_backward(x: Tensor, filters: List[Tensor], grads: List[Tensor], plan: List[int],
                      needs: List[bool]) -> List[Tensor]:
    """Gradients to x and to the filters; empty where not needed."""
    g = _plan(plan)
    results = execution.backward(x, filters, grads, execution.constants(g, filters, needs[1:]), g, needs)
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
