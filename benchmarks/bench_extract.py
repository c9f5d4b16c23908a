"""`scat-zoo extract`: its rates on one and two processes, what that makes of many images, and what killing it costs.

    python benchmarks/bench_extract.py rates [--repeats 3]
    python benchmarks/bench_extract.py kills [--times 20] [--seed 0]
    python benchmarks/bench_extract.py ray [--seed 0]

`rates` prints the tables of docs/scale.md. A process has one thread, and reads its images itself; commands take turns,
and the median counts. A rate is that of the slower process, times their number: from the first image read to the last
file written, without the seconds in which Python imports torch.

`kills` begins two processes under torchrun, sends SIGKILL to some of torchrun and its two processes at a random moment,
a third of the time from the very start, else between two random files of features, and begins the same command again
until it is done. All files must be those of one undisturbed process, to the byte. `ray` does the like with two workers
of Ray (extra `ray`), of which one is killed: all rows must be those of `extract`, to the bit. Either ends with status 1
if anything differs.

Images are the 3,000 of Fashion-MNIST that come with the package, again and again up to 5,000, as PNG; and for 224
pixels enlarged to colour JPEG of 256.
"""
import argparse
import contextlib
import filecmp
import json
import os
import platform
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import torch
from PIL import Image

from scat_zoo.extract import load
from scat_zoo.train.data import load as load_data

IMAGES, LARGE = 5000, 320
ENVIRONMENT = {**os.environ, 'OMP_NUM_THREADS': '1'}
TORCHRUN = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2', '-m', 'scat_zoo']
ALONE = [sys.executable, '-m', 'scat_zoo']
SMALL = 'scat_tiny.fashion_mnist'
MANY, MACHINES = (10 ** 6, 10 ** 9), (1, 8, 64)


SMALL_FILES = ('--shard-rows', '256')            # so that two processes have as many


class Case(NamedTuple):
    """A row of the tables: what is extracted, and from which images."""
    model: str
    images: str
    title: str
    options: Sequence[str] = SMALL_FILES


CASES = (
    Case('scat_tiny.fashion_mnist', 'small', 'pre_logits, float32'),
    Case('scat_linear.fashion_mnist', 'small', 'pre_logits, float32'),
    Case('scat_linear.fashion_mnist', 'small', 'last map, pooled, float16',
         ('--level', '-1', '--dtype', 'float16', *SMALL_FILES)),
    Case('scat_resnet.fashion_mnist', 'small', 'pre_logits, float32'),
    Case('scat_linear', 'large', 'J=3, last map, pooled, float16',
         ('--level', '-1', '--dtype', 'float16', '--shard-rows', '32', '--batch-size', '32',
          '--model-kwargs', 'J=3', 'img_size=224')),
)


def write_images(folder: Path) -> None:
    """`small` and `large`, with a folder for each class."""
    data = load_data('sample', val_fraction=0.)
    pictures = [sample for part in (data.train, data.test) for sample in part]
    for i in range(IMAGES):
        picture, target = pictures[i % len(pictures)]
        _save(picture, folder / 'small' / f'{target}' / f'{i:04}.png')
        if i < LARGE:
            large = picture.resize((256, 256), Image.Resampling.BICUBIC).convert('RGB')
            _save(large, folder / 'large' / f'{target}' / f'{i:04}.jpg')


def _save(picture: Image.Image, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file)


# Rates.

def rates(folder: Path, repeats: int) -> None:
    measured = {case: measure(case, folder, repeats) for case in CASES}
    processor = re.search('^model name.*: (.*)', Path('/proc/cpuinfo').read_text(), re.MULTILINE)
    print(f'{processor[1] if processor else platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}\n')
    print(f'| model | features | bytes an image | one process, images a second | two | ratio |\n{"|---" * 6}|')
    for case, (size, one, two) in measured.items():
        print(f'| `{case.model}` | {case.title} | {size:,.0f} | {one:,.0f} | {two:,.0f} | {two / one:.2f} |')
    for count in MANY:
        print(f'\n{count:,} images:\n\n| model | features | size | '
              + ' | '.join(f'{n} machine{"s" * (n > 1)}' for n in MACHINES) + f' |\n{"|---" * 6}|')
        for case, (size, _, two) in measured.items():
            times = ' | '.join(duration(count / two / machines) for machines in MACHINES)
            print(f'| `{case.model}` | {case.title} | {bytes_of(count * size)} | {times} |')


def measure(case: Case, folder: Path, repeats: int) -> List[float]:
    """Bytes an image, and images a second on one process and on two."""
    found: Dict[int, List[float]] = {1: [], 2: []}
    for i in range(repeats):
        for count, start in ((1, ALONE), (2, TORCHRUN)):
            output = folder / 'features' / f'{CASES.index(case)}-{count}-{i}'
            line = [*start, 'extract', case.model, str(folder / case.images), '-o', str(output), *case.options]
            done = subprocess.run(line, env=ENVIRONMENT, check=True, capture_output=True, text=True)
            told = re.findall(r': ([\d,]+) images in ([\d.]+) s', done.stdout)
            assert len(told) == count, done.stdout
            found[count].append(sum(int(n.replace(',', '')) for n, _ in told) / max(float(s) for _, s in told))
    rows = json.loads((output / 'index.json').read_text())['rows']
    size = sum(file.stat().st_size for file in output.iterdir()) / rows
    return [size, *map(statistics.median, found.values())]


def duration(seconds: float) -> str:
    for unit, length in (('years', 365.25 * 86400), ('days', 86400), ('hours', 3600), ('minutes', 60)):
        if seconds >= 2 * length:
            return f'{seconds / length:,.{0 if seconds >= 20 * length else 1}f} {unit}'
    return f'{seconds:,.0f} seconds'


def bytes_of(count: float) -> str:
    for unit, size in (('TB', 1e12), ('GB', 1e9)):
        if count >= size:
            return f'{count / size:,.{0 if count >= 20 * size else 1}f} {unit}'
    return f'{count / 1e6:,.0f} MB'


# Kills.

def kills(folder: Path, times: int, seed: int) -> bool:
    expected = folder / 'expected'
    begun = time.perf_counter()
    subprocess.run(command(ALONE, folder, expected), env=ENVIRONMENT, check=True, capture_output=True)
    span, files = time.perf_counter() - begun, len(list(expected.glob('features-*.safetensors')))
    rng, wrong = random.Random(seed), 0
    for i in range(times):
        output = folder / f'killed-{i}'
        early = rng.random() < 1 / 3
        least, seconds = (0, rng.uniform(0, span)) if early else (rng.randrange(1, files - 1), rng.uniform(0, 0.1))
        victims = rng.choice(('all', 'torchrun', 'one process', 'both processes'))
        workers, there = killed(command(TORCHRUN, folder, output), output, least, seconds, victims)
        runs = 0
        while not (output / 'index.json').exists():
            subprocess.run(command(TORCHRUN, folder, output), env=ENVIRONMENT, check=True, capture_output=True)
            runs += 1
        while any(Path(f'/proc/{pid}').exists() for pid in workers):        # those that torchrun left behind
            time.sleep(0.1)
        same = sorted(os.listdir(output)) == sorted(os.listdir(expected)) and all(
            filecmp.cmp(output / name, expected / name, shallow=False) for name in os.listdir(expected))
        wrong += not same
        print(f'{i + 1:3}  killed {victims:15} with {there:2} of {files} files there, begun again '
              f'{runs} time{"s" * (runs != 1)}: {"byte-equal" if same else "DIFFERENT"}', flush=True)
    print(f'{times - wrong} of {times} byte-equal')
    return wrong == 0


def command(start: Sequence[str], folder: Path, output: Path) -> List[str]:
    return [*start, 'extract', SMALL, str(folder / 'small'), '-o', str(output), '--shard-rows', '128']


def killed(line: Sequence[str], output: Path, least: int, seconds: float, victims: str) -> Tuple[List[int], int]:
    """Begin the command, and kill some of its processes so long after there are so many files of features.

    Its processes but torchrun, which go on by themselves if that alone is killed; and the number of files then.
    """
    with subprocess.Popen(line, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while len(list(output.glob('features-*.safetensors'))) < least and process.poll() is None:
            time.sleep(0.005)
        time.sleep(seconds)
        while not children(process.pid) and process.poll() is None:         # torchrun itself is not up yet
            time.sleep(0.005)
        workers = children(process.pid)
        chosen = {'all': [process.pid, *workers], 'torchrun': [process.pid], 'one process': workers[:1],
                  'both processes': workers}[victims]
        for pid in chosen:
            with contextlib.suppress(ProcessLookupError):       # it is done already
                os.kill(pid, signal.SIGKILL)
        there = len(list(output.glob('features-*.safetensors')))
    return workers, there


def children(pid: int) -> List[int]:
    try:
        return [int(child) for child in Path(f'/proc/{pid}/task/{pid}/children').read_text().split()]
    except OSError:
        return []


# Ray.

def ray_rows(folder: Path, seed: int) -> bool:
    import numpy as np
    import ray

    from scat_zoo.ray import Extractor

    rng, marks = random.Random(seed), folder / 'marks'
    marks.mkdir()
    fatal = rng.randrange(1, IMAGES // 100 // 2)                # a batch of one of the two workers

    class Mortal(Extractor):
        calls = 0

        def __call__(self, batch: Dict[str, Any]) -> Dict[str, Any]:
            self.calls += 1
            if self.calls == fatal and not (marks / 'killed').exists():
                (marks / 'killed').touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(batch)

    subprocess.run(command(ALONE, folder, folder / 'expected'), env=ENVIRONMENT, check=True, capture_output=True)
    expected = dict(zip(*reversed(load(folder / 'expected'))))
    ray.init(num_cpus=3, include_dashboard=False, logging_level='ERROR', log_to_driver=False)
    ds = ray.data.read_binary_files(str(folder / 'small'), include_paths=True, override_num_blocks=20)
    rows = ds.map_batches(Mortal, batch_size=100, concurrency=2, fn_constructor_kwargs={'model': SMALL}).take_all()
    ray.shutdown()
    names = [os.path.relpath(row['path'], folder / 'small') for row in rows]
    same = sum(np.array_equal(row['features'], expected[name].numpy()) for name, row in zip(names, rows))
    print(f'{len(rows):,} rows, {len(set(names)):,} names, {same:,} rows equal to the bit; a worker was killed in its '
          f'batch {fatal}: {(marks / "killed").exists()}')
    return len(rows) == len(set(names)) == same == IMAGES


@contextlib.contextmanager
def images() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        write_images(Path(folder))
        yield Path(folder)


def main(argv: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=('rates', 'kills', 'ray'))
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--times', type=int, default=20)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args(argv)
    with images() as folder:
        if args.what == 'rates':
            rates(folder, args.repeats)
            return 0
        return not (kills(folder, args.times, args.seed) if args.what == 'kills' else ray_rows(folder, args.seed))


if __name__ == '__main__':
    sys.exit(main())
