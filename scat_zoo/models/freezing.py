"""The two halves of any model whose front end is its child `scattering`: freezing them, and their optimiser groups."""
from typing import Any, Dict, Iterator, List, Optional

from torch import nn

# Adam's rates that worked in trials: Fourier coefficients are small numbers, offsets of logarithms and angles are not.
FILTER_LR = {'pixelwise': 1e-3, 'morlet': 1e-2, 'equivariant': 1e-2}


class Freezing(nn.Module):
    """Adds the freeze and unfreeze methods. Filters that are buffers stay buffers: they have no gradient anyway."""

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """All parameters that are not scattering filters, for an optimiser group of their own."""
        return (p for name, p in self.named_parameters() if not name.startswith('scattering.'))

    def freeze_scattering(self) -> None:
        self.scattering.requires_grad_(False)

    def unfreeze_scattering(self) -> None:
        self.scattering.requires_grad_(True)

    def freeze_classifier(self) -> None:
        for p in self.head_parameters():
            p.requires_grad_(False)

    def unfreeze_classifier(self) -> None:
        for p in self.head_parameters():
            p.requires_grad_(True)


def param_groups(model: nn.Module, lr: float, filter_lr: Optional[float] = None,
                 weight_decay: float = 0.) -> List[Dict[str, Any]]:
    """Groups for any torch optimiser: filters with their own rate and no decay, other parameters at `lr`.

    Weight decay applies to matrices and kernels, not to norms and biases, as in timm. What does not require a gradient
    is left out.

    Args:
        model: one whose front end is its child `scattering`: any of the zoo's, or a `ScatteringBase`.
        lr: rate of all parameters but the filters.
        filter_lr: rate of the filters; for Adam 1e-3 if they are pixelwise and 1e-2 otherwise, unless given.
        weight_decay: of matrices and kernels outside the scattering.
    """
    if filter_lr is None:
        filter_lr = FILTER_LR[getattr(model.scattering, 'parametrization', 'pixelwise')]
    filters: List[nn.Parameter] = []
    plain: List[nn.Parameter] = []
    decayed: List[nn.Parameter] = []
    of_filters = {id(p) for p in model.scattering.parameters()}        # torch.compile changes the names
    for p in model.parameters():
        if p.requires_grad:
            (filters if id(p) in of_filters else plain if p.dim() <= 1 else decayed).append(p)
    groups = [{'params': filters, 'lr': filter_lr, 'weight_decay': 0.}, {'params': plain, 'lr': lr, 'weight_decay': 0.},
              {'params': decayed, 'lr': lr, 'weight_decay': weight_decay}]
    return [group for group in groups if group['params']]
