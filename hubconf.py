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
            learnable, parametrization, init, nonexpansive, global_pool, drop_rate, ...
    """
    return _timm.create_model('scat_linear', pretrained=pretrained, **kwargs)


def scat_mlp(pretrained: bool = False, **kwargs: _Any) -> _Module:
    """scat_linear with a hidden layer before the classifier.

    Args:
        pretrained: there are no weights yet, so True raises.
        kwargs: as for `timm.create_model('scat_mlp', ...)`: those of scat_linear, and head_hidden_size.
    """
    return _timm.create_model('scat_mlp', pretrained=pretrained, **kwargs)


def scat_resnet(pretrained: bool = False, **kwargs: _Any) -> _Module:
    """Scattering, a convolution and two residual stages, for images of 28 to 64 pixels.

    Args:
        pretrained: there are no weights yet, so True raises.
        kwargs: as for `timm.create_model('scat_resnet', ...)`: num_classes, in_chans, img_size, J, L, max_order,
            learnable, parametrization, init, nonexpansive, channels, depths, strides, output_stride, drop_rate,
            drop_path_rate, ...
    """
    return _timm.create_model('scat_resnet', pretrained=pretrained, **kwargs)


def scat_resnet18(pretrained: bool = False, **kwargs: _Any) -> _Module:
    """Scattering, a convolution and three residual stages, for images of 224 pixels.

    Args:
        pretrained: there are no weights yet, so True raises.
        kwargs: as for scat_resnet.
    """
    return _timm.create_model('scat_resnet18', pretrained=pretrained, **kwargs)
