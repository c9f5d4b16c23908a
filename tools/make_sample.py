"""Make the built-in data set: 100 training and 200 test images of each Fashion-MNIST class, as idx files.

    python tools/make_sample.py FASHION_MNIST_FOLDER OUTPUT_FOLDER

Training images come from Fashion-MNIST's training set, test images from its test set, chosen by a seeded permutation
of each class. The folder holds the four files `{train,t10k}-{images-idx3,labels-idx1}-ubyte`, gzipped or not.
"""
import argparse
import gzip
import struct
from pathlib import Path

import numpy as np

from scat_zoo.train.data import read_idx

PER_CLASS = {'train': 100, 't10k': 200}
SEED = 0


def subset(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Indices of `per_class` samples of each class, classes interleaved, the same for the same seed."""
    rng = np.random.RandomState(seed)
    chosen = [rng.permutation(np.flatnonzero(labels == c))[:per_class] for c in np.unique(labels)]
    return np.stack(chosen, axis=1).ravel()


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write unsigned bytes as a gzipped idx file, the same bytes every time."""
    header = struct.pack(f'>HBB{array.ndim}I', 0, 8, array.ndim, *array.shape)
    # No time and no file name inside.
    path.write_bytes(gzip.compress(header + array.tobytes(), compresslevel=9, mtime=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('source', type=Path)
    parser.add_argument('output', type=Path)
    args = parser.parse_args()
    try:
        read = {name: read_idx(args.source, f'{name}-ubyte') for split in PER_CLASS
                for name in (f'{split}-images-idx3', f'{split}-labels-idx1')}
    except (OSError, ValueError) as error:
        parser.error(str(error))
    args.output.mkdir(parents=True, exist_ok=True)
    for split, per_class in PER_CLASS.items():
        images, labels = read[f'{split}-images-idx3'], read[f'{split}-labels-idx1']
        chosen = subset(labels, per_class, SEED)
        write_idx(args.output / f'{split}-images-idx3-ubyte.gz', images[chosen])
        write_idx(args.output / f'{split}-labels-idx1-ubyte.gz', labels[chosen])


if __name__ == '__main__':
    main()
