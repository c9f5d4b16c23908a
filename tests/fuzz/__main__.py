"""`python -m tests.fuzz KIND --count N`: try so many hostile inputs, or kills, and tell of each not taken well."""
import argparse
import collections
import contextlib
import os
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Counter, Dict, Iterator, Tuple

import torch
from tqdm import tqdm

from . import checkpoints, command_lines, features, images, kills, oracle, states

KINDS = {'checkpoints': checkpoints, 'images': images, 'states': states,
         'command_lines': command_lines, 'features': features, 'kills': kills}


def faults(kind: str, count: int, seed: int, folder: Path, codes: Counter[int]) -> Iterator[Tuple[int, str, str]]:
    """Number, description and fault of each of `count` inputs that is not taken well; exit codes are counted."""
    make = KINDS[kind].prepare(folder)
    for i in range(count):
        trial = make(Random(f'{seed} {i}'))
        with _within(folder):                                   # a command may write where it is
            code, fault = oracle.fault_of(trial)
        codes[code] += 1
        if list(folder.rglob(checkpoints.UNPICKLED)):
            raise RuntimeError(f'{trial.what}: a payload ran')
        if fault is not None:
            yield i, f'{trial.arguments[0]}, {trial.what}', fault


@contextlib.contextmanager
def _within(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m tests.fuzz', description=__doc__)
    parser.add_argument('kinds', nargs='*', default=list(KINDS), metavar='KIND', help=', '.join(KINDS))
    parser.add_argument('--count', type=int, default=100, help='inputs of each kind (default: 100)')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    tqdm.monitor_interval = 0                                   # no thread beside: `kills` copies this process
    found: Dict[str, int] = {}
    for kind in args.kinds:
        began, codes = time.monotonic(), collections.Counter()
        found[kind] = 0
        with tempfile.TemporaryDirectory() as folder, tqdm(desc=kind, total=args.count, dynamic_ncols=True) as bar:
            for i, what, fault in faults(kind, args.count, args.seed, Path(folder), codes):
                found[kind] += 1
                bar.write(f'{kind} {i}: {what}: {fault.strip().splitlines()[-1]}')
                bar.update(i + 1 - bar.n)
        print(f'{kind}: {args.count:,} inputs in {time.monotonic() - began:.0f} s, {codes[0]:,} accepted, '
              f'{codes[2]:,} refused, {found[kind]:,} not taken well')
    return 1 if any(found.values()) else 0


if __name__ == '__main__':
    raise SystemExit(main())
