"""A device's transform as a function that torch differentiates, and as an operator that `torch.compile` knows."""
from typing import Any, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from ..filters import Filters
from ..transform import reference
from . import upstream
from .devices import DEVICES
from .plan import Plan, shapes


class Transform(torch.autograd.Function):
    """Images (B, h, w) and filters in a row to coefficients (B, paths, h', w') of each scale.

    Backward recomputes what it needs, and is itself differentiated the plain way.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, plan: Plan, *filters: Tensor) -> Tuple[Tensor, ...]:
        needs = [hat.requires_grad for hat in filters]
        results, ctx.kept = DEVICES[x.device.type].forward(x, filters, needs, plan, any(ctx.needs_input_grad))
        ctx.plan = plan
        ctx.save_for_backward(x, *filters)
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tuple[Optional[Tensor], ...]:
        x, *filters = ctx.saved_tensors
        needs = [ctx.needs_input_grad[0], *ctx.needs_input_grad[2:]]
        if torch.is_grad_enabled() or upstream.stand_for_many(grads):
            results = _plain_backward(x, filters, grads, needs, ctx.plan)
        else:
            results = DEVICES[x.device.type].backward(x, filters, grads, needs, ctx.plan, ctx.kept)
        return results[0], None, *results[1:]


def _plain_backward(x: Tensor, filters: List[Tensor], grads: Sequence[Tensor], needs: List[bool],
                    plan: Plan) -> List[Optional[Tensor]]:
    create_graph = torch.is_grad_enabled()
    # The levels of a filter may be computed from one another, which the graph outside sees to: aliases keep their
    # gradients apart here.
    with torch.enable_grad():
        x, *filters = (t.view_as(t) for t in (x, *filters))
        padded = x.shape[1:] == (plan.M, plan.N)
        s = reference(x, Filters(*plan.by_level(filters)), list(plan.scales), plan.max_order, padded,
                      plan.border)
    wanted = [t for t, need in zip([x, *filters], needs) if need]
    found = iter(torch.autograd.grad(s, wanted, grads, create_graph=create_graph))
    return [next(found) if need else None for need in needs]


@torch.library.custom_op('scat_zoo::scattering2d', mutates_args=())
def operator(x: Tensor, filters: List[Tensor], plan: List[int], needs: List[bool]) -> List[Tensor]:
    """The same for `torch.compile`; `plan` is its `numbers`."""
    return DEVICES[x.device.type].forward(x, filters, needs, Plan.of(plan), True)[0]


@operator.register_fake
def _(x: Tensor, filters: List[Tensor], plan: List[int], needs: List[bool]) -> List[Tensor]:
    sizes = shapes.__wrapped__(Plan.of(plan))         # not out of the cache: symbols have no hash
    return [x.new_empty(x.shape[0], *size) for size in sizes]           # len() would make the number a constant


@torch.library.custom_op('scat_zoo::scattering2d_backward', mutates_args=())
def operator_backward(x: Tensor, filters: List[Tensor], grads: List[Tensor], plan: List[int],
                      needs: List[bool]) -> List[Tensor]:
    """Gradients to x and to the filters; empty where not needed."""
    results = DEVICES[x.device.type].backward(x, filters, grads, needs, Plan.of(plan), None)
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
