"""Whether memory stays what it is: training steps, and forward passes of images of all sizes.

    python benchmarks/bench_memory.py [--steps 2000]

Prints the memory of the process (resident) at each tenth, and by how much its largest and least value of the last half
are apart. Each kind of work has a process of its own, of one thread.
"""
import argparse
import multiprocessing
import random
from pathlib import Path
from typing import Callable, Dict, List, Tuple

import timm
import torch
import torch.nn.functional as F
from tqdm import trange

import scat_zoo


def training(parametrization: str) -> Callable[[], None]:
    model = timm.create_model('scat_linear', num_classes=10, learnable=True, parametrization=parametrization).train()
    optimizer = torch.optim.AdamW(scat_zoo.param_groups(model, lr=1e-3))

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(torch.randn(8, 3, 32, 32)), torch.randint(10, (8,))).backward()
        optimizer.step()
    return step


def all_sizes() -> Callable[[], None]:
    model, rng = timm.create_model('scat_resnet', num_classes=10).eval(), random.Random(0)

    def step() -> None:
        with torch.inference_mode():
            model(torch.randn(rng.randint(1, 4), 3, rng.randint(32, 128), rng.randint(32, 128)))
    return step


WORK: Dict[str, Tuple[Callable[..., Callable[[], None]], List[str]]] = {
    'training, pixelwise': (training, ['pixelwise']), 'training, morlet': (training, ['morlet']),
    'forward, sides of 32 to 128': (all_sizes, [])}


def megabytes() -> float:
    fields = Path('/proc/self/status').read_text().split('VmRSS:')[1].split()
    return int(fields[0]) / 1024


def measure(name: str, count: int) -> Tuple[List[float], float]:
    """Megabytes at each tenth, and the spread in the last half as a part of the largest."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    make, arguments = WORK[name]
    step, found = make(*arguments), []
    for _ in trange(count, desc=name, dynamic_ncols=True):
        step()
        found.append(megabytes())
    half = found[count // 2:]
    return found[count // 10 - 1::count // 10], (max(half) - min(half)) / max(half)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--steps', type=int, default=2000)
    steps = parser.parse_args().steps
    if steps < 10:
        parser.error(f'expected at least 10 steps, got {steps}')
    context = multiprocessing.get_context('spawn')
    for name in WORK:
        with context.Pool(1) as pool:
            tenths, spread = pool.apply(measure, (name, steps))
        print(f'{name}: {", ".join(f"{size:.0f}" for size in tenths)} MB; in the last half within {spread:.1%}')


if __name__ == '__main__':
    main()
