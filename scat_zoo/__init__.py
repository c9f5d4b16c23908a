"""Learnable wavelet scattering as models of timm and torchvision; importing this package registers them."""
from .models import torchvision_zoo as _torchvision_zoo  # noqa: F401  (registers the models with torchvision)
from .models.classifier import ExampleLinearClassifier, ScatteringBase
from .models.graft import with_scattering_stem
from .models.model import param_groups
from .models.scat_hybrid import scat_convnext_atto, scat_hybrid, scat_resnet50, scat_vit_tiny
from .models.scat_linear import ScatLinear, scat_linear
from .models.scat_mlp import ScatMlp, scat_mlp
from .models.scat_resnet import ScatResNet, scat_resnet, scat_resnet18, scat_tiny
from .scattering.engine import use_engine
from .scattering.memory import empty_cache
from .scattering.torch2d import Scattering2D, ScatteringTorch2D

__version__ = '0.1.0'

__all__ = [
    'ExampleLinearClassifier', 'ScatLinear', 'ScatMlp', 'ScatResNet', 'Scattering2D', 'ScatteringBase',
    'ScatteringTorch2D', 'empty_cache', 'param_groups', 'scat_convnext_atto', 'scat_hybrid', 'scat_linear', 'scat_mlp',
    'scat_resnet', 'scat_resnet18', 'scat_resnet50', 'scat_tiny', 'scat_vit_tiny', 'use_engine', 'with_scattering_stem',
]
