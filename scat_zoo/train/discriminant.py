"""A classifier in closed form on trained features: linear discriminant analysis."""
import importlib.util
import itertools

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from .distributed import rank


def check(passes: int) -> None:
    """Refuse to begin without scikit-learn where it is needed.

    Raises:
        ValueError: in one sentence.
    """
    if passes and importlib.util.find_spec('sklearn') is None:
        raise ValueError('linear discriminant analysis needs scikit-learn: install it, or scat_zoo with the extra lda')


@torch.inference_mode()
def fit(model: nn.Module, images: Dataset, passes: int, device: torch.device, batch_size: int = 256) -> None:
    """Give the linear classifier of `model` the weights of linear discriminant analysis of these images' features.

    The covariance within the classes is shrunk (Ledoit and Wolf, A well-conditioned estimator for large-dimensional
    covariance matrices, 2004). Scattering coefficients are so correlated that gradient descent takes long to come near
    such a classifier; models compared before it does are compared by how fast theirs trains. Several passes over
    images turned at random tell it which directions do not matter.

    Args:
        model: one whose classifier is one linear layer on what `forward_head(x, pre_logits=True)` gives.
        images: prepared as for training: what is random in that differs from pass to pass.
        passes: over all images.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    model.eval()
    features, targets = [], []
    loader = DataLoader(images, batch_size)
    for x, y in tqdm(itertools.chain.from_iterable(loader for _ in range(passes)), 'discriminant',
                     passes * len(loader), unit='batch', dynamic_ncols=True, disable=rank() > 0, leave=False):
        features.append(model.forward_head(model.forward_features(x.to(device)), pre_logits=True).cpu().numpy())
        targets.append(y.numpy())
    lda = LinearDiscriminantAnalysis(solver='lsqr', shrinkage='auto')
    lda.fit(np.concatenate(features).astype(np.float64), np.concatenate(targets))
    classifier = model.get_classifier()
    weight, bias = lda.coef_, lda.intercept_
    if classifier.out_features == 2:                            # scikit-learn gives the one difference of the two
        weight, bias = np.concatenate([-weight / 2, weight / 2]), np.concatenate([-bias / 2, bias / 2])
    classifier.weight.copy_(torch.from_numpy(weight))
    classifier.bias.copy_(torch.from_numpy(bias))
