"""`scat-zoo train --data FOLDER`, no other option, against the probe, on folders of few training images.

    python benchmarks/bench_few.py [--cases fashion-10 ...] [--draws 3] [--neu FOLDER_OR_TAR] [--cifar FOLDER_OR_TAR]

The probe is logistic regression on the logarithms of fixed scattering coefficients, the floor that training must not
fall below. The table compares the two on the same test images; below it stand the cases more than a point under the
probe, and the 16-bit copies more than a point off their 8-bit originals. Ends with status 1 if there is any.
The case `imbalanced` is trained once more with balanced class weights, and tells the rare class's recall in both.
Folders found in --work are used as they are, so delete them after changing this script; every run is trained anew.
The NEU steel pictures, and CIFAR-10 as files, are yours to supply: folders, or archives of them, with `train` and
`test` by class. Needs scikit-learn (extra `lda`), matplotlib (`plot`), and for the patches scikit-image.
"""
import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import timm
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.preprocessing import StandardScaler

import scat_zoo  # noqa: F401  (registers the models with timm)
from scat_zoo.train.data import load

Picture = Union[np.ndarray, Path]           # pixels to write as PNG, or a file to copy
Classes = Dict[str, List[Picture]]
SIDE = 64                                   # the probe's images are no larger
CHUNK = 200                                 # images scattered at a time


# Folders. A case is a function of the draw that gives the training and the test images by class.

def built_in() -> Tuple[Classes, Classes]:
    """The package's images of Fashion-MNIST, 100 a class to train and 200 to test, 28 x 28 bytes each."""
    data = load('sample', val_fraction=0.)
    names = [name.replace('/', '-') for name in data.classes]
    return _by_class(data.train, names), _by_class(data.test, names)


def _by_class(dataset: Any, names: Sequence[str]) -> Classes:
    classes: Classes = {name: [] for name in names}
    for i in range(len(dataset)):
        image, target = dataset[i]
        classes[names[target]].append(np.asarray(image))
    return classes


def drawn(classes: Classes, per_class: int, draw: int) -> Classes:
    """So many random images of each class. The fewer are among the more."""
    return {name: [pictures[i] for i in np.random.default_rng([draw, c]).permutation(len(pictures))[:per_class]]
            for c, (name, pictures) in enumerate(classes.items())}


def fashion(draw: int, per_class: int, deep: bool = False) -> Tuple[Classes, Classes]:
    """Built-in images, if deep as 10-bit values in 16 bits."""
    train, test = built_in()
    train = drawn(train, per_class, draw)
    if deep:
        train, test = ({name: [_ten_bits(x) for x in pictures] for name, pictures in part.items()}
                       for part in (train, test))
    return train, test


def _ten_bits(pixels: np.ndarray) -> np.ndarray:
    return np.rint(pixels * (1023 / 255)).astype(np.uint16)


def imbalanced(draw: int) -> Tuple[Classes, Classes]:
    """10 shirts against 190 of the T-shirts and dresses that they are taken for."""
    train, test = built_in()
    many, few = drawn(train, 95, draw), drawn(train, 10, draw)
    return ({'common': many['T-shirt-top'] + many['Dress'], 'rare': few['Shirt']},
            {'common': test['T-shirt-top'] + test['Dress'], 'rare': test['Shirt']})


def patches(draw: int, names: Sequence[str], size: int = 64) -> Tuple[Classes, Classes]:
    """Squares cut at random from pictures inside scikit-image's wheel: 20 a class from their left half, 100 right."""
    from skimage import data
    train: Classes = {}
    test: Classes = {}
    for c, name in enumerate(names):
        picture = getattr(data, name)()
        middle = picture.shape[1] // 2
        train[name] = _cut(picture[:, :middle], 20, size, np.random.default_rng([draw, c]))
        test[name] = _cut(picture[:, middle:], 100, size, np.random.default_rng(c))
    return train, test


def _cut(picture: np.ndarray, count: int, size: int, rng: np.random.Generator) -> List[Picture]:
    corners = rng.integers(0, np.array(picture.shape[:2]) - size + 1, (count, 2)).tolist()
    return [picture[y:y + size, x:x + size] for y, x in corners]


def files(draw: int, source: Path, per_class: int, test_per_class: Optional[int] = None) -> Tuple[Classes, Classes]:
    """Images of the folder `source`, copied as they are; so many for testing, the same in every draw, or all."""
    train, test = ({folder.name: sorted(folder.iterdir()) for folder in sorted((source / part).iterdir())}
                   for part in ('train', 'test'))
    return drawn(train, per_class, draw), {name: paths[:test_per_class] for name, paths in test.items()}


CASES: Dict[str, Callable[..., Tuple[Classes, Classes]]] = {
    'fashion-10': partial(fashion, per_class=10),
    'fashion-50': partial(fashion, per_class=50),
    'fashion-10-deep': partial(fashion, per_class=10, deep=True),
    'fashion-50-deep': partial(fashion, per_class=50, deep=True),
    'patches-20': partial(patches, names=('brick', 'grass', 'gravel')),
    'patches-colour': partial(patches, names=('astronaut', 'chelsea', 'coffee')),
    'imbalanced': imbalanced,
}
FROM_FILES = {
    'neu': {'neu-5': partial(files, per_class=5), 'neu-20': partial(files, per_class=20)},
    'cifar': {'cifar-10': partial(files, per_class=10, test_per_class=200),
              'cifar-50': partial(files, per_class=50, test_per_class=200)},
}


def unpacked(path: Path, work: Path) -> Path:
    """The folder that holds `train` and `test`: this one, the one in it, or that of an archive, unpacked under `work`.

    Raises:
        ValueError: if there is none.
    """
    folder = path
    if path.is_file():
        folder = work / f'unpacked-{path.name}'
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=work) as half:
                shutil.unpack_archive(path, Path(half) / 'all', filter='data')
                (Path(half) / 'all').rename(folder)
    for candidate in (folder, *(folder.iterdir() if folder.is_dir() else ())):
        if (candidate / 'train').is_dir() and (candidate / 'test').is_dir():
            return candidate
    raise ValueError(f'expected a folder with train and test, or an archive of one, {path} is or holds none')


def write(case: Callable[..., Tuple[Classes, Classes]], draw: int, folder: Path) -> None:
    """FOLDER/train/CLASS/* and FOLDER/test/CLASS/*, all or nothing."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        half = Path(temporary) / 'all'
        for part, classes in zip(('train', 'test'), case(draw)):
            for name, pictures in classes.items():
                (half / part / name).mkdir(parents=True)
                for i, picture in enumerate(pictures):
                    if isinstance(picture, Path):
                        shutil.copyfile(picture, half / part / name / picture.name)
                    else:
                        Image.fromarray(picture).save(half / part / name / f'{i:03}.png')
        half.rename(folder)


# The probe. It shares the fixed filters with the package, and nothing of its training.

def listed(folder: Path) -> Tuple[List[Path], np.ndarray]:
    """Image files by class, and their class indices (n,)."""
    paths = [(path, c) for c, name in enumerate(sorted(folder.iterdir())) for path in sorted(name.iterdir())]
    return [path for path, _ in paths], np.array([c for _, c in paths])


def pixels(path: Path, size: Tuple[int, int]) -> np.ndarray:
    """An image squashed to `size` (H, W), as (channels, H, W) in the file's own values."""
    with Image.open(path) as image:
        values = np.asarray(image, np.float32)
    channels = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
    if values.shape[:2] != size:
        channels = np.stack([np.asarray(Image.fromarray(x).resize(size[::-1], Image.Resampling.BICUBIC))
                             for x in np.ascontiguousarray(channels)])
    return channels


def images(paths: List[Path], size: Tuple[int, int], grey: bool, low: float, high: float) -> Iterator[torch.Tensor]:
    """Chunks of images (n, channels, H, W), `low` to `high` brought to 0 to 1."""
    for i in range(0, len(paths), CHUNK):
        chunk = np.stack([pixels(path, size)[:1 if grey else None] for path in paths[i:i + CHUNK]])
        yield torch.from_numpy((chunk - low) / (high - low))


def probe(folder: Path) -> float:
    """Test accuracy in per cent of logistic regression on log(S / mean + 1), its penalty chosen by cross-validation."""
    train, train_y = listed(folder / 'train')
    test, test_y = listed(folder / 'test')
    with Image.open(train[0]) as image:
        own, deep = image.size[::-1], image.mode.startswith('I;16')
    size = tuple(min(SIDE, side) for side in own)
    raw = [pixels(path, own) for path in train]
    grey = all((x == x[:1]).all() for x in raw)             # JPEG files of grey pictures often have three channels
    low, high = (min(x.min() for x in raw), max(x.max() for x in raw)) if deep else (0, 255)
    model = timm.create_model('scat_linear', num_classes=0, img_size=size, in_chans=1 if grey else 3)

    @torch.inference_mode()
    def scattered(paths: List[Path]) -> Iterator[torch.Tensor]:
        for x in images(paths, size, grey, low, high):
            yield model.scattering(x)                       # (n, channels, h, w)

    S = torch.cat(list(scattered(train)))
    mean = S.mean((0, 2, 3), keepdim=True)
    order_0 = model.scattering.order_channels()[0]

    def features(S: torch.Tensor) -> np.ndarray:
        logs = (S[:, order_0:] / mean[:, order_0:] + 1).log()
        return torch.cat([S[:, :order_0], logs], 1).flatten(1).double().numpy()

    scaler = StandardScaler().fit(features(S))
    # The penalised optimum lies in the span of the training images: there, it is the same and quicker to find.
    Q, R = np.linalg.qr(scaler.transform(features(S)).T)   # (features, n), (n, n)
    folds = StratifiedKFold(min(5, np.bincount(train_y).min()), shuffle=True, random_state=0)
    search = GridSearchCV(LogisticRegression(max_iter=2000), {'C': np.logspace(-4, 0, 5)}, cv=folds).fit(R.T, train_y)
    predicted = np.concatenate([search.predict(scaler.transform(features(S)) @ Q) for S in scattered(test)])
    return 100 * float((predicted == test_y).mean())


# scat-zoo train

class Run(NamedTuple):
    """What a run of the command line gave: the accuracy in per cent that it printed, and its results.json."""
    accuracy: float
    results: Any


def train(folder: Path, output: Path, options: Sequence[str] = ()) -> Run:
    """`scat-zoo train` with no option but the folders, and those given.

    Raises:
        RuntimeError: if it fails, with the end of what it printed.
    """
    command = [sys.executable, '-m', 'scat_zoo', 'train', '--data', str(folder), '--output', str(output), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    (output.parent / f'{output.name}.log').write_text(done.stdout + done.stderr)
    lines = [line for line in done.stdout.splitlines() if line.startswith('test accuracy')]
    if done.returncode or not lines:
        raise RuntimeError(f'{" ".join(command)} ended with status {done.returncode}: '
                           f'{(done.stdout + done.stderr).strip()[-500:]}')
    return Run(float(lines[0].split()[2]), json.loads((output / 'results.json').read_text()))


def figures(results: Any) -> Optional[Dict[str, Any]]:
    """The first dict in results.json, at any depth, that has the balanced accuracy and the figures of each class."""
    if isinstance(results, dict) and {'balanced_accuracy', 'classes'} <= set(results):
        return results
    children = results.values() if isinstance(results, dict) else results if isinstance(results, list) else ()
    return next(filter(None, map(figures, children)), None)


def told(run: Run) -> str:
    """Balanced accuracy and the rare class's recall, in words."""
    test = figures(run.results)
    if test is None:
        return f'accuracy {run.accuracy:.2f} %, no other figures in results.json'
    recall = next(c['recall'] for c in test['classes'] if c['name'] == 'rare')
    return f'balanced accuracy {test["balanced_accuracy"]:.2f} %, recall of the rare class {recall:.2f} %'


def rare_class(folder: Path, plain: Run, runs: Path) -> str:
    """Train again with balanced class weights: what that does for the rare class, in words."""
    weighted = train(folder, runs / f'{folder.name}-balanced', ['--class-weights', 'balanced'])
    return f'{folder.name}: {told(plain)}; with balanced class weights {told(weighted)}'


# The table

COLUMNS = {'case': 'case', 'draw': 'draw', 'train': 'training images', 'test': 'test images', 'probe': 'probe, %',
           'scat_zoo': 'scat-zoo, %', 'difference': 'difference', 'probe_seconds': 'probe, s',
           'scat_zoo_seconds': 'scat-zoo, s'}


def line(cells: Iterable[Any]) -> str:
    """A row of a Markdown table."""
    return f'| {" | ".join(f"{x:.2f}" if isinstance(x, float) else "" if x is None else str(x) for x in cells)} |'


def measure(name: str, draw: int, folder: Path, runs: Optional[Path]) -> Tuple[Dict[str, Any], Optional[Run]]:
    """A row of the table, and the run of scat-zoo behind it; without `runs`, of the probe alone."""
    row = dict.fromkeys(COLUMNS) | {'case': name, 'draw': draw}
    row |= {part: len(listed(folder / part)[0]) for part in ('train', 'test')}
    start = time.perf_counter()
    row['probe'] = probe(folder)
    row['probe_seconds'] = time.perf_counter() - start
    if runs is None:
        return row, None
    start = time.perf_counter()
    run = train(folder, runs / folder.name)
    row['scat_zoo_seconds'] = time.perf_counter() - start
    row['scat_zoo'] = run.accuracy
    row['difference'] = run.accuracy - row['probe']
    return row, run


def means(rows: List[Dict[str, Any]]) -> Dict[str, Any]:
    """The row of a case's means over its draws."""
    mean = {key: fmean(row[key] for row in rows) for key, value in rows[0].items() if isinstance(value, float)}
    return {**rows[0], **mean, 'draw': 'mean'}


def failures(rows: List[Dict[str, Any]]) -> List[str]:
    """What is more than a point below the probe, or off the same images with 8 bits."""
    done = {(row['case'], row['draw']): row for row in rows if row['scat_zoo'] is not None}
    short = []
    for (name, draw), row in done.items():
        if round(row['difference'], 2) < -1 and name != 'imbalanced':
            short.append(f'{name}, draw {draw}: {-row["difference"]:.2f} points below the probe')
        original = done.get((name.removesuffix('-deep'), draw), row)
        if round(abs(row['scat_zoo'] - original['scat_zoo']), 2) > 1:
            short.append(f'{name}, draw {draw}: {row["scat_zoo"]:.2f} %, with 8 bits {original["scat_zoo"]:.2f} %')
    return short


def parsed() -> argparse.Namespace:
    known = [*CASES, *(name for cases in FROM_FILES.values() for name in cases)]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--cases', nargs='+', choices=known, metavar='NAME',
                        help=f'of {", ".join(known)} (default: all whose images are there)')
    parser.add_argument('--draws', type=int, default=1, help='how often the few training images are drawn')
    parser.add_argument('--work', type=Path, help='where folders and runs go and stay (default: a temporary folder)')
    parser.add_argument('--only-folders', action='store_true', help='make the folders and end')
    parser.add_argument('--only-probe', action='store_true', help='train nothing but the probe')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the rows there too')
    for source, cases in FROM_FILES.items():
        parser.add_argument(f'--{source}', type=Path, metavar='FOLDER_OR_TAR', help=f'images of {", ".join(cases)}')
    args = parser.parse_args()
    if args.draws < 1:
        parser.error(f'expected at least one draw, got {args.draws}')
    for source, cases in FROM_FILES.items():
        lacking = set(cases) & set(args.cases or ()) if getattr(args, source) is None else ()
        if lacking:
            parser.error(f'{", ".join(sorted(lacking))} needs --{source} FOLDER_OR_TAR')
    return args


def chosen(args: argparse.Namespace, work: Path) -> Dict[str, Callable[..., Tuple[Classes, Classes]]]:
    """The cases asked for, those of files with their source; nothing is unpacked for others."""
    cases = dict(CASES)
    for source, of_source in FROM_FILES.items():
        path = getattr(args, source)
        if path is not None and (args.cases is None or set(of_source) & set(args.cases)):
            root = unpacked(path, work)
            cases |= {name: partial(case, source=root) for name, case in of_source.items()}
    return {name: cases[name] for name in args.cases or cases}


def compare(args: argparse.Namespace, work: Path) -> int:
    """Everything in one folder; the exit status."""
    cases = chosen(args, work)
    folders = {(name, draw): work / f'{name}-draw{draw}' for name in cases for draw in range(args.draws)}
    for (name, draw), folder in folders.items():
        if not folder.is_dir():
            write(cases[name], draw, folder)
    if args.only_folders:
        print(*folders.values(), sep='\n')
        return 0
    runs = None if args.only_probe else Path(tempfile.mkdtemp(prefix='runs-', dir=work))
    print(line(COLUMNS.values()), line('---' for _ in COLUMNS), sep='\n')
    rows, words, broken = [], [], []
    for name in cases:
        for draw in range(args.draws):
            try:
                row, run = measure(name, draw, folders[name, draw], runs)
                rows.append(row)
                print(line(row.values()), flush=True)
                if run is not None and name == 'imbalanced':
                    words.append(rare_class(folders[name, draw], run, runs))
            except RuntimeError as error:                       # the other cases are worth having
                broken.append(str(error))
        of_case = [row for row in rows if row['case'] == name]
        if len(of_case) > 1:
            print(line(means(of_case).values()), flush=True)
    short = failures(rows)
    if words or short or broken:
        print('', *words, *short, *broken, sep='\n')
    if args.json:
        args.json.write_text(json.dumps({'rows': rows, 'notes': [*words, *short, *broken]}, indent=1) + '\n')
    return 1 if short or broken else 0


def main() -> int:
    args = parsed()
    try:
        if args.work is None:
            with tempfile.TemporaryDirectory() as work:
                return compare(args, Path(work))
        args.work.mkdir(parents=True, exist_ok=True)
        return compare(args, args.work.resolve())
    except (ValueError, OSError) as error:
        print(f'bench_few.py: error: {error}', file=sys.stderr)
        return 2


if __name__ == '__main__':
    sys.exit(main())
