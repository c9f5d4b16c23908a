"""All that we ask of torch's private modules, with an answer that is slow and right where torch has them no more."""
import contextlib
from typing import Iterator, List, Optional, Sequence

import torch
from torch import Tensor, nn

try:
    from torch.utils._python_dispatch import _disable_current_modes
except ImportError:
    _disable_current_modes = contextlib.nullcontext             # type: ignore[assignment]


def transforms_active() -> bool:
    """Whether a transform of torch.func (grad, vmap, ...) is at work, or tensors may have forward-mode tangents."""
    try:
        return torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0
    except AttributeError:
        return True


def watched() -> bool:
    """Whether a mode of this thread sees every operation, such as a counter of flops."""
    try:
        return torch._C._len_torch_dispatch_stack() > 0
    except AttributeError:
        return True


def stand_for_many(tensors: Sequence[Tensor]) -> bool:
    """Whether some of these are the tensors of `torch.autograd.grad(..., is_grads_batched=True)`."""
    try:
        return any(torch._C._functorch.is_legacy_batchedtensor(t) for t in tensors)
    except AttributeError:
        return True


def value(tensor: Tensor) -> Optional[Tensor]:
    """The tensor with values that a module's parameter or buffer is, or that it stands for in `torch.export`; or None.
    """
    if type(tensor) in (Tensor, nn.Parameter):
        return tensor
    try:
        fakes = tensor.fake_mode.fake_tensor_converter.meta_converter  # type: ignore[attr-defined]
        for real, number in fakes.describer.lookup_tensor.items():
            if fakes.tensor_memo.get(number) is tensor:
                return real
    except AttributeError:
        pass
    return None


@contextlib.contextmanager
def outside_graph() -> Iterator[None]:
    """Compute with values while a graph is being recorded; what a trace records of it is right, and slower."""
    state, set_state = torch._C._get_tracing_state(), getattr(torch._C, '_set_tracing_state', lambda state: None)
    set_state(None)
    try:
        with _disable_current_modes():
            yield
    finally:
        set_state(state)


def sizes(x: Tensor) -> List[int]:
    """x.shape, of which a trace would record every question."""
    if not torch.jit.is_scripting():
        if torch.jit.is_tracing():
            with outside_graph():
                return list(x.shape)
    return list(x.shape)
