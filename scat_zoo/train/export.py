"""A model as a file that runs without this package: what `scat-zoo export` does."""
import contextlib
import importlib.util
import io
import json
import logging
import time
import warnings
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple, Union

import numpy as np
import torch
from torch import Tensor, nn

from ..wording import brief, nearest
from . import augment, checkpoint
from .data import Prepared, load
from .run_folder import whole

Run = Callable[[np.ndarray], np.ndarray]        # images (B, C, H, W) to logits
CARD = 'scat_zoo'                               # the name of `card` among what else a file holds
LARGE = 0.1                                     # difference beyond which 8 bits are warned of


class Format(NamedTuple):
    """What a file of this kind needs, how it is written and how it is run; by the end of its name."""
    packages: Tuple[str, ...]
    write: Callable[[nn.Module, Tensor, Path, Dict[str, Any]], None]
    open: Callable[[Path], Run]


class Exported(NamedTuple):
    """What the file's model gives, beside that of torch.

    random: whether the model had no weights.
    difference: the largest of any logit, as a part of the largest logit.
    seconds: of processor time for one image on one thread, torch's and the file's.
    accuracy: per cent right of the built-in test images, torch's and the file's, if these are the model's.
    """
    file: Path
    bytes: int
    image: Tuple[int, int, int]
    random: bool
    difference: float
    seconds: Tuple[float, float]
    accuracy: Optional[Tuple[float, float]]


def export(model_or_checkpoint: str, file: Path, form: Optional[str] = None, kwargs: Optional[Dict[str, Any]] = None,
           img_size: Union[int, Tuple[int, int], None] = None, int8: bool = False) -> Exported:
    """Write a model as a file, run that, and compare.

    Its filters are constants in it. It takes any number of images, of one size. How they are to be prepared, and the
    names of the classes, are in the file too: see `card`.

    Args:
        model_or_checkpoint: the folder of a checkpoint or a run, or a name of `scat-zoo list`.
        form: one of `FORMATS`; unless given, the end of the file's name tells.
        img_size: side, or (H, W), of the images, unless the model's own.
        int8: compute what stands behind the scattering in whole numbers of 8 bits (ONNX only). How good that is the
            accuracy tells; nothing is refused.

    Raises:
        ValueError, TypeError: on bad input, before any work.
        RuntimeError: if a package is missing that the format needs, or if the file's model gives something else; the
            file is not written then.
    """
    name = _format(file, form)
    if int8 and name != 'onnx':
        raise ValueError(f'int8 is for the format onnx, got {name}: leave it out, or write a file that ends in .onnx')
    for package in FORMATS[name].packages:
        if importlib.util.find_spec(package) is None:
            raise RuntimeError(f'the format {name} needs {package}, which is not installed: '
                                      "pip install 'scat_zoo[export]'")
    model: Any = checkpoint.open_model(model_or_checkpoint, kwargs or {}).eval()
    if img_size is not None:
        model.set_input_size(img_size)
    image = (model.in_chans, *model.scattering.img_size)
    x = torch.randn(2, *image, generator=torch.Generator().manual_seed(0))
    with whole(file) as partial:
        with _quiet():
            FORMATS[name].write(model, x, partial, card(model, checkpoint.value_range(model_or_checkpoint)))
            if int8:
                _quantise(partial)
            run = FORMATS[name].open(partial)
        found, size = run(x.numpy()), partial.stat().st_size
        with torch.no_grad():
            wanted = model(x).numpy()
        difference = float(np.abs(found - wanted).max() / np.abs(wanted).max())
        if not (int8 or difference <= 1e-4):
            raise RuntimeError(f'the exported model differs from this one by {difference:.1e} of the largest logit: '
                               f'{brief(file)} is not written')
        seconds = _seconds(model, run, x[:1])
        accuracy = _accuracy(model, run)
    without = not checkpoint.has_weights(model_or_checkpoint)
    return Exported(file, size, image, without, difference, seconds, accuracy)


def card(model: Any, value_range: Optional[Tuple[float, float]] = None) -> Dict[str, Any]:
    """How a model wants its images, and what its logits stand for, in the words of timm's cfg; and the range of values
    that it learned of images with more than 8 bits."""
    cfg = model.pretrained_cfg
    kept = ('architecture', 'mean', 'std', 'interpolation', 'crop_pct', 'crop_mode', 'label_names')
    return {'input_size': [model.in_chans, *model.scattering.img_size],
            **{name: cfg[name] for name in kept if cfg.get(name) is not None},
            **({} if value_range is None else {'value_range': list(value_range)})}


def _format(file: Path, form: Optional[str]) -> str:
    name = form if form is not None else file.suffix.removeprefix('.')
    if name not in FORMATS:
        raise ValueError(f'unknown format {brief(repr(name), 60)} of {brief(file, 60)}; {nearest(name, FORMATS)} '
                         '(others by timmx, see docs/deploy.md)')
    return name


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the steps and the warnings of exporters, which are theirs and not the user's."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(level)


# ---- formats ----

def _write_onnx(model: nn.Module, x: Tensor, file: Path, about: Dict[str, Any]) -> None:
    import onnx
    torch.onnx.export(model, (x,), file, dynamo=True, external_data=False, verbose=False, input_names=['images'],
                      output_names=['logits'], dynamic_shapes=({0: torch.export.Dim('batch')},))
    written = onnx.load(file)
    onnx.helper.set_model_props(written, {CARD: json.dumps(about)})
    onnx.save(written, file)


def _open_onnx(file: Path) -> Run:
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1         # as _seconds sets torch
    session = onnxruntime.InferenceSession(file, options, providers=['CPUExecutionProvider'])
    return lambda images: session.run(None, {'images': images})[0]


def _write_pt2(model: nn.Module, x: Tensor, file: Path, about: Dict[str, Any]) -> None:
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim('batch')},))
    content = io.BytesIO()                              # a full disk would abort the process within torch
    torch.export.save(program, content, extra_files={CARD: json.dumps(about)})
    file.write_bytes(content.getbuffer())


def _open_pt2(file: Path) -> Run:
    with open(file, 'rb') as stream:
        module = torch.export.load(stream).module()

    def run(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return module(torch.from_numpy(images)).numpy()
    return run


FORMATS = {'onnx': Format(('onnx', 'onnxscript', 'onnxruntime'), _write_onnx, _open_onnx),
           'pt2': Format((), _write_pt2, _open_pt2)}


def _quantise(file: Path) -> None:
    """Matrices and kernels behind the scattering, in place; their inputs are quantised when it runs.

    The scattering is left as it is: a coefficient is a small difference of large products.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    exact = [node.name for node in onnx.load(file).graph.node
             if any("'scattering'" in entry.value for entry in node.metadata_props if 'name_scopes' in entry.key)]
    quantize_dynamic(file, file, nodes_to_exclude=exact, op_types_to_quantize=['Conv', 'Gemm', 'MatMul'],
                     weight_type=QuantType.QInt8)


# ---- comparison ----

def _seconds(model: nn.Module, run: Run, x: Tensor) -> Tuple[float, float]:
    """Of processor time for these images, torch's and the file's: medians of nine, taken in turn on one thread."""
    images, threads = x.numpy(), torch.get_num_threads()
    taken: Tuple[List[float], List[float]] = ([], [])
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for _ in range(10):
                for times, call in zip(taken, (lambda: model(x), lambda: run(images))):
                    start = time.process_time()
                    call()
                    times.append(time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
    torch_median, median = (float(np.median(times[1:])) for times in taken)         # the first warms up
    return torch_median, median


def _accuracy(model: Any, run: Run) -> Optional[Tuple[float, float]]:
    """Per cent right of the built-in test images, torch's and the file's; None if they are not the model's."""
    data = load('sample', val_fraction=0.)
    known = tuple(model.pretrained_cfg.get('label_names') or ())
    if model.in_chans != data.input_size[0] or known != data.classes:
        return None
    images = Prepared(data.test, model.in_chans, augment.eval_transform(model), data.value_range)
    right = np.zeros(2)
    for x, target in torch.utils.data.DataLoader(images, 50):
        with torch.inference_mode():
            ours = model(x).argmax(1)
        right += [int((ours == target).sum()), int((run(x.numpy()).argmax(1) == target.numpy()).sum())]
    ours, theirs = 100 * right / len(images)
    return float(ours), float(theirs)


def report(exported: Exported) -> str:
    """A line for each figure."""
    torchs, files = (1000 * seconds for seconds in exported.seconds)
    channels, height, width = exported.image
    lines = [f'{brief(exported.file)}: {exported.bytes / 2 ** 20:.1f} MiB, for any number of images of '
             f'{channels} x {height} x {width}',
             f'largest difference: {exported.difference:.1e} of the largest logit',
             f'one image on one thread: {files:.2f} ms of processor time, in torch {torchs:.2f} ms '
             f'(ratio {files / torchs:.2f})']
    if exported.random:
        lines.append('the model has no weights: its layers behind the scattering are random')
    if exported.difference > LARGE:
        lines.append('8 bits change this model a lot: compare its classes with torch on images of yours, or leave '
                     '--int8 out')
    if exported.accuracy is not None:
        lines.append('built-in test images: {1:.2f} % right, in torch {0:.2f} %'.format(*exported.accuracy))
    return '\n'.join(lines)
