"""The table of scattering paths, with the features of one built-in image: which channel is which path.

    python examples/path_table.py [IMAGE_INDEX]

Angles are those of stripes, counter-clockwise: at 0° they lie, at 45° they rise to the right, at 90° they stand.
"""
import sys

import torch
from torchvision.transforms.v2.functional import pil_to_tensor

from scat_zoo import ScatteringTorch2D
from scat_zoo.scattering.plot import orientation
from scat_zoo.train import data

J, L = 2, 4


def wavelet(j, theta):
    """Scale and orientation of one wavelet, blank where the path has none."""
    return f'{"":8}' if j is None else f'{2 ** j:2} {orientation(theta, L):4.0f}°'


def main(index):
    sample = data.load('sample')
    image, label = sample.test[index]
    pixels = pil_to_tensor(image).float() / 255                 # (1, 28, 28)
    S = ScatteringTorch2D(J, pixels.shape[-2:], L=L)
    coefficients = S(pixels)[0]                                 # (paths, 7, 7)
    mean = coefficients.mean(dim=(1, 2))

    print(f'image {index}: {sample.classes[label]}; {len(S.paths)} paths at J={J}, L={L}')
    print('channel  order  scale,angle  scale,angle  mean coefficient')
    for channel, (path, value) in enumerate(zip(S.paths, mean.tolist())):
        bar = '#' * round(40 * value / mean.max().item())
        print(f'{channel:7}  {path.order:5}  {wavelet(path.j1, path.theta1):11}  {wavelet(path.j2, path.theta2):11}  '
              f'{value:.5f} {bar}'.rstrip())
    energy = [sum(c.square().sum() for c, p in zip(coefficients, S.paths) if p.order == order) for order in range(3)]
    print('energy of orders 0, 1, 2: ' + ', '.join(f'{100 * e / sum(energy):.2f} %' for e in energy))


if __name__ == '__main__':
    with torch.no_grad():
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
