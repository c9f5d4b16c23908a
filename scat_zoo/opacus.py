"""Private training by opacus (the extra `opacus`): a model each part of which has a gradient for every image.

Opacus hooks modules that own parameters and are called. The modules that own filters never are, so it has to be told
that the front end counts. Importing this file also tells it of the zoo's batch normalisation, which mixes images.
"""
import types
from typing import Any, Iterator, List

from opacus.validators import ModuleValidator, register_module_fixer, register_module_validator
from torch import Tensor, nn

from .models.norms import BatchNorm, BatchNormAct
from .models.stem import ScatteringStem
from .scattering.torch2d import ScatteringTorch2D

__all__ = ['fix']


def fix(model: nn.Module, **kwargs: Any) -> nn.Module:
    """A copy whose filters opacus can learn: as its `ModuleValidator.fix`, but for front ends too.

    Batch normalisation becomes group normalisation. The means that orders 1 and 2 are divided by before their
    logarithm stay what they are: 1, unless the model was trained before, or weights came with it. Nothing is changed
    in place any more, as opacus' hooks demand.

    Args:
        kwargs: of `ModuleValidator.fix`, such as `num_groups`.
    """
    model = ModuleValidator.fix(model, **kwargs)
    for module in model.modules():
        if isinstance(module, (ScatteringStem, ScatteringTorch2D)):
            module.parameters = types.MethodType(parameters, module)  # type: ignore[method-assign]
        if getattr(module, 'inplace', False):
            module.inplace = False  # type: ignore[assignment]
    return model


def parameters(self: nn.Module, recurse: bool = True) -> Iterator[nn.Parameter]:
    """Those of a module and its children, whatever `recurse` says: opacus hooks the owners of parameters."""
    return nn.Module.parameters(self)


@register_module_validator([BatchNorm, BatchNormAct])
def _validate(module: nn.Module) -> List[Exception]:
    return ModuleValidator.VALIDATORS[nn.BatchNorm2d](module)


@register_module_fixer([BatchNorm, BatchNormAct])
def _fix(module: nn.Module, **kwargs: Any) -> nn.Module:
    norm = ModuleValidator.FIXERS[nn.BatchNorm2d](module, **kwargs).to(module.weight)
    return nn.Sequential(norm, module.drop, module.act) if isinstance(module, BatchNormAct) else nn.Sequential(
        norm, Copied())


class Copied(nn.Module):
    """A copy, to which timm's residual blocks may add in place: opacus' hooks forbid it of a module's own result."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()
