"""The main job: train a model on images with nothing but their folder, test it, and write what came of it.

Three ways may be tried, in this order. 'probe': a classifier fitted at once on the features of fixed filters, or of the
weights to start from; `probe` tells how. 'fixed' and 'learned': training by gradients, of the classifier and
what is before it, the latter of the filters too. A later one is kept in place of an earlier one only if the validation
images say that it is better; unless it was asked for.
"""
import copy
import importlib.util
import os
import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Union

import numpy as np
import timm
import torch
from timm.optim import get_optimizer_info
from torch.utils.data import ConcatDataset

from ..models.model import ScatteringModel
from ..models.stem import ScatteringStem
from ..scattering.plot import draw_change
from ..wording import brief, some
from . import augment, checkpoint, choices, discriminant, filters, metrics, predict, probe, report, whitening
from .data import Data, Prepared, load, split
from .distributed import rank, wait, world_size
from .images import check_channels
from .loop import Training, targets_of
from .model import create, is_linear, own_side, prepared, start_from, train_one, unknown
from .run_folder import check_folder, held, whole, write_csv, write_json


@dataclass(frozen=True)
class Job:
    """What is asked for. None, and a field of `Training` that `training` has not, leave the choice to `choices`.

    Args:
        model: name of a registered model.
        learnable: whether to learn the filters.
        model_kwargs: its keywords.
        start: shipped weights or a checkpoint to start from, in place of the model and its keywords.
        data, root, val_fraction, test_fraction, skip_broken: as for `data.load`.
        img_size: side, or height and width.
        training: fields of `Training` by name.
        output: folder of the run.
        resume: whether to go on with the run in it.
    """
    output: Path
    model: str = 'scat_linear'
    learnable: Optional[bool] = None
    model_kwargs: Dict[str, Any] = field(default_factory=dict)
    start: Optional[str] = None
    data: str = 'sample'
    root: Optional[Path] = None
    val_fraction: Optional[float] = None
    test_fraction: float = 0.2
    skip_broken: bool = False
    img_size: Union[int, Tuple[int, int], None] = None
    training: Dict[str, Any] = field(default_factory=dict)
    resume: bool = False


@dataclass
class Way:
    """One of the ways: its model, trained or to be trained, and what it reached."""
    model: ScatteringModel
    training: Optional[Training]
    history: List[Dict[str, float]] = field(default_factory=list)
    right: Optional[np.ndarray] = None                              # by validation image
    figures: Dict[str, Any] = field(default_factory=dict)           # of the test images


@dataclass
class Plan:
    """What is to be done, as images and what is asked for tell it."""
    data: Data                              # as the models get them
    template: ScatteringModel               # for these images; the probe fits it, if there is one
    given: Dict[str, Any]                   # keywords that are asked for, the image size aside
    candidates: List[Dict[str, Any]]        # keywords that the probe chooses between; none for the template's own
    names: List[str]                        # of the ways
    training: Training                      # of those by gradients, as far as no probe tells the rate
    asked: Optional[str]                    # the way to keep, None for the best
    lines: List[Tuple[str, str]]            # what is told of all this, in order


def train(job: Job, device: torch.device) -> None:
    """Train, test and write everything into `job.output`; see the command `scat-zoo train`.

    Raises:
        ValueError, TypeError, RuntimeError, OSError: on bad input, before any training.
        KeyboardInterrupt, FloatingPointError: as `loop.fit`.
    """
    _check(job)
    plan = _plan(job)                       # builds a model: what that refuses, it refuses before anything is written
    settings, data = _settings(job, plan), plan.data
    if rank() == 0:
        check_folder(job.output, settings, job.resume)
    with held(job.output):
        if rank() == 0:
            checkpoint.tidy(job.output)
            write_json(job.output / 'settings.json', settings)
            print(f'{job.start or job.model} on {job.data}: {len(data.train):,} training, {len(data.val or ()):,} '
                  f'validation and {len(data.test):,} test images of {len(data.classes)} classes '
                  f'({some(data.classes, 60)}); writing to {job.output}')
            for line in plan.lines:
                _say(*line)
        wait()
        ways = _ways(job, plan, device)
        start = copy.deepcopy(ways['learned'].model.scattering) if 'learned' in ways else None
        for name in ways:
            _train(job, name, ways, data, device)
        kept = plan.asked or _best(ways)
        if kept == 'probe' and data.val is not None:
            _fit_on_all(ways['probe'].model, job, plan, device)
        _finish(job, plan, ways, kept, start, device)


def _check(job: Job) -> None:
    metrics.check()
    if job.start is not None:
        predict.check_name(job.start)
        if job.model_kwargs or job.img_size:
            raise ValueError(f'{brief(job.start)} tells its own keywords, channels and image size: leave out '
                             '--model-kwargs, --in-chans and --img-size')
        if job.training.get('whiten'):
            raise ValueError(f'--whiten prepares a hidden layer that begins, --from {brief(job.start, 60)} gives one '
                             'that is trained: leave one of them out')
    elif job.model not in timm.list_models('scat_*'):
        raise unknown(job.model)
    for key, instead in (('learnable', 'use --learnable or --no-learnable'), ('num_classes', 'the data tell it')):
        if key in job.model_kwargs:
            raise ValueError(f'{key} cannot be one of the model keywords: {instead}')
    if not job.model_kwargs.get('global_pool', True):
        raise ValueError("a classifier needs a pool: 'flat', 'avg', 'max' or another of timm's; got none")
    if not 0 <= job.training.get('label_smoothing', 0) <= 1:
        raise ValueError(f'label smoothing goes from 0 to 1, got {brief(job.training["label_smoothing"], 60)}')
    if os.path.isdir(job.data) and Path(job.data).resolve() in (job.output / 'x').resolve().parents:
        raise ValueError(f'{brief(job.output)} lies among the images in {brief(job.data)}: choose another --output')
    get_optimizer_info(job.training.get('opt') or Training.opt)
    augment.check(job.training.get('augment') or Training.augment)


def _plan(job: Job) -> Plan:
    data, lines = _data(job)
    given = {key: value for key, value in job.model_kwargs.items() if key != 'img_size'}
    candidates: List[Dict[str, Any]] = []
    if job.start:
        template = start_from(job.start, data, _seed(job))
        data = data._replace(input_size=tuple(template.pretrained_cfg['input_size']))
        lines.insert(-1, ('image size', '{} x {}: that of the weights to start from'.format(*data.input_size[1:])))
    else:
        if job.model == 'scat_linear' and not given.get('head_hidden_size'):
            candidates = choices.features(data.input_size[1:], data.input_size[0], given)
        first = candidates[0] if candidates else given
        template = create(job.model, {**first, 'learnable': bool(job.learnable)}, data, _seed(job))
    probed = bool(job.start or candidates)
    options = job.training.keys() - {'seed', 'workers', 'class_weights'}
    learned = job.learnable
    if learned is None:
        learned = data.val is not None and len(data.val) >= choices.VALIDATED
    training = choices.training(job.training, len(data.train), probed and is_linear(template))
    discriminant.check(training, template)
    whitening.check(training, template)
    names = ['probe'] * probed + ['fixed'] * (not probed or bool(options)) + ['learned'] * bool(learned)
    asked = ('learned' if learned else 'fixed') if options or job.learnable else None
    if learned and importlib.util.find_spec('matplotlib') is None:
        raise ValueError('the picture of the filters needs matplotlib: install it, or scat_zoo with the extra train')
    lines.append(('filters', _why_filters(job, learned, data, template.scattering)))
    return Plan(data, template, given, candidates, names, training, asked, lines)


def _settings(job: Job, plan: Plan) -> Dict[str, Any]:
    """What a run must have been begun with to go on."""
    training = {**asdict(plan.training), 'lr': job.training.get('lr')} if plan.names != ['probe'] else None
    return {'model': job.model, 'start': job.start, 'learnable': job.learnable, 'model_kwargs': job.model_kwargs,
            'data': job.data, 'root': str(job.root), 'fingerprint': plan.data.fingerprint,
            'input_size': plan.data.input_size, 'val_fraction': job.val_fraction, 'test_fraction': job.test_fraction,
            'training': training, 'ways': plan.names, 'class_weights': plan.training.class_weights,
            'seed': _seed(job), 'processes': world_size()}


def _seed(job: Job) -> int:
    return job.training.get('seed', Training.seed)


def _data(job: Job) -> Tuple[Data, List[Tuple[str, str]]]:
    """The images as the model gets them, and a line on each choice."""
    data = load(job.data, job.root, job.val_fraction or 0., _seed(job), job.test_fraction, job.skip_broken)
    if data.val is None and job.val_fraction is None:
        fraction, line = choices.held_out(targets_of(data.train))
        train, val = split(data.train, fraction, _seed(job))
        data = data._replace(train=train, val=val)
    else:
        line = 'none held out' if data.val is None else f'{len(data.val):,} images'
    own = data.input_size[1:]
    asked = job.img_size or job.model_kwargs.get('img_size')
    size, why = choices.image_size(own, asked, max(choices.SIDE, own_side(job.model)))
    channels = job.model_kwargs.get('in_chans', data.input_size[0])
    check_channels(channels, data.input_size[0])
    lines = [('images', note) for note in data.notes]
    if not job.start:
        lines.append(('image size', f'{size[0]} x {size[1]}: {why}'))
    lines.append(('validation', line))
    return data._replace(input_size=(channels, *size)), lines


def _say(what: str, line: str) -> None:
    print(f'  {what:11} {line}', flush=True)


def _add(plan: Plan, what: str, line: str) -> None:
    plan.lines.append((what, line))
    if rank() == 0:
        _say(what, line)


def _why_filters(job: Job, learned: bool, data: Data, scattering: ScatteringStem) -> str:
    at_rest = 'frozen, as learned before' if scattering.mode == 'frozen' else 'fixed'
    if job.learnable is not None:
        return ('learned' if learned else at_rest) + ', as asked for'
    if learned:
        return f'{at_rest}, and learned if the validation images say that it helps'
    return (f'{at_rest}: {len(data.train):,} images are too few to tell whether learning helps; --learnable does it '
            'anyway')


def _ways(job: Job, plan: Plan, device: torch.device) -> Dict[str, Way]:
    """The models to train, in order. Those that are trained by gradients begin where the probe ends."""
    probed, training, template = 'probe' in plan.names, plan.training, plan.template
    if probed:
        template, choice = _probe(job, plan, device)
        if choice.mirrored and 'augment' not in job.training:
            training = replace(training, augment=choices.with_mirror_images(training.augment))
    if 'lr' not in job.training:
        fitted = template.get_classifier().in_features if probed and is_linear(template) else None
        training = replace(training, lr=choices.rate(bool(job.start), fitted))
    if plan.names != ['probe']:
        _add(plan, 'training', choices.told(training, len(plan.data.train)))
    ways: Dict[str, Way] = {}
    for name in plan.names:
        if name == 'probe':
            ways[name] = Way(template, None)
            continue
        if probed:
            model = copy.deepcopy(template)
            model.scattering.set_learnable(name == 'learned')
        else:
            model = create(job.model, {**plan.given, 'learnable': name == 'learned'}, plan.data, training.seed)
        ways[name] = Way(model, training)
    return ways


def _probe(job: Job, plan: Plan, device: torch.device) -> Tuple[ScatteringModel, probe.Choice]:
    """The fitted model and its choice, which the first process makes and all read, also when a run goes on."""
    folder, file = job.output / 'checkpoint-probe', job.output / 'probe.json'
    data, candidates, balanced = plan.data, plan.candidates, plan.training.class_weights == 'balanced'

    def build(kwargs: Dict[str, Any]) -> ScatteringModel:
        if job.start:
            return copy.deepcopy(plan.template)
        return create(job.model, {**kwargs, 'learnable': False}, data, plan.training.seed)

    if rank() == 0 and not (folder.exists() and file.exists()):
        model, choice = probe.best(candidates or [{}], build, lambda model: prepared(data.train, model, data), balanced,
                                   plan.names != ['probe'], device)
        checkpoint.save(model.cpu(), folder, data.classes, data.value_range)
        write_json(file, choice._asdict())
    wait()
    choice = probe.read(file)
    told = ', '.join(f'{key} {value}' for key, value in choice.kwargs.items()) or 'those of the weights'
    how = 'no cross-validation, classes have one image' if choice.accuracy is None else (
        f'{choice.accuracy:.1f} % in cross-validation' + f', the best of {len(candidates)}' * (len(candidates) > 1))
    _add(plan, 'features', f'{told}: {how}')
    _add(plan, 'classifier', choice.told())
    return checkpoint.open_model(str(folder), {}), choice


def _train(job: Job, name: str, ways: Dict[str, Way], data: Data, device: torch.device) -> None:
    """Train one of the ways, if there is anything to train, and see what it says to the validation images."""
    way = ways[name]

    def log(history: List[Dict[str, float]]) -> None:
        rows = [(other, epoch, entry['loss'], entry.get('val_accuracy'))
                for other, of in [(n, w.history) for n, w in ways.items() if n != name] + [(name, history)]
                for epoch, entry in enumerate(of, 1)]
        write_csv(job.output / 'log.csv', ('filters', 'epoch', 'train_loss', 'val_accuracy'), rows)

    if way.training is not None:
        states = job.output / f'{name}.state', job.output / f'{name}-filters.state'
        way.history = train_one(way.model, data.train, data.val, data, way.training, device, states,
                                f'{name} filters', after_epoch=log)
        if rank() == 0:
            log(way.history)                                    # a kill may have come before the last epoch's row
    if data.val is not None:
        val = prepared(data.val, way.model, data)
        targets, found = metrics.probabilities(way.model.to(device), val, device)
        way.right = found.argmax(1) == targets


def _best(ways: Dict[str, Way]) -> str:
    """The first way, unless a later one is right for more validation images, beyond chance."""
    kept = next(iter(ways))
    for name, way in ways.items():
        if choices.better(way.right, ways[kept].right):
            kept = name
    return kept


def _fit_on_all(model: ScatteringModel, job: Job, plan: Plan, device: torch.device) -> None:
    """Fit the probe once more, with the validation images too, now that they have decided."""
    data, balanced = plan.data, plan.training.class_weights == 'balanced'
    if rank() == 0:
        both: Any = ConcatDataset([part for part in (data.train, data.val) if part is not None])
        choice = probe.read(job.output / 'probe.json')
        x, y = probe.stacked(prepared(both, model, data))
        probe.fit(model, x, y, choice, balanced, device)
        checkpoint.save(model.cpu(), job.output / 'checkpoint', data.classes, data.value_range)
    wait()
    model.load_state_dict(checkpoint.load(job.output / 'checkpoint').state_dict())


def _finish(job: Job, plan: Plan, ways: Dict[str, Way], kept: str, start: Optional[ScatteringStem],
            device: torch.device) -> None:
    """Test all, write checkpoints, figures and the report, and print them."""
    data, output = plan.data, job.output
    for name, way in ways.items():
        targets, found = metrics.probabilities(way.model.to(device), prepared(data.test, way.model, data), device)
        way.figures = metrics.summary(targets, found, data.classes)
        if name == kept:
            answers = found
        if rank() == 0:
            other = output / f'checkpoint-{name}'
            if name == kept and name != 'probe' and other.exists():
                shutil.rmtree(other)                            # of an earlier end of this run, with fewer epochs
            checkpoint.save(way.model.cpu(), output / 'checkpoint' if name == kept else other, data.classes,
                            data.value_range)
    if rank() > 0:
        return
    results: Dict[str, Any] = {'kept': kept, 'test': ways[kept].figures, 'ways': {
        name: {'filters': 'learned' if name == 'learned' else way.model.scattering.mode,
               'test_accuracy': way.figures['accuracy'],
               'val_accuracy': None if way.right is None else 100 * float(way.right.mean()), 'history': way.history}
        for name, way in ways.items()}}
    if start is not None:
        after = ways['learned'].model.scattering.filters()
        results['ways']['learned']['filter_change'] = filters.change(start.filters(), after)
        with whole(output / 'filters.png') as picture:
            draw_change(start.filters(), after, picture)
    write_json(output / 'results.json', results)
    why = 'as asked for' if plan.asked else 'by validation' if data.val is not None else ''
    print(metrics.report(ways[kept].figures), *report.compared(results, why), sep='\n')
    if start is not None:
        change = results['ways']['learned']['filter_change']
        print(f'training moved the filters by {100 * change:.1f} % (relative norm)')
        print(f'filters    {output / "filters.png"}')
    report.write(report.Run(f'{job.start or job.model} on {job.data}', plan.lines, results, why, ways[kept].model, data,
                            targets, answers, None if start is None else output / 'filters.png'),
                 output / 'report.html')
    print(f'report     {output / "report.html"}')
    print(f'checkpoint {output / "checkpoint"}')


def test(model_or_checkpoint: str, data_name: str, root: Optional[Path], device: torch.device,
         test_fraction: float = Job.test_fraction, skip_broken: bool = False) -> Dict[str, Any]:         # noqa: PT028  (no pytest's)
    """The figures of `metrics.summary` for the test images of a data set; for the rest, see `data.load`.

    Raises:
        ValueError, OSError: if model or data are not there, or have other classes, or the same in another order.
        FloatingPointError: if the model's outputs are not finite.
    """
    metrics.check()
    model = checkpoint.open_model(model_or_checkpoint, {}).to(device)
    # The training images are left alone, unless those that cannot be read are to be found.
    data = load(data_name, root, 0., test_fraction=test_fraction, skip_broken=skip_broken, scan=skip_broken)
    if len(data.classes) != model.num_classes:
        raise ValueError(f'{brief(data_name)} has {len(data.classes):,} classes, {brief(model_or_checkpoint)} was '
                         f'trained on {model.num_classes:,}: test it on images of its own classes')
    for ours, theirs in zip(data.classes, model.pretrained_cfg.get('label_names') or ()):
        if ours != theirs:
            raise ValueError(f'the classes of {brief(data_name, 60)} are not those that '
                             f'{brief(model_or_checkpoint, 60)} was trained on: {brief(repr(ours), 40)} stands '
                             f'where {brief(repr(theirs), 40)} did')
    images = Prepared(data.test, model.in_chans, augment.eval_transform(model),
                      checkpoint.value_range(model_or_checkpoint))
    return metrics.summary(*metrics.probabilities(model, images, device), data.classes)


