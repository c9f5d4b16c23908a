"""`ScatteringBase`: raw scattering coefficients, flattened, under a classifier of your own."""
from typing import Tuple

from torch import Tensor, nn

from ..scattering import geometry
from ..scattering.torch2d import ScatteringTorch2D
from .model import Freezing
from .stem import checked


class ScatteringBase(Freezing):
    """Scattering, flatten, classifier. Subclass it and return the classifier from `_build_classifier`.

    Args:
        J: log-2 of the scale.
        shape: (H, W) of the images.
        in_channels: number of image channels.
        num_classes: number of classes.
        L: number of orientations.
        max_order: 1 or 2.
        learnable: whether the filters are parameters.
    """

    def __init__(self, J: int, shape: Tuple[int, int], in_channels: int, num_classes: int, L: int = 8,
                 max_order: int = 2, learnable: bool = False) -> None:
        super().__init__()
        self.in_channels = geometry.integer('in_channels', in_channels, least=1)
        self.num_classes = geometry.integer('num_classes', num_classes, least=1)
        self.scattering = ScatteringTorch2D(J, shape, L=L, max_order=max_order, learnable=learnable)
        height, width = geometry.output_size(*self.scattering.shape, self.scattering.J)
        self.classifier_input_dim = self.in_channels * len(self.scattering.paths) * height * width
        self.classifier = self._build_classifier()

    def _build_classifier(self) -> nn.Module:
        """The module that maps (B, classifier_input_dim) to (B, num_classes)."""
        raise NotImplementedError(f'{type(self).__name__} must define _build_classifier(), which returns the module '
                                  'that follows the coefficients')

    def extract_features(self, x: Tensor) -> Tensor:
        """Images (B, in_channels, H, W) -> coefficients (B, in_channels * paths * h * w), channel-major."""
        return self.scattering(checked(x, self.in_channels)).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.extract_features(x))


class ExampleLinearClassifier(ScatteringBase):
    """A linear classifier on the scattering coefficients."""

    def _build_classifier(self) -> nn.Module:
        return nn.Linear(self.classifier_input_dim, self.num_classes)
