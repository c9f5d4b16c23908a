"""A linear classifier on the features of a model, fitted at once: linear discriminant analysis of few images, logistic
regression of many, or where training goes on from there; with features chosen by cross-validation.

From few images this beats gradient descent on the same classifier, which stops early or overfits, and takes seconds.
It is the floor that training has to rise above.
"""
import warnings
from operator import attrgetter
from typing import Any, Callable, ContextManager, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..models.model import ScatteringModel
from .data import Prepared
from .loop import targets_of

LOGISTIC, DISCRIMINANT = 'logistic regression', 'linear discriminant analysis'
# What is tried of each: inverse strengths of the l2 penalty, as scikit-learn's C, from strong to weak; and numbers that
# the scores of the analysis, which is far too certain of itself, are multiplied with: no decision depends on them.
STRENGTHS = {LOGISTIC: [10. ** power for power in range(-4, 4)],
             DISCRIMINANT: [2. ** power for power in range(-14, 1)]}
# Part of the identity in the covariance within the classes. Of 0.01 to 0.95, on other training images of Fashion-MNIST
# and NEU, the best from 100 as from 1,000 images, within half a point.
SHRINKAGE = 0.1
FOLDS, MANY_CLASSES = 5, 100
# Images that are enough to choose features by; bytes of images or features that are kept at a time.
ENOUGH, MOST_BYTES = 1000, 1 << 29
BATCH, BATCH_NUMBERS = 256, 1 << 22
# Bytes of features below which a second thread slows the products down: they are small, and it waits at each.
ALONE = 1 << 27


class Choice(NamedTuple):
    """Keywords of a model, the kind of classifier and its strength, one of STRENGTHS, with the mean log-loss and the
    accuracy in per cent of their cross-validation; None for both where the classes are too small for one."""
    kwargs: Dict[str, Any]
    classifier: str
    strength: float
    loss: Optional[float]
    accuracy: Optional[float]

    def told(self) -> str:
        """The classifier, in a line."""
        return (f'{LOGISTIC} fitted to convergence, C = {self.strength:g}' if self.classifier == LOGISTIC else
                f'{DISCRIMINANT} with a shrunken covariance')


def stacked(dataset: Prepared) -> Tuple[Tensor, Tensor]:
    """Prepared images (n, C, H, W) and classes (n), of as many as take MOST_BYTES, an even share of each class.

    The order is that of the data set, in which classes may come one after the other: batches of it are no fair draw.
    """
    most = max(1, MOST_BYTES // (4 * dataset[0][0].numel()))
    part = torch.utils.data.Subset(dataset, evenly(torch.as_tensor(targets_of(dataset)), most).tolist())
    batches = list(tqdm(DataLoader(part, BATCH), 'reading', unit='batch', dynamic_ncols=True, leave=False, delay=1))
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def as_of(x: Tensor, model: ScatteringModel, other: ScatteringModel) -> Tensor:
    """Images (n, C, H, W) that are normalised for `model`, as `other` takes them, which may differ in that alone."""
    before, after = model.pretrained_cfg, other.pretrained_cfg
    if all(tuple(before[name]) == tuple(after[name]) for name in ('mean', 'std')):
        return x
    (mean, std), (new_mean, new_std) = (
        [torch.tensor(cfg[name]).reshape(-1, 1, 1) for name in ('mean', 'std')] for cfg in (before, after))
    return (x * std + mean - new_mean) / new_std


def best(candidates: Sequence[Dict[str, Any]], build: Callable[[Dict[str, Any]], ScatteringModel],
         prepare: Callable[[ScatteringModel], Prepared], balanced: bool, goes_on: bool,
         device: torch.device) -> Tuple[ScatteringModel, Choice]:
    """The model of what `choose` chooses, fitted, and the choice.

    Args:
        build, balanced, goes_on: as for `choose`.
        prepare: the training images as a model takes them.
    """
    first = build(candidates[0])
    x, y = stacked(prepare(first))
    choice = choose(candidates, build, x, y, balanced, goes_on, device)
    model = build(choice.kwargs)
    fit(model, as_of(x, first, model), y, choice.classifier, choice.strength, balanced, device)
    return model, choice


def choose(candidates: Sequence[Dict[str, Any]], build: Callable[[Dict[str, Any]], ScatteringModel], x: Tensor,
           y: Tensor, balanced: bool, goes_on: bool, device: torch.device) -> Choice:
    """The keywords, among those of `candidates`, and the strength with the least log-loss in cross-validation on these
    images.

    Up to ENOUGH images the classifier is discriminant analysis, which was right more often than the regression on
    other training images of all data that docs/your-pictures.md names. Training by gradients would only leave it,
    whereas the regression is the optimum that such training seeks; and weights of classes hardly move the analysis.

    The log-loss tells candidates apart by fewer images than the accuracy does. Folds are stratified, and a class of
    one image has no say. With few images there are several rounds of folds. The norms have seen the images of all
    folds, without their classes; and the accuracy is that of the best of all tried, so a little too high.

    Args:
        build: makes the model of some keywords.
        x, y: images (n, C, H, W), as the model of the first candidate takes them, and classes (n); of more than ENOUGH
            images, that many by class are taken.
        balanced: whether classes weigh alike, and not images.
        goes_on: whether the classifier is where training by gradients begins.
    """
    from sklearn.exceptions import ConvergenceWarning

    kind = LOGISTIC if goes_on or balanced or len(y) > ENOUGH else DISCRIMINANT
    if len(y) > ENOUGH:
        some = evenly(y, ENOUGH)
        x, y = x[some], y[some]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', ConvergenceWarning)
        warnings.simplefilter('ignore', UserWarning)                    # of classes that are smaller than FOLDS
        often, splits = _folds(y)
        if not splits:
            return Choice(dict(candidates[0]), LOGISTIC, 1., None, None)
        if not all(_vary(x[often][train], y[often][train]) for train, _ in splits):
            kind = LOGISTIC                     # there is no covariance within the classes
        results: List[Choice] = []
        with tqdm(total=len(candidates) * len(splits), desc='choosing features', unit='fit', dynamic_ncols=True,
                  leave=False) as bar:
            first = build(candidates[0])
            for kwargs in candidates:
                model = build(kwargs).to(device)
                images = as_of(x, first, model)
                fit_norms(model, images, device)
                found = reduced(features(model, images, device)[often])
                losses, right = np.zeros((2, len(STRENGTHS[kind])))
                for train, test in splits:
                    fold_losses, fold_right = _figures(kind, found, y[often].numpy(), train, test, balanced)
                    losses, right = losses + fold_losses / len(splits), right + fold_right / len(splits)
                    bar.update()
                best = int(losses.argmin())
                results.append(Choice(dict(kwargs), kind, STRENGTHS[kind][best], float(losses[best]),
                                      100 * float(right[best])))
    return min(results, key=attrgetter('loss'))


def _folds(y: Tensor) -> Tuple[Tensor, List[Tuple[np.ndarray, np.ndarray]]]:
    """Which images have others of their class, and of these, by fold, those to fit to and those to validate on; no
    folds where the classes are too small."""
    from sklearn.model_selection import RepeatedStratifiedKFold

    counts = torch.bincount(y)
    often = counts[y] > 1
    folds = min(FOLDS, int(counts.max()))
    if len(y[often].unique()) < 2 or folds < 2:
        return often, []
    # Hundreds of classes take as many times longer, and are told apart by fewer folds.
    folds = min(folds, FOLDS if len(counts) <= MANY_CLASSES else 2)
    rounds = RepeatedStratifiedKFold(n_splits=folds, n_repeats=max(1, min(4, 200 // len(y))), random_state=0)
    return often, list(rounds.split(y[often], y[often]))


def _vary(x: Tensor, y: Tensor) -> bool:
    """Whether images of one class differ, in any class."""
    return any((of_class != of_class[:1]).any().item() for of_class in (x[y == c] for c in y.unique()))


def _figures(kind: str, x: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray,
             balanced: bool) -> np.ndarray:
    """Log-loss and share of right answers on a fold (2, strengths), for each strength of this kind."""
    from sklearn.metrics import accuracy_score, log_loss
    from sklearn.utils.class_weight import compute_sample_weight

    weights = compute_sample_weight('balanced', y[test]) if balanced else None
    classes, scores = _along_path(kind, x[train], y[train], x[test], balanced)
    told = [torch.from_numpy(s).softmax(1).numpy() for s in scores]
    return np.array([[log_loss(y[test], p, labels=classes, sample_weight=weights) for p in told],
                     [accuracy_score(y[test], classes[p.argmax(1)], sample_weight=weights) for p in told]])


def _along_path(kind: str, x: np.ndarray, y: np.ndarray, unseen: np.ndarray,
                balanced: bool) -> Tuple[np.ndarray, Iterator[np.ndarray]]:
    """The classes, and for each strength their scores of what is unseen (n, classes)."""
    classes = np.unique(y)
    if kind == DISCRIMINANT:
        weight, bias = _coefficients(_discriminant().fit(x, y))
        return classes, (scale * (unseen @ weight.T + bias) for scale in STRENGTHS[kind])
    return classes, _logistic_path(x, y, unseen, balanced)


def _logistic_path(x: np.ndarray, y: np.ndarray, unseen: np.ndarray, balanced: bool) -> Iterator[np.ndarray]:
    """The same of the regression, each fit starting where the last ended."""
    model = _regression(1., balanced)
    for C in STRENGTHS[LOGISTIC]:
        with _few_threads(x):
            model.set_params(C=C).fit(x, y)
        weight, bias = _coefficients(model)
        yield unseen @ weight.T + bias


def _coefficients(model: Any) -> Tuple[np.ndarray, np.ndarray]:
    """Weights (classes, features) and biases (classes)."""
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:                                        # scikit-learn gives the one difference of two classes
        return np.concatenate([-weight / 2, weight / 2]), np.concatenate([-bias / 2, bias / 2])
    return weight, bias


def _regression(C: float, balanced: bool) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=C, max_iter=500, class_weight='balanced' if balanced else None, warm_start=True)


def _discriminant() -> Any:
    """Friedman, Regularized Discriminant Analysis, 1989, with one covariance for all classes."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    return LinearDiscriminantAnalysis(solver='lsqr', shrinkage=SHRINKAGE)


def _few_threads(x: np.ndarray) -> ContextManager:
    from threadpoolctl import threadpool_limits  # scikit-learn's own

    return threadpool_limits(1 if x.nbytes < ALONE else None)


def fit(model: ScatteringModel, x: Tensor, y: Tensor, kind: str, strength: float, balanced: bool,
        device: torch.device) -> None:
    """Give the norms the statistics of these images, and the classifier the weights of the kind's on their features.

    Args:
        balanced: whether classes weigh alike in the regression.
        model: one whose classifier is one linear layer on what `forward_head(x, pre_logits=True)` gives.
        x, y: images (n, C, H, W) and classes (n), each class at least once. Where their features are more than
            MOST_BYTES, an even spread of the images is used for the classifier.
    """
    from sklearn.exceptions import ConvergenceWarning

    model.to(device)
    fit_norms(model, x, device)
    classifier = model.get_classifier()
    most = max(1, MOST_BYTES // (4 * classifier.in_features))
    if len(x) > most:
        some = evenly(y, most)
        x, y = x[some], y[some]
    found = features(model, x, device)
    mean = found.mean(0)
    basis, coordinates = span(found - mean)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', ConvergenceWarning)
        with _few_threads(coordinates.numpy()):
            unfitted = _regression(strength, balanced) if kind == LOGISTIC else _discriminant()
            fitted = unfitted.fit(coordinates.numpy(), y.numpy())
    weight, bias = (torch.from_numpy(a).double() for a in _coefficients(fitted))
    if kind == DISCRIMINANT:
        weight, bias = strength * weight, strength * bias
    if basis is not None:
        weight = weight @ basis.T
    with torch.no_grad():
        # Classes that had no image are never the answer.
        classifier.weight.zero_()
        classifier.bias.fill_(float(bias.min()) - 30)
        present = torch.from_numpy(fitted.classes_)
        classifier.weight[present] = weight.to(classifier.weight)
        classifier.bias[present] = (bias - weight @ mean.double()).to(classifier.bias)


def fit_norms(model: nn.Module, x: Tensor, device: torch.device) -> None:
    """Give all batch norms the statistics of these images, in eval mode; in batches that are a draw of all of them."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    # No small batch at the end: the statistics are averages of the batches' own.
    batches = [x[part] for part in order.tensor_split(max(1, len(x) // _batch_size(x)))]
    update_bn(batches, model, device)
    model.eval()


@torch.inference_mode()
def features(model: ScatteringModel, x: Tensor, device: torch.device) -> Tensor:
    """What the classifier gets of images (n, C, H, W): (n, features), in float32 in main memory."""
    model.eval()
    return torch.cat([model.forward_head(model.forward_features(part.to(device)), pre_logits=True).float().cpu()
                      for part in x.split(_batch_size(x))]).clone()


def _batch_size(x: Tensor) -> int:
    """Fewer of large images, whose feature maps take hundreds of times their memory."""
    return max(16, min(BATCH, BATCH_NUMBERS // x[0].numel()))


def span(x: Tensor) -> Tuple[Optional[Tensor], Tensor]:
    """Of centred features (n, d), more than images: an orthonormal basis (d, n) of what they span, and the coordinates
    (n, n). The weights of an l2-penalised regression lie in that span, so nothing is lost. Else, None and x."""
    x = x.double()
    if x.shape[1] <= x.shape[0]:
        return None, x
    basis, upper = torch.linalg.qr(x.T)
    return basis, upper.T.contiguous()


def reduced(x: Tensor) -> np.ndarray:
    """Centred features, in coordinates of their span."""
    return span(x - x.mean(0))[1].numpy()


def evenly(y: Tensor, most: int) -> Tensor:
    """Indices of at most about `most` images, as many of each class as there are or as its share, one at least."""
    generator = torch.Generator().manual_seed(0)
    chosen = []
    for c in y.unique():
        of_class = torch.nonzero(y == c).flatten()
        count = max(2, round(most * len(of_class) / len(y)))
        chosen.append(of_class[torch.randperm(len(of_class), generator=generator)[:count]])
    return torch.cat(chosen).sort().values
