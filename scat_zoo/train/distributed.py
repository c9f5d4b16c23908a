"""What training asks of the other processes of a torchrun; alone, each answer is trivial."""
from typing import Any, List

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


def rank() -> int:
    """This process, from 0; process 0 writes and prints."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def total(value: Tensor) -> Tensor:
    """The sum of this tensor over all processes."""
    if distributed.is_initialized():
        value = value.clone()
        distributed.all_reduce(value)
    return value


def gathered(value: Any) -> List[Any]:
    """This object of each process, by rank."""
    if not distributed.is_initialized():
        return [value]
    values = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values


def wait() -> None:
    """Until every process has come here."""
    if distributed.is_initialized():
        distributed.barrier()


def parallel(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with gradients averaged over the processes."""
    if not distributed.is_initialized():
        return model
    return DistributedDataParallel(model, device_ids=[device.index] if device.type == 'cuda' else None)
