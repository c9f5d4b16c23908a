"""Classifying image files, of any number, with a checkpoint or shipped weights: what `scat-zoo predict` does."""
import contextlib
import csv
import os
import sys
from pathlib import Path
from typing import Any, Callable, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import torch
from PIL import Image
from torch import Tensor

from ..models import shipped
from ..wording import brief, shown, some
from . import augment, checkpoint, folders, images
from .progress import bar as progress_bar
from .run_folder import whole

MANY = 50                       # from so many files on there is a progress bar


class Prediction(NamedTuple):
    """Of one file: its likeliest classes and their probabilities, the likeliest first, or why there are none."""
    path: Path
    classes: List[Tuple[str, float]]
    error: Optional[str]


class Predictor:
    """The model of a checkpoint or run's folder, or of shipped weights, for image files.

    Attributes:
        others: files that were read and have values of another range than the training images, and which.

    Raises:
        ValueError: in one sentence, if there is no such model.
    """

    def __init__(self, model_or_checkpoint: str, device: torch.device) -> None:
        check_name(model_or_checkpoint)
        self.model = checkpoint.open_model(model_or_checkpoint, {}).to(device)
        self.value_range = checkpoint.value_range(model_or_checkpoint)
        self.transform = augment.eval_transform(self.model)
        self.device = device
        self.others: List[Tuple[Path, str]] = []
        names = self.model.pretrained_cfg.get('label_names') or ()
        count = self.model.num_classes
        self.classes = list(names) if len(names) == count else [str(i) for i in range(count)]

    def __call__(self, files: Sequence[Path], topk: int, batch_size: int = 64) -> Iterator[Prediction]:
        """The `topk` classes of each file, in order; of what cannot be read, the error. One batch is in memory."""
        for i in range(0, len(files), batch_size):
            batch = files[i:i + batch_size]
            read = [self._read(file) for file in batch]
            pictures = [picture for picture in read if isinstance(picture, Tensor)]
            found = iter(self._classify(torch.stack(pictures), topk) if pictures else ())
            for file, picture in zip(batch, read):
                yield Prediction(file, *(next(found) if isinstance(picture, Tensor) else ([], picture)))

    def _read(self, file: Path) -> Union[Tensor, str]:
        """The image (C, H, W) as the model takes it, or why there is none."""
        try:
            return self.read(file)
        except Exception as error:              # whatever it is, the file must not cost the others their answers
            return brief(' '.join(str(error).split()) or type(error).__name__, 280)

    def read(self, file: Path) -> Tensor:
        """The image (C, H, W) as the model takes it.

        Raises:
            ValueError: in one sentence, if there is none.
        """
        picture = images.open_image(file)
        ready = images.prepare(picture, self.model.in_chans, self.value_range)
        other = self._other_range(picture)
        if other:
            self.others.append((file, other))
        return self.transform(ready)

    def _other_range(self, picture: images.Picture) -> str:
        """What values it has, if these cannot be on the scale of the training images; '' if they may be.

        They are too small if the brightest pixel is darker than the average one of all training images and than an
        eighth of their range, which 12 bits in place of 16 never reach, and too large if the average pixel is brighter
        than the brightest one of all. A dark or bright picture of their scale is neither, unless next to nothing is on
        it: some pixel is brighter than their average, or some darker than the brightest. A share of the range alone
        would not do, as one hot pixel in a training image makes the range. One value all over, such as black, tells
        nothing.
        """
        if self.value_range is None:
            return ''
        low, high = self.value_range
        if isinstance(picture, Image.Image):                    # of 0 to 255, taken for 0 to 1
            return '' if low >= 0 and (high <= 1 or high == 255) else 'of 8 bits'
        mean = self.model.pretrained_cfg['mean']
        mean = sum(mean) / len(mean) or 1 / 256                 # of 0 to 1; not known if the model takes logarithms
        brightest, average = float(picture.max()), float(picture.mean(dtype='float64'))
        most, average = ((value - low) / (high - low) for value in (brightest, average))
        if (min(mean, 1 / 8) <= most and average <= 1) or picture.min() == picture.max():
            return ''
        return f'from {picture.min():g} to {picture.max():g}'

    def warn(self, count: int) -> None:
        """Tell of those of so many images whose values are of another range."""
        if self.others and self.value_range is not None:
            (file, other), (low, high) = self.others[0], self.value_range
            print(f'scat-zoo: warning: {len(self.others):,} of {count:,} images have values of another range than the '
                  f'training images, {low:g} to {high:g}, so their answers may mean nothing; the first is '
                  f'{brief(file, 80)}, {other}', file=sys.stderr)

    @torch.inference_mode()
    def _classify(self, pictures: Tensor, topk: int) -> List[Tuple[List[Tuple[str, float]], Optional[str]]]:
        logits = self.model(pictures.to(self.device)).float()                   # (images, classes)
        best, index = logits.softmax(1).topk(min(topk, len(self.classes)))
        return [([(self.classes[i], p) for i, p in zip(row_i, row_p)], None) if finite
                else ([], "the model's output is not finite: the image, or a weight, is not, or is far too large")
                for row_i, row_p, finite in zip(index.tolist(), best.tolist(), logits.isfinite().all(1).tolist())]


def check_name(model_or_checkpoint: str) -> None:
    """Refuse what is neither a folder nor the name of weights that come with the package."""
    if not os.path.isdir(model_or_checkpoint) and model_or_checkpoint not in shipped.names():
        raise checkpoint.no_model(model_or_checkpoint, shipped.names())


def find(paths: Sequence[Path]) -> List[Path]:
    """These files, and in the place of a folder the images in it and in its folders, sorted.

    Raises:
        ValueError, OSError: in one sentence, if a path is neither, or a folder cannot be searched or has no image.
    """
    missing = [path for path in paths if not os.path.exists(path)]
    if missing:
        raise ValueError(f'no file or folder {brief(missing[0])}: {len(missing):,} of {len(paths):,} are missing')
    files: List[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found = sorted(map(Path, folders.images_in(path)[0]))
            if not found:
                raise ValueError(f'no images in the folder {brief(path)}: expected files that end in '
                                 f'{some(images.EXTENSIONS, 60)}')
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise ValueError(f'expected images or folders of images, {brief(path)} is neither a file nor a folder')
    return files


def show(model_or_checkpoint: str, paths: Sequence[Path], topk: int, device: torch.device,
         table: Optional[Path] = None) -> None:
    """Print the classes of all images, and write them into `table`, a csv file; see the command `scat-zoo predict`.

    Raises:
        ValueError, OSError: on bad input, before any work; and at the end, if images could not be read.
        BrokenPipeError: if nobody reads what is printed and there is no table to go on for.
    """
    check_name(model_or_checkpoint)
    files = find(paths)
    predictor = Predictor(model_or_checkpoint, device)
    columns = min(topk, len(predictor.classes))
    header = [title for i in range(1, columns + 1) for title in (f'class{i}', f'probability{i}')]
    failed = 0
    with _written(table, ['path', *header, 'error']) as write, progress_bar(
            total=len(files), desc='predict', unit='image', disable=len(files) < MANY) as bar:
        # In a terminal, lines go above the bar.
        say = bar.write if sys.stdout.isatty() and sys.stderr.isatty() else _print
        for path, classes, error in predictor(files, topk):
            failed += error is not None
            cells = [cell for name, p in classes for cell in (name, f'{p:.6g}')]
            write([path, *(cells or [''] * len(header)), error or ''])
            lines = [f'  error: {error}'] if error else [
                f'  {100 * p:6.2f} %  {shown(name)}' for name, p in classes]
            try:
                say('\n'.join([shown(path), *lines]))
            except BrokenPipeError:
                if table is None:
                    raise
                discard_stdout()
            bar.update()
    predictor.warn(len(files))
    if failed:
        raise ValueError(f'{failed:,} of {len(files):,} images could not be read: see their errors above'
                         + ', and in the table' * (table is not None))


def _print(text: str) -> None:
    print(text, flush=True)                     # so that a closed pipe is noticed here


def discard_stdout() -> None:
    """Let go nowhere what is printed from here on, and what waits to be: whoever read it has closed the pipe."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


@contextlib.contextmanager
def _written(file: Optional[Path], header: List[str]) -> Iterator[Callable[[List[Any]], Any]]:
    """What writes a row of the csv file, which is there once all are; without a file, nothing is written."""
    if file is None:
        yield lambda row: None
        return
    # A path need not be text: its bytes are written as escapes.
    with whole(file) as partial, open(
            partial, 'w', newline='', encoding='utf-8', errors='backslashreplace') as stream:
        rows = csv.writer(stream, lineterminator='\n')
        rows.writerow(header)
        yield rows.writerow
