"""Twins of the zoo's models with other defaults, for timm's own test file: that builds every model by its defaults."""
import sys

import timm
from timm.models import generate_default_cfgs, register_model

import scat_zoo  # noqa: F401  (registers the models)
from scat_zoo.models.build import checkpoint_filter_fn


def register(module, **variants):
    """For each model of the zoo and each variant, a model MODEL_VARIANT in that module.

    Args:
        module: its `__name__`.
        variants: keywords of each variant's models.
    """
    module = sys.modules[module]
    twins = [(model, f'{model}_{variant}', kwargs)
             for model in timm.list_models('scat_*') for variant, kwargs in variants.items()]
    # Of the model's own size, which the twin changes as any user may.
    module.default_cfgs = generate_default_cfgs({name: timm.get_pretrained_cfg(model) for model, name, _ in twins})
    module.checkpoint_filter_fn = checkpoint_filter_fn              # timm's tests look for both there
    for model, name, kwargs in twins:
        setattr(module, name, register_model(_entrypoint(module, model, name, kwargs)))


def _entrypoint(module, model, name, defaults):
    def entrypoint(pretrained=False, pretrained_cfg=None, **kwargs):
        pretrained_cfg = pretrained_cfg or module.default_cfgs[name].default
        return timm.model_entrypoint(model)(pretrained, pretrained_cfg=pretrained_cfg, **{**defaults, **kwargs})

    entrypoint.__name__, entrypoint.__module__ = name, module.__name__
    return entrypoint
