"""The main job: train a model, train it again with frozen filters for comparison, test both, draw the filters."""
import contextlib
import copy
import importlib.util
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import filelock
import timm
import torch
from timm.optim import get_optimizer_info
from timm.utils import random_seed
from torch import nn

from ..models import shipped
from ..models.stem import ScatteringStem
from ..scattering.plot import draw_change
from . import augment, checkpoint, discriminant
from .data import Data, Prepared, check_channels, load, open_image, with_channels
from .distributed import rank, wait, world_size
from .loop import Training, evaluate, fit

LOCK = '.lock'                  # in the output folder; see `held`


def train(model_name: str, learnable: bool, model_kwargs: Dict[str, Any], data_name: str, root: Optional[Path],
          val_fraction: float, training: Training, output: Path, resume: bool, device: torch.device) -> None:
    """Train, test and write everything into `output`; see the command `scat-zoo train`.

    Raises:
        ValueError, TypeError, RuntimeError, OSError: on bad input, before any training.
        KeyboardInterrupt, FloatingPointError: as `loop.fit`.
    """
    if learnable and importlib.util.find_spec('matplotlib') is None:
        raise ValueError('the picture of the filters needs matplotlib: install it, or scat_zoo with the extra plot')
    if model_name not in timm.list_models('scat_*'):
        raise _unknown_model(model_name)
    for key, instead in (('learnable', 'use --learnable or --no-learnable'), ('num_classes', 'the data tell it')):
        if key in model_kwargs:
            raise ValueError(f'{key} cannot be one of the model keywords: {instead}')
    get_optimizer_info(training.opt)
    augment.check(training.augment)
    data = load(data_name, root, val_fraction, training.seed)
    # Models are built before anything is written: what they refuse, they refuse here.
    variants = {'learned': True, 'frozen': False} if learnable else {'frozen': False}
    models = {name: create(model_name, {'learnable': flag, **model_kwargs}, data, training.seed)
              for name, flag in variants.items()}
    main, model = next(iter(models.items()))
    discriminant.check(training, model)
    train_set = Prepared(data.train, model.in_chans, augment.train_transform(model, training.augment))
    val_set, test_set = (None if part is None else Prepared(part, model.in_chans, augment.eval_transform(model))
                         for part in (data.val, data.test))
    settings = {'model': model_name, 'learnable': learnable, 'model_kwargs': model_kwargs, 'data': data_name,
                'root': str(root), 'val_fraction': val_fraction, 'training': asdict(training),
                'processes': world_size()}
    if rank() == 0:
        check_folder(output, settings, resume)
    with held(output):
        if rank() == 0:
            write_json(output / 'settings.json', settings)
            print(f'{model_name} on {data_name}: {len(data.train)} training, {len(data.val or ())} validation and '
                  f'{len(data.test)} test images of {len(data.classes)} classes; writing to {output}')
        wait()
        start = copy.deepcopy(model)
        results = {}
        for name, model in models.items():
            random_seed(training.seed, rank())
            history = fit(model, train_set, val_set, training, device, output / f'{name}.state', f'{name} filters')
            history += discriminant.finish(
                model, train_set, val_set, training, device, output / f'{name}-filters.state', f'{name} filters')
            results[name] = {'test_accuracy': evaluate(model, test_set, device), 'history': history}
            if rank() == 0:
                checkpoint.save(model, output / ('checkpoint' if name == main else f'checkpoint-{name}'), data.classes)
        if rank() > 0:
            return
        if learnable:
            before, after = start.scattering, models[main].scattering
            results[main]['filter_change'] = _relative_change(before, after)
            draw_change(before.filters(), after.filters(), output / 'filters.png')
        write_json(output / 'results.json', results)
        _report(results, main, output)


def _report(results: Dict[str, Dict[str, Any]], main: str, output: Path) -> None:
    print(f'test accuracy {results[main]["test_accuracy"]:.2f} %')
    if main == 'learned':
        print(f'  with frozen filters, same recipe: {results["frozen"]["test_accuracy"]:.2f} %')
        print(f'  training moved the filters by {100 * results[main]["filter_change"]:.1f} % (relative norm)')
        print(f'filters    {output / "filters.png"}')
    print(f'checkpoint {output / "checkpoint"}')


def test(model_or_checkpoint: str, data_name: str, root: Optional[Path], device: torch.device) -> Tuple[float, int]:
    """Accuracy in per cent on the test images of a data set, and their number.

    Raises:
        ValueError, OSError: if model or data are not there, or have other classes, or the same in another order.
    """
    model = checkpoint.open_model(model_or_checkpoint, {}).to(device)
    data = load(data_name, root, 0.)
    if len(data.classes) != model.num_classes:
        raise ValueError(f'{data_name} has {len(data.classes)} classes, {model_or_checkpoint} has {model.num_classes}')
    for ours, theirs in zip(data.classes, model.pretrained_cfg.get('label_names') or ()):
        if ours != theirs:
            raise ValueError(f'the classes of {data_name} are not those that {model_or_checkpoint} was trained on: '
                             f'{ours!r} stands where {theirs!r} did')
    images = Prepared(data.test, model.in_chans, augment.eval_transform(model))
    return evaluate(model, images, device), len(images)


def predict(model_or_checkpoint: str, images: List[Path],
            topk: int) -> List[Tuple[Path, List[Tuple[str, float]]]]:
    """The `topk` classes of each image and their probabilities, by the model in a checkpoint folder or a shipped one.

    Raises:
        ValueError: if it names no weights, or an image cannot be read.
    """
    if not Path(model_or_checkpoint).is_dir() and model_or_checkpoint not in shipped.names():
        raise ValueError(f'{model_or_checkpoint!r} is no checkpoint folder, and no weights come under that name; '
                         f'known: {", ".join(shipped.names())}')
    model = checkpoint.open_model(model_or_checkpoint, {})
    check_channels(model.in_chans)
    transform = augment.eval_transform(model)
    pictures = torch.stack([transform(with_channels(open_image(path), model.in_chans)) for path in images])
    names = model.pretrained_cfg.get('label_names') or [str(i) for i in range(model.num_classes)]
    with torch.inference_mode():
        probabilities = model(pictures).softmax(1)                              # (images, classes)
    best, index = probabilities.topk(min(topk, model.num_classes))
    return [(path, [(names[i], p) for i, p in zip(row_i, row_p)])
            for path, row_i, row_p in zip(images, index.tolist(), best.tolist())]


def create(name: str, kwargs: Dict[str, Any], data: Data, seed: int) -> nn.Module:
    """A registered model for these data, of the zoo or another of timm's.

    Raises:
        ValueError, TypeError: in one sentence, on a name or keywords that there are not.
    """
    if not timm.is_model(name):
        raise _unknown_model(name)
    random_seed(seed)
    channels, height, width = data.input_size
    defaults = {'num_classes': len(data.classes), 'in_chans': channels}
    cfg = {'mean': data.mean, 'std': data.std}
    if name in timm.list_models('scat_*'):
        defaults['img_size'] = height, width
    else:
        cfg.update(input_size=data.input_size, crop_pct=1.0)
    return timm.create_model(name, pretrained_cfg_overlay=cfg, **{**defaults, **kwargs})


def _unknown_model(name: str) -> ValueError:
    return ValueError(f'unknown model {name!r}; the zoo has {", ".join(timm.list_models("scat_*"))}')


def _relative_change(before: ScatteringStem, after: ScatteringStem) -> float:
    """Norm of the change of all filters over the norm of all filters."""
    a, b = (torch.cat([hat.cpu().double().flatten() for levels in (phi, *psi) for hat in levels])
            for phi, psi in (before.filters(), after.filters()))
    return ((b - a).norm() / a.norm()).item()


def check_folder(output: Path, settings: Dict[str, Any], resume: bool) -> None:
    """Refuse an output folder that holds anything but the run to resume.

    A run that saved nothing, since it failed in its first epoch, may begin anew with other settings.
    """
    file = output / 'settings.json'
    others = output.is_dir() and any(entry.name not in (file.name, LOCK) for entry in output.iterdir())
    if not file.exists():
        if others:
            raise ValueError(f'{output} is not empty and holds no run; choose another --output')
        return
    if not resume:
        raise ValueError(f'{output} holds a run already: continue it with --resume, or choose another --output')
    before, now = read_json(file), json.loads(json.dumps(settings))
    if others and before != now:
        raise ValueError(f'cannot resume the run in {output} with other settings: {_changes(before, now)}')


@contextlib.contextmanager
def held(output: Path) -> Iterator[None]:
    """Make the output folder, and keep other processes from training into it; under torchrun, the first process does.

    Raises:
        ValueError: if another is at it, or it cannot be made.
    """
    if rank() > 0:
        yield
        return
    lock = filelock.FileLock(output / LOCK)
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except filelock.Timeout as error:
        raise ValueError(f'another process is training in {output}: wait for it, or choose another --output') from error
    except OSError as error:
        raise ValueError(f'cannot write to {output}: {error.strerror}') from error
    try:
        yield
    finally:
        lock.release()


def _changes(before: Dict[str, Any], now: Dict[str, Any], prefix: str = '') -> str:
    """Each entry that differs, those of nested dicts on their own."""
    changes = []
    for key in {**before, **now}:
        a, b = before.get(key), now.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            changes.append(_changes(a, b, f'{prefix}{key}.'))
        elif a != b:
            changes.append(f'{prefix}{key} was {a}, is {b}')
    return '; '.join(filter(None, changes))


def read_json(file: Path) -> Any:
    """What the file holds.

    Raises:
        ValueError: if it is no JSON.
    """
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f'{file} is broken: {error}') from error


def write_json(file: Path, content: Any) -> None:
    """Write the file as a whole or not at all."""
    partial = file.with_suffix('.partial')
    partial.write_text(json.dumps(content, indent=2))
    os.replace(partial, file)
