"""The transform as everybody calls it, and what makes it fast: `scattering2d`, the only entry, chooses how to compute.

**The rule.** A device in `devices.DEVICES` computes in its own way what it says that it serves.

- The CPU (`run`) takes real matrix products, for float32 and float64 and filters of at most 1/2 GiB in weights (8
  numbers for each of a filter: 1024 x 1024 images with J = 5 are beyond).
- An NVIDIA GPU (`gpu`) takes FFTs and kernels in Triton, for float32 and images whose maps fit into its memory. A
  thousand small products take longer to launch than to compute there (measured: docs/speed.md).
- All else goes the plain way, `transform.reference`: other devices; TorchScript, traces and exports; the transforms of
  torch.func, double backward and vectorised Jacobians; and everything under `use_engine(False)`.

To `torch.compile` a device's way is one operator.

`autograd` lets torch differentiate and compile it. Of the CPU, `run` has constants, chunks and threads; `cascade` puts
together the `steps`, which are recorded as a `program` on `matrices`.
"""
from typing import List

import torch
from torch import Tensor, nn

from .. import transform
from ..filters import Filters
from . import autograd, exported, upstream
from .devices import DEVICES
from .exported import known as known
from .exported import recording as recording
from .plan import Plan
from .upstream import outside_graph as outside_graph
from .upstream import sizes as sizes

_enabled = True


class use_engine:
    """Compute in the fast ways (True), or only in the plain one, for debugging and comparison: at once, for the whole
    process, and as a context manager until its end.
    """

    def __init__(self, enabled: bool) -> None:
        global _enabled
        self.before, _enabled = _enabled, enabled

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        global _enabled
        _enabled = self.before


@torch.fx.wrap
def scattering2d(x: Tensor, filters: Filters, scales: List[int], max_order: int, pre_pad: bool = False,
                 border: int = 1) -> List[Tensor]:
    """Scattering coefficients of a batch of images; see `transform.reference`, and above how they are computed."""
    if not torch.jit.is_scripting():
        if _enabled and not torch.jit.is_tracing() and x.device.type in DEVICES and x.is_floating_point():
            transform.check(x, filters.phi[0][0], scales[0], pre_pad, border)
            plan = _plan(filters, scales, max_order, border)
            row = plan.in_a_row(filters.phi, filters.psi)
            if _plain_tensors(x, row) and DEVICES[x.device.type].serves(x, row):
                return _fast(x, row, plan)
        if exported.recording():
            plan = _plan(filters, scales, max_order, border)
            if exported.serves(x, plan.in_a_row(filters.phi, filters.psi)):
                return exported.record(x, filters, plan, pre_pad)
            x = exported.of_this_size(x)
    return transform.reference(x, filters, scales, max_order, pre_pad, border)


def _plan(filters: Filters, scales: List[int], max_order: int, border: int) -> Plan:
    M, N = upstream.sizes(filters.phi[0][0])
    return Plan(M, N, upstream.sizes(filters.psi[0][0])[0] if max_order > 0 else 0, max_order, tuple(scales), border)


def _plain_tensors(x: Tensor, filters: List[Tensor]) -> bool:
    """Whether these are tensors with values, and nobody transforms what is done to them."""
    if upstream.transforms_active():
        return False
    if torch.compiler.is_compiling():
        return not torch.compiler.is_exporting()
    # Subclasses stand for something else, such as shapes without values, and an empty batch is nothing to plan for.
    kinds = {type(t) for t in filters} | {type(x)}
    return x.numel() > 0 and kinds <= {Tensor, nn.Parameter}


def _fast(x: Tensor, filters: List[Tensor], plan: Plan) -> List[Tensor]:
    dtype = torch.promote_types(x.dtype, torch.float32)
    images = x.reshape(-1, *x.shape[-2:]).to(dtype)
    filters = [hat.to(dtype) for hat in filters]
    if not torch.is_grad_enabled():
        filters = [hat.detach() for hat in filters]
    if torch.compiler.is_compiling():
        results = autograd.operator(images, filters, plan.numbers(), [hat.requires_grad for hat in filters])
    else:
        results = autograd.Transform.apply(images, plan, *filters)
    return [s.reshape(x.shape[:-2] + s.shape[1:]).to(x.dtype) for s in results]
