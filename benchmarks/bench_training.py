"""What a training step of scat_linear costs by parametrisation and scales, beside kymatio's forward pass alone.

    python benchmarks/bench_training.py [--batch 128] [--rounds 9]

One process, one thread, process time, the candidates in turn, medians; 3 x 32 x 32 images, J=2, L=8, order 2, AdamW.
"""
import argparse
import statistics
import time
from typing import Callable, Dict

import timm
import torch
import torch.nn.functional as F

import scat_zoo

KYMATIO = "kymatio's forward"
SCALES = ', scales 1 and 2'


def training_step(x: torch.Tensor, y: torch.Tensor, **kwargs: object) -> Callable[[], None]:
    model = timm.create_model('scat_linear', num_classes=10, **kwargs).train()
    optimizer = torch.optim.AdamW(scat_zoo.param_groups(model, lr=1e-3))

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return step


def kymatio_forward(x: torch.Tensor) -> Callable[[], None]:
    # kymatio's own package imports what scipy has dropped; its 2-D front end does not.
    from kymatio.scattering2d.frontend.torch_frontend import ScatteringTorch2D
    transform = ScatteringTorch2D(J=2, shape=(32, 32), L=8)

    def forward() -> None:
        with torch.no_grad():
            transform(x)
    return forward


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--batch', type=int, default=128)
    parser.add_argument('--rounds', type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x, y = torch.randn(args.batch, 3, 32, 32), torch.randint(0, 10, (args.batch,))
    candidates: Dict[str, Callable[[], None]] = {}
    for name in ('fixed', 'pixelwise', 'morlet', 'equivariant'):
        learned = {} if name == 'fixed' else {'learnable': True, 'parametrization': name}
        candidates[name] = training_step(x, y, **learned)
        candidates[name + SCALES] = training_step(x, y, scales=(1, 2), **learned)
    candidates[KYMATIO] = kymatio_forward(x)
    times = {name: [] for name in candidates}
    for _ in range(args.rounds + 2):                            # two rounds to warm up
        for name, run in candidates.items():
            start = time.process_time()
            run()
            times[name].append(time.process_time() - start)
    median = {name: statistics.median(values[2:]) for name, values in times.items()}
    print(f'{"":32}{"seconds":>9}{"to pixelwise":>14}{"to kymatio":>12}')
    for name, value in median.items():
        print(f'{name:32}{value:9.3f}{value / median["pixelwise"]:14.2f}{value / median[KYMATIO]:12.2f}')


if __name__ == '__main__':
    main()
