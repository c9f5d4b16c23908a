"""Learnable wavelet scattering as models of timm; importing this package registers them."""
from .models.classifier import ExampleLinearClassifier, ScatteringBase
from .models.scat_linear import ScatLinear, scat_linear
from .scattering.torch2d import Scattering2D, ScatteringTorch2D

__version__ = '0.1.0'

__all__ = [
    'ExampleLinearClassifier', 'ScatLinear', 'Scattering2D', 'ScatteringBase', 'ScatteringTorch2D', 'scat_linear',
]
