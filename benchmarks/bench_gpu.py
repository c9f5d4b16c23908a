"""What only a GPU can tell of scat_zoo, each part in a process of its own: whether it is right there, and how fast.

    benchmarks/gpu.sh [WHEELS]
    python benchmarks/bench_gpu.py [--parts machine correctness ...] [--budget 420] [--device cpu --quick]

The parts, the most important first: the machine's own rates; results and gradients against the CPU in float64 and
kymatio on the GPU; CUDA graphs and the absence of synchronisation; speed against kymatio; the ways there are to
compute it; kernels by time; a short training; torch.compile. What fails is told in a line and costs nothing else; when
time runs short, what is left is skipped. With `--device cpu --quick` all that needs no GPU runs on tiny cases, as a
rehearsal.
"""
import argparse
import collections
import contextlib
import copy
import faulthandler
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import bench_scattering as bench
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Seconds for each part, of which all together get the budget.
PARTS = {'machine': 60, 'correctness': 150, 'capture': 60, 'speed': 150, 'variants': 90, 'profile': 60, 'training': 60,
         'compile': 150}
LARGE = '32x3x224x224,J=3'
QUICK = ['4x3x16x16,J=2', '1x3x24x40,J=3']
MODES = {'fixed': {}, 'pixelwise': {'learnable': True}, 'morlet': {'learnable': True, 'parametrization': 'morlet'},
         'equivariant': {'learnable': True, 'parametrization': 'equivariant'}}
MODELS = ('scat_linear', 'scat_mlp', 'scat_resnet', 'scat_tiny', 'scat_resnet18')


class Setup(NamedTuple):
    """Where to run, whether as a rehearsal, and the folder in which the parts leave figures for one another."""
    device: str
    quick: bool
    folder: Path

    @property
    def cuda(self) -> bool:
        return self.device == 'cuda'

    @property
    def cases(self) -> List[str]:
        return QUICK if self.quick else [*bench.CASES, LARGE]

    @property
    def main_cases(self) -> List[str]:
        return QUICK if self.quick else [bench.CASES[0], LARGE]

    def figures(self, part: str) -> Dict[str, Any]:
        """What a part has left so far."""
        file = self.folder / f'{part}.json'
        return json.loads(file.read_text()) if file.exists() else {}


class Report:
    """What a part finds: printed at once, and kept for the tables at the end."""

    def __init__(self, part: str, setup: Setup, seconds: float) -> None:
        self.file, self.end = setup.folder / f'{part}.json', time.monotonic() + seconds
        self.kept: Dict[str, Any] = {'right': 0, 'wrong': [], 'failed': [], 'skipped': []}

    def keep(self, key: str, value: Any) -> None:
        self.kept[key] = value
        self.file.write_text(json.dumps(self.kept))

    def row(self, row: Dict[str, Any]) -> None:
        self.keep('rows', [*self.kept.get('rows', []), row])

    def check(self, name: str, value: float, bound: float) -> str:
        """The value as text, marked if it is not within the bound, which NaN is not."""
        if value <= bound:
            self.keep('right', self.kept['right'] + 1)
            return f'{value:.1e}'
        self.keep('wrong', [*self.kept['wrong'], f'{name}: {value:.1e}, bound {bound:.0e}'])
        return f'{value:.1e} (WRONG, bound {bound:.0e})'

    def attempt(self, name: str, function: Callable, *args: Any) -> Any:
        """The function's result; None, and a line, if it fails or there is no time left for it."""
        if time.monotonic() > self.end:
            note(f'  skipped, out of time: {name}')
            self.keep('skipped', [*self.kept['skipped'], name])
            return None
        try:
            return function(*args)
        except Exception as error:
            reason = (str(error).strip().splitlines() or [''])[0][:300]
            note(f'  FAILED {name}: {type(error).__name__}: {reason} [{place(error)}]')
            self.keep('failed', [*self.kept['failed'], f'{name}: {type(error).__name__}: {reason[:120]}'])
            if isinstance(error, torch.cuda.OutOfMemoryError):
                torch.cuda.empty_cache()
            return None


def place(error: BaseException) -> str:
    """File and line of the innermost frames of the package and of all."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if 'scat_zoo' in Path(frame.filename).parts] or frames
    return ', '.join(dict.fromkeys(f'{Path(frame.filename).name}:{frame.lineno}' for frame in (ours[-1], frames[-1])))


def note(text: str) -> None:
    print(text, flush=True)


# ---- helpers ----

def random(*size: int, seed: int = 0) -> Tensor:
    """Normal numbers, on the CPU so that they are the same everywhere."""
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def distance(a: Tensor, b: Tensor) -> float:
    """Norm of the difference over that of b, in float64 on the CPU; 0 where both are 0."""
    a, b = (t.detach().to('cpu', torch.float64) for t in (a, b))
    norm = b.norm().item()
    return (a - b).norm().item() / norm if norm > 0 else a.norm().item()


def worst(errors: Iterable[float]) -> float:
    """The largest; NaN if one is, which Python's `max` may pass over."""
    return torch.tensor(list(errors)).max().item()


def by_order(a: Tensor, b: Tensor, paths: Sequence[Any]) -> List[float]:
    """Largest difference over the largest coefficient of b, for each order."""
    a, b = (t.detach().to('cpu', torch.float64) for t in (a, b))
    channels = [[i for i, path in enumerate(paths) if path.order == n] for n in range(3)]
    return [((a - b)[..., c, :, :].abs().max() / b[..., c, :, :].abs().max()).item() for c in channels if c]


def ours(J: int, shape: Sequence[int], device: str, mode: str = 'fixed', in_chans: int = 1) -> nn.Module:
    """Our stem, learned filters a little off the analytic ones."""
    from scat_zoo.models.stem import ScatteringStem
    stem = ScatteringStem(J, bench.L, 2, in_chans, tuple(shape), **MODES[mode])
    return perturbed(stem).to(device)


@torch.no_grad()
def perturbed(stem: nn.Module) -> nn.Module:
    """With what its filters learn moved a little: Fourier coefficients are small numbers, offsets are not."""
    for i, p in enumerate(stem.parameters()):
        p += (1e-3 if stem.parametrization == 'pixelwise' else 0.1) * random(*p.shape, seed=i + 1)
    return stem


def kymatio_file(setup: Setup, J: int, shape: Sequence[int]) -> Path:
    return setup.folder / f'kymatio-{J}-{"x".join(map(str, shape))}.pt'


def build_kymatio(setup: Setup, J: int, shape: Sequence[int]) -> None:
    """kymatio's transform into a file: its bank takes seconds of Python's loops, so other processes see to it."""
    file = kymatio_file(setup, J, shape)
    torch.save(bench.kymatio(J, tuple(shape), learnable=False), file.with_suffix('.partial'))
    os.replace(file.with_suffix('.partial'), file)


def kymatio(setup: Setup, J: int, shape: Sequence[int], learnable: bool = False) -> nn.Module:
    """kymatio's transform on the device, read from its file, which may still be in the making."""
    file, end = kymatio_file(setup, J, shape), time.monotonic() + 60
    while not file.exists() and (setup.folder / 'building').exists() and time.monotonic() < end:
        time.sleep(0.2)
    if not file.exists():
        build_kymatio(setup, J, shape)
    S = torch.load(file, weights_only=False).to(setup.device)
    for buffer in S.buffers():                              # it reads its filters from the buffers
        buffer.requires_grad_(learnable)
    return S


@contextlib.contextmanager
def tf32(enabled: bool = True) -> Iterator[None]:
    """torch's global switch for products of matrices."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision('high' if enabled else 'highest')
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def captured(function: Callable[[], Any]) -> Tuple[Any, Any]:
    """Its work as a CUDA graph, and what it returned there, which every replay writes anew."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):                         # what is made once must not become part of the graph
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function()
    return graph, result


def replayed(run: Callable[[], Any]) -> Callable[[], None]:
    """Its work as a CUDA graph, to be timed."""
    graph, _ = captured(run)

    def replay() -> None:
        graph.replay()
    replay.reads = run                                      # whose arrays must not be given to others
    return replay


def medians(runs: Dict[str, Callable[[], Any]], device: str, seconds: float) -> Dict[str, float]:
    """Median seconds of each, interleaved, after a warm-up: so many rounds, 5 to 50, as fit into the given time."""
    for _ in range(2):
        for run in runs.values():
            run()
    round_takes = sum(bench.clocked(run, device)[1] for run in runs.values())
    times: Dict[str, List[float]] = {name: [] for name in runs}
    for _ in range(max(5, min(50, int(seconds / max(round_takes, 1e-6))))):
        for name, run in runs.items():
            times[name].append(bench.clocked(run, device)[0])
    return {name: statistics.median(values) for name, values in times.items()}


def peak_mb(run: Callable[[], Any], setup: Setup) -> Optional[float]:
    """MB of the GPU's memory that a run takes beyond what is taken before it."""
    if not setup.cuda:
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2 ** 20


def gigaflops(run: Callable[[], Any]) -> float:
    """Of its products of matrices, as far as torch knows them."""
    from torch.utils.flop_counter import FlopCounterMode
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 1e9


# ---- the machine ----

def machine(report: Report, setup: Setup) -> None:
    """Its name and its rates: bandwidth, products of matrices large and small, and what a launch costs."""
    report.attempt('names', names, setup)
    report.attempt('bandwidth', bandwidth, report, setup)
    for size in ((512,) if setup.quick else (8192,)):
        for name, dtype, fast in (('float32', torch.float32, False), ('TF32', torch.float32, True),
                                  ('bf16', torch.bfloat16, False)):
            report.attempt(
                f'products in {name}', products, report, setup, name, (size, size), (size, size), dtype, fast)
    R = 64 if setup.quick else 6144                         # 384 maps, times 8 orientations, times 2
    for left, right in (((20, 20, 20), (20, 20, R)), ((200, 16, 16), (200, 16, R)), ((10, 8, 64), (10, 64, R // 16))):
        report.attempt(f'products {left}', products, report, setup, f'{left} x {right}', left, right)
    report.attempt('launches', launches, setup)


def names(setup: Setup) -> None:
    note(f'  torch {torch.__version__}, CUDA {torch.version.cuda}, Python {sys.version.split()[0]}, '
         f'{os.cpu_count()} processors')
    if setup.cuda:
        p = torch.cuda.get_device_properties(0)
        note(f'  {p.name}, {p.total_memory / 2 ** 30:.0f} GiB, {p.multi_processor_count} multiprocessors, sm_{p.major}'
             f'{p.minor}')
        query = ['nvidia-smi', '--query-gpu=driver_version,clocks.sm,clocks.mem,power.limit', '--format=csv,noheader']
        note('  driver, clocks, power limit: ' + subprocess.run(
            query, capture_output=True, text=True, timeout=20).stdout.strip())
    note('  ' + ', '.join(f'{name} {version(name)}' for name in ('timm', 'kymatio', 'numpy', 'scipy')))


def bandwidth(report: Report, setup: Setup) -> None:
    a = torch.empty(2 ** (20 if setup.quick else 28), device=setup.device).normal_()
    b = torch.empty_like(a)
    seconds = medians({'copy': lambda: b.copy_(a)}, setup.device, 0.5)['copy']
    report.keep('bytes_per_second', 2 * a.nbytes / seconds)
    note(f'  copy: {2 * a.nbytes / seconds / 1e9:.0f} GB/s, bytes read and written')


def products(report: Report, setup: Setup, name: str, left: Tuple[int, ...], right: Tuple[int, ...],
             dtype: torch.dtype = torch.float32, fast: bool = False) -> None:
    a, b = (random(*size, seed=i).to(setup.device, dtype) for i, size in enumerate((left, right)))
    out = torch.matmul(a, b)
    with tf32(fast):
        seconds = medians({'': lambda: torch.matmul(a, b, out=out)}, setup.device, 0.3)['']
    rate = 2 * out.numel() * left[-1] / seconds
    report.keep(f'{name}_flops', rate)
    note(f'  products {name}: {rate / 1e12:.2f} TFLOP/s, {1e3 * seconds:.3f} ms, '
         f'{(a.nbytes + b.nbytes + out.nbytes) / seconds / 1e9:.0f} GB/s')


def launches(setup: Setup) -> None:
    t = torch.zeros(64, device=setup.device)

    def run() -> None:
        for _ in range(1000):
            t.add_(1)
    note(f'  a small operation after the other: {1e3 * medians({"": run}, setup.device, 0.3)[""]:.2f} us each')


# ---- correctness ----

def correctness(report: Report, setup: Setup) -> None:
    """Results and gradients of the transform and of all models, against the CPU in float64, and learning."""
    torch.backends.cudnn.allow_tf32 = False                 # the models' convolutions are no matter here
    sizes = [(2, (16, 16)), (3, (24, 40))] if setup.quick else \
        [(2, (32, 32)), (2, (28, 28)), (3, (33, 47)), (3, (224, 224)), (4, (96, 127))]
    note('  Largest difference over the largest coefficient, orders 0, 1, 2: ours and kymatio from float64 on the CPU, '
         'then ours from kymatio, ours in float64')
    for J, shape in sizes:
        report.attempt(f'parity {shape} J={J}', parity, report, setup, J, shape)
    note('  Relative norm of the difference from float64 on the CPU: coefficients, gradient to the input, worst filter')
    for J, shape in sizes[:1] + sizes[2:3] if not setup.quick else sizes:
        for mode in MODES:
            report.attempt(f'gradients {shape} {mode}', gradients, report, setup, J, shape, mode)
    for mode in list(MODES)[1:]:
        report.attempt(f'learning {mode}', learning, report, setup, mode)
    report.attempt('precision', precision, report, setup)
    note('  The same for whole models: logits, gradient to the input, all gradients to the filters')
    for name in MODELS:
        report.attempt(name, model_modes, report, setup, name)


def parity(report: Report, setup: Setup, J: int, shape: Tuple[int, int]) -> None:
    from scat_zoo import ScatteringTorch2D
    from scat_zoo.scattering import transform
    x, exact = random(2, *shape), ScatteringTorch2D(J, shape, dtype=torch.float64)
    with torch.no_grad():
        right = transform.reference(x.double(), exact.bank(x), [J], 2)[0]
        S, K = ScatteringTorch2D(J, shape).to(setup.device), kymatio(setup, J, shape)
        a, b = S(x.to(setup.device)), K(x.to(setup.device))
        c = exact.to(setup.device)(x.double().to(setup.device))
    name, paths = f'{shape} J={J}', S.paths
    texts = [' '.join(report.check(f'{name} {what} order {n}', e, bound) for n, e in enumerate(by_order(u, v, paths)))
             for what, u, v, bound in (('from float64', a, right, 5e-6), ('of kymatio', b, right, 5e-6),
                                       ('from kymatio', a, b, 5e-6), ('float64', c, right, 1e-12))]
    note(f'  {name:16}' + ' | '.join(texts))


def gradients_of(module: nn.Module, x: Tensor) -> List[Tensor]:
    """Result of a module, gradient to its input, and those to all parameters, of a fixed weighted sum of the result."""
    x = x.clone().requires_grad_()
    y = module(x)
    parameters = list(module.parameters())
    found = torch.autograd.grad((y * random(*y.shape, seed=7).to(y)).sum(), [x, *parameters])
    return [y.detach(), *found]


def gradients(report: Report, setup: Setup, J: int, shape: Tuple[int, int], mode: str) -> None:
    stem, x = ours(J, shape, 'cpu', mode, in_chans=2), random(3, 2, *shape)
    right = gradients_of(copy.deepcopy(stem).double(), x.double())
    found = gradients_of(stem.to(setup.device), x.to(setup.device))
    errors = [distance(a, b) for a, b in zip(found, right)]
    name = f'gradients {shape} J={J} {mode}'
    texts = [report.check(name, e, 2e-4) for e in [*errors[:2], *([worst(errors[2:])] if errors[2:] else [])]]
    note(f'  {name:36}' + ' '.join(texts))


def learning(report: Report, setup: Setup, mode: str) -> None:
    """30 steps from filters that are a little off, towards the coefficients of those that are not."""
    shape = (16, 16) if setup.quick else (32, 32)
    stem, x = ours(2, shape, setup.device, mode), random(16, 1, *shape).to(setup.device)
    with torch.no_grad():
        right = ours(2, shape, setup.device)(x)
    optimizer = torch.optim.Adam(stem.parameters(), lr=1e-4 if mode == 'pixelwise' else 1e-2)
    losses = []
    for _ in range(30):
        loss = (stem(x) - right).square().mean() / right.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    report.check(f'learning {mode}: last loss over first', losses[-1] / losses[0], 0.7)
    note(f'  learning {mode}: loss {losses[0]:.2e}, after 30 steps {losses[-1]:.2e}')


def precision(report: Report, setup: Setup) -> None:
    """What the global switches and autocast change: at most 1 % of an order's largest coefficient."""
    from scat_zoo import ScatteringTorch2D
    for case in setup.main_cases:
        size, J = bench.parse(case)
        S, x = ScatteringTorch2D(J, size[2:]).to(setup.device), random(*size[:2], *size[2:])[:4].to(setup.device)
        with torch.no_grad():
            right = S(x)
            found = {}
            with tf32():
                found["precision 'high'"] = S(x)
            if setup.cuda:
                torch.backends.cuda.matmul.allow_tf32 = True
                try:
                    found['allow_tf32'] = S(x)
                finally:
                    torch.backends.cuda.matmul.allow_tf32 = False
            with torch.autocast(setup.device, torch.bfloat16):
                found['bf16 autocast'] = S(x)
        for name, s in found.items():
            errors = by_order(s, right, S.paths)
            texts = [report.check(f'{name} {case} order {n}', e, 1e-2) for n, e in enumerate(errors)]
            note(f'  {name + " " + case:36}' + ' '.join(texts) + f', in {s.dtype}')


def model_modes(report: Report, setup: Setup, name: str) -> None:
    texts = [report.attempt(f'{name} {mode}', model_errors, report, setup, name, mode) for mode in MODES]
    note(f'  {name:14}' + ' | '.join(filter(None, texts)))


def model_errors(report: Report, setup: Setup, name: str, mode: str) -> str:
    import timm
    size = {'img_size': 32} if setup.quick and name == 'scat_resnet18' else {}
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=10, **size, **MODES[mode]).eval()
    perturbed(model.scattering)
    x = random(2, *model.pretrained_cfg['input_size'])
    right = gradients_of(copy.deepcopy(model).double(), x.double())
    found = gradients_of(model.to(setup.device), x.to(setup.device))
    filters = [i for i, (n, _) in enumerate(model.named_parameters(), 2) if n.startswith('scattering.')]
    errors = [distance(found[0], right[0]), distance(found[1], right[1])]
    if filters:
        errors.append(distance(*(torch.cat([g[i].flatten().cpu() for i in filters]) for g in (found, right))))
    # A unit of a convolutional network that is next to zero may count in one type and not in the other.
    return f'{mode} ' + ' '.join(report.check(f'{name} {mode}', e, b) for e, b in zip(errors, (1e-4, 1e-3, 1e-3)))


# ---- CUDA graphs and synchronisation ----

def capture(report: Report, setup: Setup) -> None:
    """That forward passes and training steps wait for nothing, and give the same as a CUDA graph."""
    torch.backends.cudnn.allow_tf32 = False
    for mode in MODES:
        report.attempt(f'a training step without waiting, {mode}', no_waiting, report, setup, mode)
    for mode in MODES:
        report.attempt(f'forward as a graph, {mode}', forward_graph, report, setup, mode)
    for mode in MODES:
        report.attempt(f'forward and backward as a graph, {mode}', training_graph, report, setup, mode)


def scat_linear(setup: Setup, mode: str) -> Tuple[nn.Module, Tensor, Tensor]:
    """A model in training, images and targets."""
    import timm
    torch.manual_seed(0)
    model = timm.create_model('scat_linear', num_classes=10, **MODES[mode]).to(setup.device).train()
    n = 4 if setup.quick else 64
    return model, random(n, 3, 32, 32).to(setup.device), torch.arange(n, device=setup.device) % 10


def no_waiting(report: Report, setup: Setup, mode: str) -> None:
    import scat_zoo
    model, x, y = scat_linear(setup, mode)
    optimizer = torch.optim.AdamW(scat_zoo.param_groups(model, lr=1e-3))

    def forward() -> None:
        with torch.no_grad():
            model(x)

    def step() -> None:
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    for run in (forward, step, step):                       # constants are copied to the device once
        run()
    if setup.cuda:
        for name, run in (('forward', forward), ('training step', step)):
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode('error')
            try:
                run()
            finally:
                torch.cuda.set_sync_debug_mode('default')
            report.check(f'{name} without waiting', 0, 0)
    note(f'  {mode}: forward and training step of scat_linear '
         + ('wait for nothing' if setup.cuda else 'run; skipped, CUDA only: whether they wait'))


def forward_graph(report: Report, setup: Setup, mode: str) -> None:
    if not setup.cuda:
        note(f'  forward as a graph, {mode}: skipped, CUDA only')
        return
    stem = ours(2, (32, 32), setup.device, mode, in_chans=3)
    x, other = (random(16, 3, 32, 32, seed=i).to(setup.device) for i in (0, 1))
    with torch.no_grad():
        graph, result = captured(lambda: stem(x))
        x.copy_(other)
        graph.replay()
        error = distance(result, stem(other))
    note(f'  forward as a graph, {mode}: {report.check(f"graph {mode}", error, 1e-6)}')


def training_graph(report: Report, setup: Setup, mode: str) -> None:
    if not setup.cuda:
        note(f'  forward and backward as a graph, {mode}: skipped, CUDA only')
        return
    model, x, y = scat_linear(setup, mode)
    model.eval()                                            # else replays would move the running means

    def run() -> Tuple[Tensor, ...]:
        return torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))

    graph, found = captured(run)
    x.copy_(random(*x.shape, seed=1))
    graph.replay()
    error = worst(distance(a, b) for a, b in zip(found, run()))
    note(f'  forward and backward as a graph, {mode}: {report.check(f"training graph {mode}", error, 1e-4)}')


# ---- speed ----

def speed(report: Report, setup: Setup) -> None:
    """Ours against kymatio at all cases, forward and training."""
    note('  ' + SPEED_HEADER)
    order = sorted(setup.cases, key=lambda case: case not in setup.main_cases)
    for case in order:
        for mode in ('forward', 'to the filters'):
            report.attempt(f'{case} {mode}', speed_of, report, setup, case, mode)
    machine_figures = setup.figures('machine')
    note('  floor: the time to read the input and write the output at '
         f'{machine_figures.get("bytes_per_second", float("nan")) / 1e9:.0f} GB/s, over ours; TFLOP/s: of our products')


def speed_of(report: Report, setup: Setup, case: str, mode: str) -> None:
    size, J = bench.parse(case)
    x, learnable = random(*size).to(setup.device), mode == 'to the filters'
    S, K = bench.scat_zoo(J, size[2:], learnable).to(setup.device), kymatio(setup, J, size[2:], learnable)
    runs = {'kymatio': bench.step(K, x, mode), 'ours': bench.step(S, x, mode)}
    with torch.no_grad():
        b, a = K(x), S(x)
    error = report.check(f'{case} {mode}', worst(by_order(a, b, S.paths)), 1e-5)
    moved = x.nbytes + a.nbytes
    del a, b
    seconds = medians(runs, setup.device, 0.2 if setup.quick else 2)
    row = {'case': case, 'mode': mode, 'ms': {name: 1e3 * t for name, t in seconds.items()},
           'mb': {name: peak_mb(run, setup) for name, run in runs.items()}, 'error': error}
    gflop = report.attempt(f'{case} {mode}, count of products', gigaflops, runs['ours'])
    if gflop:
        row['tflops'] = gflop / 1e3 / seconds['ours']
    rate = setup.figures('machine').get('bytes_per_second')
    if mode == 'forward' and rate:
        row['floor'] = moved / rate / seconds['ours']
    report.row(row)
    note('  ' + speed_line(row))


SPEED_HEADER = '| case | mode | kymatio, ms | ours, ms | ratio | floor | TFLOP/s | peak MB, kymatio / ours | error |'


def speed_line(row: Dict[str, Any]) -> str:
    ms, mb = row['ms'], row['mb']
    floor = f'{100 * row["floor"]:.1f} %' if 'floor' in row else ''
    memory = '' if mb['ours'] is None else f'{mb["kymatio"]:.0f} / {mb["ours"]:.0f}'
    rate = f'{row["tflops"]:.2f}' if 'tflops' in row else ''
    return (f'| {row["case"]} | {row["mode"]} | {ms["kymatio"]:.3f} | {ms["ours"]:.3f} | '
            f'{ms["kymatio"] / ms["ours"]:.2f} | {floor} | {rate} | {memory} | {row["error"]} |')


# ---- variants ----

def variants(report: Report, setup: Setup) -> None:
    """The ways to compute it, and what precision and CUDA graphs change."""
    note('  ' + VARIANT_HEADER)
    for name in sorted(VARIANTS, key=lambda name: 'graph' in name):         # if one fails, it may spoil others
        for case in setup.main_cases:
            report.attempt(f'{case} {name}', variant, report, setup, case, name, VARIANTS[name])


def variant(report: Report, setup: Setup, case: str, name: str, make: 'Variant') -> None:
    run, error = make(setup, case)
    if run is None:
        note(f'  {case} {name}: skipped, CUDA only')
        return
    ms = 1e3 * medians({name: run}, setup.device, 0.1 if setup.quick else 1)[name]
    row = {'case': case, 'variant': name, 'ms': ms, 'mb': peak_mb(run, setup), 'error': error}
    report.row(row)
    note('  ' + variant_line(row))


VARIANT_HEADER = '| case | variant | ms | peak MB | error |'


def variant_line(row: Dict[str, Any]) -> str:
    memory = '' if row['mb'] is None else f'{row["mb"]:.0f}'
    error = '' if row['error'] is None else f'{row["error"]:.1e}'
    return f'| {row["case"]} | {row["variant"]} | {row["ms"]:.3f} | {memory} | {error} |'


Way = Callable[[nn.Module], Callable[[Tensor], Tensor]]
Variant = Callable[[Setup, str], Tuple[Optional[Callable[[], Any]], Optional[float]]]


def forward_variant(way: Way, graph: bool = False,
                    within: Callable[[Setup], Any] = lambda setup: contextlib.nullcontext()) -> Variant:
    """A way to compute the forward pass: (what to time, its largest error from ours in float32)."""
    def make(setup: Setup, case: str) -> Tuple[Optional[Callable[[], Any]], Optional[float]]:
        if graph and not setup.cuda:
            return None, None
        size, J = bench.parse(case)
        S, x = bench.scat_zoo(J, size[2:], False).to(setup.device), random(*size).to(setup.device)
        function = way(S)

        def run() -> Tensor:
            with torch.no_grad(), within(setup):
                return function(x)

        with torch.no_grad():
            error = worst(by_order(run(), S(x), S.paths))
        return replayed(run) if graph else run, error
    return make


def plain(S: nn.Module) -> Callable[[Tensor], Tensor]:
    """The reference, by FFTs."""
    from scat_zoo.scattering import transform
    filters = S.bank(torch.empty(0, *S.shape))
    return lambda x: transform.reference(x, filters, [S.J], 2)[0]


def compiled(way: Way) -> Way:
    """Compiled once for each case."""
    found: Dict[Any, Callable[[Tensor], Tensor]] = {}

    def compile_once(S: nn.Module) -> Callable[[Tensor], Tensor]:
        key = S.J, S.shape
        if key not in found:
            found[key] = torch.compile(way(S), dynamic=False)
        return found[key]
    return compile_once


def training_variant(mode: str, graph: bool = False) -> Variant:
    """Forward and backward to the filters of that mode."""
    def make(setup: Setup, case: str) -> Tuple[Optional[Callable[[], Any]], Optional[float]]:
        if graph and not setup.cuda:
            return None, None
        size, J = bench.parse(case)
        stem, x = ours(J, size[2:], setup.device, mode, in_chans=size[1]), random(*size).to(setup.device)

        def run() -> Tuple[Tensor, ...]:
            return torch.autograd.grad(stem(x).sum(), list(stem.parameters()))
        return replayed(run) if graph else run, None
    return make


def autocast(setup: Setup) -> Any:
    return torch.autocast(setup.device, torch.bfloat16)


VARIANTS: Dict[str, Variant] = {
    'ours': forward_variant(lambda S: S),
    'ours, CUDA graph': forward_variant(lambda S: S, graph=True),
    'ours, TF32': forward_variant(lambda S: S, within=lambda setup: tf32()),
    'ours, bf16': forward_variant(lambda S: S, within=autocast),
    'plain (FFTs)': forward_variant(plain),
    'plain, CUDA graph': forward_variant(plain, graph=True),
    'training, pixelwise': training_variant('pixelwise'),
    'training, pixelwise, CUDA graph': training_variant('pixelwise', graph=True),
    'training, morlet': training_variant('morlet'),
}
COMPILED_PLAIN = compiled(plain)
COMPILED: Dict[str, Variant] = {
    'plain, compiled': forward_variant(COMPILED_PLAIN),
    'plain, compiled, CUDA graph': forward_variant(COMPILED_PLAIN, graph=True),
    'ours, compiled': forward_variant(compiled(lambda S: S)),
}


def compile_(report: Report, setup: Setup) -> None:
    """The same under torch.compile, which takes long to begin."""
    note('  ' + VARIANT_HEADER)
    for case in setup.main_cases:
        for name, make in COMPILED.items():
            start = time.monotonic()
            report.attempt(f'{case} {name}', variant, report, setup, case, name, make)
            note(f'    took {time.monotonic() - start:.0f} s with compiling')


# ---- profile ----

def profile(report: Report, setup: Setup) -> None:
    """Kernels by time, and how much of the time the GPU works."""
    cases = QUICK if setup.quick else [bench.CASES[0], bench.CASES[2]]
    for mode, top in (('forward', 12), ('to the filters', 8)):
        for case in cases:
            report.attempt(f'{case} {mode}', profile_of, setup, case, mode, top)


def profile_of(setup: Setup, case: str, mode: str, top: int) -> None:
    from torch.profiler import ProfilerActivity
    size, J = bench.parse(case)
    S = bench.scat_zoo(J, size[2:], mode == 'to the filters').to(setup.device)
    run = bench.step(S, random(*size).to(setup.device), mode)
    ms = 1e3 * medians({'': run}, setup.device, 0.3)['']
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if setup.cuda else [])
    with torch.profiler.profile(activities=activities) as profiler:
        run()
        if setup.cuda:
            torch.cuda.synchronize()
    times: Dict[str, List[float]] = collections.defaultdict(list)
    for name, us in kernels(profiler, setup):
        times[name].append(us)
    busy = sum(map(sum, times.values())) / 1e3
    count = sum(map(len, times.values()))
    note(f'  {case} {mode}: {count} kernels, busy {busy:.3f} of {ms:.3f} ms ({100 * busy / ms:.0f} %)'
         + (': bound by launches' if setup.cuda and 0 < busy < 0.7 * ms else ''))
    for name, mine in sorted(times.items(), key=lambda item: -sum(item[1]))[:top]:
        note(f'    {sum(mine) / 1e3:8.3f} ms {len(mine):5} times  {name[:88]}')


def kernels(profiler: Any, setup: Setup) -> Iterator[Tuple[str, float]]:
    """(name, microseconds) of each kernel; on a CPU, of each operator without those that it calls."""
    for event in profiler.events():
        if not setup.cuda:
            yield event.name, event.self_cpu_time_total
        elif event.device_type == torch.autograd.DeviceType.CUDA and not getattr(
                event, 'is_user_annotation', False):
            yield event.name.removeprefix('void ').replace('at::native::', ''), event.time_range.elapsed_us()


# ---- training ----

def training(report: Report, setup: Setup) -> None:
    """scat_linear on the built-in sample: accuracy, images per second, and the package's own loop."""
    for mode in MODES:
        for amp in (False, True):
            report.attempt(f'{mode}{", bf16" if amp else ""}', train_sample, report, setup, mode, amp)
    report.attempt('fit', fit, report, setup)


def sample(setup: Setup, part: str, model: nn.Module) -> Tuple[Tensor, Tensor]:
    """Normalised images and classes of the sample, on the device."""
    from scat_zoo.train.data import FASHION_MEAN, FASHION_STD, SAMPLE, IdxImages
    images = IdxImages(SAMPLE, part)
    x = (torch.tensor(images.images).float().unsqueeze(1) / 255 - FASHION_MEAN) / FASHION_STD
    keep = slice(128) if setup.quick else slice(None)
    return x[keep].to(setup.device), torch.tensor(images.targets)[keep].to(setup.device)


def train_sample(report: Report, setup: Setup, mode: str, amp: bool) -> None:
    import timm

    import scat_zoo
    torch.manual_seed(0)
    model = timm.create_model('scat_linear', num_classes=10, in_chans=1, img_size=28, **MODES[mode]).to(setup.device)
    optimizer = torch.optim.AdamW(scat_zoo.param_groups(model, lr=1e-3))
    (x, y), (test_x, test_y) = (sample(setup, part, model) for part in ('train', 't10k'))
    batch, epochs = (32, 1) if setup.quick else (128, 8)

    def epoch(seed: int) -> None:
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).to(setup.device)
        for chosen in order.split(batch)[:len(x) // batch]:
            with torch.autocast(setup.device, torch.bfloat16, enabled=amp):
                logits = model(x[chosen]).float()
            optimizer.zero_grad()
            F.cross_entropy(logits, y[chosen], label_smoothing=0.2).backward()
            optimizer.step()

    model.train()
    epoch(0)
    start = time.perf_counter()
    for seed in range(1, epochs + 1):
        epoch(seed)
    if setup.cuda:
        torch.cuda.synchronize()
    rate = epochs * (len(x) // batch) * batch / (time.perf_counter() - start)
    with torch.inference_mode():
        model.eval()
        wrong = 100 - 100 * (model(test_x).argmax(1) == test_y).float().mean().item()
    report.check(f'{mode} {amp}: per cent of the test images wrong', wrong, 90 if setup.quick else 30)
    note(f'  scat_linear {mode}{", bf16" if amp else ""}: {rate:.0f} images/s at batch {batch}, '
         f'{100 - wrong:.1f} % of {len(test_x)} test images right after {epochs + 1} epochs of {len(x)}')


def fit(report: Report, setup: Setup) -> None:
    import timm

    from scat_zoo.train import augment, data
    from scat_zoo.train.loop import Training, evaluate
    from scat_zoo.train.loop import fit as train
    torch.manual_seed(0)
    parts = data.load('sample', val_fraction=0)
    model = timm.create_model('scat_linear', num_classes=10, in_chans=1, img_size=28, learnable=True)
    images = [data.Prepared(data.few(part, 4 if setup.quick else 50, 0), 1, augment.eval_transform(model))
              for part in (parts.train, parts.test)]
    start, device = time.perf_counter(), torch.device(setup.device)
    with contextlib.redirect_stderr(io.StringIO()):         # the progress bar
        history = train(model, images[0], None, Training(epochs=2), device, setup.folder / 'fit.state', 'fit')
    report.check('fit: loss', history[-1]['loss'], 3)
    note(f'  fit: loss {history[0]["loss"]:.2f}, {history[1]["loss"]:.2f}, {evaluate(model, images[1], device):.1f} % '
         f'of {len(images[1])} test images right, {time.perf_counter() - start:.1f} s for {2 * len(images[0])} images')


# ---- the whole ----

def run_part(part: str, setup: Setup, seconds: float) -> None:
    """One part in this process, which ends by itself should something hang."""
    warnings.simplefilter('ignore')                         # torch's about its own switches would bury the results
    faulthandler.dump_traceback_later(seconds + 10, exit=True)
    report = Report(part, setup, seconds)
    report.attempt(part, compile_ if part == 'compile' else globals()[part], report, setup)
    report.keep('done', True)
    faulthandler.cancel_dump_traceback_later()


def start_banks(setup: Setup, parts: List[str]) -> List[subprocess.Popen]:
    """kymatio's transforms, each built by a process of its own, if a part needs them."""
    if not {'correctness', 'speed'} & set(parts):
        return []
    (setup.folder / 'building').touch()
    wanted = [(size[2:], J) for size, J in map(bench.parse, setup.cases)]
    wanted += [] if setup.quick else [((33, 47), 3)]
    return [subprocess.Popen([*command(setup), '--bank', str(J), *map(str, shape)])
            for shape, J in dict.fromkeys(wanted)]


def command(setup: Setup) -> List[str]:
    return [sys.executable, __file__, '--device', setup.device, '--folder', str(setup.folder),
            *(['--quick'] if setup.quick else [])]


def summary(setup: Setup, parts: List[str]) -> None:
    """What was wrong, failed or was left out, and the tables of the times."""
    found = {part: setup.figures(part) for part in parts}
    note('\n== summary ==')
    note(f'{sum(kept.get("right", 0) for kept in found.values())} checks right')
    for key in ('wrong', 'failed', 'skipped'):
        for part, kept in found.items():
            for name in kept.get(key, []):
                note(f'{key.upper()} in {part}: {name}')
    for part, kept in found.items():
        if not kept.get('done'):
            note(f'UNFINISHED: {part}')
    for header, line, of in ((SPEED_HEADER, speed_line, ('speed',)),
                             (VARIANT_HEADER, variant_line, ('variants', 'compile'))):
        rows = [row for part in of for row in found.get(part, {}).get('rows', [])]
        rows.sort(key=lambda row: setup.cases.index(row['case']))
        if rows:
            note('\n' + header + '\n' + '|---' * header.count(' | ') + '|---|')
            for row in rows:
                note(line(row))


def run_all(parts: List[str], setup: Setup, budget: float) -> None:
    end = time.monotonic() + budget
    builders = start_banks(setup, parts)
    try:
        for part in parts:
            left = end - time.monotonic()
            if left < 15:
                note(f'== {part}: skipped, out of time ==')
                continue
            note(f'== {part} ({budget - left:.0f} s) ==')
            if part == 'speed':                             # they would take processors from what is timed
                wait_for(builders, left)
            seconds = min(PARTS[part], left)
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run([*command(setup), '--part', part, '--seconds', str(seconds)], timeout=seconds + 20)
    finally:
        for builder in builders:
            builder.kill()
    summary(setup, parts)
    note(f'took {budget - (end - time.monotonic()):.0f} s')


def wait_for(builders: List[subprocess.Popen], seconds: float) -> None:
    end = time.monotonic() + min(seconds, 60)
    for builder in builders:
        with contextlib.suppress(subprocess.TimeoutExpired):
            builder.wait(max(0, end - time.monotonic()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=list(PARTS))
    parser.add_argument('--budget', type=float, default=420, help='seconds for all parts')
    parser.add_argument('--device', choices=['cuda', 'cpu'], default='cuda')
    parser.add_argument('--quick', action='store_true', help='tiny cases')
    for name, kind in (('part', str), ('seconds', float), ('folder', Path)):
        parser.add_argument(f'--{name}', type=kind, help=argparse.SUPPRESS)
    parser.add_argument('--bank', nargs=3, type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.bank:
        torch.set_num_threads(1)
        build_kymatio(Setup(args.device, args.quick, args.folder), args.bank[0], args.bank[1:])
    elif args.part:
        run_part(args.part, Setup(args.device, args.quick, args.folder), args.seconds)
    elif args.device == 'cuda' and not torch.cuda.is_available():
        sys.exit('torch finds no GPU here: for a rehearsal without one, add --device cpu --quick')
    else:
        with tempfile.TemporaryDirectory() as folder:
            run_all(args.parts, Setup(args.device, args.quick, Path(folder)), args.budget)


if __name__ == '__main__':
    main()
