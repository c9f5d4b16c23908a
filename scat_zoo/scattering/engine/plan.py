"""What a transform is in numbers, and which of its filters is where."""
import functools
from typing import Any, List, NamedTuple, Sequence, Tuple

from .. import geometry


class Plan(NamedTuple):
    """Size of the padded image, orientations, order, log-2 of the scales to low-pass at (descending from J), and cells
    of 2^J pixels on each side that are padding.
    """
    M: int
    N: int
    L: int
    max_order: int
    scales: Tuple[int, ...]
    border: int = 1

    def numbers(self) -> List[int]:
        """All in a row, as an operator takes them; `of` reads them back."""
        return [self.M, self.N, self.L, self.max_order, self.border, *self.scales]

    @classmethod
    def of(cls, numbers: Sequence[int]) -> 'Plan':
        M, N, L, max_order, border, *scales = numbers
        return cls(M, N, L, max_order, tuple(scales), border)

    @property
    def J(self) -> int:
        return self.scales[0]

    def in_a_row(self, phi: Sequence[Sequence[Any]], psi: Sequence[Sequence[Any]]) -> List[Any]:
        """What belongs to the filters that this transform reads, from lists by scale and level."""
        counts = geometry.levels(list(self.scales), self.max_order)
        return [item for count, levels in zip([*counts[0], *counts[1]], [*phi, *psi]) for item in levels[:count]]

    def by_level(self, row: Sequence[Any]) -> Tuple[List[List[Any]], List[List[Any]]]:
        """(phi, psi), each by scale and level; the reverse of `in_a_row`."""
        rest = iter(row)
        phi, psi = ([[next(rest) for _ in range(count)] for count in counts]
                    for counts in geometry.levels(list(self.scales), self.max_order))
        return phi, psi


class Read(NamedTuple):
    """How a filter is read: whether as a low-pass, and then how it samples and what it leaves out.

    octaves: log-2 of the step at which its result is sampled.
    margin: of a low-pass, the samples on each side that are padding.
    """
    low: bool
    octaves: int
    margin: int


@functools.lru_cache(maxsize=64)
def reads(plan: Plan) -> List[Read]:
    """How each filter in a row is read."""
    phi = [[Read(True, scale - level, plan.border << (plan.J - scale)) for level in range(scale)]
           for scale in plan.scales]
    return plan.in_a_row(phi, [[Read(False, j - level, 0) for level in range(max(j, 1))] for j in range(plan.J)])


@functools.lru_cache(maxsize=64)
def shapes(plan: Plan) -> List[Tuple[int, int, int]]:
    """(paths, rows, columns) of the coefficients of each scale."""
    return [(sum(geometry.order_counts(scale, plan.L, plan.max_order)),
             (plan.M >> scale) - (2 * plan.border << (plan.J - scale)),
             (plan.N >> scale) - (2 * plan.border << (plan.J - scale))) for scale in plan.scales]
