"""The models in torchvision's registry: `torchvision.models.get_model('scat_linear')`.

No `from __future__ import annotations` here: torchvision finds a model's weights by the annotation object.
"""
from typing import Any, Optional

import timm
from torch import nn
from torchvision.models import WeightsEnum

from .upstream import register_torchvision


class ScatteringWeights(WeightsEnum):
    """Weights of one model; none are shipped yet."""

    @classmethod
    def verify(cls, obj: Any) -> Any:
        """The member meant by `obj`, a member or its name; None for None."""
        names = list(cls.__members__)
        if isinstance(obj, str) and obj.split('.')[-1] not in names:
            raise ValueError(f'unknown weights {obj!r} for {cls.__name__}; known: {", ".join(names) or "none"}')
        return super().verify(obj)


class ScatLinear_Weights(ScatteringWeights):
    """Weights of scat_linear."""


class ScatMlp_Weights(ScatteringWeights):
    """Weights of scat_mlp."""


class ScatResNet_Weights(ScatteringWeights):
    """Weights of scat_resnet."""


@register_torchvision
def scat_linear(*, weights: Optional[ScatLinear_Weights] = None, progress: bool = True, **kwargs: Any) -> nn.Module:
    """Scattering and a linear classifier; keywords as for `timm.create_model('scat_linear')`."""
    ScatLinear_Weights.verify(weights)
    return timm.create_model('scat_linear', **kwargs)


@register_torchvision
def scat_mlp(*, weights: Optional[ScatMlp_Weights] = None, progress: bool = True, **kwargs: Any) -> nn.Module:
    """Scattering and a classifier with a hidden layer; keywords as for `timm.create_model('scat_mlp')`."""
    ScatMlp_Weights.verify(weights)
    return timm.create_model('scat_mlp', **kwargs)


@register_torchvision
def scat_resnet(*, weights: Optional[ScatResNet_Weights] = None, progress: bool = True, **kwargs: Any) -> nn.Module:
    """Scattering and residual stages; keywords as for `timm.create_model('scat_resnet')`."""
    ScatResNet_Weights.verify(weights)
    return timm.create_model('scat_resnet', **kwargs)
