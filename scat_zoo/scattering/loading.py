"""Loading state dicts whole: a module that refuses one stays what it was."""
from typing import Any, Dict, List, Mapping, Tuple

import torch
from torch import Tensor, nn


class AllOrNothing(nn.Module):
    """A module that a refused state dict leaves as it was: every value to the bit, and every submodule.

    Of torch's own modules, those before the first fault would be loaded, and those after it not.
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
        self.tensors: List[Tuple[Dict[str, Any], Dict[str, Any], Dict[str, Tensor]]] = [
            (held, dict(held), {name: t.detach().clone() for name, t in held.items() if t is not None})
            for held in (module._parameters, module._buffers)]

    @torch.no_grad()
    def restore(self) -> None:
        _put_back(self.module._modules, self.children)
        for held, before, values in self.tensors:
            _put_back(held, before)
            for name, value in values.items():
                held[name].detach().copy_(value)


def _put_back(now: Dict[str, Any], before: Dict[str, Any]) -> None:
    now.clear()
    now.update(before)
