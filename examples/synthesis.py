"""A texture made anew from its scattering moments: from order 1 alone, and from orders 1 and 2.

    python examples/synthesis.py [IMAGE] [-o synthesis.png] [--size 192] [--steps 200] [--J 5]

Moments are coefficients averaged over the whole picture, and tell nothing of where anything is. White noise is changed
by gradient descent until it has the moments of the picture, as Bruna and Mallat did with sounds (2013,
arXiv:1311.0407). A picture and its negative have the same ones, so both results get the histogram of its grey values
too. Without IMAGE: bricks of scikit-image (CC0). Ctrl-C ends a descent early and keeps the best so far.
"""
import argparse
import contextlib
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageOps
from tqdm import tqdm

from scat_zoo import Scattering2D
from scat_zoo.train import images
from scat_zoo.train.run_folder import whole


def read(file, size):
    """Grey values (size, size) of the middle of the picture, with mean 0 and variance 1."""
    if file is None:
        try:
            from skimage import data
        except ImportError as error:
            raise ValueError('the bricks come with scikit-image: pip install scikit-image, or give an IMAGE') from error
        picture = Image.fromarray(np.rot90(data.brick())[64:-64, 64:-64])           # courses level, edges cut
    else:
        picture = images.open_image(file)
        deep = not isinstance(picture, Image.Image)                                 # more than 8 bits: an array
        picture = Image.fromarray(picture.mean(2)) if deep else images.with_channels(picture, 1)
    greys = np.array(ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS), np.float32)
    if not 0 < float(greys.std()) < np.inf:
        raise ValueError(f'expected a texture, got an image with values from {greys.min():g} to {greys.max():g}')
    return torch.from_numpy((greys - greys.mean()) / greys.std())


def errors(S, x, wanted):
    """Relative error of the moments, means over space, of order 1, and of order 2 if S has it."""
    found = S(x).mean((-2, -1))
    orders = [[path.order == order for path in S.paths] for order in range(1, S.max_order + 1)]
    return [(found[o] - wanted[o]).norm() / wanted[o].norm() for o in orders]


def synthesise(texture, J, order, steps):
    """The best of about so many tries at a picture (N, N) with the moments, up to this order, of `texture`."""
    S = Scattering2D(J, texture.shape, max_order=order, boundary='periodic')        # no mirror images at the edges
    wanted, greys = S(texture).mean((-2, -1)), texture.flatten().sort().values
    x = torch.randn(texture.shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    optimizer = torch.optim.LBFGS([x], max_iter=steps, max_eval=steps, history_size=20, tolerance_grad=0,
                                  tolerance_change=0, line_search_fn='strong_wolfe')
    best, least = x.detach().clone(), float('inf')

    def loss():
        nonlocal best, least
        optimizer.zero_grad()
        off = errors(S, x, wanted)
        # With a weight of 1 the descent gets stuck early.
        value = sum(e.square() for e in off) + 0.1 * (x.flatten().sort().values - greys).square().mean()
        value.backward()
        if value < least:
            best, least = x.detach().clone(), value.item()
        bar.set_postfix_str('moments off by ' + ', '.join(f'{100 * e:.2f} %' for e in off), refresh=False)
        bar.update()
        return value

    with tqdm(total=steps, desc=f'up to order {order}') as bar, contextlib.suppress(KeyboardInterrupt):
        optimizer.step(loss)
    return best


def draw(pictures, J, file):
    """Draw the pictures side by side, each with the errors of its moments against the first, and print these."""
    texture = pictures['the texture']
    S = Scattering2D(J, texture.shape, boundary='periodic')
    figure = Figure(figsize=(9.6, 3.6))
    for ax, (name, x) in zip(figure.subplots(1, len(pictures)), pictures.items()):
        off = [f'{100 * e:.1f} %' for e in errors(S, x, S(texture).mean((-2, -1)))]
        told = f'{len(S.paths) - 1} moments' if x is texture else 'order 1 off by {}, order 2 by {}'.format(*off)
        print(f'{name}: {told}')
        ax.imshow(x.numpy(), cmap='gray', vmin=float(texture.min()), vmax=float(texture.max()))
        ax.set_title(f'{name}\n{told}', fontsize=10)
        ax.set_axis_off()
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.01, top=0.87, wspace=0.03)
    figure.savefig(file, format='png', dpi=100)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('image', nargs='?', type=Path, help='any picture; its middle square is taken, in grey')
    parser.add_argument('-o', '--output', type=Path, default=Path('synthesis.png'), help='the PNG to write')
    parser.add_argument('--size', type=int, default=192, help='pixels a side, a multiple of 2^J')
    parser.add_argument('--steps', type=int, default=200, help='how often a picture is judged at most, about')
    parser.add_argument('--J', type=int, default=5, choices=range(2, 10), help='number of scales')
    args = parser.parse_args(arguments)
    try:
        if args.steps < 10:
            raise ValueError(f'expected at least 10 steps, got {args.steps}')
        if args.image and args.output.exists() and args.image.samefile(args.output):
            raise ValueError(f'the result would replace the image {args.image}: choose another --output')
        Scattering2D(args.J, (args.size, args.size), boundary='periodic')           # which says what sizes it takes
        pictures = {'the texture': read(args.image, args.size)}
        with whole(args.output) as partial:
            for order, name in (1, 'from order 1 and the histogram'), (2, 'from orders 1, 2 and the histogram'):
                pictures[name] = synthesise(pictures['the texture'], args.J, order, args.steps)
            draw(pictures, args.J, partial)
    except (OSError, RuntimeError, ValueError) as error:
        parser.error(str(error))


if __name__ == '__main__':
    main()
