"""What the filters of a model are: a picture, the numbers behind them, and what they guarantee."""
import importlib.util
from pathlib import Path
from typing import Any, Dict

import torch

from ..models.stem import ScatteringStem
from ..scattering import frame
from ..scattering.filters import Filters
from ..scattering.plot_bank import draw_bank
from . import checkpoint
from .run_folder import whole


def show(model_or_checkpoint: str, model_kwargs: Dict[str, Any], picture: Path) -> None:
    """Draw the filters into a PNG and print the rest; see the command `scat-zoo filters`.

    Raises:
        ValueError, TypeError, RuntimeError, OSError: on bad input.
    """
    if importlib.util.find_spec('matplotlib') is None:
        raise ValueError('the picture of the filters needs matplotlib: install it, or scat_zoo with the extra plot')
    stem = checkpoint.open_model(model_or_checkpoint, model_kwargs).scattering
    height, width = stem.img_size
    start = ScatteringStem(stem.J, stem.L, stem.max_order, stem.in_chans, stem.img_size, scales=stem.scales)
    state = stem.mode
    title = f'{Path(model_or_checkpoint).name}: {state} filters'
    if state != 'fixed':
        title += f', {stem.parametrization}{", nonexpansive" if stem.nonexpansive else ""}'
    with whole(picture) as partial:
        draw_bank(stem.filters(), start.filters(), stem.filter_parameters(), title, partial)
    print(f'{title}; J={stem.J}, L={stem.L}')
    if stem.filter_parameters():
        print(' j  t   angle (degrees)  wavelength (pixels)  scale (pixels)   slant')
    for w in stem.filter_parameters():                          # angles from 0 to 179.99, as everywhere
        print(f'{w.j:2}{w.t:3}{round(w.angle % 180, 2) % 180:18.2f}{w.wavelength:21.3f}{w.scale:16.3f}{w.slant:8.3f}')
    A, B = stem.frame_bounds()
    ratio = frame.lipschitz_bound(B, stem.max_order)
    print(f'frame bounds at {height} x {width}: A = {A:.4g}, B = {B:.6g}')
    of = 'padded images' if stem.inputs.leaves_alone else f'what {stem.inputs.extra_repr()} makes of padded images is'
    print(f'coefficients are at most {ratio:.6g} times as far apart as {of}')
    print(f'picture {picture}')


def change(before: Filters, after: Filters) -> float:
    """Norm of the change of all filters over the norm of all filters."""
    a, b = (torch.cat([hat.cpu().double().flatten() for levels in (*bank.phi, *bank.psi) for hat in levels])
            for bank in (before, after))
    return ((b - a).norm() / a.norm()).item()
