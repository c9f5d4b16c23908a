"""All that we ask of torch's private modules, with an answer that is slow and right where torch has them no more."""
from typing import Sequence

import torch
from torch import Tensor


def transforms_active() -> bool:
    """Whether a transform of torch.func (grad, vmap, ...) is at work."""
    try:
        return torch._C._are_functorch_transforms_active()
    except AttributeError:
        return True


def stand_for_many(tensors: Sequence[Tensor]) -> bool:
    """Whether some of these are the tensors of `torch.autograd.grad(..., is_grads_batched=True)`."""
    try:
        return any(torch._C._functorch.is_legacy_batchedtensor(t) for t in tensors)
    except AttributeError:
        return True
