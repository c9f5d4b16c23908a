"""The command line: what the commands of `scat_zoo_cli` take, and what they do."""
import argparse
import dataclasses
import functools
import importlib.util
import io
import math
import os
import runpy
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Union

import timm
import torch
from timm.optim import list_optimizers
from timm.utils import ParseKwargs
from timm.utils.distributed import init_distributed_device_so
from torch import distributed

import scat_zoo_cli

from . import __version__
from .ending import sentence, stopped_by_sigterm, unforeseen
from .extract import FeatureExtractor, sources
from .extract import job as extraction
from .extract.features import DTYPES, POOLS
from .train import explain, export, filters, job, metrics, predict, study
from .train.augment import NAMES as AUGMENTATIONS
from .train.choices import HELD_OUT, VALIDATED
from .train.job import Job
from .train.loop import Training
from .train.recipes import RECIPES
from .train.run_folder import NAMES, option_of, write_json
from .wording import brief, nearest


def main(argv: Optional[List[str]] = None) -> int:
    try:
        args = _parser().parse_args(argv)
    except KeyboardInterrupt:                           # a GPU may take seconds to say that it is there
        return _stopped('')
    if args.command is _run:                            # the script's errors are its own
        if not _is_there(args.script, args.module):
            args.parser.error(f'no script {brief(args.script)}: expected a Python file, or -m and an installed module')
        _run(args)
        return 0
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors='backslashreplace')       # names need not be signs that the terminal knows
    try:
        with stopped_by_sigterm():
            args.command(args)
        sys.stdout.flush()
    except BrokenPipeError:                             # as `| head` does: end as SIGPIPE would, without a word
        predict.discard_stdout()
        return 128 + 13
    except KeyboardInterrupt:
        return _stopped(GOES_ON.get(args.command, ''))
    # timm asserts what it expects of keywords.
    except (ValueError, TypeError, RuntimeError, OSError, MemoryError, FloatingPointError, AssertionError) as error:
        print(f'scat-zoo: error: {sentence(error)}', file=sys.stderr)
        return 2
    except Exception as error:
        print(f'scat-zoo: error: {unforeseen(error)}', file=sys.stderr)
        return 2
    return 0


def _stopped(how_to_go_on: str) -> int:
    print('stopped' + how_to_go_on, file=sys.stderr)
    return 130


def _parser() -> argparse.ArgumentParser:
    parser, commands = scat_zoo_cli.parsers(__version__)
    for name, add_options in OPTIONS.items():
        add_options(commands[name])
    return parser


def _train_options(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = _Defaults
    parser.description = (
        'Train a model on images, test it, and write a checkpoint, the figures, a log and a picture of the '
        'filters. What is not asked for follows from the images, and is printed with the reason: size, '
        'features, classifier, and whether gradients train classifier and filters, which they do if '
        'validation says that it helps. Ctrl-C stops after the running step, --resume goes on from there.')
    parser.set_defaults(command=_train, parser=parser)
    _add_recipe(parser)
    _add_model(parser)
    _add_data(parser)
    _add_gradients(parser.add_argument_group(
        'training by gradients', 'Any of these asks for it, and keeps what it gives; their defaults follow from the '
                                 'number of images. Without, it is kept only if validation says that it helps.'))
    parser.add_argument('--seed', type=_natural, default=Training.seed)
    parser.add_argument('--workers', type=_natural, default=Training.workers, help='processes that load images')
    _add_device(parser)
    parser.add_argument('--output', type=Path, help='folder of the run (default: runs/MODEL, '
                                                            'and -DATA for images of yours)')
    parser.add_argument('--resume', action='store_true', help='continue the run in --output')


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--recipe', help='run a recipe behind the tables of results, all its models and seeds, on its '
                                         f'own data or on --data FOLDER: {", ".join(RECIPES)}')
    parser.add_argument('--select', action='store_true',
                        help='of a recipe: hold training images out, validate on them, and read no test image')
    parser.add_argument('--arms', nargs='+', default=[], metavar='ARM', help='of a recipe: which models (default: all)')
    parser.add_argument('--jobs', type=_positive, default=1 if torch.cuda.is_available() else os.cpu_count(),
                        help='of a recipe: models trained at a time')


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--model', default=Job.model, help='name of a registered model')
    parser.add_argument('--learnable', action=argparse.BooleanOptionalAction,
                        help='learn the filters, or keep them fixed (default: learn if validation says that it helps)')
    _add_keywords(parser, 'the model')
    parser.add_argument('--img-size', type=_size, metavar='S|HxW',
                        help="image side, or height and width such as 48x80 (default: the data's own, about as "
                             'many pixels as 64x64 of larger ones)')
    parser.add_argument('--from', dest='start', metavar='NAME.TAG|CHECKPOINT',
                        help='start from weights that come with the package, or the folder of a checkpoint or a run')
    parser.add_argument('--in-chans', type=_positive, help="image channels (default: the data's own)")


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--data', default=Job.data, help="'sample' (built in), 'fashion-mnist', 'cifar10', or a folder "
                                                         'with train and test images by class, or with images by class')
    parser.add_argument('--root', type=Path,
                        help='folder of Fashion-MNIST, if not that of the Debian package, or of CIFAR-10')
    parser.add_argument('--test-fraction', type=_number, default=Job.test_fraction,
                        help='part of the images of a folder without a split to test on')
    parser.add_argument('--skip-broken', action='store_true', help='leave out images of a folder that cannot be read')
    parser.add_argument('--val-fraction', type=_number,
                        help=f'part of the training images for validation (default: {HELD_OUT}, none of fewer than '
                             f'{VALIDATED / HELD_OUT:,.0f} images)')
    parser.add_argument('--class-weights', choices=('none', 'balanced'), default=Training.class_weights,
                        help='balanced: images of rare classes weigh more, so that all classes weigh alike')


def _add_gradients(group: argparse._ArgumentGroup) -> None:
    group.add_argument('--augment', nargs='?', const='timm', choices=AUGMENTATIONS,
                       help="augmentation; without a name, timm's default: random crop, scale, flip, colours")
    group.add_argument('--epochs', type=_positive)
    group.add_argument('--batch-size', type=_positive)
    group.add_argument('--opt', type=_optimiser, help=f"one of timm's optimisers (default: {Training.opt})")
    group.add_argument('--lr', type=_number, help='peak learning rate of all but the filters')
    group.add_argument('--filter-lr', type=_number, help='that of the filters (default: pixelwise 0.001, others 0.01)')
    group.add_argument('--weight-decay', type=_number, help='of all but filters, norms and biases')
    group.add_argument('--warmup-epochs', type=_natural, help=f'(default: {Training.warmup_epochs})')
    group.add_argument('--label-smoothing', type=_number)
    group.add_argument('--whiten', type=_natural, metavar='N',
                       help='let a hidden layer, as of scat_mlp, begin from features that are decorrelated by N passes '
                            'over the (augmented) images')
    group.add_argument('--lda', type=_natural, metavar='N',
                       help='at the end, replace the classifier by linear discriminant analysis of the features in '
                            'N passes over the (augmented) images')
    group.add_argument('--lda-epochs', type=_natural, metavar='N',
                       help='before that, train learned filters alone for N epochs, through such a classifier')
    group.add_argument('--amp', action='store_true', default=None,
                       help="compute in bfloat16 where torch's autocast does, if the processor has it")


def _predict_options(parser: argparse.ArgumentParser) -> None:
    parser.description = ('Print the likeliest classes of each image. A file that cannot be read costs only itself: '
                          'its error is printed, the others go on, and the exit code is 2.')
    parser.set_defaults(command=_predict)
    parser.add_argument('model', metavar='MODEL_OR_CHECKPOINT',
                        help='such as scat_linear.fashion_mnist, or the folder of a run or a checkpoint')
    parser.add_argument('paths', type=Path, nargs='+', metavar='PATH',
                        help='images, and folders, whose images are found in all folders within')
    parser.add_argument('--topk', type=_positive, default=3, help='how many classes (default: 3)')
    parser.add_argument('--csv', type=_file, metavar='FILE',
                        help='write a table too: path, classes and probabilities from 0 to 1, error')
    _add_device(parser)


def _explain_options(parser: argparse.ArgumentParser) -> None:
    parser.description = ('Draw what speaks for a class in an image: which sizes and directions of detail, as discs, '
                          'and where it lies; print the strongest in words. Angles are those of stripes, 0 if they '
                          'lie, 90 if they stand; strong and weak, more and less than in the average training '
                          'image.')
    parser.set_defaults(command=_explain)
    parser.add_argument('model', metavar='MODEL_OR_CHECKPOINT',
                        help='such as scat_linear.fashion_mnist, or the folder of a run or a checkpoint')
    parser.add_argument('image', type=Path, metavar='IMAGE')
    parser.add_argument('--class', dest='asked', metavar='NAME', help='what speaks for this class (default: the '
                                                                      'likeliest)')
    parser.add_argument('-o', '--output', type=_picture, default='explain.png', metavar='PNG',
                        help='the picture (default: explain.png)')


def _test_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_test)
    parser.add_argument('model', metavar='MODEL_OR_CHECKPOINT', help='such as scat_linear.fashion_mnist, or a folder')
    parser.add_argument('--data', default=Job.data, help=f'as for train (default: {Job.data})')
    parser.add_argument('--root', type=Path, help='as for train')
    parser.add_argument('--test-fraction', type=_number, default=Job.test_fraction,
                        help=f'as for train (default: {Job.test_fraction})')
    parser.add_argument('--skip-broken', action='store_true', help='as for train')
    parser.add_argument('--json', type=_file, metavar='FILE', help='write the figures there too, as JSON')
    _add_device(parser)


def _extract_options(parser: argparse.ArgumentParser) -> None:
    parser.description = ('Write features of all images, a row each, and their paths into safetensors files. The same '
                          'command goes on after it was stopped or killed; under torchrun, processes share the work.')
    parser.set_defaults(command=_extract)
    _add_any_model(parser)
    parser.add_argument('data', nargs='+', metavar='DATA',
                        help='a folder of images, whose folders are searched too; a file with the path of an image a '
                             'line; or WebDataset tar files, such as train-{0000..0099}.tar')
    parser.add_argument('-o', '--output', type=Path, required=True, metavar='FOLDER', help='of the features')
    parser.add_argument('--level', type=_level, default='pre_logits',
                        help='pre_logits, what the classifier sees (default); logits; or the number of a feature map, '
                             '0 for the first, -1 for the last')
    parser.add_argument('--pool', choices=tuple(POOLS), help='of a feature map (default: avg)')
    parser.add_argument('--dtype', choices=tuple(DTYPES), default='float32', help='(default: float32)')
    parser.add_argument('--batch-size', type=_positive, default=64, help='images at a time (default: 64)')
    parser.add_argument('--shard-rows', type=_positive, default=1024,
                        help='rows a file, best a multiple of --batch-size; those of a tar file are one file (default: '
                             '1024)')
    parser.add_argument('--workers', type=_natural, default=0, help='processes that decode images (default: 0)')
    parser.add_argument('--skip-broken', action='store_true', help='leave out images that cannot be read')
    _add_keywords(parser, 'a model without weights')
    _add_device(parser)


def _export_options(parser: argparse.ArgumentParser) -> None:
    parser.description = ('Write a model as a file that runs without this package, run it, and compare what it gives '
                          'and how long it takes with torch.')
    parser.set_defaults(command=_export)
    _add_any_model(parser)
    parser.add_argument('-o', '--output', type=_file, required=True, metavar='FILE', help='such as model.onnx')
    parser.add_argument('--format', choices=tuple(export.FORMATS),
                        help="onnx, or pt2 for torch.export's own (default: what FILE ends in)")
    parser.add_argument('--img-size', type=_size, metavar='S|HxW',
                        help="side, or height and width, of the images that it will take (default: the model's own)")
    parser.add_argument('--int8', action='store_true',
                        help='compute what stands behind the scattering in whole numbers of 8 bits (onnx)')
    _add_keywords(parser, 'a model without weights')


def _filters_options(parser: argparse.ArgumentParser) -> None:
    parser.description = ('Draw the filters of a model, or of a checkpoint, in Fourier and in space, what training '
                          'moved, and their Littlewood-Paley sum; print the numbers behind them and the frame bounds.')
    parser.set_defaults(command=_filters)
    parser.add_argument('model', metavar='MODEL_OR_CHECKPOINT',
                        help='name of a registered model, or a checkpoint folder')
    _add_keywords(parser, 'a model')
    parser.add_argument('-o', '--output', type=_picture, default='filters.png', metavar='PNG', help='the picture')


def _list_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_list)


def _run_options(parser: argparse.ArgumentParser) -> None:
    parser.description = "Register the zoo, then run an unmodified script such as timm's train.py."
    parser.set_defaults(command=_run, parser=parser)
    parser.add_argument('-m', dest='module', action='store_true', help='SCRIPT is the name of an installed module')
    parser.add_argument('script', metavar='SCRIPT')
    parser.add_argument('args', nargs=argparse.REMAINDER, metavar='ARGS', help='its arguments')


OPTIONS = {'train': _train_options, 'predict': _predict_options, 'explain': _explain_options, 'test': _test_options,
           'extract': _extract_options, 'export': _export_options, 'filters': _filters_options, 'list': _list_options,
           'run': _run_options}


def _add_keywords(parser: argparse.ArgumentParser, whose: str) -> None:
    parser.add_argument('--model-kwargs', nargs='*', default={}, action=_Keywords, metavar='KEY=VALUE',
                        help=f'keywords for {whose}, such as J=3')


def _add_any_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('model', metavar='MODEL_OR_CHECKPOINT',
                        help='such as scat_linear.fashion_mnist, any name of `scat-zoo list`, or the folder of a run '
                             'or a checkpoint')


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--device', type=_device, default='cuda' if torch.cuda.is_available() else 'cpu')


def _train(args: argparse.Namespace) -> None:
    if args.recipe:
        _train_recipe(args)
        return
    for name in ('select', 'arms', 'jobs'):
        if getattr(args, name) != args.parser.get_default(name):
            raise ValueError(f'--{name} is an option of recipes: it needs --recipe NAME, of those in --help')
    if args.start and args.model != Job.model:
        raise ValueError(f'{brief(args.start)} tells its own model: leave --model out')
    kwargs = {} if args.in_chans is None else {'in_chans': args.in_chans}
    asked = Job(**{
        **_fields(Job, args), 'model_kwargs': kwargs | args.model_kwargs,
        'output': args.output or Path('runs') / _name_of(args),
        'training': {key: value for key, value in _fields(Training, args).items() if value is not None}})
    device = torch.device(init_distributed_device_so(device=str(args.device))['device'])
    try:
        job.train(asked, device)
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def _name_of(args: argparse.Namespace) -> str:
    """Of the run's folder: the model, and the data that are not those built in."""
    model = Path(args.start).name if args.start else args.model
    return model if args.data == Job.data else f'{model}-{Path(args.data).resolve().name}'


def _fields(of: type, args: argparse.Namespace) -> Dict[str, Any]:
    """What the options say of the fields of this dataclass."""
    return {field.name: getattr(args, field.name) for field in dataclasses.fields(of) if hasattr(args, field.name)}


def _train_recipe(args: argparse.Namespace) -> None:
    own = {'recipe', 'select', 'arms', 'jobs', 'data', 'root', 'output', 'resume', 'device', 'command', 'parser'}
    for name, value in vars(args).items():
        if name not in own and value != args.parser.get_default(name):
            option = NAMES.get(name, option_of(name))
            raise ValueError(f'{option} has no effect on a recipe: leave it out, or train without --recipe')
    data = None if args.data == Job.data else args.data
    study.run(args.recipe, data, args.root, args.output or Path('runs') / args.recipe, args.select, args.arms,
              args.jobs, args.resume, args.device)


def _predict(args: argparse.Namespace) -> None:
    predict.show(args.model, args.paths, args.topk, args.device, args.csv)


def _explain(args: argparse.Namespace) -> None:
    explain.show(args.model, args.image, args.output, args.asked)


def _test(args: argparse.Namespace) -> None:
    predict.check_name(args.model)
    figures = job.test(args.model, args.data, args.root, args.device, args.test_fraction, args.skip_broken)
    if args.json:
        write_json(args.json, {'model': args.model, 'data': args.data, **figures})
    print(metrics.report(figures))


def _extract(args: argparse.Namespace) -> None:
    source = sources.find(args.data, args.shard_rows)
    device = args.device
    if device == torch.device('cuda'):                          # under torchrun, each process has its own
        device = torch.device('cuda', int(os.environ.get('LOCAL_RANK', 0)))
    extractor = FeatureExtractor(args.model, args.level, args.pool, args.dtype, args.batch_size, args.model_kwargs,
                                 device)
    extraction.run(extractor, source, args.output, args.workers, args.skip_broken)


def _export(args: argparse.Namespace) -> None:
    print(export.report(export.export(args.model, args.output, args.format, args.model_kwargs, args.img_size,
                                      args.int8)))


GOES_ON = {_train: '; the same command with --resume goes on from there',
           _extract: '; the same command goes on from there'}


def _filters(args: argparse.Namespace) -> None:
    filters.show(args.model, args.model_kwargs, args.output)


def _list(args: argparse.Namespace) -> None:
    print(f'{"model":19}{"parameters":>12}{"of filters":>12}  {"input":14}{"strides":18}weights')
    for name in timm.list_models('scat_*'):
        fixed: Any = timm.create_model(name, device='meta')
        learned = timm.create_model(name, device='meta', learnable=True)
        cfg = fixed.pretrained_cfg
        strides = brief(', '.join(str(level['reduction']) for level in fixed.feature_info), 16)
        weights = ', '.join(timm.list_pretrained(f'{name}.*')) or 'none'
        print(f'{name:19}{_count(fixed):12,}{_count(learned) - _count(fixed):12,}  '
              f'{" x ".join(map(str, cfg["input_size"])):14}{strides:18}{weights}')
    print('Parameters are those with fixed filters and the default 1000 classes; learnable filters add theirs.')


def _count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _is_there(script: str, module: bool) -> bool:
    if not module:
        return os.path.exists(script)
    try:
        return importlib.util.find_spec(script) is not None
    except (ImportError, ValueError):                   # of a package that holds it, or of a name that is none
        return False


def _run(args: argparse.Namespace) -> None:
    sys.argv = [args.script, *args.args]
    if args.module:
        runpy.run_module(args.script, run_name='__main__', alter_sys=True)
    else:
        sys.path.insert(0, os.path.dirname(os.path.abspath(args.script)))       # as python SCRIPT would
        runpy.run_path(args.script, run_name='__main__')


class _Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Tells defaults, where there are any to tell."""

    def _get_help_string(self, action: argparse.Action) -> Optional[str]:
        told = action.default in (None, [], {}, False) or '(default' in (action.help or '')
        return action.help if told else super()._get_help_string(action)


class _Keywords(ParseKwargs):
    """timm's action for KEY=VALUE, which fails where the sign is missing."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any,
                 option_string: Optional[str] = None) -> None:
        for value in values:
            if not value.partition('=')[0].isidentifier() or '=' not in value:
                raise argparse.ArgumentError(self, f'expected KEY=VALUE, such as J=3, got {brief(repr(value), 60)}')
        super().__call__(parser, namespace, values, option_string)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise argparse.ArgumentTypeError(f'expected a finite number of at least 0, got {brief(text, 60)}')
    return value


def _whole(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if not least <= value < 2 ** 31:
        wanted = f'at least {least}' if value < least else 'less than 2^31'
        raise argparse.ArgumentTypeError(f'expected a whole number of {wanted}, got {brief(text, 60)}')
    return value


_natural = functools.partial(_whole, least=0)
_positive = functools.partial(_whole, least=1)


def _size(text: str) -> Union[int, Tuple[int, int]]:
    """An image side, or height and width."""
    sides = text.lower().split('x')
    if len(sides) > 2 or not all(side.isascii() and side.isdigit() and int(side) > 0 for side in sides):
        raise argparse.ArgumentTypeError(f'expected a side such as 64, or height x width such as 48x80, got '
                                         f'{brief(text, 60)}')
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


def _level(text: str) -> Union[int, str]:
    """Number of a feature map, or another level by name."""
    try:
        return int(text)
    except ValueError:
        return text


def _file(text: str) -> Path:
    """A file to write, which need not be there; its folder must."""
    file = Path(text)
    try:
        usable = not file.is_dir() and file.parent.is_dir() and os.access(file.parent, os.W_OK)
    except OSError:                                     # its name is too long
        usable = False
    if not usable:
        raise argparse.ArgumentTypeError(f'expected a file in a folder that can be written to, got {brief(text)}')
    return file


def _picture(text: str) -> Path:
    """A file to write, in PNG: the name says so, or nobody could open it."""
    if Path(text).suffix.lower() != '.png':
        raise argparse.ArgumentTypeError(f'expected a name that ends in .png, got {brief(text)}')
    return _file(text)


def _optimiser(text: str) -> str:
    known = [str(name) for name in list_optimizers()]
    if text.lower() not in known:
        raise argparse.ArgumentTypeError(f'unknown optimiser {brief(repr(text), 60)}; {nearest(text, known)}')
    return text


def _devices() -> str:
    return ', '.join(name for name in ('cpu', 'cuda', 'mps', 'xpu') if torch.get_device_module(name).is_available())


def _device(text: str) -> torch.device:
    try:
        device = torch.device(text)
        module = torch.get_device_module(device.type)
        there = module.is_available() and (device.index or 0) < module.device_count()
    except RuntimeError:
        there = False
    if not there:
        raise argparse.ArgumentTypeError(f'no device {brief(repr(text), 60)} here, where torch finds {_devices()}')
    return device
