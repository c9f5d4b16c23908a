"""What a type checker knows of the public names. It is not run: `mypy --strict scat_zoo tests/typing` reads it.

A line marked `type: ignore` is a mistake that mypy must see; it reports marks where it sees none.
"""
from typing import Any, Dict, List, Tuple, Union

import timm
import torch
from torch import Tensor, nn
from typing_extensions import assert_type

from scat_zoo import (
    ExampleLinearClassifier,
    ScatLinear,
    ScatMlp,
    ScatResNet,
    Scattering2D,
    ScatteringBase,
    ScatteringTorch2D,
    param_groups,
    scat_hybrid,
    scat_linear,
    scat_mlp,
    scat_resnet,
    scat_resnet18,
    scat_tiny,
    use_engine,
    with_scattering_stem,
)
from scat_zoo.models.stem import Channel, ScatteringStem
from scat_zoo.scattering.filters import Filters
from scat_zoo.scattering.geometry import Path
from scat_zoo.scattering.morlet import Wavelet

x = torch.rand(2, 3, 32, 32)


# ---- the transform ----

S = ScatteringTorch2D(J=2, shape=(32, 32), L=8, learnable=True, dtype=torch.float64)
assert_type(S.scattering(x), Union[Tensor, List[Dict[str, Any]]])
assert_type(S.paths, List[Path])
assert_type(S.learnable, bool)
S.max_order = 1
assert_type(Scattering2D(2, (32, 32)), ScatteringTorch2D)
with use_engine(False):
    assert_type(S.forward(x), Tensor)

ScatteringTorch2D('2', (32, 32))                    # type: ignore[arg-type]
ScatteringTorch2D(2)                                # type: ignore[call-arg]
ScatteringTorch2D(2, (32, 32), wavelets=8)          # type: ignore[call-arg]
S.learnable = False                                 # type: ignore[misc]
use_engine('cuda')                                  # type: ignore[arg-type]


# ---- the models ----

model = scat_linear(num_classes=10, learnable=True, parametrization='morlet')
assert_type(model, ScatLinear)
assert_type(scat_mlp(), ScatMlp)
assert_type(scat_resnet(pretrained=False), ScatResNet)
assert_type(scat_resnet18(), ScatResNet)
assert_type(scat_tiny(), ScatResNet)
assert_type(ScatMlp(10, head_hidden_size=64).head.num_features, int)
assert_type(model.forward(x), Tensor)
assert_type(model.forward_features(x), Tensor)
assert_type(model.forward_intermediates(x, indices=2), Union[List[Tensor], Tuple[Tensor, List[Tensor]]])

assert_type(with_scattering_stem('resnet50', J=2, num_classes=10), nn.Module)
assert_type(scat_hybrid(network='resnet50'), nn.Module)

scat_linear(pretrained='fashion_mnist')             # type: ignore[arg-type]
ScatResNet(10, channels=64)                         # type: ignore[arg-type]
with_scattering_stem('resnet50', J='2')             # type: ignore[arg-type]
scat_linear().to_pixelwise()                        # type: ignore[operator]


# ---- the stem ----

stem = model.scattering
assert_type(stem, ScatteringStem)
assert_type(stem.filters(), Filters)
assert_type(stem.filters((64, 64)).psi, List[List[Tensor]])
assert_type(stem.frame_bounds(), Tuple[float, float])
assert_type(stem.filter_parameters(), List[Wavelet])
assert_type(stem.channels, List[Channel])

stem.frame_bounds(64)                               # type: ignore[arg-type]
stem.set_input_size((64, 64, 3))                    # type: ignore[arg-type]


# ---- training ----

assert_type(param_groups(model, lr=1e-3), List[Dict[str, Any]])
assert_type(param_groups(timm.create_model('scat_linear'), 1e-3, filter_lr=1e-2), List[Dict[str, Any]])
torch.optim.AdamW(param_groups(model, 1e-3))
model.freeze_scattering()

param_groups(model)                                 # type: ignore[call-arg]
param_groups(model.parameters(), lr=1e-3)           # type: ignore[arg-type]


class Classifier(ScatteringBase):
    def _build_classifier(self) -> nn.Module:
        assert_type(self.classifier_input_dim, int)
        return nn.Linear(self.classifier_input_dim, self.num_classes)


assert_type(Classifier(2, (32, 32), in_channels=3, num_classes=10).scattering, ScatteringTorch2D)
assert_type(ExampleLinearClassifier(2, (32, 32), 3, 10).extract_features(x), Tensor)
Classifier(2, 32, 3, 10)                            # type: ignore[arg-type]
