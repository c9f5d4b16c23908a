"""What came of a run, to look at: `report.html`, one file that needs no network."""
import base64
import html
import importlib.util
import itertools
import math
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
import torch
from PIL import Image

from .. import __version__
from ..models.model import ScatteringModel
from ..scattering import geometry
from ..wording import shown
from . import report_pictures
from .data import Data, Images, name_of
from .images import prepare
from .metrics import CONFUSED, WORST
from .model import prepared
from .run_folder import whole

SHOWN = 12                      # images that it got most wrong, and pairs of classes that it confuses most
OF_CLASSES = 10                 # classes whose images are shown as discs
SCALE = ('<div class="scale"><span>0</span><i style="background: linear-gradient(90deg, {})"></i>'
         '<span>the largest of the disc</span></div>')
WIDE = '<div class="wide" tabindex="0">'        # scrolls on its own, with keys too
MISSING = 'These pictures need matplotlib: install scat_zoo with the extra train, and repeat the command with --resume.'
CHOICES = ('Features are averages over windows of about 2^J pixels, J each of the scales; flat keeps where in the '
           'image they are, avg does not. rotation average leaves out how the image is turned, channel_differences '
           'adds how colours vary together, log_input leaves light aside. The smaller C, the more the classifier is '
           'kept from learning by heart.')
FILTERS = ('Each column is a filter. In space it shows the pattern of light and dark to which it responds, in Fourier '
           'the frequencies that it lets pass, none in the centre.')
ORDER_1 = ('Vertical stripes light up left and right in a disc, horizontal ones above and below; fine detail lights up '
           'outside, coarse detail inside.')
ORDER_2 = ('Order 2 divides each of these cells again, by how the response changes from place to place, finely or '
           'coarsely and in which direction; the coarsest has none and is grey.')

OF_TURNS = ('All directions are averaged: order 1 fills whole rings, fine detail outside; order 2 lies by the angle of '
            'its second wavelet to the first, where stripes along the first light up left and right.')


@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        title: the model and its data.
        lines: what was chosen or found, and why.
        results: as in `results.json`.
        why: why the kept way was kept, '' for the only one.
        model: the kept one, on the CPU.
        targets: classes (test images,).
        answers: the model's probabilities (test images, classes).
        filters: the picture of the filters that moved most, if any were learned.
    """
    title: str
    lines: Sequence[Tuple[str, str]]
    results: Dict[str, Any]
    why: str
    model: ScatteringModel
    data: Data
    targets: np.ndarray
    answers: np.ndarray
    filters: Optional[Path] = None


def write(run: Run, file: Path) -> None:
    """Write the page. Without matplotlib it has no curves and no discs, and says so."""
    template = string.Template(Path(__file__).with_name('report.html').read_text(encoding='utf-8'))
    sections = [_accuracy(run), _settings(run), _ways(run), _curves(run), _confusion(run), _wrong(run), _filters(run),
                _discs(run)]
    title = _text(f'{run.results["test"]["accuracy"]:.2f} %: {run.title}')
    body = _lines(sections).replace(' %', '\N{NO-BREAK SPACE}%')
    with whole(file) as partial:
        partial.write_text(template.substitute(title=title, body=body, version=__version__), encoding='utf-8')


def compared(results: Dict[str, Any], why: str) -> List[str]:
    """The ways side by side, in lines for a terminal, if there are several."""
    ways, lines = results['ways'], []
    for name, way in ways.items():
        val = '' if way['val_accuracy'] is None else f'validation {way["val_accuracy"]:.2f} %, '
        kept = f'  (kept, {why})' if name == results['kept'] else ''
        lines.append(f'{said(name, way):34}{val}test {way["test_accuracy"]:.2f} %{kept}')
    best = max(way['val_accuracy'] or 0 for way in ways.values())
    if why == 'by validation' and best > ways[results['kept']]['val_accuracy']:
        lines.append('the validation images are too few to tell the best apart, so the first of these is kept')
    return lines if len(lines) > 1 else []


def said(name: str, way: Dict[str, Any]) -> str:
    """What one of the ways was."""
    return f'{"fitted classifier" if name == "probe" else "trained"}, {way["filters"]} filters'


def interval(right: int, count: int) -> Tuple[float, float]:
    """The 95 % interval of an accuracy, in per cent, of which `right` of `count` images tell (Wilson's)."""
    z, p = 1.96, right / count
    centre = p + z * z / (2 * count)
    half = z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    scale = 100 / (1 + z * z / count)
    return scale * (centre - half), scale * (centre + half)


def _accuracy(run: Run) -> str:
    test, data = run.results['test'], run.data
    low, high = _interval_of(run)
    area = '' if test['roc_auc'] is None else f' The area under the ROC curve is {test["roc_auc"]:.3f}; 0.5 is chance.'
    return (f'<h1>{_text(run.title)}</h1>\n<p class="soft">{len(data.train):,} training, {len(data.val or ()):,} '
            f'validation and {len(data.test):,} test images of {len(data.classes):,} classes</p>\n'
            f'<p class="figure">{test["accuracy"]:.2f} % <span>test accuracy</span></p>\n'
            f'<p>{_right(run):,} of {test["images"]:,} images that were kept apart from training got the right class. '
            f'With so many images, the true accuracy lies between {low:.1f} and {high:.1f} % (95 % interval).</p>\n'
            f'<p class="soft">Always answering the commonest class would give {test["majority_accuracy"]:.2f} %. '
            f'With all classes counting alike, accuracy is {test["balanced_accuracy"]:.2f} %.{area}</p>')


def _settings(run: Run) -> str:
    rows = [f'<tr><th scope="row">{_text(what)}</th><td>{_lines([f"<div>{_text(line)}</div>" for _, line in lines])}'
            '</td></tr>' for what, lines in itertools.groupby(run.lines, lambda line: line[0])]
    read = f'<p class="soft">{CHOICES}</p>' if any(what == 'features' for what, _ in run.lines) else ''
    return _section('Settings', 'What was found in the images, what was chosen and why; what was asked for was kept.',
                    f'<table class="settings">{_lines(rows)}</table>{read}')


def _ways(run: Run) -> str:
    ways, kept = run.results['ways'], run.results['kept']
    say = 'Only one way was tried.'
    if len(ways) > 1:
        low, high = _interval_of(run)
        say = 'The last one is kept because it was asked for, which does not mean that it is better.'
        if run.why == 'by validation':
            say = ('A later way is kept in place of an earlier one only if it is right for more validation images, by '
                   'more than chance explains.')
        # Of less than 6 images all may be by chance what one way alone got right: 2 / 2^5 is more than 5 %.
        least = max((high - low) / 2, 600 / run.results['test']['images'])
        say += f' A difference in the test of less than {least:.1f} points may be chance.'
    rows = [f'<tr><th scope="row">{_text(said(name, way))}{" (kept)" if name == kept else ""}</th>'
            f'<td class="number">{_per_cent(way["val_accuracy"])}</td>'
            f'<td class="number">{_per_cent(way["test_accuracy"])}</td></tr>' for name, way in ways.items()]
    return _section('Ways that were tried', say, _table(('way', '#validation', '#test'), rows))


def _curves(run: Run) -> str:
    ways = run.results['ways']
    trained = {said(name, way): way['history'] for name, way in ways.items() if way['history']}
    if not trained:
        return _section('Curves', 'The classifier was fitted at once and nothing was trained epoch by epoch, so '
                        'there are no curves.')
    if not _can_draw():
        return _section('Curves', MISSING)
    plots: List[Tuple[str, str, Dict[str, float]]] = [('training loss', 'loss', {})]
    if all('val_accuracy' in entry for history in trained.values() for entry in history):
        level = {said(name, way): way['val_accuracy'] for name, way in ways.items() if not way['history']}
        plots.append(('validation accuracy (%)', 'val_accuracy', level))
    body = []
    for what, key, level in plots:
        lines = {name: [entry[key] for entry in history] for name, history in trained.items()}
        body.append(f'<div>{_image(report_pictures.curve(lines, level, what), f"{what} by epoch", "plot")}</div>')
    return _section('Curves', 'The loss should fall and level off. Validation accuracy, of images that are not trained '
                    'on, should rise and stay: if it falls again, the images are learnt by heart.',
                    f'<div class="cards curves">{_lines(body)}</div>')


def _confusion(run: Run) -> str:
    classes = run.results['test']['classes']
    names = [entry['name'] for entry in classes]
    counts = np.asarray(run.results['test']['confusion'])
    if len(names) > CONFUSED:
        return _section('What it confuses', 'Recall is the part of a class that was found, precision the part that is '
                        'right of what was taken for it.', _pairs(names, counts) + _worst(classes))
    rows = []
    for i, of_class in enumerate(counts):
        cells = [f'<td style="--part: {count / max(of_class.sum(), 1):.3f}">{count:,}</td>' for count in of_class]
        rows.append(f'<tr><th scope="row">{i + 1} {_text(names[i])}</th>{"".join(cells)}'
                    f'<td class="last">{_per_cent(classes[i]["recall"])}</td></tr>')
    head = ''.join(f'<th scope="col" title="{_text(name)}">{i + 1}</th>' for i, name in enumerate(names))
    return _section('What it confuses', 'A row holds the test images of one class, and tells for which class they were '
                    'taken, by its number; right ones lie on the diagonal. Recall is the part of a class that was '
                    'found.', f'{WIDE}<table class="matrix"><thead><tr><th scope="col">true class, taken for:</th>'
                    f'{head}<th scope="col">recall</th></tr></thead>\n<tbody>{_lines(rows)}</tbody></table></div>')


def _pairs(names: Sequence[str], counts: np.ndarray) -> str:
    wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    order = np.argsort(-wrong, axis=None, kind='stable')[:SHOWN]
    pairs = [(i, j) for i, j in zip(*np.unravel_index(order, wrong.shape)) if wrong[i, j]]
    rows = [f'<tr><td>{_text(names[i])}</td><td>{_text(names[j])}</td><td class="number">{wrong[i, j]:,} of '
            f'{counts[i].sum():,}</td></tr>' for i, j in pairs]
    return '<h3>Pairs that it confuses most</h3>' + (
        _table(('true class', 'taken for', '#images'), rows) if rows else '<p>None.</p>')


def _worst(classes: Sequence[Dict[str, Any]]) -> str:
    worst = sorted((c for c in classes if c['recall'] is not None), key=lambda c: c['recall'])[:WORST]
    rows = [f'<tr><th scope="row">{_text(c["name"])}</th><td class="number">{c["images"]:,}</td>'
            f'<td class="number">{_per_cent(c["recall"])}</td><td class="number">{_per_cent(c["precision"])}</td></tr>'
            for c in worst]
    return f'<h3>Classes of lowest recall, of {len(classes):,}</h3>' + _table(
        ('class', '#images', '#recall', '#precision'), rows)


def _wrong(run: Run) -> str:
    found = run.answers.argmax(1)
    wrong = np.flatnonzero(found != run.targets)
    if not len(wrong):
        return _section('Most wrong', f'It got all {len(found):,} test images right: there are none to show.')
    wrong = wrong[np.argsort(-run.answers[wrong, found[wrong]], kind='stable')][:SHOWN]
    cards = [f'<li>{_thumbnail(run, run.data.test, i)}<p><b>{_text(run.data.classes[run.targets[i]])}</b>, taken for '
             f'<b>{_text(run.data.classes[found[i]])}</b> with {100 * run.answers[i, found[i]]:.1f} %<br>'
             f'<span class="soft">{_text(name_of(run.data.test, i))}</span></p></li>' for i in wrong.tolist()]
    return _section('Most wrong', 'The test images for which it gave a wrong class the highest probability. Look for '
                    'wrong labels, and for what they have in common.', f'<ul class="cards wrong">{_lines(cards)}</ul>')


def _filters(run: Run) -> str:
    if run.filters is None:
        return ''
    change = 100 * run.results['ways']['learned']['filter_change']
    aside = '' if run.results['kept'] == 'learned' else ' They belong to the way that was not kept.'
    return _section('Filters that moved most', f'Training moved all filters together by {change:.1f} % (relative norm).'
                    f'{aside} {FILTERS}', f'<p class="hint soft">The picture goes on to the right.</p>{WIDE}'
                    f'{_image(run.filters.read_bytes(), "learned filters before and after training", "plot")}</div>')


def _discs(run: Run) -> str:
    title = 'Scattering coefficients'
    if not _can_draw():
        return _section(title, MISSING)
    stem = run.model.scattering
    paths = geometry.paths(stem.J, stem.L, stem.max_order, stem.rotation)
    orders = sorted({path.order for path in paths} - {0})
    examples = _examples(run.data)
    cards = []
    for name, images, i in examples:
        values = _coefficients(run, images, i)
        row = [_captioned(_thumbnail(run, images, i), 'image')]
        for order in orders:
            largest = values[[path.order == order for path in paths]].max()
            row.append(_captioned(_image(report_pictures.disc(values, paths, order), f'coefficients of order {order}'),
                                  f'order {order}, up to {largest:.2g}'))
        cards.append(f'<li><h3>{_text(name)}</h3><div class="row">{_lines(row)}</div></li>')
    count = 'each class' if len(examples) == len(run.data.classes) else \
        f'{len(examples)} of {len(run.data.classes):,} classes'
    how, more = (ORDER_1, ORDER_2 if 2 in orders else '') if stem.rotation is None else (OF_TURNS, '')
    return _section(title, f'One image of {count}, and its coefficients, averaged over the image. {how}',
                    f'<p class="soft">{more}</p>'
                    f'{SCALE.format(", ".join(report_pictures.colours()))}<ul class="cards discs">{_lines(cards)}</ul>')


def _examples(data: Data) -> List[Tuple[str, Images, int]]:
    """The first test image of each of the first classes, or where there is none, the first training image."""
    found = []
    for c, name in enumerate(data.classes[:OF_CLASSES]):
        for images in (data.test, data.train):
            of_class = np.flatnonzero(np.asarray(images.targets) == c)
            if len(of_class):
                found.append((name, images, int(of_class[0])))
                break
    return found


@torch.inference_mode()
def _coefficients(run: Run, images: Images, i: int) -> np.ndarray:
    """Of an image, by path: the means over space and colours, at the largest scale."""
    stem = run.model.scattering
    maps = stem(prepared(images, run.model, run.data)[i][0][None])[0].mean((1, 2))      # (channels,)
    largest = [n for n, channel in enumerate(stem.channels) if channel.scale == stem.J]
    return maps[largest].reshape(-1, stem.colours).mean(1).numpy()


def _interval_of(run: Run) -> Tuple[float, float]:
    return interval(_right(run), len(run.targets))


def _right(run: Run) -> int:
    return int((run.answers.argmax(1) == run.targets).sum())


def _can_draw() -> bool:
    return importlib.util.find_spec('matplotlib') is not None


def _captioned(image: str, caption: str) -> str:
    return f'<figure>{image}<figcaption>{caption}</figcaption></figure>'


def _thumbnail(run: Run, images: Images, i: int) -> str:
    picture = prepare(images[i][0], run.data.input_size[0], run.data.value_range)
    pixels = max(picture.size if isinstance(picture, Image.Image) else picture.shape[1:])
    return _image(report_pictures.thumbnail(picture), name_of(images, i), 'small pixels' if pixels < 100 else 'small')


def _image(png: bytes, alt: str, kind: str = '') -> str:
    return f'<img class="{kind}" alt="{_text(alt)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def _section(title: str, how: str, body: str = '') -> str:
    """First comes how to read it."""
    return f'<section>\n<h2>{title}</h2>\n<p>{how}</p>\n{body}\n</section>'


def _table(head: Sequence[str], rows: Sequence[str]) -> str:
    """Columns of numbers have a name that begins with #."""
    cells = ''.join(f'<th scope="col"{" class=number" * name.startswith("#")}>{name.lstrip("#")}</th>' for name in head)
    return f'{WIDE}<table><thead><tr>{cells}</tr></thead>\n<tbody>{_lines(rows)}</tbody></table></div>'


def _lines(parts: Sequence[str]) -> str:
    return '\n'.join(parts)


def _per_cent(value: Optional[float]) -> str:
    return '-' if value is None else f'{value:.2f} %'


def _text(text: str) -> str:
    """For a page, between quotes too."""
    return html.escape(shown(text))
