"""A hidden layer that begins from whitened features."""
from typing import Iterable, Optional, Tuple

import torch
import torch.nn.functional as F
from timm.utils import distribute_bn
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from .data import Prepared
from .distributed import gathered, rank, world_size
from .loop import Training
from .progress import bar

# Part of the mean variance that is added to all, lest directions in which hardly anything varies fill the layer.
FLOOR = 0.03
BATCH = 64
MOST_FEATURES = 5000                # half a minute for the eigenvectors of their covariance


def check(training: Training, model: nn.Module) -> None:
    """Refuse to begin with a model that has nothing to whiten, or too much.

    Raises:
        ValueError: in one sentence.
    """
    layer = _layer(model)
    if training.whiten and layer is None:
        raise ValueError(f'--whiten {training.whiten} needs a model with a hidden layer, such as scat_mlp')
    if training.whiten and layer is not None and layer.in_features > MOST_FEATURES:
        raise ValueError(f'--whiten takes at most {MOST_FEATURES:,} features, the hidden layer has '
                         f'{layer.in_features:,}: pool them, with global_pool=avg perhaps')


def _layer(model: nn.Module) -> Optional[nn.Linear]:
    """The hidden one of a head of the zoo."""
    return getattr(getattr(getattr(model, 'head', None), 'pre_logits', None), 'fc', None)


@torch.no_grad()
def begin(model: nn.Module, images: Prepared, passes: int, device: torch.device) -> None:
    """Change the hidden layer, as it begins, to one of features of which within a class none varies with another.

    Scattering coefficients are so correlated that gradient descent takes long to find what lies in their differences
    (LeCun et al., Efficient BackProp, 1998, section 4.3). Its weights W become W A, A being the root of the inverse of
    the covariance within the classes, and its bias takes the mean away.

    Args:
        model: one that `check` lets pass, as it begins; its norms have seen the images afterwards.
        images: prepared as for training: what is random in that differs from pass to pass. Each process has a part.
        passes: over all images, after one for the norms.

    Raises:
        ValueError: if the images of a class are all the same.
    """
    layer = _layer(model)
    assert layer is not None
    model.to(device).train()
    for x, _ in _batches(images):
        if len(x) > 1:                                          # one image is no batch to a norm
            model(x.to(device))
    if world_size() > 1:
        distribute_bn(model, world_size(), reduce=True)
    model.eval()
    sums, seen = Sums(model.num_classes, layer.in_features), []         # type: ignore[arg-type]
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for _ in range(passes):
        for x, y in _batches(images):
            model(x.to(device))
            sums.add(seen.pop(), y)
    hook.remove()
    sums.gather()
    whiten(layer, sums)


def _batches(images: Prepared) -> Iterable[Tuple[Tensor, Tensor]]:
    part = Subset(images, range(rank(), len(images), world_size()))
    # In another order each time: one class after the other, the norms would end with the last ones.
    return bar(DataLoader(part, BATCH, shuffle=True), 'whitening', unit='batch', disable=rank() > 0, leave=False)


class Sums:
    """Of features by class, and of their products, in float64: all that is asked of them here."""

    def __init__(self, classes: int, features: int) -> None:
        self.counts = torch.zeros(classes, dtype=torch.float64)
        self.totals = torch.zeros(classes, features, dtype=torch.float64)
        self.products = torch.zeros(features, features, dtype=torch.float64)

    def add(self, features: Tensor, targets: Tensor) -> None:
        """Features (n, d) of images of these classes (n,)."""
        x, of_class = features.cpu().double(), F.one_hot(targets.cpu(), len(self.counts)).double()
        self.counts += of_class.sum(0)
        self.totals += of_class.T @ x
        self.products.addmm_(x.T, x)

    def gather(self) -> None:
        """Add those of all processes."""
        self.counts, self.totals, self.products = (
            torch.stack(parts).sum(0) for parts in zip(*gathered((self.counts, self.totals, self.products))))

    def within(self) -> Tensor:
        """Covariance within the classes (d, d)."""
        scaled = self.totals / self.counts.clamp(min=1).sqrt()[:, None]
        return (self.products - scaled.T @ scaled) / self.counts.sum()

    def deviation(self, root: Tensor) -> Tensor:
        """Standard deviation of all numbers that the features times this matrix (d, d) are."""
        size = self.counts.sum() * len(root)
        return ((root @ self.products @ root.T).trace() / size - ((self.totals @ root).sum() / size) ** 2).sqrt()


def whiten(layer: nn.Linear, sums: Sums) -> None:
    """The same from sums of the layer's inputs, whose deviation stays as it is.

    Raises:
        ValueError: if they do not vary within the classes.
    """
    within, same = sums.within(), torch.eye(len(sums.products), dtype=torch.float64)
    variance = within.trace() / len(within)
    if not variance > 1e-12 * sums.products.trace() / len(within) / sums.counts.sum():
        raise ValueError(f'--whiten needs images of a class that differ, and got {sums.counts.sum():.0f} of '
                         f'{len(sums.counts)} classes that do not: take more of each class, or --augment')
    values, vectors = torch.linalg.eigh(within + FLOOR * variance * same)
    root = vectors @ torch.diag(values.rsqrt()) @ vectors.T
    root *= sums.deviation(same) / sums.deviation(root)
    weight = layer.weight.cpu().double() @ root
    layer.weight.copy_(weight)
    layer.bias.sub_((weight @ sums.totals.sum(0) / sums.counts.sum()).to(layer.bias))
