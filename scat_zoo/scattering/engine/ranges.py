"""Images and gradients of any size, brought to one whose squares a float holds.

The transform is homogeneous, S(a x) = a S(x), and linear in the gradients that a backward pass begins from. Powers of
two change no digit, so what comes back is what arithmetic without bounds would give.
"""
import math
from typing import List

import torch
from torch import Tensor

STEP = 80           # octaves: squares of 2^40 and, of numbers 10^6 times smaller than them, of 2^-40 are in float32


def steps(*tensors: Tensor) -> List[int]:
    """How many times 2^STEP the largest number of each row (B, ...) is, of all tensors: 0 for all that is usual."""
    rows = [t.flatten(1) for t in tensors]
    # An infinity norm takes ten times as long.
    ends = [end.tolist() for row in rows for end in (row.amax(1), -row.amin(1))]
    # Rows that hold no number but zeros, or NaN or infinity, stay as they are.
    return [round(math.frexp(size)[1] / STEP) if 0 < size < math.inf else 0 for size in map(max, *ends)]


def times(t: Tensor, counts: List[int]) -> Tensor:
    """Each row (B, ...) times 2^STEP so many times."""
    # In two steps: a single factor may itself be too large.
    half = torch.tensor([2. ** (STEP // 2 * count) for count in counts], dtype=t.dtype, device=t.device)
    half = half.view(-1, *[1] * (t.dim() - 1))
    return t * half * half
