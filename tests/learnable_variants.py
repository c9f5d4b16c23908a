"""Twins of the zoo's models with learnable filters, for timm's own test file: that builds every model by its defaults.

Learned pixelwise filters are tied to one size, here 64 pixels.
"""
from timm.models import generate_default_cfgs, register_model

import scat_zoo
from scat_zoo.models.build import generic_cfg
from scat_zoo.models.scat_linear import checkpoint_filter_fn  # noqa: F401  (timm's tests look for it here)

default_cfgs = generate_default_cfgs({
    'scat_linear_learnable': generic_cfg(input_size=(3, 64, 64), pool_size=(16, 16), fixed_input_size=True),
})


@register_model
def scat_linear_learnable(pretrained=False, **kwargs):
    kwargs.setdefault('pretrained_cfg', default_cfgs['scat_linear_learnable'].default)
    kwargs.setdefault('img_size', 64)
    return scat_zoo.scat_linear(pretrained, learnable=True, **kwargs)
