"""What speaks for a class in an image, drawn and in words: what `scat-zoo explain` does."""
import importlib.util
import os
from pathlib import Path
from typing import Any, Optional, Sequence, Tuple

import numpy as np
import timm
import torch
from torch import Tensor

from ..models.build import per_channel
from ..models.stem import ScatteringStem
from ..scattering import geometry
from ..scattering.plot import degrees, orientation, period
from ..wording import brief, nearest
from . import report_pictures
from .attribution import Evidence, by_path, by_place, evidence, keeps_places, paths_of
from .predict import Predictor, check_name
from .run_folder import whole

STRONGEST = 3                   # paths that are told in words
PRIMARY = ('red', 'green', 'blue')
STRENGTHS = ('low', 'high'), ('weak', 'strong')        # of order 0, and of others


def words(stem: ScatteringStem, path: geometry.Path, colour: int = 0) -> str:
    """What a path responds to: how far apart stripes are in pixels, and at which angle, 0 if they lie, 90 upright.

    Of pixelwise filters, which have no such numbers, those of the filters that they began as.
    """
    of_colour = _colour(stem.in_chans, colour)
    if path.j1 is None:
        return f'brightness{of_colour}'
    text = f'stripes every {_period(stem, path.j1, path.theta1):.1f} px'
    text += ' in any direction' if path.theta1 is None else f' at {_angle(stem, path.j1, path.theta1)}'
    if path.j2 is not None and path.theta2 is not None:
        turn = f'{degrees(-180 * path.theta2 / stem.L)} to them' if path.theta1 is None else \
            _angle(stem, path.j2, path.theta2)
        of_second = None if path.theta1 is None else path.theta2
        text += f', which vary every {_period(stem, path.j2, of_second):.1f} px at {turn}'
    return text + of_colour


def _colour(in_chans: int, colour: int) -> str:
    """Of which channel, or difference of two, if there are several."""
    if in_chans == 1:
        return ''
    names = PRIMARY if in_chans == 3 else [f'channel {c + 1}' for c in range(in_chans)]
    if colour < in_chans:
        return f' in {names[colour]}'
    return f' in {names[colour - in_chans]} less {names[colour - in_chans + 1]}'


def _period(stem: ScatteringStem, j: int, t: Optional[int]) -> float:
    """Pixels from stripe to stripe; the mean over orientations where none is given."""
    found = [w.wavelength for w in stem.filter_parameters() if w.j == j and t in (None, w.t)]
    return float(np.mean(found)) if found else period(j)


def _angle(stem: ScatteringStem, j: int, t: int) -> str:
    """Of the stripes, from lying ones counter-clockwise, and of the oscillation, from downwards to the right."""
    found = [w.angle for w in stem.filter_parameters() if (w.j, w.t) == (j, t)]
    return degrees((found or [orientation(t, stem.L)])[0])


def strongest(model: Any, found: Evidence) -> str:
    """The paths of the largest shares in words, and whether the image has more of them than usual, or less."""
    stem = model.scattering
    paths = paths_of(stem)
    shares, levels = by_path(stem, found.shares), by_path(stem, found.levels)
    told = []
    for n in shares.abs().flatten().argsort(descending=True, stable=True)[:STRONGEST].tolist():
        row, colour = divmod(n, stem.colours)
        strength = STRENGTHS[paths[row].order > 0][int(levels[row, colour] > 0)]
        told.append(f'{shares[row, colour]:+.2f} {strength} {words(stem, paths[row], colour)}')
    return '; '.join(told)


def show(model_or_checkpoint: str, image: Path, picture: Path, asked: Optional[str] = None) -> None:
    """Draw and print what speaks for a class in an image; see the command `scat-zoo explain`.

    Args:
        picture: the PNG to write.
        asked: name of the class; the likeliest unless given.

    Raises:
        ValueError, OSError: in one sentence, on bad input, before the picture is written.
    """
    _check(model_or_checkpoint, image, picture)
    predictor = Predictor(model_or_checkpoint, torch.device('cpu'))
    model = predictor.model
    if asked is not None and asked not in predictor.classes:
        raise ValueError(f'the model has no class {brief(repr(asked), 60)}; {nearest(asked, predictor.classes)}')
    x = predictor.read(image)
    predictor.warn(1)
    found = evidence(model, x[None], None if asked is None else predictor.classes.index(asked))
    answer, how = _told(predictor.classes, found, asked is not None)
    with whole(picture) as partial:
        _draw(partial, model, x, found, f'{answer}\n{how}')
    print(f'{answer}; picture {brief(picture)}')
    print(f'{how}: {strongest(model, found)}')


def _told(classes: Sequence[str], found: Evidence, asked: bool) -> Tuple[str, str]:
    """What the model says of the class, and what the shares are."""
    sum_ = found.shares.double().sum().item()
    answer = f'{brief(classes[found.target], 60)}: {100 * found.logits.softmax(0)[found.target].item():.2f} %'
    if asked:
        answer += f', likeliest {brief(classes[int(found.logits.argmax())], 60)}'
    answer += f'; logit {_rounded(sum_ + found.constant)} against the mean of all classes'
    if found.exact:
        return answer, f'exact shares (linear head), {_rounded(sum_)} in all and {_rounded(found.constant)} bias'
    return answer, f'estimated shares (gradient x coefficient), {_rounded(sum_)} in all'


def _check(model_or_checkpoint: str, image: Path, picture: Path) -> None:
    if importlib.util.find_spec('matplotlib') is None:
        raise ValueError('the picture needs matplotlib: install it, or scat_zoo with the extra plot')
    name = model_or_checkpoint
    if not os.path.isdir(name) and timm.is_model(name) and name.split('.')[0] not in timm.list_models('scat_*'):
        raise ValueError(f'expected a model with scattering filters (`scat-zoo list`), {brief(name)} has none')
    check_name(name)
    if not os.path.isfile(image):
        raise ValueError(f'expected one image, {brief(image)} is no file' if os.path.exists(image) else
                         f'no image {brief(image)}')
    if os.path.exists(picture) and os.path.samefile(image, picture):
        raise ValueError(f'the picture would replace the image {brief(image)}: choose another --output')


def _draw(file: Path, model: Any, x: Tensor, found: Evidence, title: str) -> None:
    stem = model.scattering
    windows = found.coefficients.shape[1:].numel()
    means = by_path(stem, found.coefficients, stem.J).mean(1) / windows
    place = None
    if keeps_places(model, found.shares):
        place = by_place(stem, found.shares, (x.shape[1], x.shape[2])).numpy()
    shares = by_path(stem, found.shares).sum(1)
    report_pictures.explanation(file, f'{title}, {_rounded(shares[0].item())} of them brightness (order 0)',
                                as_seen(model, x), paths_of(stem), means.numpy(), shares.numpy(), place, 2 ** stem.J)


def _rounded(value: float) -> str:
    return f'{round(value, 2) + 0.:+.2f}'                       # never -0.00


def as_seen(model: Any, x: Tensor) -> np.ndarray:
    """What the model sees of an image (C, H, W), from 0 to 1: in colour (H, W, 3), else the mean of channels (H, W)."""
    mean, std = (torch.tensor(per_channel(model.pretrained_cfg[name], len(x)))[:, None, None]
                 for name in ('mean', 'std'))
    values = (x * std + mean).clamp(0, 1)
    return values.movedim(0, 2).numpy() if len(x) == 3 else values.mean(0).numpy()
