"""Entrypoints for torch.hub: `torch.hub.load(REPOSITORY, 'scat_linear', ...)`."""
from typing import Any as _Any

import timm as _timm
from torch.nn import Module as _Module

import scat_zoo as _scat_zoo  # noqa: F401  (importing it registers the models)

dependencies = ['torch', 'timm', 'torchvision', 'numpy', 'safetensors', 'tqdm']


def scat_linear(pretrained: bool = False, **kwargs: _Any) -> _Module:
    """Scattering, logarithm and batch normalisation of each order, linear classifier.

    Args:
        pretrained: there are no weights yet, so True raises.
        kwargs: as for `timm.create_model('scat_linear', ...)`: num_classes, in_chans, img_size, J, L, max_order,
            learnable, global_pool, drop_rate, ...
    """
    return _timm.create_model('scat_linear', pretrained=pretrained, **kwargs)
