"""Two checkouts of scat_zoo against each other: the process time of each case, and their ratio.

    git worktree add ../before COMMIT
    python benchmarks/bench_commits.py ../before . [--cases 128x3x32x32 morlet ...] [--repeat 21] [--rounds 2]

A process for each checkout runs a case when it is told to, one thread each, and never both at once: A B, B A, A B, ...
The ratio is the median of the ratios of neighbours, and stands with the 95 % interval of that median. A process keeps
the places of its memory, which alone can make a case some per cent slower, so every round has new processes; trust no
difference that one round has and another lacks. `--cases` takes parts of names; `--list` prints the names. Compare a
checkout with itself to see what the machine can resolve.
"""
import argparse
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Dict, List, Tuple

import torch
from bench_scattering import CASES, parse, step

LARGE = '32x3x224x224,J=3'
MODES = ['forward', 'to the input', 'to the filters']
KINDS = {'fixed': {}, **{name: {'learnable': True, 'parametrization': name}
                         for name in ('pixelwise', 'morlet', 'equivariant')}}
MODELS = ['scat_linear', 'scat_resnet']


def transform(case: str, mode: str) -> Callable[[], None]:
    """A pass of `ScatteringTorch2D`, as in bench_scattering."""
    from scat_zoo import ScatteringTorch2D
    size, J = parse(case)
    return step(ScatteringTorch2D(J, size[2:], learnable=mode == 'to the filters'), torch.rand(size), mode)


def training(kind: str) -> Callable[[], None]:
    """A step of scat_linear on 128 x 3 x 32 x 32, as in bench_training."""
    from bench_training import training_step
    return training_step(torch.rand(128, 3, 32, 32), torch.randint(0, 10, (128,)), **KINDS[kind])


def evaluation(name: str) -> Callable[[], None]:
    """A model of timm on 128 x 3 x 32 x 32 in eval mode."""
    import timm

    import scat_zoo  # noqa: F401  (registers the models)
    return step(timm.create_model(name).eval(), torch.rand(128, 3, 32, 32), 'forward')


def all_cases() -> Dict[str, Tuple]:
    """Name -> what makes the case, and its arguments."""
    cases = {f'{case} {mode}': (transform, case, mode) for case in [*CASES, LARGE] for mode in MODES}
    cases.update({f'training step, {kind}': (training, kind) for kind in KINDS})
    cases.update({f'eval, {name}': (evaluation, name) for name in MODELS})
    return cases


def work(checkout: Path) -> None:
    """Run the case that each line on stdin names, and print its seconds of process time."""
    torch.set_num_threads(1)
    import scat_zoo
    assert checkout in Path(scat_zoo.__file__).parents, f'{scat_zoo.__file__} is imported, not that of {checkout}'
    name, run = '', None
    for line in map(str.strip, sys.stdin):
        if line != name:
            torch.manual_seed(0)
            make, *arguments = all_cases()[line]
            name, run = line, make(*arguments)
            run()                                               # what is made once is no part of any repetition
        start = time.process_time()
        run()
        print(time.process_time() - start, flush=True)


class Worker:
    """The process of one checkout."""

    def __init__(self, checkout: Path) -> None:
        env = {**os.environ, 'PYTHONPATH': str(checkout), 'OMP_NUM_THREADS': '1'}
        command = [sys.executable, '-W', 'ignore', __file__, '--worker', str(checkout)]
        self.process = subprocess.Popen(command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def seconds(self, name: str) -> float:
        self.process.stdin.write(name + '\n')
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f'{self.process.args[-1]} does not run {name!r}: see above')
        return float(answer)

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def compare(name: str, a: Worker, b: Worker, repeat: int) -> List[Tuple[float, float]]:
    """Seconds of both, pair by pair; the first pair, which warms up, is left out."""
    pairs = []
    for i in range(repeat + 1):
        times = {worker: worker.seconds(name) for worker in ((a, b), (b, a))[i % 2]}
        pairs.append((times[a], times[b]))
    return pairs[1:]


def row(name: str, pairs: List[Tuple[float, float]]) -> str:
    """A line of the table: medians in ms, the median ratio B / A, and the interval of this median."""
    ratios, n = sorted(b / a for a, b in pairs), len(pairs)
    end = max(0, math.floor(n / 2 - 0.98 * math.sqrt(n)))       # of the binomial distribution, to 95 %
    a, b = (1000 * statistics.median(times) for times in zip(*pairs))
    return f'| {name} | {a:.1f} | {b:.1f} | {statistics.median(ratios):.3f} | {ratios[end]:.3f} to ' \
           f'{ratios[n - 1 - end]:.3f} |'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('checkouts', nargs='*', type=Path, metavar='CHECKOUT', help='A and B: two folders')
    parser.add_argument('--cases', nargs='+', default=[''], help='parts of names')
    parser.add_argument('--repeat', type=int, default=21, help='pairs of repetitions in a round')
    parser.add_argument('--rounds', type=int, default=2, help='fresh pairs of processes')
    parser.add_argument('--list', action='store_true', help='print the names of all cases')
    parser.add_argument('--worker', type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker)
        return
    names = [name for name in all_cases() if any(part in name for part in args.cases)]
    if args.list:
        print(*names, sep='\n')
        return
    if len(args.checkouts) != 2 or not names:
        parser.error('two checkouts are compared, in at least one case; see --list')
    print('| case | A, ms | B, ms | B / A | 95 % |\n|---|---|---|---|---|')
    pairs: Dict[str, List[Tuple[float, float]]] = {name: [] for name in names}
    for i in range(args.rounds):
        a, b = (Worker(checkout.resolve()) for checkout in args.checkouts)
        for name in names:
            own = compare(name, a, b, args.repeat)
            pairs[name] += own
            print(row(f'{name}, round {i + 1}', own), flush=True)
        a.stop()
        b.stop()
    if args.rounds > 1:
        print(*(row(f'{name}, all rounds', own) for name, own in pairs.items()), sep='\n')


if __name__ == '__main__':
    main()
