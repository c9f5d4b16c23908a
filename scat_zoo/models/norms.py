"""Batch normalisation whose running statistics are right after any number of steps.

torch's running mean and variance start at 0 and 1 and move by a tenth a step, so that a model trained for fewer than
some hundred steps is another in eval mode. Here they are the plain average over the first ten steps, and move by a
tenth (`momentum`) from then on: after one step they are what that step saw. The variance is the one that normalised the
batch, where torch keeps n / (n - 1) of it, which is far off for the few samples of a small batch in a late stage. Keys
of the state dict stay torch's, whose count of batches tells how many steps there were. (`SyncBatchNorm`, if torch
converts a model to it, has torch's rule.)
"""
from typing import Any, Optional

import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d
from torch import Tensor, nn


class BatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` with running statistics that are right from the first step. (B, C, h, w) -> (B, C, h, w)."""
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return batch_norm(x, self.running_mean, self.running_var, self.num_batches_tracked, self.weight, self.bias,
                          self.training, self.momentum, self.eps)


class BatchNormAct(BatchNormAct2d):
    """timm's normalisation with an activation behind it, with the same running statistics."""
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def forward(self, x: Tensor) -> Tensor:
        x = batch_norm(x, self.running_mean, self.running_var, self.num_batches_tracked, self.weight, self.bias,
                       self.training, self.momentum, self.eps)
        return self.act(self.drop(x))


def batch_norm_act(num_features: int, **kwargs: Any) -> BatchNormAct:
    """The same as a function, which timm takes as a norm with an activation of its own (ReLU)."""
    return BatchNormAct(num_features, **kwargs)


@torch.fx.wrap
def batch_norm(x: Tensor, running_mean: Optional[Tensor], running_var: Optional[Tensor], steps: Optional[Tensor],
               weight: Tensor, bias: Tensor, training: bool, momentum: Optional[float], eps: float) -> Tensor:
    """Normalise (B, C, h, w) by its own statistics while training, which enter the running ones, else by these.

    Without running statistics, which `torch.func.replace_all_batch_norm_modules_` takes away, always by its own.

    One node in a traced graph, or the updates would be taken for dead code.

    Args:
        steps: number of batches that the running statistics have seen.
        momentum: the least weight of a batch in them; None for the average over all, as in torch.
    """
    if running_mean is None or running_var is None or steps is None:
        return F.batch_norm(x, None, None, weight, bias, True, 0.0, eps)
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, 0.0, eps)
    mean, var = torch.zeros_like(running_mean), torch.zeros_like(running_var)
    y = F.batch_norm(x, mean, var, weight, bias, True, 1.0, eps)        # leaves the batch's own in them
    samples = x.numel() // x.shape[1]
    share = share_of_batch(steps, momentum, running_mean)
    running_mean.lerp_(mean, share)
    running_var.lerp_(var * ((samples - 1) / samples), share)
    steps.add_(1)
    return y


def share_of_batch(steps: Tensor, momentum: Optional[float], like: Tensor) -> Tensor:
    """Weight of the next batch in an average that has seen `steps`: a scalar tensor, which nobody waits for on a GPU.
    """
    share = (1 / (steps + 1)).to(like.dtype)
    return share if momentum is None else share.clamp(min=momentum)
