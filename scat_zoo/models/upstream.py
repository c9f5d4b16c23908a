"""All names that we take from private modules of timm and torchvision, and registration that overrides nobody."""
from typing import Any, Callable, TypeVar

import timm
import torchvision
from timm.models._efficientnet_blocks import DepthwiseSeparableConv
from timm.models._features import FeatureGetterNet, feature_take_indices
from timm.models._input import update_model_input_size
from torchvision.models._api import BUILTIN_MODELS
from torchvision.models._api import register_model as register_torchvision_model
from torchvision.models._utils import handle_legacy_interface
from torchvision.transforms._presets import ImageClassification

__all__ = [
    'DepthwiseSeparableConv', 'FeatureGetterNet', 'ImageClassification', 'feature_take_indices',
    'handle_legacy_interface', 'register_model', 'register_torchvision', 'update_model_input_size',
]
F = TypeVar('F', bound=Callable[..., Any])


def register_model(entrypoint: F) -> F:
    """timm's decorator `register_model`, which would replace a model of the same name.

    Raises:
        RuntimeError: if a model of this name comes from elsewhere.
    """
    name = entrypoint.__name__
    if timm.is_model(name):
        _refuse_another(f'a model {name!r}', 'timm', timm.model_entrypoint(name), entrypoint)
    timm.models.register_model(entrypoint)
    return entrypoint


def register_torchvision(builder: F) -> F:
    """The same for torchvision, whose own decorator refuses a reload of the same module too.

    The weights that the builder takes become an attribute of `torchvision.models`, where `get_weight` looks for them.

    Raises:
        RuntimeError: if a model or weights of this name come from elsewhere.
    """
    name = builder.__name__
    if name in BUILTIN_MODELS:
        _refuse_another(f'a model {name!r}', 'torchvision', BUILTIN_MODELS[name], builder)
    weights = torchvision.models.get_model_weights(builder)
    known = getattr(torchvision.models, weights.__name__, weights)
    _refuse_another(f'weights {weights.__name__!r}', 'torchvision', known, weights)
    setattr(torchvision.models, weights.__name__, weights)
    BUILTIN_MODELS.pop(name, None)
    return register_torchvision_model()(builder)


def _refuse_another(what: str, zoo: str, known: Any, ours: Any) -> None:
    if known.__module__ != ours.__module__:
        raise RuntimeError(f'{zoo} has {what} already, from {known.__module__}; {ours.__module__} does not replace it')
