"""Which devices have an engine of their own: a module each, and a line in `DEVICES`."""
from typing import Any, Dict, List, Optional, Protocol, Sequence, Tuple

from torch import Tensor

from . import gpu, run
from .plan import Plan


class Device(Protocol):
    """How a device computes the transform. Filters come in a row, as in `Plan.in_a_row`."""

    def serves(self, x: Tensor, filters: Sequence[Tensor]) -> bool:
        """Whether it does for these images and filters, by their types and sizes; else the plain way is taken."""

    def forward(self, x: Tensor, filters: Sequence[Tensor], needs: Sequence[bool], plan: Plan,
                differentiated: bool) -> Tuple[List[Tensor], Any]:
        """Images (B, h, w) to coefficients (B, paths, h', w') of each scale, and what `backward` may use of the work.

        Args:
            needs: which filters will need a gradient.
            differentiated: whether `backward` will follow.
        """

    def backward(self, x: Tensor, filters: Sequence[Tensor], grads: Sequence[Tensor], needs: Sequence[bool],
                 plan: Plan, kept: Any) -> List[Optional[Tensor]]:
        """Gradients to x and to the filters, each None where `needs` says so, from those to the coefficients.

        Under `torch.compile` it runs where torch records nothing, and so cannot ask `torch.autograd` for them.

        Args:
            kept: what `forward` gave, or None.
        """


DEVICES: Dict[str, Device] = {'cpu': run, 'cuda': gpu}           # by type of torch.device
