"""Linear discriminant analysis: a classifier in closed form on trained features, and filters trained through it."""
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Dict, List, Optional, Tuple, Union

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from ..models.model import ScatteringModel
from . import loop
from .data import Prepared
from .distributed import gathered, rank, world_size
from .linear import coefficients
from .loop import Training
from .progress import bar

# Of the classifier that an epoch of the filters goes through. Few, since every epoch draws others.
PASSES_OF_AN_EPOCH = 2
IMAGES_FOR_THE_SCALE = 1000
MOST_FEATURES = 16_000              # 2 GB of covariance, in float64; scikit-learn keeps about three such matrices


def check(training: Training, model: ScatteringModel) -> None:
    """Refuse to begin without scikit-learn where it is needed, with epochs that nothing would end, or with so many
    features that their covariance would not fit into memory.

    Raises:
        ValueError: in one sentence.
    """
    if training.lda_epochs and not training.lda:
        raise ValueError(f'--lda-epochs {training.lda_epochs} needs a discriminant analysis at the end too: give the '
                         'number of its passes by --lda, 1 or more')
    if training.lda and importlib.util.find_spec('sklearn') is None:
        raise ValueError(
            'linear discriminant analysis needs scikit-learn: install it, or scat_zoo with the extra train')
    features = model.get_classifier().in_features if training.lda else 0
    if features > MOST_FEATURES:
        raise ValueError(f'linear discriminant analysis of {features:,} features needs several matrices of '
                         f'{8e-9 * features ** 2:.0f} GB: take at most {MOST_FEATURES:,}, with global_pool=avg perhaps')


def finish(model: ScatteringModel, images: Prepared, val: Optional[Prepared], training: Training,
           device: torch.device, state_file: Path, title: str, line: int = 0) -> List[Dict[str, float]]:
    """What `training` asks for after its ordinary epochs: train learned filters through such a classifier, then fit it.

    Before each of these epochs the classifier is fitted anew, and stays as it is within the epoch, and so do the norms:
    only the filters follow the gradient. (Training both together, the filters serve a classifier that is far from the
    one they end with.)

    Args, return value and exceptions: as for `loop.fit`, whose `state_file` is another.
    """
    history: List[Dict[str, float]] = []
    if training.lda_epochs and any(p.requires_grad for p in model.scattering.parameters()):
        model.freeze_classifier()
        history = loop.fit(model, images, val, replace(training, epochs=training.lda_epochs), device, state_file,
                           f'{title}, discriminant', line, lambda: fit(model, images, PASSES_OF_AN_EPOCH, device))
        model.unfreeze_classifier()
    if training.lda:
        fit(model, images, training.lda, device)
    return history


@torch.no_grad()
def fit(model: ScatteringModel, images: Prepared, passes: int, device: torch.device) -> None:
    """Give the linear classifier of `model` the weights of linear discriminant analysis of these images' features.

    The covariance within the classes is shrunk (Ledoit and Wolf, A well-conditioned estimator for large-dimensional
    covariance matrices, 2004). Scattering coefficients are so correlated that gradient descent takes long to come near
    such a classifier; models compared before it does are compared by how fast theirs trains. Several passes over
    images turned at random tell it which directions do not matter.

    What the analysis believes of images it has seen is far too certain: the logits are scaled by the number that makes
    the cross-entropy of one more draw of up to 1,000 of the images smallest. That changes no decision.

    Args:
        model: one whose classifier is one linear layer on what `forward_head(x, pre_logits=True)` gives.
        images: prepared as for training: what is random in that differs from pass to pass.
        passes: over all images.
    """
    from scipy.optimize import minimize_scalar
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    model.eval()
    drawn = [_features(model, images, device) for _ in range(passes)]
    lda = LinearDiscriminantAnalysis(solver='lsqr', shrinkage='auto')
    lda.fit(torch.cat([features for features, _ in drawn]).double().numpy(),
            torch.cat([targets for _, targets in drawn]).numpy())
    classifier = model.get_classifier()
    weight, bias = (torch.from_numpy(array) for array in coefficients(lda))

    some = np.linspace(0, len(images), min(len(images), IMAGES_FOR_THE_SCALE), endpoint=False).astype(int).tolist()
    features, targets = _features(model, Subset(images, some), device)
    logits = F.linear(features.double(), weight, bias)
    # Bounded, since what is told apart without an error would be scaled to infinity.
    log_scale = minimize_scalar(lambda log_scale: F.cross_entropy(logits * np.exp(log_scale), targets).item(),
                                bounds=(-7, 1), method='bounded').x
    classifier.weight.copy_(weight * np.exp(log_scale))
    classifier.bias.copy_(bias * np.exp(log_scale))


def _features(model: ScatteringModel, images: Union[Prepared, Subset], device: torch.device,
              batch_size: int = 256) -> Tuple[Tensor, Tensor]:
    """What the classifier gets, and the targets, of all images; each process computes a part."""
    part = Subset(images, range(rank(), len(images), world_size()))
    features, targets = [], []
    for x, y in bar(DataLoader(part, batch_size), 'discriminant', unit='batch', disable=rank() > 0, leave=False):
        features.append(model.forward_head(model.forward_features(x.to(device)), pre_logits=True).cpu().numpy())
        targets.append(y.numpy())
    parts = gathered((np.concatenate(features), np.concatenate(targets)))
    return (torch.from_numpy(np.concatenate([part[0] for part in parts])),
            torch.from_numpy(np.concatenate([part[1] for part in parts])))
