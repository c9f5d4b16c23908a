"""Twins of the zoo's models with learnable filters, for timm's own test file: that builds every model by its defaults.

Learned pixelwise filters are tied to one size, here 64 pixels. Two of timm's tests feed other sizes to a model,
whatever its cfg says, and no such model can pass them: `test_forward_after_prune_intermediate_layers` (128 pixels) and
`test_feature_getter_stage_ends_torchscript` (96).
"""
from timm.models import generate_default_cfgs, register_model

import scat_zoo
from scat_zoo.models.build import checkpoint_filter_fn, generic_cfg  # noqa: F401  (timm's tests look for it here)

FIXED = {'input_size': (3, 64, 64), 'fixed_input_size': True}

default_cfgs = generate_default_cfgs({
    'scat_linear_learnable': generic_cfg(**FIXED, pool_size=(16, 16)),
    'scat_mlp_learnable': generic_cfg(**FIXED, pool_size=(16, 16)),
    'scat_tiny_learnable': generic_cfg(**FIXED, pool_size=(16, 16)),
    'scat_resnet_learnable': generic_cfg(**FIXED, pool_size=(8, 8)),
    'scat_resnet18_learnable': generic_cfg(**FIXED, pool_size=(2, 2)),
})


def _learnable(name, pretrained, **kwargs):
    kwargs = {'pretrained_cfg': default_cfgs[f'{name}_learnable'].default, 'img_size': 64, 'learnable': True, **kwargs}
    return getattr(scat_zoo, name)(pretrained, **kwargs)


@register_model
def scat_linear_learnable(pretrained=False, **kwargs):
    return _learnable('scat_linear', pretrained, **kwargs)


@register_model
def scat_mlp_learnable(pretrained=False, **kwargs):
    return _learnable('scat_mlp', pretrained, **kwargs)


@register_model
def scat_tiny_learnable(pretrained=False, **kwargs):
    return _learnable('scat_tiny', pretrained, **kwargs)


@register_model
def scat_resnet_learnable(pretrained=False, **kwargs):
    return _learnable('scat_resnet', pretrained, **kwargs)


@register_model
def scat_resnet18_learnable(pretrained=False, **kwargs):
    return _learnable('scat_resnet18', pretrained, **kwargs)
