"""A look into every image file before any training: which are broken, and what the others have in common."""
import hashlib
import math
import os
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple, Union

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..wording import brief, some
from .distributed import rank
from .folders import ImageFiles
from .images import channels_of, open_image, with_channels
from .progress import bar

MEASURED = 5000                 # images from which mean and deviation are taken, at most about


class Found(NamedTuple):
    """What all files together tell. Mean and deviation are those of the values scaled to 0 to 1, by channel."""
    input_size: Tuple[int, int, int]
    mean: Tuple[float, ...]
    std: Tuple[float, ...]
    value_range: Optional[Tuple[float, float]]
    notes: Tuple[str, ...]


class Facts(NamedTuple):
    """What one file tells. A picture of three equal channels is grey."""
    size: Tuple[int, int]
    channels: int
    deep: bool
    alpha: bool
    digest: bytes                       # of size and pixels
    low: float
    high: float
    moments: Optional[np.ndarray]       # (2, channels): of the values and of their squares; 8 bits are 0 to 1 here


def look(parts: Dict[str, ImageFiles], skip_broken: bool) -> Tuple[Dict[str, ImageFiles], Found]:
    """Open every file: the parts, without broken files if these are to be skipped, and what the first part tells.

    Raises:
        ValueError: naming files that cannot be read, or that do not fit together.
    """
    files = [file for part in parts.values() for file, _ in part.samples]
    each = iter(_look_into(files, math.ceil(len(next(iter(parts.values()))) / MEASURED)))
    facts = {name: [next(each) for _ in part.samples] for name, part in parts.items()}
    broken = [fact for of_part in facts.values() for fact in of_part if isinstance(fact, str)]
    if rank() == 0 and not skip_broken:
        for reason in broken:                                   # all, since they are to be mended
            tqdm.write(reason, sys.stderr)
    if broken and not skip_broken:
        raise ValueError(f'{len(broken):,} of {len(files):,} images cannot be read: mend or remove them, or leave them '
                         f'out with --skip-broken; the first is {_named(broken[0])}')
    readable: Dict[str, List[Facts]] = {}
    for name, part in parts.items():
        good = [i for i, fact in enumerate(facts[name]) if not isinstance(fact, str)]
        lost = sorted(set(part.targets) - {part.targets[i] for i in good})
        if lost:
            raise ValueError(f'no {name} images are left of {some([part.classes[c] for c in lost], 60)} without those '
                             f'that cannot be read, such as {_named(broken[0])}')
        parts = {**parts, name: part.subset(good)}
        readable[name] = [fact for fact in facts[name] if not isinstance(fact, str)]
    found = _summary(parts, readable)
    found = found._replace(notes=(*found.notes, *_copies_notes(parts, readable)))
    if broken:
        note = f'{len(broken):,} of {len(files):,} images cannot be read and are left out, such as {_named(broken[0])}'
        found = found._replace(notes=(*found.notes, note))
    return parts, found


def _named(error: str) -> str:
    """The file, a colon and the reason."""
    return brief(error.removeprefix('cannot read the image '), 150)


def _look_into(files: List[str], step: int) -> List[Union[Facts, str]]:
    """Facts of each file, or why it cannot be read; every `step`-th of those that can keeps its moments."""
    Image.init()                                                # not left to threads
    found, good = [], 0
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        with warnings.catch_warnings():                         # Pillow's, about metadata
            warnings.simplefilter('ignore')
            for fact in bar(pool.map(_facts, files), 'reading', len(files), leave=False, unit='image', delay=2,
                            disable=rank() > 0):
                if not isinstance(fact, str):
                    fact = fact if good % step == 0 else fact._replace(moments=None)
                    good += 1
                found.append(fact)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)          # after Ctrl-C, at once
    return found


def _facts(file: str) -> Union[Facts, str]:
    try:
        picture = open_image(file)
    except ValueError as error:
        return str(error)
    if isinstance(picture, np.ndarray):
        array, low, high = picture, float(picture.min()), float(picture.max())
        moments = np.stack([array.mean((0, 1), np.float64), np.square(array, dtype=np.float64).mean((0, 1))])
    else:
        image = with_channels(picture, channels_of(picture))
        array, low, high = np.asarray(image).reshape(image.height, image.width, -1), 0., 1.
        levels, counts = np.arange(256) / 255, np.reshape(image.histogram(), (-1, 256))
        moments = np.stack([counts @ levels, counts @ levels ** 2]) / (image.height * image.width)
    height, width, channels = array.shape
    if channels == 3 and np.array_equal(array[..., 0], array[..., 1]) and np.array_equal(array[..., 1], array[..., 2]):
        channels, moments = 1, moments[:, :1]
    alpha = isinstance(picture, Image.Image) and picture.mode in ('LA', 'La', 'PA', 'RGBA', 'RGBa')
    digest = hashlib.blake2b(array.tobytes(), digest_size=16, person=f'{height}x{width}'.encode()[:16]).digest()
    return Facts((height, width), channels, isinstance(picture, np.ndarray), alpha, digest, low, high, moments)


def _summary(parts: Dict[str, ImageFiles], facts: Dict[str, List[Facts]]) -> Found:
    pairs = [(file, fact) for name, part in parts.items() for (file, _), fact in zip(part.samples, facts[name])]
    _check_agreement(pairs)
    of_training = next(iter(facts.values()))
    value_range = None
    if of_training[0].deep:
        low, high = min(fact.low for fact in of_training), max(fact.high for fact in of_training)
        # Of one value only, any range, if what is added to a large number does not vanish in it.
        value_range = (low, high if high > low else low + max(1., abs(low) / 1000))
        if value_range[1] - value_range[0] > np.finfo(np.float32).max:
            raise ValueError(f'the values of the images, from {low:g} to {high:g}, are too far apart for 32 bits: '
                             'save them on another scale')
    sizes = np.array([fact.size for fact in of_training])
    channels = max(fact.channels for fact in of_training)
    height, width = np.median(sizes, 0).astype(int).tolist()
    mean, std = _statistics(of_training, channels, value_range)
    notes = [_channels_note(of_training, channels), _sizes_note(sizes, height, width)]
    if value_range is not None:
        notes.append('all images are more than 8 bits in grey or colour; values of the training images, '
                     f'{low:.9g} to {high:.9g}, become 0 to 1')
    alpha = sum(fact.alpha for fact in of_training)
    if alpha:
        notes.append(f'{alpha:,} training images have an alpha channel, which is left out')
    return Found((channels, height, width), mean, std, value_range, tuple(notes))


def _check_agreement(facts: List[Tuple[str, Facts]]) -> None:
    """Refuse a mix of channels, that of grey and colour aside, and one of depths, whose values do not compare."""
    kinds: Dict[int, str] = {}
    for file, fact in facts:
        kinds.setdefault(3 if fact.channels == 1 else fact.channels, file)
    if len(kinds) > 1:
        (a, one), (b, other) = [('1 or 3' if n == 3 else n, file) for n, file in kinds.items()][:2]
        raise ValueError(f'all images must be grey or colour, or else of the same channels: {brief(one, 80)} has {a}, '
                         f'{brief(other, 80)} has {b}')
    # 8 bits are 0 to 255, others whatever the training images have: a classifier might tell classes by that alone.
    depths = {fact.deep: file for file, fact in reversed(facts)}
    if len(depths) > 1:
        raise ValueError(f'all images must have as many bits: {brief(depths[False], 80)} has 8, '
                         f'{brief(depths[True], 80)} has more, so their values do not compare: save all with as many')


def _statistics(facts: List[Facts], channels: int, value_range: Optional[Tuple[float, float]]
                ) -> Tuple[Tuple[float, ...], Tuple[float, ...]]:
    """Mean and deviation by channel. Each image has the same weight, since all become one size."""
    moments = []
    for first, second in [fact.moments for fact in facts if fact.moments is not None]:
        if value_range is not None:
            low, span = value_range[0], value_range[1] - value_range[0]
            first, second = (first - low) / span, (second - 2 * low * first + low ** 2) / span ** 2
        moments.append(np.broadcast_to([first, second], (2, channels)))
    first, second = np.mean(moments, 0)
    return tuple(first.tolist()), tuple(np.sqrt(np.maximum(second - first ** 2, 1e-6)).tolist())


def _channels_note(facts: List[Facts], channels: int) -> str:
    if channels == 1:
        return 'all training images are grey: 1 channel'
    if channels == 3:
        colour = sum(fact.channels == 3 for fact in facts)
        return f'{colour:,} of {len(facts):,} training images are in colour: 3 channels'
    return f'all images have {channels} channels'


def _copies_notes(parts: Dict[str, ImageFiles], facts: Dict[str, List[Facts]]) -> Iterator[str]:
    first, *others = parts
    known = {fact.digest for fact in facts[first]}
    for name in others:
        copies = [file for (file, _), fact in zip(parts[name].samples, facts[name]) if fact.digest in known]
        if copies:
            yield (f'{len(copies):,} of {len(parts[name]):,} {name} images are training images too, such as '
                   f'{brief(copies[0])}: accuracies will be too high')


def _sizes_note(sizes: np.ndarray, height: int, width: int) -> str:
    (lowest, narrowest), (highest, widest) = sizes.min(0), sizes.max(0)
    if (sizes == sizes[0]).all():
        return f'all training images have {height} x {width} pixels (height x width)'
    return (f'training images are {lowest} to {highest} pixels high and {narrowest} to {widest} wide, '
            f'{height} x {width} in the median')
