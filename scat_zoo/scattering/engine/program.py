"""Programs: operations on arrays that are recorded once, and then run for chunk after chunk of images.

What runs them is a loop in TorchScript, which lets go of Python's lock: threads don't wait for one another at each
operation.
"""
import math
from typing import Any, Callable, Dict, List, Optional, Tuple

import torch
from torch import Tensor

# What a program can do, as TorchScript that is Python too: each with an array `out` and at most two others.
OPERATIONS = {
    'bmm': 'torch.bmm(a, b, out=out)',
    'mm': 'torch.mm(a, b, out=out)',
    'square': 'torch.mul(a, a, out=out)',
    'add_square': 'out.addcmul_(a, a)',
    'sqrt': 'out.sqrt_()',
    'add_bmm': 'out.baddbmm_(a, b)',
    'add_mm': 'out.addmm_(a, b)',
    'select': 'torch.index_select(a, 0, b, out=out)',
    'infinite_if_zero': 'torch.threshold_(out, 0.0, float("inf"))',
    'mul': 'out.mul_(a)',
    'div': 'out.div_(a)',
    'add': 'out.add_(a)',
    'copy': 'out.copy_(a)',
    'zero': 'out.zero_()',
    'add_at': 'out.index_add_(0, b, a)',
}
SOURCE = '''
def execute(codes: List[int], outs: List[Tensor], lefts: List[Tensor], rights: List[Tensor]) -> None:
    for i in range(len(codes)):
        code, out, a, b = codes[i], outs[i], lefts[i], rights[i]
''' + ''.join(f'        {"elif" if i else "if"} code == {i}:\n            {line}\n'
              for i, line in enumerate(OPERATIONS.values()))
CODES = {name: i for i, name in enumerate(OPERATIONS)}


def executed_by_python() -> Callable[..., None]:
    """`execute` as a function of Python."""
    names: Dict[str, Any] = {'torch': torch, 'List': List, 'Tensor': Tensor}
    exec(SOURCE, names)
    return names['execute']


def executed_by_torch() -> Callable[..., None]:
    """`execute` in TorchScript."""
    execute = torch.jit.CompilationUnit(SOURCE).execute

    def run(*lists: Any) -> None:
        with torch.jit.optimized_execution(False):          # of this thread; to optimise takes longer than it saves
            execute(*lists)
    return run


execute = executed_by_torch() if hasattr(torch.jit, 'CompilationUnit') else executed_by_python()


class Program:
    """Recorded operations, and the arrays that they work on: the same for every chunk of images.

    The arrays are a stack: `take` gives the next one, of undefined content, and setting `top` back to an earlier value
    gives all later ones up. What is small stays in the processor's cache that way, and no fresh memory is touched.

    Args:
        like: a tensor of the arrays' type and device.
        arrays: flat ones to begin with, from another program that does not run any more or not now.
    """

    def __init__(self, like: Tensor, arrays: List[Tensor]) -> None:
        self.like, self.arrays, self.top = like, arrays, 0
        self.codes: List[int] = []
        self.operands: Tuple[List[Tensor], List[Tensor], List[Tensor]] = [], [], []

    def take(self, *shape: int) -> Tensor:
        size = math.prod(shape)
        if self.top == len(self.arrays):
            self.arrays.append(self.like.new_empty(0))
        if len(self.arrays[self.top]) < size:
            with torch.inference_mode(False):               # whose tensors nobody could write to later
                self.arrays[self.top] = self.like.new_empty(size)
        self.top += 1
        return self.arrays[self.top - 1][:size].view(shape)

    def call(self, operation: str, out: Tensor, a: Optional[Tensor] = None, b: Optional[Tensor] = None) -> None:
        """Record one of `OPERATIONS`."""
        self.codes.append(CODES[operation])
        for operands, operand in zip(self.operands, (out, a, b)):
            operands.append(out if operand is None else operand)

    def run(self) -> None:
        execute(self.codes, *self.operands)
