"""Linear classifiers fitted at once: logistic regression, and linear discriminant analysis with a shrunken covariance.

Both are scikit-learn's, and all rows are float64.
"""
from typing import Any, ContextManager, Iterator, Optional, Tuple

import numpy as np
import torch
from torch import Tensor

LOGISTIC, DISCRIMINANT = 'logistic regression', 'linear discriminant analysis'
# What is tried of each: inverse strengths of the l2 penalty, as scikit-learn's C, from strong to weak; and numbers that
# the scores of the analysis, which is far too certain of itself, are multiplied with: no decision depends on them.
STRENGTHS = {LOGISTIC: [10. ** power for power in range(-4, 4)],
             DISCRIMINANT: [2. ** power for power in range(-8, 1)]}
# Part of the identity in the covariance within the classes. Of 0.01 to 0.95, on other training images of Fashion-MNIST
# and NEU, the best from 100 as from 1,000 images, within half a point.
SHRINKAGE = 0.1
# Bytes of features below which a second thread slows the products down: they are small, and it waits at each.
ALONE = 1 << 27


def figures(kind: str, x: np.ndarray, unseen: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray,
            balanced: bool) -> np.ndarray:
    """Log-loss and share of right answers on a fold (2, strengths), for each strength of this kind.

    The loss is what it would be if one image of all that there are had a class by chance: where all answers are right,
    the surest are not the best.

    Args:
        x, unseen: features of all images, to fit to and to answer for.
    """
    from sklearn.utils.class_weight import compute_sample_weight

    weights = compute_sample_weight('balanced', y[test]) if balanced else None
    classes, scores = _along_path(kind, x[train], y[train], unseen[test], balanced)
    truth, by_chance = np.searchsorted(classes, y[test])[:, None], 1 / len(y)
    found = []
    for s in scores:
        told = torch.from_numpy(s).log_softmax(1).numpy()
        sure = (1 - by_chance) * np.take_along_axis(told, truth, 1)[:, 0] + by_chance * told.mean(1)
        right = told.argmax(1) == truth[:, 0]
        found.append((-np.average(sure, weights=weights), np.average(right, weights=weights)))
    return np.array(found).T


def _along_path(kind: str, x: np.ndarray, y: np.ndarray, unseen: np.ndarray,
                balanced: bool) -> Tuple[np.ndarray, Iterator[np.ndarray]]:
    """The classes, and for each strength their scores of what is unseen (n, classes)."""
    classes = np.unique(y)
    if kind == DISCRIMINANT:
        weight, bias = coefficients(discriminant().fit(x, y))
        return classes, (scale * (unseen @ weight.T + bias) for scale in STRENGTHS[kind])
    return classes, _logistic_path(x, y, unseen, balanced)


def _logistic_path(x: np.ndarray, y: np.ndarray, unseen: np.ndarray, balanced: bool) -> Iterator[np.ndarray]:
    """The same of the regression, each fit starting where the last ended."""
    model = regression(1., balanced)
    for C in STRENGTHS[LOGISTIC]:
        with few_threads(x):
            model.set_params(C=C).fit(x, y)
        weight, bias = coefficients(model)
        yield unseen @ weight.T + bias


def coefficients(model: Any) -> Tuple[np.ndarray, np.ndarray]:
    """Weights (classes, features) and biases (classes)."""
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:                                        # scikit-learn gives the one difference of two classes
        return np.concatenate([-weight / 2, weight / 2]), np.concatenate([-bias / 2, bias / 2])
    return weight, bias


def regression(C: float, balanced: bool) -> Any:
    """With an l2 penalty of inverse strength C; balanced, classes weigh alike, and not images."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=C, max_iter=500, class_weight='balanced' if balanced else None, warm_start=True)


def discriminant() -> Any:
    """Friedman, Regularized Discriminant Analysis, 1989, with one covariance for all classes."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    return LinearDiscriminantAnalysis(solver='lsqr', shrinkage=SHRINKAGE)


def few_threads(x: np.ndarray) -> ContextManager:
    from threadpoolctl import threadpool_limits  # scikit-learn's own

    return threadpool_limits(1 if x.nbytes < ALONE else None)


def span(x: Tensor) -> Tuple[Optional[Tensor], Tensor]:
    """Of centred features (n, d), more than images: an orthonormal basis (d, n) of what they span, and the coordinates
    (n, n). The weights of either classifier lie in that span, so nothing is lost. Else, None and x."""
    x = x.double()
    if x.shape[1] <= x.shape[0]:
        return None, x
    basis, upper = torch.linalg.qr(x.T)
    return basis, upper.T.contiguous()


def reduced(x: Tensor, unseen: Tensor) -> Tuple[np.ndarray, np.ndarray]:
    """Features (n, d), less the mean of the first, in coordinates of the span of these."""
    basis, coordinates = span(x - x.mean(0))
    others = (unseen - x.mean(0)).double()
    return coordinates.numpy(), (others if basis is None else others @ basis).numpy()
