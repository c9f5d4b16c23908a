"""Compare coefficients with kymatio's, and the time that each takes to build its filters. Needs kymatio.

    python examples/kymatio_parity.py
"""
import time

import torch
from kymatio.scattering2d.frontend.torch_frontend import ScatteringTorch2D as Kymatio
from torchvision.transforms.v2.functional import pil_to_tensor, resize

from scat_zoo import ScatteringTorch2D
from scat_zoo.train import data

CASES = [(2, 28), (2, 32), (3, 64), (3, 128), (3, 224)]         # J, side of the images


def timed(build, *args):
    start = time.perf_counter()
    built = build(*args)
    return built, time.perf_counter() - start


def main():
    torch.set_num_threads(1)
    sample = data.load('sample')
    pixels = torch.stack([pil_to_tensor(sample.test[i][0]) for i in range(4)]).float() / 255    # (4, 1, 28, 28)
    ScatteringTorch2D(1, (8, 8))                                # torch's first calls take longer
    Kymatio(1, (8, 8))
    print(f'torch {torch.__version__}, float32, one thread, L=8, order 2')
    print('          difference / largest coefficient    seconds to build the filters')
    print(' J  size    own filters    filters of kymatio      kymatio   scat_zoo   ratio')
    for J, side in CASES:
        shape = (side, side)
        x = resize(pixels, shape, antialias=True)
        theirs, their_time = timed(Kymatio, J, shape)
        ours, our_time = timed(ScatteringTorch2D, J, shape)
        expected = theirs(x)                                    # (4, 1, paths, h, w)
        own = (ours(x) - expected).abs().max() / expected.abs().max()
        ours.load_state_dict(theirs.state_dict())
        same = (ours(x) - expected).abs().max() / expected.abs().max()
        print(f'{J:2}  {side:4}  {own:13.1e}  {same:20.1e}  {their_time:11.3f} {our_time:10.4f} '
              f'{their_time / our_time:7.0f}')


if __name__ == '__main__':
    main()
