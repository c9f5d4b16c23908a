"""Hostile command lines: a good command with one or two arguments that are not."""
import shutil
from pathlib import Path
from random import Random
from typing import Callable, Dict, List

from .checkpoints import KEYS
from .images import two_classes
from .oracle import Trial

WORDS = ['', ' ', 'x', '-1', '0', '1', '2', '3', '0.5', '1e30', '1e999', 'nan', 'inf', '-inf', '1000000000000000000000',
         'None', 'True', '[]', '{}', '()', '(1,)', '[1,2]', "{'a':1}", "'", '"', '\\', '%s', '{0}', '\n', '\0', 'ü',
         '\udc80', 'x' * 5000, '/dev/null', '/dev/null/x', '..', '~', '*', 'cpu', 'cuda:99', '1x1', '16x24', '7x',
         'avg', 'adamw', 'float16', 'J=1', 'L=', '=3', 'L=2=2']
OPTIONS: Dict[str, List[str]] = {
    'train': ['--model', '--img-size', '--from', '--in-chans', '--data', '--root', '--test-fraction', '--val-fraction',
              '--class-weights', '--augment', '--opt', '--lr', '--filter-lr', '--weight-decay', '--warmup-epochs',
              '--label-smoothing', '--lda', '--lda-epochs', '--seed', '--device', '--recipe', '--arms',
              '--model-kwargs'],
    'predict': ['--topk', '--csv', '--device'],
    'explain': ['--class', '-o', '--device'],
    'test': ['--data', '--root', '--test-fraction', '--json', '--device'],
    'extract': ['-o', '--level', '--pool', '--dtype', '--batch-size', '--shard-rows', '--device', '--model-kwargs'],
    'filters': ['-o', '--model-kwargs'],
    'list': [],
}
SECONDS = {'train': 40., 'explain': 10., 'filters': 20.}        # what the good command takes, and some more


def prepare(folder: Path) -> Callable[[Random], Trial]:
    """What makes a trial: a command on two classes of small grey images and shipped weights."""
    data, out = two_classes(folder / 'data'), folder / 'out'
    image = data / 'test' / 'a' / '0.png'
    weights = 'scat_tiny.fashion_mnist'
    good = {'train': ['--data', data, '--output', out / 'run', '--epochs', '1', '--model-kwargs', 'L=2', 'J=1'],
            'predict': [weights, image], 'explain': [weights, image, '-o', out / 'e.png'],
            'test': [weights, '--data', data], 'extract': [weights, data, '-o', out / 'f'],
            'filters': [weights, '-o', out / 'f.png'], 'list': []}

    def make(rng: Random) -> Trial:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        command = rng.choice([*good, 'train', 'predict', 'extract'])
        arguments = [str(part) for part in good[command]]
        for _ in range(rng.choice([1, 1, 2])):
            way = rng.random()
            if way < 0.2 and arguments:                         # another word for one that is there
                arguments[rng.randrange(len(arguments))] = rng.choice(WORDS)
            elif way < 0.4:
                arguments += ['--model-kwargs', f'{rng.choice(KEYS)}={rng.choice(WORDS)}']
            elif OPTIONS[command]:
                arguments += [rng.choice(OPTIONS[command]), rng.choice(WORDS)]
        return Trial([command, *arguments], repr([command, *arguments])[:300], False, SECONDS.get(command, 5.))

    return make
