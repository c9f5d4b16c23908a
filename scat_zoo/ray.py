"""For Ray Data (the extra `ray`): the rows of `scat-zoo extract` on any number of machines.

This file does not import Ray: the class is what `map_batches` wants, and that is all.
"""
from typing import Any, Dict, List, Optional

import numpy as np
from torch import Tensor

from .extract.features import FeatureExtractor, finite, not_finite, stacked
from .wording import brief, some

__all__ = ['Extractor']


class Extractor:
    """Adds a column `features` to batches of images, and drops that of the images, unless it holds but their names.

        ds = ray.data.read_binary_files('pictures', include_paths=True)
        ds = ds.map_batches(scat_zoo.ray.Extractor, batch_size=64, concurrency=2,
                            fn_constructor_kwargs={'model': 'scat_linear.fashion_mnist'})

    Args:
        model: as for `FeatureExtractor`.
        column: the images: contents of files (bytes), names of files that all machines see, or decoded images (H, W) or
            (H, W, C).
        skip_broken: leave out rows whose image cannot be read.
        options: those of `FeatureExtractor`. Its `batch_size` need not be that of `map_batches`.

    Raises:
        ValueError, TypeError: in one sentence, on arguments or images that do not fit.
    """

    def __init__(self, model: str, column: str = 'bytes', skip_broken: bool = False, **options: Any) -> None:
        self.extractor = FeatureExtractor(model, **options)
        self.column, self.skip_broken = column, skip_broken

    def __call__(self, batch: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
        if self.column not in batch:
            raise ValueError(f'no column {brief(self.column, 40)}: tell by `column` which of these holds the images: '
                             f'{some(batch)}')
        names = self._names(batch)
        read = [self._read(image, name) for image, name in zip(batch[self.column], names)]
        pictures = [picture for picture in read if picture is not None]
        features = self.extractor.joined([self.extractor(stacked(pictures))] if pictures else [])
        good = finite(features)
        rows = np.flatnonzero([picture is not None for picture in read])
        for row in rows[~good.numpy()]:
            reason = not_finite(names[row])
            self._skip(ValueError(reason))
        rows = rows[good.numpy()]
        kept = {name: values[rows] for name, values in batch.items()
                if name != self.column or _are_names(values)}
        return {**kept, 'features': features[good].numpy()}

    def _names(self, batch: Dict[str, np.ndarray]) -> List[str]:
        """What to call the images."""
        for column in ('path', '__key__', self.column):
            if column in batch and _are_names(batch[column]):
                return list(batch[column])
        return [f'in row {row} of a batch' for row in range(len(batch[self.column]))]

    def _read(self, image: Any, name: str) -> Optional[Tensor]:
        """The image, None if it is to be left out."""
        reader = self.extractor.reader
        try:
            if isinstance(image, bytes):
                return reader.open(name, image)
            return reader.open(image) if isinstance(image, str) else reader.ready(np.asarray(image), name)
        except ValueError as error:
            self._skip(error)
            return None

    def _skip(self, error: ValueError) -> None:
        if not self.skip_broken:
            raise error


def _are_names(values: np.ndarray) -> bool:
    return len(values) > 0 and isinstance(values[0], str)
