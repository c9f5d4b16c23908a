"""The models under test: all that the package registers, so that a new architecture is among them by itself.

Hybrids are timm's networks for the most part: `test_hybrid.py` tests what is theirs, the tests of the three registries
and timm's own file all names.
"""
import timm
import torch

import scat_zoo  # noqa: F401  (registers the models)

NAMES = timm.list_models('scat_*')
HYBRIDS = timm.list_models('scat_*', module='scat_hybrid')
MODELS = [name for name in NAMES if name not in HYBRIDS]


def create(name='scat_linear', **kwargs):
    """A small model for small grey images, always with the same initial values."""
    torch.manual_seed(0)
    return timm.create_model(name, **{'num_classes': 10, 'in_chans': 1, 'img_size': 28, 'L': 4, **kwargs})


@torch.no_grad()
def jolt(model):
    """Move learned filters, and fill the norms with statistics; the model in eval mode."""
    for p in model.scattering.parameters():
        p.add_(0.3 * torch.randn_like(p) * p.abs().max().clamp(min=0.5))
    model.train()(torch.rand(8, model.in_chans, *model.scattering.img_size))
    return model.eval()
