"""scat_zoo's transform against kymatio's: time, error, memory, and the time of the FFTs alone as a floor.

    python benchmarks/bench_scattering.py [--cases 128x3x32x32,J=2 ...] [--threads 1 2] [--device cpu] [--json FILE]
    python benchmarks/bench_scattering.py --scaling

Both sides run in one process, interleaved, after a warm-up; times are medians of at least 7 runs. Process time counts
all threads' work and shows what one thread does even where others use the machine; wall time shows what several gain.
On a GPU its own events take the place of process time, and a line tells what our forward pass takes as a CUDA graph.
Rows marked bf16 run under autocast, and give the error of that against kymatio in float32.
Peak memory (VmHWM above the imported libraries) is taken in a fresh process for each side. Needs the extra `bench`.
Where pytorch_wavelets is installed, the time of its DTCWT scattering stands beside J = 2: another transform, of 6 fixed
orientations and 49 outputs for each colour in place of 81. `--scaling` prints how our time and memory grow.
"""
import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from typing import Callable, Dict, List, Tuple

import torch
from torch import nn

CASES = ['128x3x32x32,J=2', '128x1x28x28,J=2', '8x3x224x224,J=3', '4x3x224x224,J=4', '16x3x96x127,J=4',
         '1x3x224x224,J=3']
MODES = ['forward', 'forward, bf16', 'to the input', 'to the filters']
L = 8


def parse(case: str) -> Tuple[Tuple[int, ...], int]:
    """'128x3x32x32,J=2' -> ((128, 3, 32, 32), 2)."""
    size, scale = case.split(',J=')
    return tuple(map(int, size.split('x'))), int(scale)


def kymatio(J: int, shape: Tuple[int, int], learnable: bool) -> nn.Module:
    """kymatio's transform, its filters parameters if learnable."""
    from kymatio.scattering2d.frontend.torch_frontend import ScatteringTorch2D
    S = ScatteringTorch2D(J, shape, L)
    if learnable:
        for buffer in S.buffers():                          # it reads its filters from the buffers
            buffer.requires_grad_()
    return S


def scat_zoo(J: int, shape: Tuple[int, int], learnable: bool) -> nn.Module:
    """Ours."""
    from scat_zoo import ScatteringTorch2D
    return ScatteringTorch2D(J, shape, L, learnable=learnable)


SIDES = {'kymatio': kymatio, 'scat_zoo': scat_zoo}


def step(S: nn.Module, x: torch.Tensor, mode: str) -> Callable[[], None]:
    """What is timed: a forward pass without gradients, or one with a backward pass."""
    if mode.startswith('forward'):
        def run() -> None:
            with torch.no_grad(), autocast(x, mode):
                S(x)
    else:
        x = x.clone().requires_grad_(mode == 'to the input')

        def run() -> None:
            S(x).sum().backward()
    return run


def autocast(x: torch.Tensor, mode: str) -> torch.autocast:
    """Enabled in the rows marked bf16."""
    return torch.autocast(x.device.type, torch.bfloat16, enabled=mode.endswith('bf16'))


def replayed(S: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    """The forward pass as a CUDA graph."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.no_grad():
        with torch.cuda.stream(stream):                     # what is made once must not become part of the graph
            for _ in range(3):
                S(x)
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph):
            S(x)
    return graph.replay


def fft_floor(size: Tuple[int, ...], J: int, device: str) -> Callable[[], None]:
    """The FFTs of the transform and nothing else, on arrays that exist already."""
    from scat_zoo.scattering import geometry
    N, (M, W) = size[0] * size[1], geometry.padded_size(size[2], size[3], J)
    real = {j: torch.randn(N, M >> j, W >> j, device=device) for j in range(J)}
    spectrum = {j: torch.fft.fft2(torch.randn(N, M >> j, W >> j, device=device)) for j in range(J + 1)}

    def run() -> None:
        torch.fft.fft2(real[0])
        torch.fft.ifft2(spectrum[J])
        for path in geometry.paths(J, L, 2)[1:]:
            j = path.j1 if path.order == 1 else path.j2
            torch.fft.ifft2(spectrum[j])                    # to the modulus
            torch.fft.fft2(real[j])                         # and back
            torch.fft.ifft2(spectrum[J])                    # the low-passed result
    return run


def dtcwt(x: torch.Tensor) -> Dict[str, Callable[[], None]]:
    """pytorch_wavelets' scattering of two orders, where it is installed."""
    try:
        from pytorch_wavelets import ScatLayerj2
    except ImportError:
        return {}
    return {'DTCWT': step(ScatLayerj2().to(x.device), x, 'forward')}


def clocked(run: Callable[[], None], device: str) -> Tuple[float, float]:
    """(process time, or the GPU's on one, wall time) of a run, in seconds."""
    if device == 'cuda':
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        wall = time.perf_counter()
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1000, time.perf_counter() - wall
    process, wall = time.process_time(), time.perf_counter()
    run()
    return time.process_time() - process, time.perf_counter() - wall


def timed(runs: Dict[str, Callable[[], None]], repeats: int, device: str) -> Dict[str, Tuple[float, float]]:
    """`clocked` for each, medians of interleaved runs after one to warm up."""
    times: Dict[str, List[Tuple[float, float]]] = {name: [] for name in runs}
    for i in range(repeats + 1):
        for name, run in runs.items():
            seconds = clocked(run, device)
            if i > 0:
                times[name].append(seconds)
    return {name: tuple(statistics.median(column) for column in zip(*values)) for name, values in times.items()}


def errors(ours: nn.Module, theirs: nn.Module, x: torch.Tensor, mode: str) -> List[float]:
    """Largest difference over the largest coefficient, for orders 0, 1, 2; theirs is in float32 in every mode."""
    with torch.no_grad():
        b = theirs(x)
        with autocast(x, mode):
            a = ours(x)
    channels = [[i for i, path in enumerate(ours.paths) if path.order == n] for n in range(3)]
    return [((a - b)[..., c, :, :].abs().max() / b[..., c, :, :].abs().max()).item() for c in channels]


def high_water() -> int:
    """Peak resident memory of this process so far, in kB."""
    with open('/proc/self/status') as status:
        return next(int(line.split()[1]) for line in status if line.startswith('VmHWM'))


def memory(side: str, case: str, mode: str) -> None:
    """Print, as JSON, the peak memory in MB above the libraries and the transform, and the bytes saved for backward."""
    size, J = parse(case)
    torch.set_num_threads(1)
    S, x = SIDES[side](J, size[2:], mode == 'to the filters'), torch.randn(size)
    step(SIDES[side](1, (8, 8), mode == 'to the filters'), torch.randn(1, 8, 8), mode)()        # what torch loads once
    before, saved = high_water(), []
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.nbytes) or t, lambda t: t)
    with hooks:
        step(S, x, mode)()
    print(json.dumps({'peak_mb': (high_water() - before) / 1024, 'saved_mb': sum(saved) / 2 ** 20}))


def memory_of(side: str, case: str, mode: str) -> Dict[str, float]:
    """The same, in a fresh process."""
    command = [sys.executable, __file__, '--memory', side, case, mode]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def bench(case: str, threads: int, repeats: int, device: str) -> List[Dict]:
    """All modes of one case."""
    size, J = parse(case)
    torch.set_num_threads(threads)
    x = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(device)
    rows = []
    for mode in MODES:
        sides = {name: make(J, size[2:], mode == 'to the filters').to(device) for name, make in SIDES.items()}
        if mode == 'to the filters' and device != 'cpu':
            for buffer in sides['kymatio'].buffers():
                buffer.requires_grad_()
        runs = {name: step(S, x, mode) for name, S in sides.items()}
        if mode == 'forward':
            runs['FFTs alone'] = fft_floor(size, J, device)
            if J == 2:
                runs.update(dtcwt(x))
            if device == 'cuda':
                runs['CUDA graph'] = replayed(sides['scat_zoo'], x)
        result = timed(runs, repeats, device)
        row = {'case': case, 'mode': mode, 'threads': threads, 'device': device, 'seconds': result,
               'ratio': result['kymatio'][0] / result['scat_zoo'][0],
               'wall_ratio': result['kymatio'][1] / result['scat_zoo'][1],
               'errors': errors(sides['scat_zoo'], sides['kymatio'], x, mode)}
        if 'FFTs alone' in result:
            row['floor'] = result['kymatio'][0] / result['FFTs alone'][0]
        if device == 'cpu' and threads == 1:
            row['memory'] = {name: memory_of(name, case, mode) for name in SIDES}
        rows.append(row)
        print(line(row), flush=True)
        for name, remark in (('DTCWT', 'another transform'), ('CUDA graph', 'ours, replayed')):
            if name in result:
                print(f'{"":18}{name + ", forward":23}{"":9}{result[name][0]:9.3f}  ({remark})')
    return rows


def scaling() -> None:
    """Our time for an image of 3 x 32 x 32 by batch size, memory of a large frozen batch, and one large image."""
    torch.set_num_threads(1)
    S = scat_zoo(2, (32, 32), learnable=False)
    runs = {f'batch {n}': step(S, torch.randn(n, 3, 32, 32), 'forward') for n in (1, 8, 64, 512)}
    for name, (seconds, _) in timed(runs, 15, 'cpu').items():
        print(f'{name:12}{1000 * seconds / int(name.split()[1]):8.3f} ms an image')
    used, size = memory_of('scat_zoo', '4096x3x32x32,J=2', 'forward'), 4096 * 3 * 81 * 64 * 4 / 2 ** 20
    print(f'batch 4096  {used["peak_mb"]:8.0f} MB, of which the output is {size:.0f}')
    start = time.process_time()
    step(scat_zoo(5, (1024, 1024), learnable=False), torch.randn(1, 1024, 1024), 'forward')()
    print(f'1024 x 1024, J=5, with its bank: {time.process_time() - start:.1f} s')


HEADER = f'{"case":18}{"mode":16}threads{"kymatio":>9}{"ours":>9}{"ratio":>7}{"wall":>7}{"floor":>7}  ' \
         f'{"error by order":26}{"peak MB":>14}{"saved MB":>15}'


def line(row: Dict) -> str:
    """One row of the table; kymatio's memory before ours."""
    seconds, used = row['seconds'], row.get('memory')
    peak, saved = ('/'.join(f'{used[side][key]:.0f}' for side in SIDES) if used else ''
                   for key in ('peak_mb', 'saved_mb'))
    floor = f'{row["floor"]:6.1f}x' if 'floor' in row else f'{"":7}'
    return (f'{row["case"]:18}{row["mode"]:16}{row["threads"]:7}{seconds["kymatio"][0]:9.3f}'
            f'{seconds["scat_zoo"][0]:9.3f}{row["ratio"]:6.1f}x{row["wall_ratio"]:6.1f}x{floor}  '
            f'{" ".join(f"{e:.1e}" for e in row["errors"]):26}{peak:>14}{saved:>15}')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--cases', nargs='+', default=CASES, help='such as 128x3x32x32,J=2')
    parser.add_argument('--threads', nargs='+', type=int, help='default: 1, and all that torch uses')
    parser.add_argument('--repeats', type=int, default=7)
    parser.add_argument('--device', default='cpu', choices=['cpu', 'cuda'])
    parser.add_argument('--json', help='file for all figures')
    parser.add_argument('--scaling', action='store_true', help='time by batch size, and memory, of ours alone')
    parser.add_argument('--memory', nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        memory(*args.memory)
        return
    if args.scaling:
        scaling()
        return
    print(f'{platform.processor() or platform.machine()}, torch {torch.__version__}, float32, L={L}, order 2. '
          "Process time in seconds;\nratio, wall and floor: kymatio's time over ours, in wall time, over that of the "
          'FFTs alone')
    print(HEADER)
    every = torch.get_num_threads()
    threads = args.threads or sorted({1 if args.device == 'cpu' else every, every})
    rows = [row for n in threads for case in args.cases for row in bench(case, n, args.repeats, args.device)]
    if args.json:
        with open(args.json, 'w') as file:
            json.dump(rows, file, indent=2)


if __name__ == '__main__':
    main()
