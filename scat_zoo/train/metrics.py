"""The figures of a test: a model's probabilities for images, what follows from them, and how that is printed."""
import importlib.util
import unicodedata
import warnings
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from ..wording import brief, shown
from .data import Prepared
from .distributed import gathered, rank, world_size
from .progress import bar

LISTED = 30                     # of more classes than these, `report` lists WORST
WORST = 10
CONFUSED = 12                   # up to so many classes, `report` prints the confusion matrix
WIDEST = 40                     # columns of the terminal for a class's name


def check() -> None:
    """Refuse to begin without scikit-learn.

    Raises:
        ValueError: in one sentence.
    """
    if importlib.util.find_spec('sklearn') is None:
        raise ValueError('figures of a test need scikit-learn: install it, or scat_zoo with the extra train')


@torch.inference_mode()
def probabilities(model: nn.Module, dataset: Prepared, device: torch.device,
                  batch_size: int = 256) -> Tuple[np.ndarray, np.ndarray]:
    """Targets (n,) and the model's probabilities (n, classes), float32, in the data set's order.

    Each process works on its part of the images; all return the whole. The model is on the device already, and is left
    in eval mode.

    Raises:
        FloatingPointError: if an output is not finite.
    """
    model.eval()
    targets, found = [torch.empty(0, dtype=torch.int64)], []
    part = Subset(dataset, range(rank(), len(dataset), world_size()))
    # A generator of its own: the loader's draw of a seed must not move the global one, which augmentation uses.
    loader = DataLoader(part, batch_size, generator=torch.Generator().manual_seed(0))
    for images, classes in bar(loader, 'test', leave=False, unit='batch', disable=rank() > 0):
        logits = model(images.to(device)).float()                               # (batch, classes)
        # One infinite logit would leave finite probabilities.
        logits = logits.masked_fill(~logits.isfinite().all(1, keepdim=True), torch.nan)
        targets.append(classes)
        found.append(logits.softmax(1).cpu())
    parts = gathered((torch.cat(targets).numpy(), torch.cat(found).numpy() if found else None))
    columns = max((p.shape[1] for _, p in parts if p is not None), default=0)
    all_targets, all_found = np.empty(len(dataset), np.int64), np.empty((len(dataset), columns), np.float32)
    for i, (of_part, p) in enumerate(parts):
        if p is not None:                                       # fewer images than processes leave some without
            all_targets[i::world_size()], all_found[i::world_size()] = of_part, p
    bad = np.count_nonzero(~np.isfinite(all_found).all(1))
    if bad:                                                     # told of all images, so that every process stops
        raise FloatingPointError(f"the model's output is not finite for {bad:,} of {len(dataset):,} images: "
                                 'its weights or the images hold NaN, or numbers far too large; if it was trained just '
                                 'now, try a lower --lr')
    return all_targets, all_found


def summary(targets: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]) -> Dict[str, Any]:
    """What these answers are worth, ready for JSON: accuracies, recall and precision in per cent, None where undefined.

    `balanced_accuracy` is the mean recall of the classes that have images; `majority_accuracy` that of always
    answering the commonest class of these images; `roc_auc` the mean over the classes of each against the rest, for
    two classes the usual one, undefined if a class has no image; `confusion` has a row a true class, a column an
    answer.

    Args:
        targets: class indices (n,).
        probabilities: (n, classes).

    Raises:
        ValueError: in one sentence, without scikit-learn or images, or if the arguments do not fit one another.
    """
    check()
    from sklearn.metrics import balanced_accuracy_score, confusion_matrix, precision_recall_fscore_support

    targets, probabilities = np.asarray(targets), np.asarray(probabilities, np.float64)
    n, k = len(targets), len(classes)
    _check_fit(targets, probabilities, k)
    answers, labels = probabilities.argmax(1), np.arange(k)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')                         # answers of classes that have no image, only one class
        precision, recall, _, images = precision_recall_fscore_support(
            targets, answers, labels=labels, zero_division=np.nan)
        balanced = balanced_accuracy_score(targets, answers)
        confusion = confusion_matrix(targets, answers, labels=labels)
    return {
        'images': n,
        'accuracy': _per_cent(np.mean(answers == targets)),
        'balanced_accuracy': _per_cent(balanced),
        'majority_accuracy': _per_cent(images.max() / n),
        'roc_auc': _roc_auc(targets, probabilities) if images.all() and k > 1 else None,
        'classes': [{'name': name, 'images': int(i), 'recall': _per_cent(r), 'precision': _per_cent(p)}
                    for name, i, r, p in zip(classes, images, recall, precision)],
        'confusion': confusion.tolist()}


def _check_fit(targets: np.ndarray, probabilities: np.ndarray, k: int) -> None:
    n = len(targets)
    if targets.shape != (n,) or probabilities.shape != (n, k) or n == 0:
        raise ValueError(f'expected class indices (n,) of at least one image, and probabilities (n, {k}) for the '
                         f'{k} classes, got shapes {brief(targets.shape, 40)} and '
                         f'{brief(probabilities.shape, 40)}')
    if targets.min() < 0 or targets.max() >= k or not np.isfinite(probabilities).all():
        raise ValueError(f'expected class indices from 0 to {k - 1} and finite probabilities, got indices from '
                         f'{targets.min()} to {targets.max()} and '
                         f'{np.count_nonzero(~np.isfinite(probabilities)):,} numbers that are not finite')


def _roc_auc(targets: np.ndarray, probabilities: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    k = probabilities.shape[1]
    if k == 2:
        return float(roc_auc_score(targets, probabilities[:, 1]))
    probabilities = probabilities / probabilities.sum(1, keepdims=True)         # float32's do not add up to one exactly
    return float(roc_auc_score(targets, probabilities, multi_class='ovr', average='macro', labels=range(k)))


def _per_cent(value: float) -> Optional[float]:
    return None if np.isnan(value) else 100 * float(value)


def report(summary: Dict[str, Any]) -> str:
    """The figures of `summary` for a terminal, in lines; the first begins `test accuracy 91.45 % `."""
    classes, confusion = summary['classes'], summary['confusion']
    area = 'undefined: a class has no image' if summary['roc_auc'] is None else f'{summary["roc_auc"]:.3f}'
    lines = [f'test accuracy {summary["accuracy"]:.2f} % of {summary["images"]:,} images '
             f'(balanced {summary["balanced_accuracy"]:.2f} %, '
             f'always the commonest class {summary["majority_accuracy"]:.2f} %), ROC AUC {area}']
    shown = classes
    if len(classes) > LISTED:
        shown = sorted((c for c in classes if c['recall'] is not None), key=lambda c: c['recall'])[:WORST]
        lines.append(f'of {len(classes):,} classes, the {len(shown)} of lowest recall:')
    names = [_cell(c['name']) for c in shown]
    width = max(_columns(name) for name in ['class', *names])
    lines.append(f'{_padded("class", width)}  images    recall  precision')
    lines += [f'{_padded(name, width)}{c["images"]:8,}{_figure(c["recall"]):>10}{_figure(c["precision"]):>11}'
              for name, c in zip(names, shown)]
    if len(classes) <= CONFUSED:
        digits = max(len(str(count)) for row in confusion for count in row)
        lines.append('confusion: a row the images of a class, a column those taken for a class, in the same order')
        lines += [_padded(name, width) + ''.join(f'  {count:{digits}}' for count in row)
                  for name, row in zip(names, confusion)]
    return '\n'.join(lines)


def _figure(per_cent: Optional[float]) -> str:
    return '-' if per_cent is None else f'{per_cent:.2f} %'


def _cell(name: str) -> str:
    """The name in one line of at most WIDEST columns."""
    name = shown(name)
    if _columns(name) <= WIDEST:
        return name
    kept: List[str] = []
    for c in name:
        if _columns(''.join(kept) + c) > WIDEST - 1:
            break
        kept.append(c)
    return ''.join(kept) + '…'


def _columns(text: str) -> int:
    """How many columns of a terminal the text takes: two for a wide sign, none for one that stands over another."""
    return sum(0 if unicodedata.category(c) in ('Mn', 'Me') else 2 if unicodedata.east_asian_width(c) in 'WF' else 1
               for c in text)


def _padded(text: str, width: int) -> str:
    return text + ' ' * (width - _columns(text))
