"""A linear classifier on the features of a model, fitted at once: linear discriminant analysis of few images, logistic
regression of many, or where training goes on from there; with features chosen by cross-validation.

From few images this beats gradient descent on the same classifier, which stops early or overfits, and takes seconds.
It is the floor that training has to rise above.
"""
import warnings
from operator import attrgetter
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader

from ..models.model import ScatteringModel
from ..wording import brief
from . import linear
from .data import Prepared
from .loop import targets_of
from .progress import bar as progress_bar
from .run_folder import read_json

FOLDS, MANY_CLASSES = 5, 100
# Images that are enough to choose features by; bytes of images or features that are kept at a time.
ENOUGH, MOST_BYTES = 1000, 1 << 29
BATCH, BATCH_NUMBERS = 256, 1 << 22


class Choice(NamedTuple):
    """Keywords of a model, the kind of classifier and its strength, one of `linear.STRENGTHS`, and whether it is fitted
    to what images and their mirror images have in common; with the mean log-loss and the accuracy in per cent of their
    cross-validation, None for both where the classes are too small for one."""
    kwargs: Dict[str, Any]
    classifier: str
    strength: float
    mirrored: bool
    loss: Optional[float]
    accuracy: Optional[float]

    def told(self) -> str:
        """The classifier, in a line."""
        regression = f'{linear.LOGISTIC} fitted to convergence, C = {self.strength:g}'
        told = regression if self.classifier == linear.LOGISTIC else f'{linear.DISCRIMINANT} with a shrunken covariance'
        return told + ', of images and their mirror images' * self.mirrored


def read(file: Path) -> Choice:
    """The choice that a run wrote down.

    Raises:
        ValueError: in one sentence, if the file holds none.
    """
    content = read_json(file, Choice._fields)
    choice = Choice(**{name: content[name] for name in Choice._fields})
    if not (isinstance(choice.kwargs, dict) and choice.strength in linear.STRENGTHS.get(str(choice.classifier), ())
            and isinstance(choice.mirrored, bool)
            and all(value is None or isinstance(value, float) for value in choice[4:])):
        raise ValueError(f'{brief(file)} is broken: expected the choice of a classifier, got {brief(content, 60)}')
    return choice


def stacked(dataset: Prepared) -> Tuple[Tensor, Tensor]:
    """Prepared images (n, C, H, W) and classes (n), of as many as take MOST_BYTES, an even share of each class.

    The order is that of the data set, in which classes may come one after the other: batches of it are no fair draw.
    """
    most = max(1, MOST_BYTES // (4 * dataset[0][0].numel()))
    part = torch.utils.data.Subset(dataset, evenly(torch.as_tensor(targets_of(dataset)), most).tolist())
    batches = list(progress_bar(DataLoader(part, BATCH), 'reading', unit='batch', leave=False, delay=1))
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
    fit(model, as_of(x, first, model), y, choice, balanced, device)
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

    Each is tried with mirror images too, which gave CIFAR-10 four points from 10 images a class; with the regression
    the best alone.

    Args:
        build: makes the model of some keywords.
        x, y: images (n, C, H, W), as the model of the first candidate takes them, and classes (n); of more than ENOUGH
            images, that many by class are taken.
        balanced: whether classes weigh alike, and not images.
        goes_on: whether the classifier is where training by gradients begins.
    """
    from sklearn.exceptions import ConvergenceWarning

    kind = linear.LOGISTIC if goes_on or balanced or len(y) > ENOUGH else linear.DISCRIMINANT
    if len(y) > ENOUGH:
        some = evenly(y, ENOUGH)
        x, y = x[some], y[some]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', ConvergenceWarning)
        warnings.simplefilter('ignore', UserWarning)                    # of classes that are smaller than FOLDS
        often, splits = _folds(y)
        if not splits:
            return Choice(dict(candidates[0]), linear.LOGISTIC, 1., False, None, None)
        if not all(_vary(x[often][train], y[often][train]) for train, _ in splits):
            kind = linear.LOGISTIC              # there is no covariance within the classes
        results: List[Choice] = []
        made: List[Tuple[ScatteringModel, Tensor]] = []
        first, classes = build(candidates[0]), y[often].numpy()
        with progress_bar(total=2 * len(candidates) * len(splits), desc='choosing features', unit='fit',
                          leave=False) as bar:
            for kwargs in candidates:
                model = build(kwargs).to(device)
                images = as_of(x, first, model)
                fit_norms(model, images, device)
                found = features(model, images[often], device)
                made.append((model, found))
                results.append(_cross_validated(Choice(dict(kwargs), kind, 1., False, None, None), found, found,
                                                classes, splits, balanced, bar))
            plain = min(results, key=attrgetter('loss'))
            for choice, (model, found) in zip(list(results), made):
                if kind == linear.DISCRIMINANT or choice is plain:      # the regression takes its time
                    common = _common(model, as_of(x, first, model)[often], found, device)
                    results.append(_cross_validated(choice._replace(mirrored=True), common, found, classes, splits,
                                                    balanced, bar))
    return min(results, key=attrgetter('loss'))


def _cross_validated(choice: Choice, x: Tensor, unseen: Tensor, y: np.ndarray,
                     splits: Sequence[Tuple[np.ndarray, np.ndarray]], balanced: bool, bar: Any) -> Choice:
    """The choice with the best strength and what it reaches, fitted to the features x and validated on the others."""
    found = linear.reduced(x, unseen)
    losses, right = np.zeros((2, len(linear.STRENGTHS[choice.classifier])))
    for train, test in splits:
        figures = linear.figures(choice.classifier, *found, y, train, test, balanced)
        losses, right = losses + figures[0] / len(splits), right + figures[1] / len(splits)
        bar.update()
    best = int(losses.argmin())
    return choice._replace(strength=linear.STRENGTHS[choice.classifier][best], loss=float(losses[best]),
                           accuracy=100 * float(right[best]))


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


def fit(model: ScatteringModel, x: Tensor, y: Tensor, choice: Choice, balanced: bool, device: torch.device) -> None:
    """Give the norms the statistics of these images, and the classifier the weights of the chosen on their features.

    Args:
        choice: what is told of the classifier; the model is one of its keywords.
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
    if choice.mirrored:
        found = _common(model, x, found, device)
    mean = found.mean(0)
    basis, coordinates = linear.span(found - mean)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', ConvergenceWarning)
        with linear.few_threads(coordinates.numpy()):
            unfitted = (linear.regression(choice.strength, balanced) if choice.classifier == linear.LOGISTIC
                        else linear.discriminant())
            fitted = unfitted.fit(coordinates.numpy(), y.numpy())
    weight, bias = (torch.from_numpy(a).double() for a in linear.coefficients(fitted))
    if choice.classifier == linear.DISCRIMINANT:
        weight, bias = choice.strength * weight, choice.strength * bias
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


@torch.inference_mode()
def _common(model: ScatteringModel, x: Tensor, found: Tensor, device: torch.device) -> Tensor:
    """Mean features of images (n, C, H, W) and their mirror images, left for right; `found` are those of the former.

    A mirror swaps features and makes none, so what a classifier that is fitted to these means says of an image it says
    of its mirror image, but for the part of a window by which the grid of the maps moves.
    """
    return features(model, x.flip(3), device).add_(found).div_(2)


def _batch_size(x: Tensor) -> int:
    """Fewer of large images, whose feature maps take hundreds of times their memory."""
    return max(16, min(BATCH, BATCH_NUMBERS // x[0].numel()))


def evenly(y: Tensor, most: int) -> Tensor:
    """Indices of at most about `most` images, as many of each class as there are or as its share, one at least."""
    generator = torch.Generator().manual_seed(0)
    chosen = []
    for c in y.unique():
        of_class = torch.nonzero(y == c).flatten()
        count = max(2, round(most * len(of_class) / len(y)))
        chosen.append(of_class[torch.randperm(len(of_class), generator=generator)[:count]])
    return torch.cat(chosen).sort().values
