"""Real images for the clients: the built-in sample of Fashion-MNIST, resized, in grey or colour."""
import numpy as np
import torch
from torchvision.transforms.functional import normalize, to_tensor

from scat_zoo.train.data import load
from scat_zoo.train.images import with_channels

DATA = load('sample')


def pictures(count, size, channels=3, split='train'):
    """The first PIL images of a split, and their classes; the classes take turns."""
    pairs = [getattr(DATA, split)[i] for i in range(count)]
    return [with_channels(image, channels).resize((size, size)) for image, _ in pairs], [label for _, label in pairs]


def batch(count, size, channels=3, split='train'):
    """(B, channels, size, size) normalised, classes (B,)."""
    images, labels = pictures(count, size, channels, split)
    x = torch.stack([to_tensor(image) for image in images])
    return normalize(x, DATA.mean * channels, DATA.std * channels), torch.tensor(labels)


def garments(count, size, split='train'):
    """(B, 3, size, size) normalised, where the garment is in each picture (B, 1, size, size), and classes (B,)."""
    x, labels = batch(count, size, split=split)
    grey = [np.asarray(image.convert('L')) for image in pictures(count, size, split=split)[0]]
    return x, torch.tensor(np.stack(grey) > 40).unsqueeze(1), labels


def boxes(masks):
    """(B, 1, H, W) -> (B, 4), the smallest box (x0, y0, x1, y1) around each mask."""
    corners = []
    for mask in masks[:, 0]:
        y, x = torch.nonzero(mask, as_tuple=True)
        corners.append(torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]))
    return torch.stack(corners).float()


def folders(root, size, **counts):
    """A folder of PNG files by class for each split: folders(root, 32, train=20, validation=10)."""
    for name, count in counts.items():
        images, labels = pictures(count, size, split='train' if name == 'train' else 'test')
        for i, (image, label) in enumerate(zip(images, labels)):
            folder = root / name / f'class{label}'
            folder.mkdir(parents=True, exist_ok=True)
            image.save(folder / f'{i}.png')
    return root
