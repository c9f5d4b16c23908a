"""Loading state dicts whole: a module that refuses one stays what it was."""
from typing import Any, Dict, List, Mapping, Optional, Tuple

import torch
from torch import Tensor, nn


class AllOrNothing(nn.Module):
    """A module that a refused state dict leaves as it was: every value to the bit, and every submodule.

    Of torch's own modules, what is found before the first fault would be loaded, and the rest not. That holds for one
    that wraps this, too: load into the module itself.
    """

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        before = [_State(module) for module in self.modules()]
        try:
            return super().load_state_dict(state_dict, *args, **kwargs)
        except BaseException:
            for state in before:
                state.restore()
            raise


class _State:
    """What a module holds."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.children: Dict[str, Any] = dict(module._modules)
        self.tensors: List[Tuple[Dict[str, Any], Dict[str, Any], List[Tuple[Tensor, Any, Tensor]]]] = [
            (held, dict(held), [(t, _written(t), t.detach().clone()) for t in held.values()
                                if t is not None and not nn.parameter.is_lazy(t)])
            for held in (module._parameters, module._buffers)]

    @torch.no_grad()
    def restore(self) -> None:
        _put_back(self.module._modules, self.children)
        for held, before, values in self.tensors:
            _put_back(held, before)
            for tensor, written, value in values:
                # A backward pass that waits forbids writing, and what was not reached needs none.
                if written is None or _written(tensor) != written:
                    tensor.detach().copy_(value)


def _written(tensor: Tensor) -> Optional[Tuple[int, int]]:
    """What differs once the tensor was written to; None if nothing tells."""
    return None if tensor.is_inference() or tensor.is_meta else (tensor._version, tensor.data_ptr())


def _put_back(now: Dict[str, Any], before: Dict[str, Any]) -> None:
    now.clear()
    now.update(before)
