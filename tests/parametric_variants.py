"""Twins of the zoo's models with Morlet filters, learned singly or a scale at once, for timm's own test file.

They follow any image size, as the models do by default, so every test of timm's has to pass, with none left out.
"""
from timm.models import generate_default_cfgs, register_model

import scat_zoo
from scat_zoo.models.build import checkpoint_filter_fn, generic_cfg  # noqa: F401  (timm's tests look for it here)

LARGE = {'input_size': (3, 224, 224), 'pool_size': (7, 7)}

default_cfgs = generate_default_cfgs({
    'scat_linear_morlet': generic_cfg(),
    'scat_linear_equivariant': generic_cfg(),
    'scat_linear_nonexpansive': generic_cfg(),
    'scat_mlp_morlet': generic_cfg(),
    'scat_mlp_equivariant': generic_cfg(),
    'scat_resnet_morlet': generic_cfg(pool_size=(4, 4)),
    'scat_resnet_equivariant': generic_cfg(pool_size=(4, 4)),
    'scat_tiny_morlet': generic_cfg(),
    'scat_tiny_equivariant': generic_cfg(),
    'scat_resnet18_morlet': generic_cfg(**LARGE),
    'scat_resnet18_equivariant': generic_cfg(**LARGE),
})


def _learnable(name, parametrization, pretrained, **kwargs):
    cfg = default_cfgs[f'{name}_{parametrization}'].default
    kwargs = {'pretrained_cfg': cfg, 'learnable': True, 'parametrization': parametrization, **kwargs}
    return getattr(scat_zoo, name)(pretrained, **kwargs)


@register_model
def scat_linear_morlet(pretrained=False, **kwargs):
    return _learnable('scat_linear', 'morlet', pretrained, **kwargs)


@register_model
def scat_linear_equivariant(pretrained=False, **kwargs):
    return _learnable('scat_linear', 'equivariant', pretrained, **kwargs)


@register_model
def scat_linear_nonexpansive(pretrained=False, **kwargs):
    kwargs = {'pretrained_cfg': default_cfgs['scat_linear_nonexpansive'].default, **kwargs}
    return _learnable('scat_linear', 'morlet', pretrained, nonexpansive=True, **kwargs)


@register_model
def scat_mlp_morlet(pretrained=False, **kwargs):
    return _learnable('scat_mlp', 'morlet', pretrained, **kwargs)


@register_model
def scat_mlp_equivariant(pretrained=False, **kwargs):
    return _learnable('scat_mlp', 'equivariant', pretrained, **kwargs)


@register_model
def scat_resnet_morlet(pretrained=False, **kwargs):
    return _learnable('scat_resnet', 'morlet', pretrained, **kwargs)


@register_model
def scat_resnet_equivariant(pretrained=False, **kwargs):
    return _learnable('scat_resnet', 'equivariant', pretrained, **kwargs)


@register_model
def scat_resnet18_morlet(pretrained=False, **kwargs):
    return _learnable('scat_resnet18', 'morlet', pretrained, **kwargs)


@register_model
def scat_resnet18_equivariant(pretrained=False, **kwargs):
    return _learnable('scat_resnet18', 'equivariant', pretrained, **kwargs)


@register_model
def scat_tiny_morlet(pretrained=False, **kwargs):
    return _learnable('scat_tiny', 'morlet', pretrained, **kwargs)


@register_model
def scat_tiny_equivariant(pretrained=False, **kwargs):
    return _learnable('scat_tiny', 'equivariant', pretrained, **kwargs)
