"""Make a data set of colour textures, a folder of images for `scat-zoo train --data`, from an archive of pictures.

    python tools/make_textures.py ARCHIVE OUTPUT_FOLDER

The recipe `textures` is for those of the game OpenArena, which are in Debian (GPL-2+, 94 MB):

    apt-get download openarena-081-textures && dpkg -x openarena-081-textures_*.deb unpacked
    python tools/make_textures.py unpacked/usr/share/games/openarena/baseoa/pak4-textures.pk3 textures

Classes are the homogeneous pictures of the archive (zip) that differ in the statistics of their colours: 214 there. The
task is to tell the picture that a crop of 64 x 64 pixels comes from, turned by any angle, scaled by 0.7 to 1.4 and in
other light. Crops to train, validate and test come from regions of the picture that share no pixel.
"""
import argparse
import io
import math
import random
import zipfile
from pathlib import Path
from typing import Iterator, List, Tuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from scat_zoo.wording import brief

SIDE = 256                  # of every picture, after resizing
CROP = 64
PER_CLASS = {'train': 20, 'val': 10, 'test': 20}
# Left, top, right and bottom of the region that the crops of a split come from.
REGION = {'train': (0, 0, 115, 256), 'val': (141, 0, 256, 128), 'test': (141, 128, 256, 256)}


def pictures(archive: Path) -> Iterator[Tuple[str, Image.Image]]:
    """Name and content of every square colour picture of enough pixels, in alphabetical order, resized to one side."""
    with zipfile.ZipFile(archive) as files:
        for name in sorted(files.namelist()):
            if not name.lower().endswith(('.jpg', '.tga', '.png')):
                continue
            try:
                picture = Image.open(io.BytesIO(files.read(name)))
                if picture.mode == 'RGB' and picture.width == picture.height >= SIDE:
                    yield name, picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            except OSError:                                     # broken, or of a kind that Pillow does not know
                continue


def homogeneous(archive: Path) -> List[Tuple[str, Image.Image]]:
    """The pictures whose quarters are alike in colour and contrast, without near-duplicates by these numbers."""
    chosen: List[Tuple[str, Image.Image]] = []
    known: List[np.ndarray] = []
    for name, picture in pictures(archive):
        pixels, half = np.asarray(picture, float), SIDE // 2
        quarters = [pixels[y:y + half, x:x + half] for y in (0, half) for x in (0, half)]
        mean = np.array([quarter.mean((0, 1)) for quarter in quarters])         # (quarters, colours)
        deviation = np.array([quarter.std((0, 1)) for quarter in quarters])
        contrast, statistics = deviation.mean(1), np.concatenate([mean.mean(0), deviation.mean(0)])
        alike = np.ptp(mean, axis=0).max() < 16 and contrast.max() / max(contrast.min(), 1e-6) < 1.35
        if alike and contrast.mean() > 10 and all(np.abs(statistics - other).max() > 5 for other in known):
            chosen.append((name, picture))
            known.append(statistics)
    return chosen


def crop(picture: Image.Image, region: Tuple[int, int, int, int], rng: random.Random) -> Image.Image:
    """A turned and scaled patch whose pixels all come from the region, in other light."""
    left, top, right, bottom = region
    while True:
        angle, scale = rng.uniform(0, 2 * math.pi), rng.uniform(0.7, 1.4)
        reach = CROP / 2 / scale * (abs(math.cos(angle)) + abs(math.sin(angle))) + 1    # of the patch from its centre
        if 2 * reach < min(right - left, bottom - top):
            break
    x, y = rng.uniform(left + reach, right - reach), rng.uniform(top + reach, bottom - reach)
    cos, sin, middle = math.cos(angle) / scale, math.sin(angle) / scale, CROP / 2
    turn = (cos, -sin, x - cos * middle + sin * middle, sin, cos, y - sin * middle - cos * middle)
    gain = rng.uniform(0.6, 1.4)
    light = np.array([gain * rng.uniform(0.85, 1.15) for _ in range(3)])
    patch = picture.transform((CROP, CROP), Image.Transform.AFFINE, turn, Image.Resampling.BICUBIC)
    return Image.fromarray((np.asarray(patch, float) * light).clip(0, 255).round().astype(np.uint8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('archive', type=Path)
    parser.add_argument('output', type=Path)
    args = parser.parse_args()
    try:
        classes = homogeneous(args.archive)
    except (OSError, zipfile.BadZipFile) as error:
        parser.error(f'cannot read the archive {brief(args.archive)}, expected a zip file: {brief(error)}')
    if not classes:
        parser.error(f'{brief(args.archive)} holds no homogeneous colour picture, square and of {SIDE} pixels a side '
                     'or more')
    for c, (name, picture) in enumerate(tqdm(classes, unit='class')):
        for split, count in PER_CLASS.items():
            folder = args.output / split / f'{c:03d}'
            folder.mkdir(parents=True, exist_ok=True)
            rng = random.Random(f'{name}/{split}')
            for i in range(count):
                crop(picture, REGION[split], rng).save(folder / f'{i:03d}.png')
    print(f'{len(classes)} classes in {args.output}: {PER_CLASS} crops each')


if __name__ == '__main__':
    main()
