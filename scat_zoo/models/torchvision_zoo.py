"""The models in torchvision's registry: `torchvision.models.get_model('scat_linear')`.

No `from __future__ import annotations` here: torchvision finds a model's weights by the annotation object.
"""
import functools
from typing import Any, Dict, Optional, Type

import timm
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import Weights, WeightsEnum

from . import shipped
from .upstream import ImageClassification, register_torchvision


class ScatteringWeights(WeightsEnum):
    """Weights of one model that come with the package: a member for each tag, and DEFAULT, the first."""

    @classmethod
    def verify(cls, obj: Any) -> Any:
        """The member meant by `obj`, a member or its name; None for None."""
        names = list(cls.__members__)
        if isinstance(obj, str) and obj.removeprefix(f'{cls.__name__}.') not in names:
            raise ValueError(f'unknown weights {obj!r} for {cls.__name__}; known: {", ".join(names) or "none"}')
        return super().verify(obj)

    def get_state_dict(self, *args: Any, **kwargs: Any) -> Dict[str, Tensor]:
        """The weights, from the package; torchvision's arguments are about downloads."""
        return load_file(shipped.WEIGHTS / self.meta['timm'] / 'model.safetensors')


def _enum(name: str, architecture: str) -> Type[ScatteringWeights]:
    members = {tag.upper(): _member(f'{architecture}.{tag}') for tag in shipped.tags(architecture)}
    if members:
        members['DEFAULT'] = next(iter(members.values()))
    return ScatteringWeights(name, members, module=__name__)


def _member(name: str) -> Weights:
    cfg, results = shipped.cfgs(name.partition('.')[0])[name], shipped.results(name)
    side = cfg['input_size'][1]
    file = shipped.WEIGHTS / name / 'model.safetensors'
    meta = {
        'timm': name, 'categories': cfg['label_names'], 'num_params': results['parameters'], 'min_size': (side, side),
        'recipe': f'scat-zoo train --recipe {results["recipe"]} --arms {results["arm"]}',
        '_metrics': {results['data']: {'acc@1': round(results['accuracy'], 2)}},
        '_file_size': round(file.stat().st_size / 2 ** 20, 3), '_docs': f'See {name}/README.md beside the weights.'}
    transforms = functools.partial(
        ImageClassification, crop_size=side, resize_size=side, mean=tuple(cfg['mean']), std=tuple(cfg['std']))
    return Weights(file.as_uri(), transforms, meta)


ScatLinear_Weights = _enum('ScatLinear_Weights', 'scat_linear')
ScatMlp_Weights = _enum('ScatMlp_Weights', 'scat_mlp')
ScatResNet_Weights = _enum('ScatResNet_Weights', 'scat_resnet')
ScatTiny_Weights = _enum('ScatTiny_Weights', 'scat_tiny')


def _create(architecture: str, weights: Optional[ScatteringWeights], kwargs: Dict[str, Any]) -> nn.Module:
    name = architecture if weights is None else weights.meta['timm']
    return timm.create_model(name, pretrained=weights is not None, **kwargs)


@register_torchvision
def scat_linear(*, weights: Optional[ScatLinear_Weights] = None, progress: bool = True, **kwargs: Any) -> nn.Module:
    """Scattering and a linear classifier; keywords as for `timm.create_model('scat_linear')`."""
    return _create('scat_linear', ScatLinear_Weights.verify(weights), kwargs)


@register_torchvision
def scat_mlp(*, weights: Optional[ScatMlp_Weights] = None, progress: bool = True, **kwargs: Any) -> nn.Module:
    """Scattering and a classifier with a hidden layer; keywords as for `timm.create_model('scat_mlp')`."""
    return _create('scat_mlp', ScatMlp_Weights.verify(weights), kwargs)


@register_torchvision
def scat_resnet(*, weights: Optional[ScatResNet_Weights] = None, progress: bool = True, **kwargs: Any) -> nn.Module:
    """Scattering and residual stages; keywords as for `timm.create_model('scat_resnet')`."""
    return _create('scat_resnet', ScatResNet_Weights.verify(weights), kwargs)


@register_torchvision
def scat_tiny(*, weights: Optional[ScatTiny_Weights] = None, progress: bool = True, **kwargs: Any) -> nn.Module:
    """Scattering and separable blocks; keywords as for `timm.create_model('scat_tiny')`."""
    return _create('scat_tiny', ScatTiny_Weights.verify(weights), kwargs)
