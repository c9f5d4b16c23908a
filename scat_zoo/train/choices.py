"""What follows from the data and is not asked for: image size, validation, features to try, how to train.

Each choice comes with its reason, in one line for the terminal. None looks at a test image.
"""
import math
import operator
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np

from ..wording import brief
from .loop import Training

LARGEST = 4096                  # side of images for whose filters there may be memory
SIDE = 64                       # of images that are larger and whose model asks for no other size
VALIDATED = 100                 # images that tell a difference of a few points; of fewer, none are held out
HELD_OUT = 0.1                  # part of the training images for validation
LARGEST_J = 4
SMALL = 40                      # side of images whose scales may all keep their places
# What tells textures best that are turned and lit at random, as in the recipe `textures`.
INVARIANT = {'L': 4, 'rotation': 'average', 'channel_differences': True, 'log_input': 0.03}


def image_size(own: Tuple[int, int], asked: Union[int, Sequence[int], None],
               side: int) -> Tuple[Tuple[int, int], str]:
    """(H, W) and why. Images of more pixels than side x side come to about as many, in their own proportions.

    Args:
        own: the images' median height and width.

    Raises:
        ValueError: if a size is asked for that is none, or above LARGEST.
    """
    if asked is not None:
        sides = tuple(asked) if isinstance(asked, (list, tuple)) else (asked, asked)
        if len(sides) != 2 or not all(isinstance(side, int) and 1 <= side <= LARGEST for side in sides):
            raise ValueError(f'expected an image size of one or two whole numbers from 1 to {LARGEST:,} pixels, got '
                             f'{brief(repr(asked), 60)}')
        return (sides[0], sides[1]), 'as asked for'
    height, width = own
    if height * width <= side * side:
        return own, 'their own, the median'
    scale = side / math.sqrt(height * width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    return size, f'as many pixels as {side} x {side} in the proportions of {height} x {width}, the median; ' \
        'fine detail may go, which a larger --img-size keeps'


def held_out(targets: Sequence[int]) -> Tuple[float, str]:
    """The part of these training images to hold out for validation, and why."""
    count = HELD_OUT * len(targets)
    if count < VALIDATED:
        return 0., f'none held out: {HELD_OUT:.0%} of {len(targets):,} images would be too few to tell by'
    if np.unique(targets, return_counts=True)[1].min() < 2:
        return 0., 'none held out: a class has only one image'
    return HELD_OUT, f'{HELD_OUT:.0%} of the training images held out, of each class'


def features(size: Tuple[int, int], channels: int, given: Dict[str, Any]) -> List[Dict[str, Any]]:
    """Keywords of models to choose between by cross-validation: with the places of what is seen, or without; of images
    in colour that are large enough for textures, also without how they are turned and lit.

    Few, since few images choose among many by chance; several scales at once, which is as good as the best of them.
    What is given stays as it is.
    """
    least = min(size)
    own = max(1, min(LARGEST_J, round(math.log2(least)) - 2))
    try:
        J = operator.index(given.get('J') or max(given.get('scales') or [own]))
    except TypeError:
        return [dict(given)]                                    # which the model refuses
    small = least <= SMALL
    found: List[Dict[str, Any]] = []
    for pool in [given['global_pool']] if 'global_pool' in given else ['flat', 'avgstd']:
        # All scales in all places of a larger image would be too many numbers.
        finer = 2 if small else 0 if pool == 'flat' else 1
        found.append({'J': J, 'scales': tuple(range(max(1, J - finer), J + 1)), 'global_pool': pool, **given})
    # On few grey images (NEU steel) cross-validation took it where it was worse.
    if not small and channels > 1 and given.get('global_pool') != 'flat' and not given.get('nonexpansive'):
        found.append({'J': J, 'global_pool': 'avg', **INVARIANT, **given})
    return found


def training(asked: Dict[str, Any], count: int, linear: bool) -> Training:
    """How to train on so many images by gradients; what is asked for stays as it is.

    The more images, the more steps, as their root; of few images, small batches.

    Args:
        asked: fields of `Training` by name.
        linear: whether the model is linear behind its scattering, and begins with a fitted classifier.
    """
    batch_size = asked.get('batch_size') or next(b for n, b in ((300, 16), (3000, 32), (20_000, 64), (math.inf, 128))
                                                 if count <= n)
    updates = max(1, count // min(batch_size, count))
    many = count > 20_000
    chosen = {
        'batch_size': batch_size, 'epochs': max(5, round((20 if linear else 50) * math.sqrt(count) / updates)),
        'weight_decay': 0.5 if many and linear else Training.weight_decay,
        'label_smoothing': 0.1 if many else Training.label_smoothing,
        'augment': 'none' if linear else 'shift'}
    return Training(**{**chosen, **asked})


def with_mirror_images(augment: str) -> str:
    """The augmentation for images that are as well seen in a mirror."""
    return {'none': 'flip', 'shift': 'shift-flip'}.get(augment, augment)


def rate(started: bool, fitted_features: Optional[int]) -> float:
    """The peak learning rate of Adam.

    Each step moves each weight by about the rate, and so the output of a linear layer by as many times that as it has
    features: one that is fitted already would be torn apart.

    Args:
        started: whether the model begins with weights that were trained before.
        fitted_features: how many features a fitted classifier has on norms alone, None without one.
    """
    if fitted_features is not None:
        return min(Training.lr, 1 / fitted_features)
    return 2e-4 if started else Training.lr


def told(training: Training, count: int) -> str:
    """How the model is trained, in a line."""
    return (f'{training.epochs} epochs of {training.opt} at {training.lr:.2g}, batches of {training.batch_size}, label '
            f'smoothing {training.label_smoothing:g}, augmentation {training.augment}: what {count:,} images call for, '
            'or was asked for')


def better(right: Optional[np.ndarray], than: Optional[np.ndarray]) -> bool:
    """Whether answers are right for more images than others are, by more than two standard errors of the difference.

    Args:
        right, than: for each validation image whether it is right; None without any.
    """
    if right is None or than is None:
        return False
    gained, lost = np.sum(right & ~than), np.sum(than & ~right)
    return bool(gained - lost > 2 * math.sqrt(gained + lost))
