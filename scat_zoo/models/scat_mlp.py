"""scat_mlp: scattering, logarithm and batch normalisation of each order, a classifier with a hidden layer."""
from typing import Any

from timm.models import generate_default_cfgs

from . import shipped
from .build import build, checkpoint_filter_fn, generic_cfg  # noqa: F401  (timm looks for checkpoint_filter_fn here)
from .scat_linear import ScatLinear
from .upstream import register_model

__all__ = ['ScatMlp']


class ScatMlp(ScatLinear):
    """`ScatLinear` with a hidden layer (GELU, dropout) before the classifier.

    Args:
        head_hidden_size: width of the hidden layer.
        num_classes, global_pool, kwargs: as for `ScatLinear`.
    """

    def __init__(self, num_classes: int = 1000, global_pool: str = 'flat', head_hidden_size: int = 256,
                 **kwargs: Any) -> None:
        super().__init__(num_classes, global_pool, head_hidden_size, **kwargs)


default_cfgs = generate_default_cfgs({**shipped.cfgs('scat_mlp'), 'scat_mlp.*': generic_cfg()})


@register_model
def scat_mlp(pretrained: bool = False, **kwargs: Any) -> ScatMlp:
    """Scattering, log and batch normalisation of each order, MLP; see `ScatMlp` for the keywords."""
    return build(ScatMlp, 'scat_mlp', pretrained, kwargs)
