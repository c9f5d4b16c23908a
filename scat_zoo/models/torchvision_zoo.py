"""The models in torchvision's registry: `torchvision.models.get_model('scat_linear')`.

No `from __future__ import annotations` here: torchvision finds a model's weights by the annotation object.
"""
import functools
from typing import Any, Callable, Dict, Optional, Type

import timm
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import Weights, WeightsEnum

from ..wording import brief
from . import shipped
from .upstream import ImageClassification, handle_legacy_interface, register_torchvision


class ScatteringWeights(WeightsEnum):
    """Weights of one model that come with the package: a member for each tag, and DEFAULT, the first."""

    @classmethod
    def verify(cls, obj: Any) -> Any:
        """The member meant by `obj`, a member or its name; None for None."""
        names = list(cls.__members__)
        if isinstance(obj, str) and obj.removeprefix(f'{cls.__name__}.') not in names:
            known = f'known: {", ".join(names)}' if names else 'no weights come with this model'
            raise ValueError(f'unknown weights {brief(obj, 60)!r} for {cls.__name__}; {known}')
        return super().verify(obj)

    @property
    def in_timm(self) -> str:
        """ARCHITECTURE.TAG."""
        return self.url.split('/')[-2]

    def get_state_dict(self, *args: Any, **kwargs: Any) -> Dict[str, Tensor]:
        """The weights, from the package; torchvision's arguments are about downloads."""
        return load_file(shipped.WEIGHTS / self.in_timm / 'model.safetensors')


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
        'categories': cfg['label_names'], 'num_params': results['parameters'], 'min_size': (side, side),
        'license': cfg['license'], 'recipe': f'scat-zoo train --recipe {results["recipe"]} --arms {results["arm"]}',
        '_metrics': {results['data']: {'acc@1': round(results['accuracy'], 2)}},
        '_ops': round(results['multiply_adds'] / 1e9, 3), '_file_size': round(file.stat().st_size / 2 ** 20, 3),
        '_docs': f'See {name}/README.md beside the weights.'}
    transforms = functools.partial(
        ImageClassification, crop_size=side, resize_size=side, mean=tuple(cfg['mean']), std=tuple(cfg['std']))
    return Weights(file.as_uri(), transforms, meta)


def _builder(architecture: str, enum: Type[ScatteringWeights]) -> Callable[..., nn.Module]:
    """A builder as torchvision's own are, with `pretrained` and positional arguments too, which it warns of."""
    def builder(*, weights: Optional[enum] = None, progress: bool = True, **kwargs: Any) -> nn.Module:
        member = enum.verify(weights)
        name = architecture if member is None else member.in_timm
        return timm.create_model(name, pretrained=member is not None, **kwargs)

    builder.__name__ = builder.__qualname__ = architecture
    builder.__doc__ = f"timm's {architecture}, whose other keywords it takes; progress is without effect."
    legacy = handle_legacy_interface(weights=('pretrained', enum.__members__.get('DEFAULT')))
    return register_torchvision(legacy(builder))


ScatConvNeXtAtto_Weights = _enum('ScatConvNeXtAtto_Weights', 'scat_convnext_atto')
ScatHybrid_Weights = _enum('ScatHybrid_Weights', 'scat_hybrid')
ScatLinear_Weights = _enum('ScatLinear_Weights', 'scat_linear')
ScatMlp_Weights = _enum('ScatMlp_Weights', 'scat_mlp')
ScatResNet_Weights = _enum('ScatResNet_Weights', 'scat_resnet')
ScatResNet18_Weights = _enum('ScatResNet18_Weights', 'scat_resnet18')
ScatResNet50_Weights = _enum('ScatResNet50_Weights', 'scat_resnet50')
ScatTiny_Weights = _enum('ScatTiny_Weights', 'scat_tiny')
ScatViTTiny_Weights = _enum('ScatViTTiny_Weights', 'scat_vit_tiny')

scat_convnext_atto = _builder('scat_convnext_atto', ScatConvNeXtAtto_Weights)
scat_hybrid = _builder('scat_hybrid', ScatHybrid_Weights)
scat_linear = _builder('scat_linear', ScatLinear_Weights)
scat_mlp = _builder('scat_mlp', ScatMlp_Weights)
scat_resnet = _builder('scat_resnet', ScatResNet_Weights)
scat_resnet18 = _builder('scat_resnet18', ScatResNet18_Weights)
scat_resnet50 = _builder('scat_resnet50', ScatResNet50_Weights)
scat_tiny = _builder('scat_tiny', ScatTiny_Weights)
scat_vit_tiny = _builder('scat_vit_tiny', ScatViTTiny_Weights)
