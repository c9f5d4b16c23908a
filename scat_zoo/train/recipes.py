"""The recipes behind the tables of results: what is trained on what, and how its numbers were chosen.

`scat-zoo train --recipe NAME` runs one. Each names its validation split and what was selected on it, with `--select`;
test images had no part in that.
"""
from dataclasses import dataclass, field, replace
from typing import Any, Dict, Optional, Tuple

from .loop import Training


@dataclass(frozen=True)
class Arm:
    """One of the ways to train that a recipe compares."""
    model: str
    kwargs: Dict[str, Any]
    training: Training


@dataclass(frozen=True)
class Recipe:
    """Arms, the first of which the others are compared with, each trained at every size from every seed.

    Args:
        data: a name that `data.load` knows, or '' for a folder of images that the user has.
        how_to_get: where such a folder comes from.
        selection: the validation split, and what was chosen on it.
        val_fraction: part of the training images (of the subset, if it is one) for that split.
        per_class: number of training images of each class, None for all.
        by_size: changes of the training for some of these.
    """
    data: str
    arms: Dict[str, Arm]
    selection: str
    how_to_get: str = ''
    val_fraction: float = 0.1
    per_class: Tuple[Optional[int], ...] = (None,)
    by_size: Dict[Optional[int], Dict[str, Any]] = field(default_factory=dict)
    seeds: Tuple[int, ...] = (0,)


# Those of Gauthier et al. (Parametric Scattering Networks, CVPR 2022), from its public code.
SEEDS = (207715039, 491659600, 737523103, 493572006, 827192296, 877498678, 1103100946, 1210393663, 1277404878,
         1377264326)

_SAMPLE_TRAINING = Training(epochs=5, batch_size=10)

_LINEAR = {'scales': (1, 2)}
_LINEAR_TRAINING = Training(epochs=15, batch_size=128, lr=5e-4, weight_decay=0.5, label_smoothing=0.1)

_MLP = {'scales': (1, 2), 'head_hidden_size': 224, 'drop_rate': 0.3}
_MLP_TRAINING = Training(epochs=20, batch_size=128, lr=5e-4, weight_decay=0.5, label_smoothing=0., augment='flip')

_TINY_TRAINING = Training(epochs=20, batch_size=128, lr=1e-2, label_smoothing=0.)

_RESNET = {'J': 1, 'channels': (64, 128), 'depths': (2, 3), 'strides': (1, 2)}
_RESNET_TRAINING = Training(epochs=30, batch_size=128, opt='sgd', lr=0.3, weight_decay=5e-4, label_smoothing=0.1,
                            augment='shift-flip-erase', amp=True)


def _learned(model: str, kwargs: Dict[str, Any], training: Training,
             *parametrizations: str) -> Dict[str, Arm]:
    """An arm for each way to learn the filters."""
    return {name: Arm(model, {**kwargs, 'learnable': True, 'parametrization': name}, training)
            for name in parametrizations}


RECIPES: Dict[str, Recipe] = {
    # A minute's work, to see how recipes go.
    'sample': Recipe(
        data='sample',
        arms={'fixed': Arm('scat_linear', {}, _SAMPLE_TRAINING),
              **_learned('scat_linear', {}, _SAMPLE_TRAINING, 'morlet')},
        selection='nothing was chosen, it shows how recipes go', per_class=(10, 20), seeds=SEEDS[:2]),
    'fashion-linear': Recipe(
        data='fashion-mnist',
        arms={'fixed': Arm('scat_linear', _LINEAR, _LINEAR_TRAINING),
              **_learned('scat_linear', _LINEAR, _LINEAR_TRAINING, 'pixelwise', 'morlet', 'equivariant')},
        selection='.'),
    'fashion-mlp': Recipe(
        data='fashion-mnist',
        arms={'fixed': Arm('scat_mlp', _MLP, _MLP_TRAINING),
              **_learned('scat_mlp', _MLP, _MLP_TRAINING, 'pixelwise', 'morlet')},
        selection='.'),
    'fashion-tiny': Recipe(
        data='fashion-mnist',
        arms={'fixed': Arm('scat_tiny', {}, _TINY_TRAINING),
              **_learned('scat_tiny', {}, _TINY_TRAINING, 'morlet', 'equivariant')},
        selection='.'),
    'fashion-resnet': Recipe(
        data='fashion-mnist',
        arms={'fixed': Arm('scat_resnet', _RESNET, _RESNET_TRAINING),
              **_learned('scat_resnet', _RESNET, replace(_RESNET_TRAINING, filter_lr=0.01), 'pixelwise', 'morlet')},
        selection=''),
}
