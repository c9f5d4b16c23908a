"""What a checkpoint folder must say of itself before a model is built of it, and what must be in that model then.

Its config and the header of its tensors are read, a few kilobytes: what they ask for must be there, so that no file of
a few bytes asks for minutes or gigabytes.
"""
import contextlib
import dataclasses
import json
import math
import threading
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Tuple

import timm
from safetensors import safe_open
from timm.models import PretrainedCfg
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from ..wording import brief, some
from .choices import LARGEST

CONFIG, WEIGHTS = 'config.json', 'model.safetensors'
MOST_BYTES = 1 << 24            # of a config; labels of a hundred thousand classes take a tenth
REPLACED = 10_000_000           # numbers that a network may have before its classifier is that of the file
LEAST = 256                     # what a keyword may ask for without a trace in the tensors, as an average's L
# Those that timm knows.
INTERPOLATIONS = 'nearest', 'bilinear', 'bicubic', 'lanczos', 'box', 'hamming'
CROP_MODES = 'center', 'squash', 'border'
DTYPES = {'F16', 'BF16', 'F32', 'F64', 'I64'}


class Found(NamedTuple):
    """What a folder holds: its config, and shape of each tensor by name."""
    config: Dict[str, Any]
    shapes: Dict[str, Tuple[int, ...]]


def vet(folder: Path) -> Found:
    """What the folder holds, if a model can be built of it.

    Raises:
        ValueError: in a part of a sentence, if not.
    """
    found = Found(_read_config(folder / CONFIG), _read_shapes(folder / WEIGHTS))
    _check_entries(found.config)
    _check_sizes(*found)
    return found


def _read_config(file: Path) -> Dict[str, Any]:
    if file.stat().st_size > MOST_BYTES:
        raise ValueError(f'{CONFIG} is larger than {MOST_BYTES:,} bytes')
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{CONFIG} is no JSON: {brief(error, 80)}') from error
    if not isinstance(content, dict):
        raise ValueError(f'{CONFIG} must hold entries by name, got {brief(repr(content), 40)}')
    return content


def _read_shapes(file: Path) -> Dict[str, Tuple[int, ...]]:
    shapes = {}
    with safe_open(file, 'pt') as tensors:
        for name in tensors.keys():
            header = tensors.get_slice(name)
            if header.get_dtype() not in DTYPES:
                raise ValueError(f'{brief(name, 60)} is of dtype {header.get_dtype()}')
            shapes[name] = tuple(header.get_shape())
    return shapes


def _whole(value: Any) -> bool:
    return type(value) is int and value >= 0


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) in (int, float) and math.isfinite(v) for v in value)


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 1000


def _names(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _name_or_names(value: Any) -> bool:
    return _text(value) or _names(value)


def _image(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(_whole(v) and v > 0 for v in value)


# What an entry must be, where it is there; of the others timm and the models read none.
ENTRIES: Dict[str, Tuple[Callable[[Any], bool], str]] = {
    'architecture': (_text, 'a name'), 'num_classes': (_whole, 'a whole number'),
    'num_features': (_whole, 'a whole number'), 'global_pool': (_text, 'a name'),
    'label_names': (_names, 'names'), 'model_args': (lambda v: isinstance(v, dict), 'keywords'),
    'pretrained_cfg': (lambda v: isinstance(v, dict), 'entries by name')}
NEEDED = {'model_args', 'pretrained_cfg', 'input_size'}         # as they are, if they are there
OF_IMAGES: Dict[str, Tuple[Callable[[Any], bool], str]] = {
    'input_size': (_image, 'channels, height and width'), 'mean': (_numbers, 'numbers'), 'std': (_numbers, 'numbers'),
    'interpolation': (lambda v: v in INTERPOLATIONS, some(INTERPOLATIONS)),
    'crop_mode': (lambda v: v in CROP_MODES, some(CROP_MODES)),
    # An image is enlarged by its inverse.
    'crop_pct': (lambda v: type(v) in (int, float) and 0.05 <= v <= 1, 'a share from 0.05'),
    'pool_size': (_numbers, 'rows and columns'), 'first_conv': (_name_or_names, 'names'),
    'classifier': (_name_or_names, 'names'),
    'num_classes': (_whole, 'a whole number'), 'label_offset': (lambda v: v == 0, '0'),
    'custom_load': (lambda v: not v, 'false'), 'fixed_input_size': (lambda v: type(v) is bool, 'true or false'),
    'architecture': (_text, 'a name'), 'label_names': (_names, 'names')}
OF_TIMM = {field.name for field in dataclasses.fields(PretrainedCfg)}


def _check_entries(config: Mapping[str, Any]) -> None:
    if 'pretrained_cfg' not in config:
        raise ValueError(f'there is no entry pretrained_cfg beside {some(config)}')
    images = config['pretrained_cfg']
    for entries, known in ((config, ENTRIES), (images, OF_IMAGES)):
        for name, (fits, what) in known.items():
            if name in entries and not fits(entries[name]) and (entries[name] is not None or name in NEEDED):
                raise ValueError(f'{name} must be {what}, got {brief(repr(entries[name]), 40)}')
    unknown = [name for name in images if name not in OF_TIMM]
    if unknown:
        raise ValueError(f'pretrained_cfg has no entry {brief(unknown[0], 60)}')
    if not timm.is_model(config.get('architecture') or ''):
        raise ValueError(f'there is no model {brief(repr(config.get("architecture")), 60)}')
    check_scattering(config['architecture'])
    size = images.get('input_size')
    for name in ('mean', 'std'):
        if size and images.get(name) and len(images[name]) != size[0]:
            raise ValueError(f'{name} must be {size[0]} numbers, as images have channels, got {len(images[name])}')
    if images.get('std') and min(images['std']) <= 0:
        raise ValueError(f'std must be positive, got {brief(images["std"], 40)}')


def check_scattering(architecture: str) -> None:
    """Refuse one of timm's own before it is built: a network of timm behind a scattering is called `scat_hybrid`.

    Raises:
        ValueError: in a part of a sentence.
    """
    if timm.model_entrypoint(architecture).__module__.startswith('timm.'):
        raise ValueError('expected a model with scattering filters (`scat-zoo list`), '
                         f'{brief(architecture, 60)} has none')


def _check_sizes(config: Mapping[str, Any], shapes: Mapping[str, Tuple[int, ...]]) -> None:
    """Refuse what asks for more than the tensors hold."""
    args, images = config.get('model_args') or {}, config['pretrained_cfg']
    classes = config.get('num_classes', images.get('num_classes'))
    for name, given in (('num_classes', args.get('num_classes')), ('num_classes', images.get('num_classes'))):
        if given is not None and classes is not None and given != classes:
            raise ValueError(f'{name} is both {brief(classes, 40)} and {brief(given, 40)}')
    labels = config.get('label_names') or images.get('label_names')
    if labels and len(labels) != classes:
        raise ValueError(f'there are {len(labels):,} label_names for {brief(classes, 40)} classes')
    # Filters that are stored pixel by pixel are as large as images, and the padding.
    _check_image_size(args, images, [max(shape) for name, shape in shapes.items() if shape and name.endswith('.hat')])
    most = max([LEAST, len(shapes), *(side for shape in shapes.values() if 0 not in shape for side in shape)])
    asked = {**args, 'num_classes': classes}
    for name, value in asked.items():
        if name != 'img_size' and _largest(value) > most:
            raise ValueError(f'{brief(name, 40)}={brief(value, 40)} is more than the tensors hold')


def _check_image_size(args: Mapping[str, Any], images: Mapping[str, Any], filters: List[int]) -> None:
    """Both that are told must be one, within reason, and no larger than filters of these sides."""
    size, told = args.get('img_size'), images.get('input_size')
    sides = [size, size] if _whole(size) else size
    if size is not None and told and sides != told[1:]:
        raise ValueError(f'img_size is {brief(size, 40)} where input_size is {brief(told, 40)}')
    for name, value in (('img_size', size), ('input_size', told)):
        if _largest(value) > LARGEST:
            raise ValueError(f'{name} is {brief(value, 40)}, of which {LARGEST:,} are the most')
        if name == 'img_size' and filters and _largest(value) > max(filters):
            raise ValueError(f'{name} is {brief(value, 40)}, and its filters have {max(filters):,} pixels')


def _largest(value: Any) -> float:
    """The largest whole number in a value, 0 if there is none."""
    if isinstance(value, (list, dict)):
        return max(map(_largest, value.values() if isinstance(value, dict) else value), default=0)
    return value if _whole(value) else 0


@contextlib.contextmanager
def no_more_than(found: Found) -> Iterator[None]:
    """Within, this thread builds a model of as many parameters as these tensors, as large, and few that it replaces.

    Raises:
        ValueError: from within, in a part of a sentence, if it makes more.
    """
    me, most, made = threading.get_ident(), 2 * len(found.shapes) + LEAST, [0, 0]
    largest = 4 * sum(map(math.prod, found.shapes.values())) + REPLACED

    def count(module: nn.Module, name: str, parameter: Any) -> None:
        if threading.get_ident() == me and parameter is not None:
            made[0] += 1
            made[1] += parameter.numel()
            if made[0] > most or made[1] > largest:
                raise ValueError(f'it asks for more parameters than its {len(found.shapes):,} tensors')

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def check_loaded(model: nn.Module, found: Found) -> None:
    """Refuse a model that has not got each of its values from the file, of their shapes, and finite.

    timm leaves out what does not fit where numbers of classes differ. Fixed filters need none.

    Raises:
        ValueError: in a part of a sentence.
    """
    args = found.config.get('model_args') or {}
    fixed = not args.get('learnable') and not args.get('frozen_filters')
    missing: List[str] = []
    for name, tensor in model.state_dict().items():
        if found.shapes.get(name) != tuple(tensor.shape) and not (fixed and '.bank.' in name):
            missing.append(name)
    if missing:
        raise ValueError(f'there is nothing for {some(missing, 80)}')
    check_values(model)


def check_values(model: nn.Module) -> None:
    """Refuse weights that are not finite, and variances below 0, in a part of a sentence."""
    for name, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise ValueError(f'its weights are not finite, first {brief(name, 60)}')
        if name.endswith('running_var') and tensor.numel() and tensor.min() < 0:
            raise ValueError(f'variances are negative, first {brief(name, 60)}')
