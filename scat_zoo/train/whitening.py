"""A hidden layer that begins from whitened features."""
from typing import Iterable, List, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from .data import Prepared
from .distributed import rank
from .loop import Training
from .progress import bar

# Part of the mean variance that is added to all, lest directions in which hardly anything varies fill the layer.
FLOOR = 0.03
BATCH = 64


def check(training: Training, model: nn.Module) -> None:
    """Refuse to begin with a model that has nothing to whiten.

    Raises:
        ValueError: in one sentence.
    """
    if training.whiten and _layer(model) is None:
        raise ValueError(f'--whiten {training.whiten} needs a model with a hidden layer, such as scat_mlp')


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
        images: prepared as for training: what is random in that differs from pass to pass.
        passes: over all images, after one for the norms. Under torchrun each process makes its own, and the first's
            count.
    """
    layer = _layer(model)
    assert layer is not None
    model.train()
    for x, _ in _batches(images):
        model(x.to(device))
    model.eval()
    seen: List[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].double().cpu()))
    targets = []
    for _ in range(passes):
        for x, y in _batches(images):
            model(x.to(device))
            targets.append(y)
    hook.remove()
    whiten(layer, torch.cat(seen), torch.cat(targets))


def _batches(images: Prepared) -> Iterable[Tuple[Tensor, Tensor]]:
    # In another order each time: one class after the other, the norms would end with the last ones.
    return bar(DataLoader(images, BATCH, shuffle=True), 'whitening', unit='batch', disable=rank() > 0, leave=False)


def whiten(layer: nn.Linear, features: Tensor, targets: Tensor) -> None:
    """The same from features (n, d), float64, and their classes (n,); the variance of what comes out stays as it is."""
    of_class = F.one_hot(targets).double()
    means = (of_class.T @ features) / of_class.sum(0).clamp(min=1)[:, None]
    within = (features - means[targets]).T.cov(correction=0)
    values, vectors = torch.linalg.eigh(within + FLOOR * within.trace() / len(within) * torch.eye(len(within)).double())
    root = vectors @ torch.diag(values.rsqrt()) @ vectors.T
    root *= features.std() / (features @ root).std()
    weight = layer.weight.double().cpu() @ root
    layer.weight.copy_(weight)
    layer.bias.sub_((weight @ features.mean(0)).to(layer.bias))
