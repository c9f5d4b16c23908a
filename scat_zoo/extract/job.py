"""What `scat-zoo extract` does: read, compute, write, part by part; alone or as one of the processes of torchrun.

Process r of n has the parts r, r + n, r + 2 n and so on, and none waits for another: whichever finds all parts done at
its end writes the index. So one that is killed costs the part at hand, and leaves nothing that must be cleared away.
"""
import os
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from tqdm import tqdm

from .. import __version__
from ..train.progress import bar as progress_bar
from ..wording import brief
from . import sources
from .features import FeatureExtractor, Reader, finite, not_finite, stacked
from .reading import INDEX
from .shards import FeatureFolder

SAID = 20                       # images that cannot be read that a process tells of one by one


class Batch(NamedTuple):
    """Some images of a part.

    Attributes:
        names: of the pictures.
        broken: name of a row that there is not, and why.
        sizes: of the files that the part is made of; None unless this is its last batch.
        lost: why the rest of the part could not be read, in its last batch.
    """
    part: int
    names: List[str]
    pictures: Optional[Tensor]
    broken: List[Tuple[str, str]]
    sizes: Optional[List[int]] = None
    lost: str = ''


class Batches(IterableDataset):
    """The images of these parts; in worker processes, each takes whole parts."""

    def __init__(self, source: sources.Source, reader: Reader, parts: Sequence[int], batch_size: int) -> None:
        self.source, self.reader, self.parts, self.batch_size = source, reader, parts, batch_size

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        for part in self.parts if worker is None else self.parts[worker.id::worker.num_workers]:
            yield from self._of(part)

    def _of(self, part: int) -> Iterator[Batch]:
        sizes = [sources.size(file) for file in self.source.inputs(part)]
        names: List[str] = []
        pictures: List[Tensor] = []
        broken: List[Tuple[str, str]] = []
        lost = ''
        try:
            for sample in self.source.samples(part):
                try:
                    pictures.append(self.reader.open(sample.file, sample.content))
                    names.append(sample.name)
                except ValueError as error:
                    broken.append((sample.name, str(error)))
                if len(names) == self.batch_size:
                    yield Batch(part, names, stacked(pictures), broken)
                    names, pictures, broken = [], [], []
        except ValueError as error:                             # of a tar file
            lost = str(error)
        yield Batch(part, names, stacked(pictures) if pictures else None, broken, sizes, lost)


class Part:
    """What there is of a part so far.

    Attributes:
        broken, sizes, lost: as for `Batch`.
    """

    def __init__(self, extractor: FeatureExtractor) -> None:
        self.extractor = extractor
        self.names: List[str] = []
        self.features: List[Tensor] = []
        self.broken: List[Tuple[str, str]] = []
        self.sizes: List[int] = []
        self.lost = ''

    def add(self, batch: Batch) -> None:
        self.broken += batch.broken
        self.sizes, self.lost = batch.sizes or [], batch.lost
        if batch.pictures is None:
            return
        features = self.extractor(batch.pictures)
        good = finite(features)
        self.features.append(features if good.all() else features[good])
        for name, kept in zip(batch.names, good.tolist()):
            if kept:
                self.names.append(name)
            else:
                self.broken.append((name, not_finite(name)))

    def troubles(self) -> List[str]:
        """All that could not be read."""
        return [*(reason for _, reason in self.broken), *filter(None, [self.lost])]


def run(extractor: FeatureExtractor, source: sources.Source, output: Union[str, Path], workers: int = 0,
        skip_broken: bool = False) -> None:
    """Write the features of all images, or of this process's share, that are not in the folder yet.

    Args:
        workers: processes that decode images; 0 for none but this one.
        skip_broken: leave out images that cannot be read. Otherwise their part is not written, and the others are.

    Raises:
        ValueError, OSError: in one sentence, on a folder of other features, and at the end if images cannot be read.
    """
    rank, world = (int(os.environ.get(name, default)) for name, default in (('RANK', 0), ('WORLD_SIZE', 1)))
    settings = {'scat_zoo': __version__, 'data': source.data, **extractor.settings(), **source.settings()}
    folder = FeatureFolder(output, len(source), settings)
    mine = range(rank, len(source), world)
    folder.begin(mine)
    if rank == 0:
        print(f'{source}, {len(source):,} {"files" if len(source) > 1 else "file"} of features, '
              f'{" x ".join(map(str, extractor.shape))} {settings["dtype"]} an image; writing to {brief(output)}')
        for note in extractor.notes:
            print(f'  {note}')
    who = f'process {rank} of {world}'
    todo = [part for part in mine if not _is_done(folder, source, part)]
    if len(todo) < len(mine):
        print(f'{who}: {len(mine) - len(todo):,} of {len(mine):,} files are there already')
    begun = time.perf_counter()
    rows, refused = _write(folder, _parts(extractor, source, todo, workers, rank), skip_broken)
    if rows:
        seconds = time.perf_counter() - begun
        print(f'{who}: {rows:,} images in {seconds:.2f} s, {rows / seconds:,.0f} a second')
    if refused:
        raise ValueError(f'{refused:,} of {len(mine):,} files of features are not written, since what is named above '
                         'cannot be read: mend it and run this again, or leave such images out with --skip-broken')
    index = folder.finish()
    if index is not None:
        left_out = f', {index["left_out"]:,} left out' if index['left_out'] else ''
        print(f'done: {index["rows"]:,} rows{left_out}; {brief(folder.path / INDEX)} tells of all files')


def _is_done(folder: FeatureFolder, source: sources.Source, part: int) -> bool:
    files = source.inputs(part)
    return folder.file(part).exists() and folder.is_done(part, files, [sources.size(file) for file in files])


def _parts(extractor: FeatureExtractor, source: sources.Source, todo: Sequence[int], workers: int, rank: int
           ) -> Iterator[Tuple[int, Part]]:
    """These parts, one after the other as they are computed, with a progress bar in the first process."""
    batches = Batches(source, extractor.reader, todo, extractor.batch_size)
    loader = DataLoader(batches, batch_size=None, num_workers=workers, collate_fn=_as_it_is)
    parts: Dict[int, Part] = {}
    with progress_bar(total=sum(map(source.count, todo)) or None, desc='extract', unit='image',
                      disable=rank > 0 or not todo) as bar:
        for batch in loader:
            parts.setdefault(batch.part, Part(extractor)).add(batch)
            bar.update(len(batch.names) + len(batch.broken))
            if batch.sizes is not None:
                yield batch.part, parts.pop(batch.part)


def _as_it_is(batch: Any) -> Any:
    return batch


def _write(folder: FeatureFolder, parts: Iterator[Tuple[int, Part]], skip_broken: bool) -> Tuple[int, int]:
    """Number of rows written, and of parts not written because of what could not be read."""
    rows = refused = said = 0
    for number, part in parts:
        troubles = part.troubles()
        for reason in troubles[:max(0, SAID - said)]:
            tqdm.write(reason, sys.stderr)
        said += len(troubles)
        if part.lost or (troubles and not skip_broken):
            refused += 1
            if not part.names and not skip_broken:
                raise ValueError(f'none of {len(troubles):,} images could be read; {brief(troubles[0], 220)}')
        else:
            folder.write(number, part.extractor.joined(part.features), part.names, part.broken, part.sizes)
            rows += len(part.names)
    return rows, refused
