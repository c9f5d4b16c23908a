"""Running a recipe: every arm, training size and seed of it, on several processors, and the table of the results."""
import concurrent.futures
import functools
import multiprocessing
import os
import signal
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple, Union

import numpy as np
import torch
from timm.optim import get_optimizer_info
from torch import Tensor, nn

from ..wording import brief, nearest
from . import augment, checkpoint, choices, discriminant, metrics, probe, whitening
from .data import Data, Images, few, load, split
from .loop import evaluate, targets_of
from .model import create, prepared, train_one
from .progress import bar as progress_bar
from .recipes import RECIPES, Arm, Average, Probe, Recipe
from .run_folder import check_folder, check_folder_of_runs, held, read_json, whole, write_json


class Run(NamedTuple):
    """One training: an arm, the number of training images of each class (None for all), a seed."""
    arm: str
    per_class: Optional[int]
    seed: int

    def name(self) -> str:
        size = '' if self.per_class is None else f'-{self.per_class}'
        return f'{self.arm}{size}-seed{self.seed}'


class Source(NamedTuple):
    """Which images: the name or folder of the data, and where it lies; `select` for validation in place of the test;
    the side of larger ones, once they are resized."""
    data: str
    root: Optional[Path]
    select: bool
    side: int


def run(name: str, data: Optional[str], root: Optional[Path], output: Path, select: bool, arms: List[str], jobs: int,
        resume: bool, device: torch.device) -> None:
    """Train all runs of the recipe `name`, and write a checkpoint for each, results.json and the table results.md.

    The models are trained on all training images and tested once, after their last epoch; with `select`, they are
    trained on a part of these and validated on the rest, and no test image is read.

    Args:
        data: a folder of images, or the name of a data set. On others than its own a recipe trains on all training
            images, from the first three of its seeds.
        arms: those to train; all if empty.
        jobs: number of processes, with an equal share of the processors each.

    Raises:
        ValueError, TypeError, RuntimeError, OSError: on bad input, before any training.
        KeyboardInterrupt: after Ctrl-C; what was running goes on from there with `resume`.
    """
    recipe = _for_data(_recipe(name), data)
    source = Source(_data_name(name, recipe, data), root, select, recipe.side)
    _refuse_unknown('arm', arms, recipe.arms)
    arms = list(dict.fromkeys(arms or recipe.arms))
    loaded = _load(source)
    for arm in arms:
        _check(arm, recipe, arms, loaded)
    recipe = _with_sizes(recipe, loaded)
    runs = [Run(arm, size, seed) for seed in recipe.seeds for size in recipe.per_class for arm in arms]
    settings = {run: {'data': source.data, 'root': str(root), 'fingerprint': loaded.fingerprint, 'select': select,
                      'side': source.side,
                      'val_fraction': recipe.val_fraction, **run._asdict(), **asdict(_sized(recipe, run, loaded))}
                for run in runs}
    check_folder_of_runs(output, [run.name() for run in runs])
    for run in runs:
        check_folder(output / run.name(), settings[run], resume)
    with held(output):
        for run in runs:
            (output / run.name()).mkdir(exist_ok=True)
            checkpoint.tidy(output / run.name())
            if (output / run.name() / 'results.json').exists():     # a kill may have come before
                _forget_states(output / run.name())
            write_json(output / run.name() / 'settings.json', settings[run])
        print(f'recipe {name}: {len(runs)} runs on {source.data}, {jobs} at a time; writing to {output}')
        averages = [run for run in runs if isinstance(recipe.arms[run.arm], Average)]
        _run_all([run for run in runs if run not in averages], name, source, output, jobs, device)
        _run_all(averages, name, source, output, jobs, device)
    _conclude(runs, arms, recipe, output, 'validation' if select else 'test')


def _conclude(runs: List[Run], arms: List[str], recipe: Recipe, output: Path, of: str) -> None:
    """Write and print what the runs came to."""
    results = [{key: value for key, value in _results(output, run).items() if key != 'history'} for run in runs]
    write_json(output / 'results.json', results)
    table = tabulate(results, arms, list(recipe.per_class))
    with whole(output / 'results.md') as partial:
        partial.write_text(table)
    print(f'{of} accuracy in per cent\n\n{table}')


def _check(name: str, recipe: Recipe, arms: List[str], data: Data) -> None:
    """What would fail in a run of this arm fails here."""
    arm = recipe.arms[name]
    if isinstance(arm, Average):
        missing = [part for part in arm.of if part not in arms]
        if missing:
            raise ValueError(f'the arm {name} is an average of others and needs --arms {" ".join(missing)} too')
        return
    if isinstance(arm, Probe):
        metrics.check()
        return
    get_optimizer_info(arm.training.opt)
    augment.check(arm.training.augment)
    model = create(arm.model, arm.kwargs, data, seed=0)
    discriminant.check(arm.training, model)
    whitening.check(arm.training, model)


def _for_data(recipe: Recipe, data: Optional[str]) -> Recipe:
    """The recipe as it goes for these data: for others than its own, on all images."""
    if data is None or not recipe.data or data == recipe.data:
        return recipe
    return replace(recipe, per_class=(None,), seeds=recipe.seeds[:3])


def _with_sizes(recipe: Recipe, data: Data) -> Recipe:
    """The recipe with those sizes that the data have; of a user's folder with none of them, on all images.

    Raises:
        ValueError: if its own data have fewer images.
    """
    least = int(np.bincount(targets_of(data.train)).min())
    if recipe.data:
        for size in recipe.per_class:
            if size is not None:
                few(data.train, size, seed=0)                   # refuses data that have fewer
        return recipe
    return replace(recipe, per_class=tuple(s for s in recipe.per_class if s is None or s <= least) or (None,))


def _sized(recipe: Recipe, run: Run, data: Data) -> Union[Arm, Probe, Average]:
    """The arm as this run trains it. Where all images are taken of a recipe for few, it is as for the next size below.
    """
    arm = recipe.arms[run.arm]
    if not isinstance(arm, Arm):
        return arm
    size = run.per_class
    if size is None and arm.by_size:
        own = len(data.train) / len(data.classes)
        size = max((s for s in arm.by_size if s is not None and s <= own), default=min(filter(None, arm.by_size)))
    changes = arm.by_size.get(size, {})
    return replace(arm, training=replace(arm.training, seed=run.seed, **changes), by_size={})


def tabulate(results: List[Dict[str, Any]], arms: List[str], sizes: List[Optional[int]]) -> str:
    """A table in Markdown: for each arm and size, the mean accuracy, its standard deviation over the seeds, and the
    mean difference to the first arm, paired by seed, with its 95 % interval (Student's t)."""
    found = {(r['arm'], r['per_class'], r['seed']): r['accuracy'] for r in results}
    heads = ['accuracy' if size is None else f'{size} a class' for size in sizes]
    lines = ['| arm | learned numbers | ' + ' | '.join(f'{head} | less {arms[0]}' for head in heads) + ' |',
             '|---' * (2 + 2 * len(sizes)) + '|']
    for arm in arms:
        cells = [arm, f'{max(r["learned_numbers"] for r in results if r["arm"] == arm):,}']
        for size in sizes:
            seeds = [seed for a, s, seed in found if (a, s) == (arm, size)]
            mine = np.array([found[arm, size, seed] for seed in seeds])
            first = np.array([found[arms[0], size, seed] for seed in seeds])
            cells += [_mean(mine), '' if arm == arms[0] else _difference(mine - first)]
        lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines) + '\n'


def _mean(values: np.ndarray) -> str:
    return f'{values.mean():.2f}' + (f' ± {values.std(ddof=1):.2f}' if len(values) > 1 else '')


def _difference(values: np.ndarray) -> str:
    if len(values) == 1:
        return f'{values[0]:+.2f}'
    from scipy import stats

    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return f'{values.mean():+.2f} ({values.mean() - half:+.2f} to {values.mean() + half:+.2f})'


def _recipe(name: str) -> Recipe:
    _refuse_unknown('recipe', [name], RECIPES)
    return RECIPES[name]


def _refuse_unknown(what: str, names: List[str], known: Mapping[str, Any]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f'unknown {what} {brief(repr(name), 60)}; {nearest(name, known)}'
                             + ' (`scat-zoo train --help` has all)' * (what == 'recipe'))


def _data_name(name: str, recipe: Recipe, data: Optional[str]) -> str:
    if not recipe.data and not data:
        raise ValueError(f'the recipe {name} needs --data FOLDER: {recipe.how_to_get}')
    return data or recipe.data


@functools.lru_cache(maxsize=1)
def _load(source: Source) -> Data:
    """The images; with `select`, a folder's own validation images in the place of the test images."""
    data = load(source.data, source.root, 0.)
    size, _ = choices.image_size(data.input_size[1:], None, source.side)
    data = data._replace(input_size=(data.input_size[0], *size))
    return data._replace(test=data.val) if source.select and data.val is not None else data


def _run_all(runs: List[Run], recipe: str, source: Source, output: Path, jobs: int, device: torch.device) -> None:
    todo = [run for run in runs if not (output / run.name() / 'results.json').exists()]
    jobs = min(jobs, len(todo))
    with progress_bar(total=len(runs), initial=len(runs) - len(todo), desc='runs', unit='run') as bar:
        if jobs <= 1:
            for run in todo:
                run_one(run, recipe, source, output, device, line=1)
                bar.update()
            return
        # Forked processes could not use a GPU, nor threads that were waiting.
        context = multiprocessing.get_context('spawn')
        lines = context.Queue()
        for line in range(1, jobs + 1):
            lines.put(line)
        threads = max(1, (os.cpu_count() or 1) // jobs)
        with concurrent.futures.ProcessPoolExecutor(jobs, context, _begin, (lines, threads)) as pool:
            futures = [pool.submit(_run_in_worker, run, recipe, source, output, device) for run in todo]
            try:
                for future in concurrent.futures.as_completed(futures):
                    future.result()
                    bar.update()
            except concurrent.futures.BrokenExecutor as error:
                raise RuntimeError('a process that trained was killed, perhaps since memory ran out: repeat the '
                                   'command with --resume and fewer --jobs') from error
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


_line = 0               # of the terminal, in a worker


def _begin(lines: Any, threads: int) -> None:
    """Set up a worker: its line of the terminal, its threads; Ctrl-C is for the training that runs in it."""
    global _line
    _line = lines.get()
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Who kills the main process means the workers too: they end with it.
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_with(process: Any) -> None:
    process.join()
    os._exit(1)


def _run_in_worker(run: Run, recipe: str, source: Source, output: Path, device: torch.device) -> None:
    run_one(run, recipe, source, output, device, _line)


def run_one(run: Run, recipe_name: str, source: Source, output: Path, device: torch.device, line: int) -> None:
    """Train and test one model; its folder gets the checkpoint, and results.json at the very end."""
    recipe, data, folder = RECIPES[recipe_name], _load(source), output / run.name()
    arm = _sized(recipe, run, data)
    train_images, test_images = data.train, data.test
    if run.per_class is not None:
        train_images = few(train_images, run.per_class, run.seed)
    if source.select and data.val is None:
        train_images, test_images = split(train_images, recipe.val_fraction, run.seed)
    model, history, learned_numbers = _trained(run, arm, train_images, data, output, device, line)
    test_set = prepared(test_images, model, data)
    write_json(folder / 'results.json', {
        **run._asdict(), 'accuracy': evaluate(model.to(device), test_set, device), 'images': len(train_images),
        'tested': len(test_set), 'learned_numbers': learned_numbers, 'history': history})
    _forget_states(folder)


def _forget_states(folder: Path) -> None:
    for state in ('state', 'filters.state'):
        (folder / state).unlink(missing_ok=True)


def _trained(run: Run, arm: Union[Arm, Probe, Average], images: Images, data: Data, output: Path, device: torch.device,
             line: int) -> Tuple[Any, List[Dict[str, float]], int]:
    """The model of an arm, the history of its training, and how many numbers were learned."""
    folder = output / run.name()
    if isinstance(arm, Average):
        parts = [run._replace(arm=part) for part in arm.of]
        models = [checkpoint.load(output / part.name() / 'checkpoint') for part in parts]
        return Averaged(models), [], sum(_learned_numbers(output, part) for part in parts)
    if isinstance(arm, Probe):
        candidates = choices.features(data.input_size[1:], data.input_size[0], arm.kwargs)
        model, _ = probe.best(candidates, lambda kwargs: create('scat_linear', kwargs, data, run.seed),
                              lambda model: prepared(images, model, data), False, False, device)
        history = []
    else:
        model = create(arm.model, arm.kwargs, data, run.seed)
        history = train_one(model, images, None, data, arm.training, device,
                            (folder / 'state', folder / 'filters.state'), run.name(), line)
    if hasattr(model, 'scattering'):
        checkpoint.save(model, folder / 'checkpoint', data.classes, data.value_range)
    return model, history, sum(p.numel() for p in model.parameters() if p.requires_grad)


def _learned_numbers(output: Path, run: Run) -> int:
    return _results(output, run)['learned_numbers']


def _results(output: Path, run: Run) -> Dict[str, Any]:
    return read_json(output / run.name() / 'results.json', [*Run._fields, 'accuracy', 'learned_numbers'])


class Averaged(nn.Module):
    """The mean log-probability of several models for the same images: (B, C, H, W) -> (B, classes)."""

    def __init__(self, models: List[nn.Module]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        self.pretrained_cfg = models[0].pretrained_cfg          # how images are prepared

    def forward(self, x: Tensor) -> Tensor:
        models: Any = self.models
        return torch.stack([model(probe.as_of(x, models[0], model)).log_softmax(1) for model in models]).mean(0)
