"""Training a classifier so that it can be stopped and resumed: `fit`, and `evaluate`."""
import contextlib
import copy
import io
import operator
import random
import signal
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter, accuracy, distribute_bn
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, DataLoader, Subset

from ..models.model import param_groups
from ..wording import brief
from .data import Prepared
from .distributed import gathered, parallel, rank, total, world_size
from .progress import bar as progress_bar
from .run_folder import whole


@dataclass(frozen=True)
class Training:
    """How to train: timm's optimiser by name, a cosine schedule with warm-up, cross-entropy.

    Batch size, learning rates and workers are those of each process. Filters have a rate of their own, by default that
    of `scat_zoo.param_groups`, and no decay. `augment` is a name of `augment.NAMES`; `amp` computes in bfloat16 what
    torch's autocast does, on processors that have it; `whiten`, if not 0, is the number of passes over the augmented
    images by which `whitening.begin` prepares a hidden layer; `lda` is that by which `discriminant.fit` replaces the
    classifier after the last epoch, and before that come `lda_epochs` more, which train the filters alone, through such
    a classifier. `class_weights` 'balanced' weighs the loss of an image by the inverse number of images of its class.
    """
    epochs: int
    batch_size: int = 32
    opt: str = 'adamw'
    lr: float = 1e-3
    filter_lr: Optional[float] = None
    weight_decay: float = 0.05
    warmup_epochs: int = 1
    label_smoothing: float = 0.2
    augment: str = 'none'
    class_weights: str = 'none'
    amp: bool = False
    whiten: int = 0
    lda: int = 0
    lda_epochs: int = 0
    seed: int = 0
    workers: int = 0


def fit(model: nn.Module, train: Prepared, val: Optional[Prepared], training: Training, device: torch.device,
        state_file: Path, title: str, line: int = 0, before_epoch: Optional[Callable[[], None]] = None,
        after_epoch: Optional[Callable[[List[Dict[str, float]]], None]] = None) -> List[Dict[str, float]]:
    """Train the model in place; return train loss and validation accuracy, if there is a validation set, by epoch.

    The state goes to `state_file` after each epoch, and soon after Ctrl-C. If the file exists, training goes on from
    there; without workers, and with the same number of threads, to the same bits as without a stop. On a CPU it takes
    all of torch's threads if they make a step faster than one does, which beside busy neighbours they don't; a run that
    goes on takes as many as before.

    Parts of the model of which no parameter requires a gradient stay as they are, with what their norms have seen.

    Under torchrun, N processes train on batches N times as large, each on its part of every batch.

    Args:
        line: of the terminal, on which the progress bar stands.
        before_epoch: called before each epoch; the optimiser knows nothing of what it does to the model.
        after_epoch: called after each epoch with the history up to then.

    Raises:
        KeyboardInterrupt: after Ctrl-C, with the state saved.
        FloatingPointError: when the loss is not finite.
    """
    run = _Run(model, train, training, device, state_file)
    with _threads(run.threads), _noticing_ctrl_c() as stopped, progress_bar(
            total=training.epochs * run.updates, initial=run.done, desc=title, unit='step', disable=rank() > 0,
            position=line, leave=line == 0) as bar:
        for epoch in range(len(run.history), training.epochs):
            bar.set_description(f'{title}, epoch {epoch + 1}/{training.epochs}', refresh=False)
            if before_epoch is not None and run.done == epoch * run.updates:
                before_epoch()
            run.train(train, epoch, bar, stopped)
            run.end(epoch, val)
            bar.set_postfix(run.history[-1], refresh=False)
            if after_epoch is not None and rank() == 0:
                after_epoch(run.history)
            if _all_stop(stopped(), device):            # Ctrl-C came in the validation
                raise KeyboardInterrupt
    model.to(memory_format=torch.contiguous_format)             # as safetensors want it
    return run.history


class _Run:
    """A training that is under way: what it needs, how far it has come, and the file that tells it."""

    def __init__(self, model: nn.Module, train: Prepared, training: Training, device: torch.device, file: Path) -> None:
        self.model, self.training, self.device, self.file = model, training, device, file
        model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.batch_size = min(training.batch_size * world_size(), len(train))   # of all processes together
        self.updates = len(train) // self.batch_size    # of an epoch; the rest of its images are left out
        groups = model if not hasattr(model, 'scattering') else param_groups(
            model, training.lr, training.filter_lr, training.weight_decay)
        self.optimizer = create_optimizer_v2(
            groups, opt=training.opt, lr=training.lr, weight_decay=training.weight_decay)
        self.scheduler, _ = create_scheduler_v2(
            self.optimizer, sched='cosine', num_epochs=training.epochs, warmup_epochs=training.warmup_epochs,
            step_on_epochs=False, updates_per_epoch=self.updates)
        weights = class_weights(train, training)
        self.weights = None if weights is None else weights.to(device)
        self.history: List[Dict[str, float]] = []
        self.done, self.loss_sum = 0, torch.zeros((), device=device)    # updates done; sum of this epoch's losses
        threads = self._restore() if file.exists() else None
        self.threads = threads or helpful_threads(model, train, self.batch_size, device)
        self.parallel = parallel(model, device)
        self.half = training.amp and has_bfloat16(device)

    def train(self, images: Prepared, epoch: int, bar: Any, stopped: Callable[[], bool]) -> None:
        """What is left of this epoch.

        Raises:
            KeyboardInterrupt: if it is to stop, with the state saved.
        """
        self.model.train()
        for part in self.model.children():
            if {p.requires_grad for p in part.parameters()} == {False}:
                part.eval()
        skip = self.done - epoch * self.updates
        for x, targets in _batches(images, self.batch_size, epoch, skip, self.training):
            self._step(x.to(self.device), targets.to(self.device))
            bar.update()
            # Several processes ask one another; that takes time, so not at every step.
            if (world_size() == 1 or self.done % 10 == 0) and _all_stop(stopped(), self.device):
                self.save()
                raise KeyboardInterrupt

    def _step(self, images: Tensor, targets: Tensor) -> None:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            logits = self.parallel(images).float()
        loss = F.cross_entropy(
            logits, targets, weight=self.weights, label_smoothing=self.training.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.done += 1
        self.scheduler.step_update(self.done)
        self.loss_sum += loss.detach()

    def end(self, epoch: int, val: Optional[Prepared]) -> None:
        """Add to the history what this epoch came to, and save the state.

        Raises:
            FloatingPointError: if the loss is not finite.
        """
        mean_loss = total(self.loss_sum).item() / world_size() / self.updates
        if not np.isfinite(mean_loss):
            raise FloatingPointError(f'the training loss is {mean_loss} in epoch {epoch + 1}, at a learning rate of '
                                     f'{self.training.lr:g}: try a lower --lr')
        if world_size() > 1:
            distribute_bn(self.model, world_size(), reduce=True)
        self.history.append({'loss': mean_loss})
        if val is not None:
            self.history[-1]['val_accuracy'] = evaluate(self.model, val, self.device)
        self.loss_sum.zero_()
        self.save()

    def save(self) -> None:
        state: Any = np.random.get_state()
        kind, keys, *position = state
        # Plain numbers: tensors do not survive the way between processes.
        random_states = gathered([torch.get_rng_state().tolist(), random.getstate(), [kind, keys.tolist(), *position]])
        progress = {name: getattr(self, name) for name in ('done', 'loss_sum', 'history', 'threads')}
        if rank() == 0:
            # torch says nothing of a full disk that tells what is wrong.
            content = io.BytesIO()
            torch.save({'model': self.model.state_dict(), 'optimizer': self.optimizer.state_dict(),
                        'progress': progress, 'random': random_states}, content)
            with whole(self.file) as partial:
                partial.write_bytes(content.getbuffer())

    def _restore(self) -> Optional[int]:
        """Go on from the file. Returns the number of threads, if it tells that."""
        begin_anew = 'remove it to train this model from the start'
        try:
            state = torch.load(self.file, weights_only=True)
            of_processes, progress = state['random'], state['progress']
            if len(of_processes) == world_size():
                self.model.load_state_dict(state['model'])
                self.optimizer.load_state_dict(state['optimizer'])
                torch_state, python_state, numpy_state = of_processes[rank()]
                torch.set_rng_state(torch.tensor(torch_state, dtype=torch.uint8))
                random.setstate(python_state)
                np.random.set_state(tuple(numpy_state))
                self._go_on(**progress)
                self.scheduler.step_update(self.done)           # there may be more epochs than before
        # torch's own words advise to unpickle what it may hold.
        except Exception as error:
            raise ValueError(f'cannot resume from {brief(self.file)}: it is broken, or of another model or version; '
                             f'{begin_anew}') from error
        if len(of_processes) != world_size():
            raise ValueError(f'cannot resume from {brief(self.file)}: it was written by {len(of_processes)} '
                             f'processes, now there are {world_size()}')
        if not all(tensor.isfinite().all() for tensor in self.model.state_dict().values()):
            raise ValueError(f'cannot resume from {brief(self.file)}: its weights are not finite; {begin_anew}')
        return progress.get('threads')

    def _go_on(self, done: int, loss_sum: Tensor, history: List[Dict[str, float]], threads: Optional[int] = None
               ) -> None:
        self.done, self.history = operator.index(done), [dict(epoch) for epoch in history]
        self.loss_sum.copy_(loss_sum)
        if not len(self.history) * self.updates <= self.done <= (len(self.history) + 1) * self.updates:
            raise ValueError(f'{self.done} updates do not make {len(self.history)} epochs')
        if threads is not None and not 1 <= operator.index(threads) <= 1 << 10:
            raise ValueError(f'there are no {threads} threads')


@torch.inference_mode()
def evaluate(model: nn.Module, dataset: Prepared, device: torch.device, batch_size: int = 256) -> float:
    """Top-1 accuracy in per cent, each process working on its part of the images."""
    model.eval()
    top1 = AverageMeter()
    part = Subset(dataset, range(rank(), len(dataset), world_size()))
    # No generator of its own: the loader's draw of a seed moves the global one, and training goes on from there.
    for images, targets in DataLoader(part, batch_size):
        logits = model(images.to(device))
        top1.update(accuracy(logits, targets.to(device))[0].item(), len(targets))
    correct, count = total(torch.tensor([top1.sum, float(top1.count)], dtype=torch.float64, device=device)).tolist()
    return correct / count


def class_weights(train: Prepared, training: Training) -> Optional[Tensor]:
    """Weights of the classes (classes,) in the loss, of mean 1 over the images, or None."""
    if training.class_weights == 'none':
        return None
    counts = torch.bincount(torch.as_tensor(targets_of(train)))
    return len(train) / (len(counts) * counts.clamp(min=1))


def targets_of(dataset: Any) -> List[int]:
    """The class of each image."""
    if isinstance(dataset, ConcatDataset):
        return [target for part in dataset.datasets for target in targets_of(part)]
    return dataset.targets if hasattr(dataset, 'targets') else targets_of(dataset.dataset)


def has_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 saves time there. Processors without it (x86 below AVX-512) take ten times as long with it."""
    return device.type != 'cpu' or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def helpful_threads(model: nn.Module, train: Prepared, batch_size: int, device: torch.device) -> int:
    """How many threads a training step should take: all that torch has, or one if they save less than a fifth."""
    many = torch.get_num_threads()
    if device.type != 'cpu' or many == 1 or world_size() > 1:
        return many
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    images = torch.stack([train[i][0] for i in range(batch_size)]).to(memory_format=torch.channels_last)
    model = copy.deepcopy(model).train()                # a step leaves traces in norms
    seconds: Dict[int, List[float]] = {1: [], many: []}
    for count in [1, many] * 4:
        with _threads(count):
            start = time.perf_counter()
            model(images).sum().backward()
            seconds[count].append(time.perf_counter() - start)
    torch.set_rng_state(states[0])
    random.setstate(states[1])
    np.random.set_state(states[2])
    # The first of each warms up.
    return many if statistics.median(seconds[many][1:]) < 0.8 * statistics.median(seconds[1][1:]) else 1


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _batches(dataset: Prepared, batch_size: int, epoch: int, skip: int,
             training: Training) -> Iterator[Sequence[Tensor]]:
    """This process's part of the epoch's shuffled batches, without the first `skip`."""
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(training.seed + epoch)).tolist()
    batches = [order[i + rank():i + batch_size:world_size()]
               for i in range(0, len(order) - batch_size + 1, batch_size)]
    # A generator of its own: the loader's draw of a seed must not move the global one, which augmentation uses.
    generator = torch.Generator().manual_seed(training.seed + epoch)
    return iter(DataLoader(dataset, batch_sampler=batches[skip:], num_workers=training.workers,
                           worker_init_fn=_ignore_ctrl_c, generator=generator))


def _all_stop(stopped: bool, device: torch.device) -> bool:
    """Whether to stop here. All processes must agree on it, else those that go on wait for the others in vain."""
    return stopped if world_size() == 1 else total(torch.tensor(float(stopped), device=device)).item() > 0


def _ignore_ctrl_c(worker: int) -> None:
    # The terminal sends it to the loader's workers too; the main process ends them once the step is done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def _noticing_ctrl_c() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a flag, so that the running step ends whole; a second one stops at once."""
    pressed: List[int] = []

    def notice(number: int, frame: Any) -> None:
        pressed.append(number)
        if world_size() == 1:                           # torchrun passes on what the terminal sent already
            signal.signal(signal.SIGINT, signal.default_int_handler)

    try:
        before = signal.signal(signal.SIGINT, notice)
    except ValueError:                                  # not in the main thread: no Ctrl-C comes here
        yield lambda: False
        return
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)
