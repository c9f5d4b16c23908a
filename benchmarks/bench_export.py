"""Exported models beside eager ones: format by format, largest difference, nodes, seconds to export, time, other sizes.

    python benchmarks/bench_export.py [--models scat_linear ...] [--formats onnx ...]
    python benchmarks/bench_export.py int8

Processor time on one thread, in one process, eager and exported in turn; the median of the ratios of nine rounds, for
batches of 1 and 32, or 1 at 224 pixels. Formats whose packages are not installed are left out. `fourier` counts nodes
that hold an FFT or complex numbers, `stem` those of the scattering alone, where the format names them. The other sizes
are refused, or as near to eager as the figure says. CoreML runs on a Mac alone, and is only converted to.

`int8` prints what torchao's 8 bits leave of the accuracy on the built-in test images.
"""
import argparse
import contextlib
import importlib.util
import io
import logging
import os
import platform
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import timm
import torch

import scat_zoo  # noqa: F401  (registers the models)
from scat_zoo.train import augment, data
from scat_zoo.train.loop import evaluate
from scat_zoo.wording import brief

os.environ['AOTI_RUNTIME_CHECK_INPUTS'] = '1'           # else AOTInductor takes any size, and reads past the end
MODELS = ['scat_linear', 'scat_mlp', 'scat_resnet', 'scat_tiny', 'scat_resnet18']
KINDS = {'fixed': {}, 'morlet': {'learnable': True, 'parametrization': 'morlet'}, 'pixelwise': {'learnable': True}}


def make(name, kind):
    """A model in eval mode whose learned filters are not those it began with."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=10, **KINDS[kind])
    with torch.no_grad():
        for p in model.scattering.parameters():
            p.add_(0.02 * p.abs().max().clamp(min=1) * torch.randn_like(p))
    model.scattering.set_learnable(False)
    for norm in model.modules():                        # as after training, means differ from those at the start
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.1)
    return model.eval()


def onnx_file(model, x, file, dynamo):
    dynamic = {'dynamic_shapes': ({0: torch.export.Dim('batch')},)} if dynamo else {
        'dynamic_axes': {'images': {0: 'batch'}}, 'opset_version': 18}
    torch.onnx.export(model, (x,), file, dynamo=dynamo, external_data=False, verbose=False, input_names=['images'],
                      output_names=['logits'], **dynamic)


def onnx_format(dynamo):
    def build(model, x, folder):
        import onnx
        import onnxruntime
        file = folder / 'model.onnx'
        onnx_file(model, x, file, dynamo)
        graph = onnx.load(file).graph
        kinds = [node.op_type for node in graph.node if node.op_type != 'Constant']
        stem = sum(any("'scattering'" in entry.value for entry in node.metadata_props if 'name_scopes' in entry.key)
                   for node in graph.node) or None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(file, options, providers=['CPUExecutionProvider'])
        return lambda images: session.run(None, {'images': images.numpy()})[0], kinds, stem
    return build


def of_torch(call):
    def run(images):
        with torch.inference_mode():
            return call(images).numpy()
    return run


def program(model, x):
    return torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim('batch')},))


def kinds_of(exported):
    return [str(node.target) for node in exported.graph.nodes if node.op == 'call_function']


def exported_format(model, x, folder):
    found = program(model, x)
    return of_torch(found.module()), kinds_of(found), None


def inductor_format(model, x, folder):
    found = torch.export.export(model, (x,))
    with torch.no_grad():
        file = torch._inductor.aoti_compile_and_package(found, package_path=str(folder / 'model.pt2'))
    return of_torch(torch._inductor.aoti_load_package(file)), kinds_of(found), None


def traced_format(model, x, folder):
    with torch.no_grad():
        found = torch.jit.trace(model, x)
    torch.jit.save(found, folder / 'model.pt')
    return of_torch(torch.jit.load(folder / 'model.pt')), [n.kind() for n in found.inlined_graph.nodes()], None


def executorch_format(model, x, folder):
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime
    found = torch.export.export(model, (x,))
    lowered = to_edge_transform_and_lower(found, partitioner=[XnnpackPartitioner()])
    file = folder / 'model.pte'
    file.write_bytes(lowered.to_executorch().buffer)
    method = Runtime.get().load_program(str(file)).load_method('forward')
    return lambda images: method.execute([images])[0].numpy(), kinds_of(lowered.exported_program()), None


def openvino_format(model, x, folder):
    import openvino
    converted = openvino.convert_model(program(model, x), input=[-1, *x.shape[1:]])     # else it takes other sizes
    compiled = openvino.Core().compile_model(converted, 'CPU', {'INFERENCE_NUM_THREADS': 1,
                                                                'INFERENCE_PRECISION_HINT': 'f32'})
    return lambda images: compiled([images.numpy()])[0], [op.get_type_name() for op in converted.get_ops()], None


def litert_format(model, x, folder):
    import litert_torch
    from ai_edge_litert.interpreter import Interpreter
    file = folder / 'model.tflite'
    litert_torch.convert(model, (x,)).export(str(file))
    interpreter = Interpreter(str(file), num_threads=1)
    interpreter.allocate_tensors()
    images, logits = interpreter.get_input_details()[0]['index'], interpreter.get_output_details()[0]['index']

    def run(x):
        interpreter.set_tensor(images, x.numpy())
        interpreter.invoke()
        return interpreter.get_tensor(logits)
    return run, [op['op_name'] for op in interpreter._get_ops_details()], None


def coreml_format(model, x, folder):
    import coremltools
    found = torch.export.export(model, (x,)).run_decompositions({})
    converted = coremltools.convert(found, convert_to='mlprogram', compute_precision=coremltools.precision.FLOAT32)
    converted.save(str(folder / 'model.mlpackage'))
    operations = converted._mil_program.functions['main'].operations
    return None, [op.op_type for op in operations if op.op_type != 'const'], None


FORMATS = {
    'onnx': ('onnxruntime', onnx_format(dynamo=True)),
    'onnx, old': ('onnxruntime', onnx_format(dynamo=False)),
    'torch.export': ('torch', exported_format),
    'AOTInductor': ('torch', inductor_format),
    'trace': ('torch', traced_format),
    'ExecuTorch': ('executorch', executorch_format),
    'OpenVINO': ('openvino', openvino_format),
    'LiteRT': ('litert_torch', litert_format),
    'CoreML': ('coremltools', coreml_format),
}
FIXED_BATCH = ('AOTInductor', 'ExecuTorch', 'LiteRT', 'CoreML')         # one file a batch size


def difference(run, model, x):
    with torch.no_grad():
        wanted = model(x).numpy()
    found = run(x)
    return np.abs(found - wanted).max() / np.abs(wanted).max() if found.shape == wanted.shape else np.inf


def ratio(run, model, x):
    """Exported time by eager time."""
    ratios = []
    with torch.inference_mode():
        for _ in range(10):
            times = []
            for call in (run, model):
                start = time.process_time()
                for _ in range(max(1, 8 // len(x)) if x.shape[-1] < 100 else 1):
                    call(x)
                times.append(time.process_time() - start)
            ratios.append(times[0] / times[1])
    return float(np.median(ratios[1:]))


@contextlib.contextmanager
def quiet():
    nowhere = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        warnings.simplefilter('ignore')
        yield


def other_sizes(run, model, side):
    """'refused', or the largest difference where a size was taken."""
    worst = []
    for size in ((side - 4, side), (side + 12, side + 5), (2 * side, side // 2)):
        x = torch.randn(2, model.in_chans, *size)
        try:
            with quiet():
                run(x)
        except Exception:
            continue
        worst.append(difference(run, model, x))
    return f'{max(worst):.0e}' if worst else 'refused'


def row(name, kind, form):
    model, (_, build) = make(name, kind), FORMATS[form]
    side = model.scattering.img_size[0]
    batches = [1] if side > 100 else [1, 32]
    with tempfile.TemporaryDirectory() as folder:
        cells = []
        fixed_batch = form in FIXED_BATCH
        for batch in batches if fixed_batch else [2]:
            start = time.perf_counter()
            with quiet():
                run, kinds, stem = build(model, torch.randn(batch, model.in_chans, side, side), Path(folder))
            seconds = time.perf_counter() - start
            for n in [] if run is None else [batch] if fixed_batch else batches:
                x = torch.randn(n, model.in_chans, side, side)
                cells.append((difference(run, model, x), ratio(run, model, x)))
        fourier = sum(any(word in kind.lower() for word in ('dft', 'fft', 'complex')) for kind in kinds)
        counts = [str(fourier), str(len(kinds)), str(stem or ''), f'{seconds:.1f}']
        if run is None:
            return [name, kind, form, 'converted', *counts, '', '', '']
        return [name, kind, form, f'{max(d for d, _ in cells):.1e}', *counts,
                *([f'{r:.2f}' for _, r in cells] + [''])[:2], other_sizes(run, model, side)]


def int8():
    """Accuracy on the built-in test images, in float32 and by torchao."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig, quantize_
    ways = {'float32': None, 'int8 weights': Int8WeightOnlyConfig(),
            'and activations': Int8DynamicActivationInt8WeightConfig()}
    print('| model | ' + ' | '.join(ways) + ' |\n' + '|---' * (1 + len(ways)) + '|')
    for name in ('scat_tiny', 'scat_linear', 'scat_resnet'):
        cells = []
        for way in ways.values():
            model = timm.create_model(f'{name}.fashion_mnist', pretrained=True).eval()
            if way is not None:
                quantize_(model, way)
            images = data.Prepared(data.load('sample', val_fraction=0.).test, 1, augment.eval_transform(model))
            cells.append(f'{evaluate(model, images, torch.device("cpu")):.2f} %')
        print(f'| {name}.fashion_mnist | ' + ' | '.join(cells) + ' |', flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', nargs='?', choices=['formats', 'int8'], default='formats')
    parser.add_argument('--models', nargs='+', default=MODELS)
    parser.add_argument('--kinds', nargs='+', default=list(KINDS), choices=list(KINDS))
    parser.add_argument('--formats', nargs='+', default=list(FORMATS), choices=list(FORMATS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    if args.what == 'int8':
        int8()
        return
    print(f'torch {torch.__version__}, {platform.processor() or platform.machine()}, one thread\n')
    print('| model | filters | format | difference | fourier | nodes | stem | seconds | time, batch 1 | batch 32 | '
          'other sizes |\n' + '|---' * 11 + '|')
    for name in args.models:
        for kind in args.kinds:
            for form in args.formats:
                if importlib.util.find_spec(FORMATS[form][0]) is None:
                    continue
                try:
                    cells = row(name, kind, form)
                except Exception as error:
                    cells = [name, kind, form, brief(' '.join(str(error).split()), 100), *[''] * 7]
                print('| ' + ' | '.join(cells) + ' |', flush=True)


if __name__ == '__main__':
    main()
