"""Freeze and unfreeze the two halves of any model whose front end is its child `scattering`."""
from typing import Iterator

from torch import nn


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
