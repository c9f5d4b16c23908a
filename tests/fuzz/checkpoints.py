"""Hostile checkpoint folders: each a good one, with one thing in it that is wrong."""
import copy
import json
import pickle
import shutil
import struct
from pathlib import Path
from random import Random
from typing import Any, Callable, Dict, Iterator, List, Tuple

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from scat_zoo.train import checkpoint

from .oracle import Trial

CONFIG, WEIGHTS, UNPICKLED = 'config.json', 'model.safetensors', 'unpickled'

# Small models of each kind of head, norm and parameter.
MODELS: List[Tuple[str, Dict[str, Any]]] = [
    ('scat_linear', {'L': 2, 'J': 1, 'learnable': True}),
    ('scat_linear', {'L': 2, 'J': 2, 'global_pool': 'avgstd', 'learnable': True, 'parametrization': 'morlet'}),
    ('scat_linear', {'L': 4, 'J': 1, 'rotation': 'average', 'global_pool': 'avg', 'channel_differences': True,
                     'log_input': 0.03}),
    ('scat_mlp', {'L': 2, 'J': 2, 'head_hidden_size': 8}),
    ('scat_tiny', {'L': 2}),
    ('scat_resnet', {'L': 2, 'J': 1, 'channels': (8, 8), 'depths': (1, 1), 'strides': (1, 2), 'learnable': True,
                     'parametrization': 'equivariant'}),
]

# What a file may say in the place of anything.
VALUES: List[Any] = [
    None, True, False, '', 'x', 'x' * 100_000, '../../etc/passwd', '\udc80\x00', -1, 0, 1, 3, 3000, 60_000, 10 ** 7,
    10 ** 30, -1e308, 1e-320, 0.5, float('nan'), float('inf'), [], {}, [0], [-1, 10 ** 7], [[[]]], [100_000, 1],
    [1] * 10_000, ['a', 'b'], {'a': {'b': []}}, 'float16', 'cuda:7', 'average', 'pixelwise',
]
# Keywords and entries that a file may add.
KEYS = ['L', 'J', 'scales', 'img_size', 'depths', 'channels', 'strides', 'head_hidden_size', 'num_classes', 'in_chans',
        'pool_grid', 'log_floor', 'log_input', 'parametrization', 'learnable', 'rotation', 'max_order', 'dtype',
        'device', 'init', 'features_only', 'pretrained', 'checkpoint_path', 'state_dict', 'url', 'file', 'hf_hub_id',
        'source', 'custom_load', 'pretrained_strict', 'scriptable', 'out_indices', 'global_pool', 'nothing_known']


def prepare(folder: Path) -> Callable[[Random], Trial]:
    """What makes a trial: a command that opens a hostile checkpoint, of three classes of grey or coloured images."""
    good = []
    for i, (name, kwargs) in enumerate(MODELS):
        torch.manual_seed(i)
        channels = 3 if kwargs.get('channel_differences') else 1
        model: Any = timm.create_model(name, num_classes=3, in_chans=channels, img_size=16, **kwargs)
        good.append(folder / f'good-{i}')
        checkpoint.save(model, good[-1], ['ant', 'bee', 'cat'], (0., 4095.) if i == 1 else None)
    image, bad = folder / 'images' / 'image.png', folder / 'bad'
    image.parent.mkdir()
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (16, 16), np.uint8)).save(image)

    def make(rng: Random) -> Trial:
        shutil.rmtree(bad, ignore_errors=True)
        shutil.rmtree(folder / 'out', ignore_errors=True)
        shutil.copytree(rng.choice(good), bad)
        how = rng.choice([_entry, _entry, _entry, _added, _added, _text, _tensor, _tensor, _tensor, _bytes, _files])
        what, refused = how(bad, rng)
        commands = {'predict': ['predict', bad, image, '--device', 'cpu'],
                    'extract': ['extract', bad, image.parent, '-o', folder / 'out', '--device', 'cpu']}
        arguments = [str(part) for part in commands[rng.choice(['predict', 'predict', 'extract'])]]
        return Trial(arguments, what, refused)

    return make


def _paths(content: Any, path: Tuple = ()) -> Iterator[Tuple]:
    """The way to each entry of nested dicts and lists."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from _paths(value, (*path, key))


def _entry(folder: Path, rng: Random) -> Tuple[str, bool]:
    """Another value for an entry of the config, or none."""
    content = json.loads((folder / CONFIG).read_text())
    *way, key = rng.choice(list(_paths(content)))
    at = content
    for step in way:
        at = at[step]
    value = rng.choice([*VALUES, ...])
    if value is ...:
        del at[key]
    else:
        at[key] = copy.deepcopy(value)
    _write(folder, content)
    return f'{[*way, key]} = {str(value)[:40]}', False


def _added(folder: Path, rng: Random) -> Tuple[str, bool]:
    """One more entry: at the top, among timm's, or among the model's keywords."""
    content = json.loads((folder / CONFIG).read_text())
    at = rng.choice(['', 'pretrained_cfg', 'model_args', 'model_args'])
    key, value = rng.choice(KEYS), rng.choice(VALUES)
    (content if not at else content.setdefault(at, {}))[key] = copy.deepcopy(value)
    _write(folder, content)
    return f'{at}.{key} = {str(value)[:40]}', False


def _write(folder: Path, content: Any) -> None:
    (folder / CONFIG).write_text(json.dumps(content), errors='surrogatepass')


def _text(folder: Path, rng: Random) -> Tuple[str, bool]:
    """A config that is no config."""
    raw = (folder / CONFIG).read_bytes()
    place = rng.randrange(len(raw))
    what = rng.choice(['cut', 'flipped', 'empty', 'null', 'list', 'number', 'deep', 'marked', 'binary'])
    (folder / CONFIG).write_bytes({
        'cut': raw[:place], 'flipped': raw[:place] + bytes([raw[place] ^ 1 << rng.randrange(8)]) + raw[place + 1:],
        'empty': b'', 'null': b'null', 'list': b'[]', 'number': b'1e999', 'deep': b'[' * 100_000,
        'marked': b'\xef\xbb\xbf' + raw, 'binary': rng.randbytes(300)}[what])
    return f'config {what} at {place}', what not in ('flipped', 'marked')


def _tensor(folder: Path, rng: Random) -> Tuple[str, bool]:
    """A tensor too few, too many, or not what it should be."""
    tensors = load_file(folder / WEIGHTS)
    name = rng.choice(sorted(tensors))
    value = tensors[name]
    change: Dict[str, Callable[[], Any]] = {
        'gone': lambda: None, 'longer': lambda: torch.cat([value.flatten(), value.flatten()[:1]]),
        'flat': lambda: value.flatten() if value.dim() != 1 else value[None],
        'empty': lambda: value.flatten()[:0], 'NaN': lambda: torch.full_like(value.float(), float('nan')),
        'infinite': lambda: torch.full_like(value.float(), -float('inf')),
        'one NaN': lambda: _with_nan(value), 'strings': lambda: value.flatten().to(torch.uint8)[:1],
        'complex': lambda: value.to(torch.complex64), 'one more': lambda: value}
    what = rng.choice(sorted(change))
    new = change[what]()
    if what == 'one more':
        tensors[f'{name}.more'] = new.clone()
    elif new is None:
        del tensors[name]
    else:
        tensors[name] = new.contiguous()
    save_file(tensors, folder / WEIGHTS)
    counts = value.dtype == torch.int64 and name.endswith('num_batches_tracked')        # which no answer reads
    return f'{name} {what}', not counts


def _with_nan(value: torch.Tensor) -> torch.Tensor:
    value = value.float().clone()
    value.view(-1)[-1] = float('nan')
    return value


def _bytes(folder: Path, rng: Random) -> Tuple[str, bool]:
    """A file of tensors that is none."""
    raw = (folder / WEIGHTS).read_bytes()
    length = struct.unpack('<Q', raw[:8])[0]
    place = rng.randrange(8 + length)
    what = rng.choice(['cut', 'header', 'length', 'empty', 'binary', 'pickle', 'longer'])
    (folder / WEIGHTS).write_bytes({
        'cut': raw[:rng.randrange(len(raw))],
        'header': raw[:place] + bytes([raw[place] ^ 1 << rng.randrange(8)]) + raw[place + 1:],
        'length': struct.pack('<Q', rng.choice([0, 1, length + 1, 2 ** 40, 2 ** 63])) + raw[8:], 'empty': b'',
        'binary': rng.randbytes(1000), 'pickle': pickle.dumps(Payload(folder)), 'longer': raw + b'\0'}[what])
    return f'weights {what} at {place}', what != 'header'


def _files(folder: Path, rng: Random) -> Tuple[str, bool]:
    """A folder that lacks a file, or holds something else in its place, or beside it."""
    name = rng.choice([CONFIG, WEIGHTS])
    what = rng.choice(['missing', 'folder', 'loop', 'dangling', 'pickle beside'])
    if what == 'pickle beside':
        (folder / 'pytorch_model.bin').write_bytes(pickle.dumps(Payload(folder)))
        return what, False
    (folder / name).unlink()
    if what == 'folder':
        (folder / name).mkdir()
    elif what == 'loop':
        (folder / name).symlink_to(folder / name)
    elif what == 'dangling':
        (folder / name).symlink_to(folder / 'nowhere')
    return f'{name} {what}', True


class Payload:
    """What leaves a file behind where it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.file = folder.parent / UNPICKLED

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)
