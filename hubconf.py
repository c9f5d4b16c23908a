"""Entrypoints for torch.hub: `torch.hub.load(REPOSITORY, 'scat_linear', ...)`."""
from typing import Any as _Any

from torch.nn import Module as _Module

from scat_zoo.models.shipped import create as _create

dependencies = ['torch', 'timm', 'torchvision', 'numpy', 'safetensors', 'tqdm']


def scat_convnext_atto(pretrained: bool = False, **kwargs: _Any) -> _Module:
    """timm's convnext_atto with scattering in place of its patch embedding, for images of 224 pixels.

    Args:
        pretrained: there are no weights for it yet, so True raises.
        kwargs: as for scat_hybrid, without network.
    """
    return _create('scat_convnext_atto', pretrained, **kwargs)


def scat_hybrid(pretrained: bool = False, **kwargs: _Any) -> _Module:
    """Any network of timm with scattering in place of its first layers.

    Args:
        pretrained: there are no weights for it yet, so True raises.
        kwargs: as for `timm.create_model('scat_hybrid', ...)`: network, J, L, max_order, learnable, parametrization,
            init, nonexpansive, log_floor, img_size, in_chans, num_classes, and all that the network takes.
    """
    return _create('scat_hybrid', pretrained, **kwargs)


def scat_linear(pretrained: bool = False, **kwargs: _Any) -> _Module:
    """Scattering, logarithm and batch normalisation of each order, linear classifier.

    Args:
        pretrained: load weights that come with the package, for Fashion-MNIST.
        kwargs: as for `timm.create_model('scat_linear', ...)`: num_classes, in_chans, img_size, J, L, max_order,
            learnable, parametrization, init, nonexpansive, global_pool, drop_rate, ...
    """
    return _create('scat_linear', pretrained, **kwargs)


def scat_mlp(pretrained: bool = False, **kwargs: _Any) -> _Module:
    """scat_linear with a hidden layer before the classifier.

    Args:
        pretrained: load weights that come with the package, for Fashion-MNIST.
        kwargs: as for `timm.create_model('scat_mlp', ...)`: those of scat_linear, and head_hidden_size.
    """
    return _create('scat_mlp', pretrained, **kwargs)


def scat_resnet(pretrained: bool = False, **kwargs: _Any) -> _Module:
    """Scattering, a convolution and two residual stages, for images of 28 to 64 pixels.

    Args:
        pretrained: load weights that come with the package, for Fashion-MNIST.
        kwargs: as for `timm.create_model('scat_resnet', ...)`: num_classes, in_chans, img_size, J, L, max_order,
            learnable, parametrization, init, nonexpansive, channels, depths, strides, output_stride, drop_rate,
            drop_path_rate, ...
    """
    return _create('scat_resnet', pretrained, **kwargs)


def scat_resnet18(pretrained: bool = False, **kwargs: _Any) -> _Module:
    """Scattering, a convolution and three residual stages, for images of 224 pixels.

    Args:
        pretrained: there are no weights for it yet, so True raises.
        kwargs: as for scat_resnet.
    """
    return _create('scat_resnet18', pretrained, **kwargs)


def scat_resnet50(pretrained: bool = False, **kwargs: _Any) -> _Module:
    """timm's resnet50 with scattering in place of its first convolution and pool, for images of 224 pixels.

    Args:
        pretrained: there are no weights for it yet, so True raises.
        kwargs: as for scat_hybrid, without network.
    """
    return _create('scat_resnet50', pretrained, **kwargs)


def scat_tiny(pretrained: bool = False, **kwargs: _Any) -> _Module:
    """Scattering, a 1x1 convolution and two separable blocks, for images of 28 to 64 pixels and little memory.

    Args:
        pretrained: load weights that come with the package, for Fashion-MNIST.
        kwargs: as for scat_resnet.
    """
    return _create('scat_tiny', pretrained, **kwargs)


def scat_vit_tiny(pretrained: bool = False, **kwargs: _Any) -> _Module:
    """timm's vit_tiny_patch16_224, its patches those of a scattering, for images of 224 pixels and others.

    Args:
        pretrained: there are no weights for it yet, so True raises.
        kwargs: as for scat_hybrid, without network.
    """
    return _create('scat_vit_tiny', pretrained, **kwargs)
