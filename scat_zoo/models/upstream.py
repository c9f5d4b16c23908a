"""All names that we take from private modules of timm and torchvision, and registration that overrides nobody."""
from typing import Any, Callable, TypeVar

import timm
from timm.models._efficientnet_blocks import DepthwiseSeparableConv
from timm.models._features import FeatureGetterNet, feature_take_indices
from timm.models._input import update_model_input_size
from torchvision.models._api import BUILTIN_MODELS
from torchvision.models._api import register_model as register_torchvision_model
from torchvision.transforms._presets import ImageClassification

__all__ = [
    'DepthwiseSeparableConv', 'FeatureGetterNet', 'ImageClassification', 'feature_take_indices', 'register_model',
    'register_torchvision', 'update_model_input_size',
]
F = TypeVar('F', bound=Callable[..., Any])


def register_model(entrypoint: F) -> F:
    """timm's decorator `register_model`, which would replace a model of the same name.

    Raises:
        RuntimeError: if a model of this name comes from elsewhere.
    """
    name = entrypoint.__name__
    if timm.is_model(name):
        _refuse_another(name, 'timm', timm.model_entrypoint(name), entrypoint)
    timm.models.register_model(entrypoint)
    return entrypoint


def register_torchvision(builder: F) -> F:
    """The same for torchvision, whose own decorator refuses a reload of the same module too.

    Raises:
        RuntimeError: if a model of this name comes from elsewhere.
    """
    name = builder.__name__
    if name in BUILTIN_MODELS:
        _refuse_another(name, 'torchvision', BUILTIN_MODELS[name], builder)
        del BUILTIN_MODELS[name]
    return register_torchvision_model()(builder)


def _refuse_another(name: str, zoo: str, known: Callable[..., Any], ours: Callable[..., Any]) -> None:
    if known.__module__ != ours.__module__:
        raise RuntimeError(
            f'{zoo} has a model {name!r} already, from {known.__module__}; {ours.__module__} does not replace it')
