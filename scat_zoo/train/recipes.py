"""The recipes behind the tables of results: what is trained on what, and how its numbers were chosen.

`scat-zoo train --recipe NAME` runs one. Each names its validation split and what was selected on it, with `--select`,
and what comes from a pilot that had used test images.
"""
from dataclasses import dataclass, field, replace
from typing import Any, Dict, Mapping, Optional, Tuple, Union

from .choices import INVARIANT, SIDE
from .loop import Training


@dataclass(frozen=True)
class Arm:
    """One of the ways to train that a recipe compares.

    Args:
        by_size: changes of the training, by number of training images of each class.
    """
    model: str
    kwargs: Dict[str, Any]
    training: Training
    by_size: Dict[Optional[int], Dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Probe:
    """What `scat-zoo train` does of itself with few images: `probe`, on the features that it chooses, with these
    keywords of the model."""
    kwargs: Dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Average:
    """The mean log-probability of models of other arms, of the same size and seed; nothing more is trained."""
    of: Tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """Arms, the first of which the others are compared with, each trained at every size from every seed.

    Args:
        data: a name that `data.load` knows, or '' for a folder of images that the user has.
        arms: by name; an average comes after those it is of.
        how_to_get: where such a folder comes from.
        selection: the validation split, and what was chosen on it.
        val_fraction: part of the training images (of the subset, if it is one) for that split.
        per_class: number of training images of each class, None for all.
        side: of the models' images; those of more pixels are resized to about as many.
    """
    data: str
    arms: Mapping[str, Union[Arm, Probe, Average]]
    selection: str
    how_to_get: str = ''
    val_fraction: float = 0.1
    per_class: Tuple[Optional[int], ...] = (None,)
    seeds: Tuple[int, ...] = (0,)
    side: int = SIDE


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

# The fewer images, the more epochs.
_FEW = {'scales': (1, 2), 'log_floor': 1.0}
_FEW_TRAINING = Training(epochs=30, batch_size=20, lr=1e-3, label_smoothing=0.2)
_FEW_BY_SIZE: Dict[Optional[int], Dict[str, Any]] = {10: {'epochs': 60}, 50: {'epochs': 40}}
_FEW_RESNET = {'J': 1, 'channels': (64, 128), 'depths': (1, 1), 'strides': (1, 2)}
_FEW_RESNET_TRAINING = Training(epochs=50, batch_size=20, opt='sgd', lr=0.05, weight_decay=5e-4, label_smoothing=0.2,
                                augment='shift-flip', amp=True)
_CNN_TRAINING = Training(epochs=50, batch_size=20, lr=1e-3, label_smoothing=0.2, augment='shift-flip', amp=True)
_LONG_BY_SIZE: Dict[Optional[int], Dict[str, Any]] = {10: {'epochs': 100}, 50: {'epochs': 80}}

_TEXTURES = {'J': 3, 'global_pool': 'avg', 'log_floor': 0.1}
_TEXTURES_TRAINING = Training(epochs=1, batch_size=32, lr=3e-3, label_smoothing=0., augment='rotate-zoom', lda=16)
_TEXTURES_LINEAR = Arm('scat_linear', _TEXTURES, _TEXTURES_TRAINING, {5: {'epochs': 4}})
_TEXTURES_RESNET = {'J': 1, 'channels': (64, 128, 128), 'depths': (1, 2, 2), 'strides': (2, 2, 1)}
_TEXTURES_RESNET_TRAINING = Training(epochs=30, batch_size=32, opt='sgd', lr=0.2, weight_decay=1e-3,
                                     label_smoothing=0.1, augment='rotate-zoom', amp=True, lda=8)

# Without how a texture is turned, and with what other light leaves alone.
_INVARIANT = {'J': 4, 'global_pool': 'avg', **INVARIANT}
_INVARIANT_MLP_TRAINING = Training(epochs=20, batch_size=64, lr=5e-3, label_smoothing=0.1, augment='rotate-zoom',
                                   whiten=3)

_CIFAR_TRAINING = Training(epochs=60, batch_size=128, opt='sgd', lr=0.3, weight_decay=5e-4, label_smoothing=0.1,
                           augment='shift-flip-erase', amp=True)


def _arms(fixed: Arm, *parametrizations: str, **filters: Any) -> Dict[str, Arm]:
    """An arm with fixed filters, and one for each way to learn them, with changes of the training for these."""
    learned = {name: replace(fixed, kwargs={**fixed.kwargs, 'learnable': True, 'parametrization': name},
                             training=replace(fixed.training, **filters)) for name in parametrizations}
    return {'fixed': fixed, **learned}


RECIPES: Dict[str, Recipe] = {
    # A minute's work, to see how recipes go.
    'sample': Recipe(
        data='sample',
        arms={**_arms(Arm('scat_linear', {}, _SAMPLE_TRAINING), 'morlet'), 'average': Average(('fixed', 'morlet'))},
        selection='nothing was chosen, it shows how recipes go', per_class=(10, 20), seeds=SEEDS[:2]),
    'fashion-linear': Recipe(
        data='fashion-mnist',
        arms=_arms(Arm('scat_linear', _LINEAR, _LINEAR_TRAINING), 'pixelwise', 'morlet'),
        selection=('learning rate, weight decay, label smoothing, dropout and flips among six settings, with fixed '
                   'filters, by the accuracy on 6,000 of the 60,000 training images; the scales come from a pilot '
                   'that used test images')),
    'fashion-mlp': Recipe(
        data='fashion-mnist',
        arms=_arms(Arm('scat_mlp', _MLP, _MLP_TRAINING), 'pixelwise', 'morlet'),
        selection=('dropout, label smoothing and augmentation among three settings, with fixed filters, by the '
                   'accuracy on 6,000 of the 60,000 training images; the scales come from a pilot that used test '
                   'images')),
    'fashion-tiny': Recipe(
        data='fashion-mnist',
        arms=_arms(Arm('scat_tiny', {}, _TINY_TRAINING), 'morlet'),
        selection=('width, depth and strides of the blocks, and flips, among five settings of 6 epochs, with fixed '
                   'filters, by the accuracy on 6,000 of the 60,000 training images')),
    'fashion-resnet': Recipe(
        data='fashion-mnist',
        arms=_arms(Arm('scat_resnet', _RESNET, _RESNET_TRAINING), 'pixelwise', 'morlet', filter_lr=0.01),
        selection=('learning rate, width and depth among three settings of 5 epochs, with fixed filters, by the '
                   'accuracy on 6,000 of the 60,000 training images; the rate of the filters by the loss '
                   'of 150 training steps')),
    # The protocol of Parametric Scattering Networks: balanced subsets, the last epoch, ten seeds.
    'fashion-few': Recipe(
        data='fashion-mnist',
        arms={**_arms(Arm('scat_linear', _FEW, _FEW_TRAINING, _FEW_BY_SIZE), 'pixelwise', 'morlet', 'equivariant'),
              'resnet': Arm('scat_resnet', _FEW_RESNET, _FEW_RESNET_TRAINING, _LONG_BY_SIZE),
              'average': Average(('fixed', 'resnet')),
              'probe': Probe()},
        selection=('scat_linear: nothing on these data, log_floor and scales come from a pilot that used test images; '
                   'that an average with a residual network is best, among five models, by the accuracy on a fifth '
                   'of each subset of 50 images a class; the training of that network was chosen by hand. '
                   'probe: its features in cross-validation, its shrinkage on other training images (three draws, 10 '
                   'and 90 a class, and NEU)'),
        val_fraction=0.2, per_class=(10, 50, 100), seeds=SEEDS),
    'fashion-few-random': Recipe(
        data='fashion-mnist',
        arms=_arms(Arm('scat_linear', {**_FEW, 'init': 'random'}, _FEW_TRAINING, _FEW_BY_SIZE), 'pixelwise', 'morlet'),
        selection='nothing; as for fashion-few', val_fraction=0.2, per_class=(10, 50, 100), seeds=SEEDS),
    # CNNs of timm beside them, from scratch: ResNet-18 and one about as large as the linear models.
    'fashion-few-cnn': Recipe(
        data='fashion-mnist',
        arms={'resnet18': Arm('resnet18', {}, _CNN_TRAINING, _LONG_BY_SIZE),
              'test_efficientnet': Arm('test_efficientnet', {}, _CNN_TRAINING, _LONG_BY_SIZE)},
        selection='nothing; as for fashion-few', val_fraction=0.2, per_class=(10, 50, 100), seeds=SEEDS),
    'textures': Recipe(
        data='', how_to_get=('a folder that tools/make_textures.py of the repository makes, from a package of Debian '
                             'that it names'),
        arms={**_arms(_TEXTURES_LINEAR, 'pixelwise', lda_epochs=8, filter_lr=3e-3),
              **_arms(_TEXTURES_LINEAR, 'morlet', 'equivariant', lda_epochs=8),
              'resnet': Arm('scat_resnet', _TEXTURES_RESNET, _TEXTURES_RESNET_TRAINING, {5: {'epochs': 60}}),
              'average': Average(('fixed', 'resnet')),
              'invariant': Arm('scat_linear', _INVARIANT, replace(_TEXTURES_TRAINING, lda=8), {5: {'lda': 16}}),
              'invariant-mlp': Arm('scat_mlp', {**_INVARIANT, 'head_hidden_size': 256}, _INVARIANT_MLP_TRAINING,
                                   {5: {'epochs': 40}})},
        selection=('by the accuracy on the validation images, one seed. Fixed filters: J of 3 and 4, scales, log_floor '
                   'of 0.02 to 0.1, the changes of the images, passes, mostly from 5 images a class. Pixelwise ones: '
                   'training through the analysis or an ordinary head, 4 epochs at 1e-3 or 8 at 3e-3, from 20 images '
                   'a class (the first, to save time, was tested from one seed: 82.9 %, fixed filters 78.5 %); morlet '
                   'and equivariant as these, at their usual rate. The network: rate, weight decay, 14 to 30 epochs, '
                   'from 20 images a class; 60 from 5 by hand. The invariant model, from 5 images a class in 4 passes: '
                   'J of 4 or 5 (89.95 or 89.53 %), log_input of 0.03 or 0.1 (89.95 or 89.44 %), L as in a pilot; and '
                   'from means of coefficients, in up to 5 passes: which differences of channels, log_floor, means '
                   'alone or with deviations, and logarithms of order 0 or of the image; passes by hand. Its hidden '
                   'layer, on the coefficients of 6 passes, from 20 and 5 images a class: whitened or not (94.5 or '
                   '93.9 % from 20), a floor of 0.01 to 0.1 (95.0, 95.2, 94.9), 256 to 1,024 wide, dropout, a second '
                   'layer, rates of 0.002 to 0.01, 15 to 60 epochs, label smoothing and decay by hand'),
        per_class=(20, 5), seeds=SEEDS[:3]),
    'neu': Recipe(
        data='', how_to_get='surface defects of NEU: train and test, each with a folder of 200 x 200 images a class',
        arms={'probe': Probe(), 'log': Probe({'J': 5, 'global_pool': 'avgstd', 'log_input': 0.03})},
        selection=('by the accuracy on one half of the training images, by file name, from ten draws of 5 and 20 '
                   'images a class of the other: 64 or 128 pixels, J of 4 or 5, the logarithm (one floor)'),
        val_fraction=0.5, per_class=(20, 5, 1), seeds=SEEDS[:3], side=128),
    'cifar10': Recipe(
        data='cifar10',
        arms=_arms(Arm('scat_resnet', {}, _CIFAR_TRAINING), 'pixelwise', filter_lr=0.01),
        selection='nothing; these data were not at hand, and no accuracy is claimed'),
    'images': Recipe(
        data='', how_to_get='train and test (or val), each with a folder of images a class',
        arms=_arms(Arm('scat_resnet', {'img_size': 64}, _CIFAR_TRAINING), 'morlet', filter_lr=0.01),
        selection='nothing; a start for your own images, and no accuracy is claimed'),
}
