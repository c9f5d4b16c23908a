"""`ScatteringTorch2D`: kymatio's 2-D torch front end, with filters that can be learned."""
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor, nn

from . import engine, geometry
from .banks import PixelwiseBank

OUT_TYPES = ('array', 'list')


class ScatteringTorch2D(nn.Module):
    """2-D wavelet scattering (Bruna and Mallat 2013), equal to kymatio 0.3.0's `ScatteringTorch2D`.

    `S(x)`, like `S.scattering(x)`, takes images (..., H, W) and returns coefficients (..., paths, H // 2^J, W // 2^J),
    paths ordered as in `S.paths`. With `out_type='list'` it returns kymatio's list of dicts (coef, j, n, theta).

    State-dict keys are the same whether the filters are learnable or not, so checkpoints cross over; kymatio's keys
    (`tensor0`, `tensor1`, ...) load too. Filters are computed in float64 and then rounded to `dtype`: for full
    precision pass `dtype=torch.float64`, since `.double()` on a float32 module keeps the rounded values.

    Args:
        J: log-2 of the scale, at least 1.
        shape: (H, W) of the images, at least 2^J each.
        L: number of orientations.
        max_order: 1 or 2. It can be switched later; filters that a higher order lacks start as crops of finer ones.
        pre_pad: whether inputs come padded to (_M_padded, _N_padded).
        backend: 'torch', the only one.
        out_type: 'array' or 'list'. It can be switched later.
        learnable: whether the filters are parameters (with a gradient) or buffers.
        device, dtype: of the filters; float32 unless given.

    Raises:
        RuntimeError: if 2^J exceeds the shape or the out_type is unknown.
        ImportError: if the backend is unknown.
        ValueError: if J, L or max_order is out of range.
    """

    def __init__(self, J: int, shape: Sequence[int], L: int = 8, max_order: int = 2, pre_pad: bool = False,
                 backend: str = 'torch', out_type: str = 'array', learnable: bool = False, *,
                 device: Optional[torch.device] = None, dtype: Optional[torch.dtype] = None) -> None:
        super().__init__()
        height, width = shape
        geometry.check(J, L, max_order)
        if backend != 'torch':
            raise ImportError(f"The backend {backend} can not be called from the frontend torch. (Known: 'torch'.)")
        if 2 ** J > min(height, width):
            raise RuntimeError(f'The smallest dimension should be larger than 2^J. (J={J}, shape={(height, width)})')
        _check_out_type(out_type)
        self.J, self.shape, self.L = J, (height, width), L
        self.pre_pad, self.backend, self.out_type = pre_pad, backend, out_type
        self._max_order = max_order
        self._M_padded, self._N_padded = geometry.padded_size(height, width, J)
        self.bank = PixelwiseBank(
            J, L, self.shape, max_order, learnable=learnable, device=device, dtype=dtype or torch.float32)

    @property
    def max_order(self) -> int:
        return self._max_order

    @max_order.setter
    def max_order(self, max_order: int) -> None:
        geometry.check(self.J, self.L, max_order)
        # Filters that a lower order does not read stay, so that nothing learned is lost on the way back.
        self.bank.set_max_order(max(max_order, self.bank.max_order))
        self._max_order = max_order

    @property
    def learnable(self) -> bool:
        return self.bank.learnable

    @property
    def paths(self) -> List[geometry.Path]:
        """The path of each output channel."""
        return geometry.paths(self.J, self.L, self.max_order)

    def set_learnable(self, learnable: bool) -> None:
        """Turn all filters into parameters that require grad (True), or into buffers (False), keeping their values.

        Build the optimiser afterwards: it would hold parameters that are no longer part of the module.
        """
        self.bank.set_learnable(learnable)

    def reset_parameters(self) -> None:
        """Give all filters their analytic values again, for instance after `to_empty`."""
        self.bank.reset_parameters()

    def scattering(self, x: Tensor) -> Union[Tensor, List[Dict[str, Any]]]:
        """Scattering coefficients of images (..., H, W), or of padded images with `pre_pad`.

        Raises:
            TypeError: if x is no tensor, or float64 where the filters are float32 or the reverse.
            RuntimeError: if x has fewer than two dimensions, another spatial size, no floating-point values, or is not
                contiguous, or if the out_type is unknown.
        """
        self._check_input(x)
        s = engine.scattering2d(x, self.bank.own(), [self.J], self.max_order, self.pre_pad)[0]
        if self.out_type == 'array':
            return s
        return [{'coef': coef, **_kymatio_meta(path, self.L)} for coef, path in zip(s.unbind(-3), self.paths)]

    def forward(self, x: Tensor) -> Union[Tensor, List[Dict[str, Any]]]:
        return self.scattering(x)

    def _check_input(self, x: Tensor) -> None:
        if not isinstance(x, Tensor):
            raise TypeError(f'The input should be a PyTorch Tensor. (It is a {type(x).__name__}.)')
        if x.dim() < 2:
            raise RuntimeError(f'Input tensor must have at least two dimensions. (Its shape is {tuple(x.shape)}.)')
        if not x.is_contiguous():
            raise RuntimeError('Tensor must be contiguous. (Tensors must be contiguous: call x.contiguous() first.)')
        height, width = x.shape[-2:]
        if not self.pre_pad and (height, width) != self.shape:
            raise RuntimeError(f'Tensor must be of spatial size ({self.shape[0]},{self.shape[1]}). '
                               f'(It is of size ({height},{width}).)')
        if self.pre_pad and (height, width) != (self._M_padded, self._N_padded):
            raise RuntimeError(f'Padded tensor must be of spatial size ({self._M_padded},{self._N_padded}). '
                               f'(It is of size ({height},{width}).)')
        _check_out_type(self.out_type)
        filters = self.bank.phi['level0'].hat.dtype
        if {x.dtype, filters} == {torch.float32, torch.float64}:
            raise TypeError(f'Input and filter must be of the same dtype. (They are {x.dtype} and {filters}.)')

    def _load_from_state_dict(self, state_dict: Dict[str, Any], prefix: str, *args: Any) -> None:
        if prefix + 'tensor0' in state_dict:
            ours = self.bank.state_dict()
            for n, name in enumerate(_kymatio_order(self.J, self.L)):
                hat = state_dict.pop(f'{prefix}tensor{n}', None)
                if hat is not None and name in ours:        # kymatio also keeps filters that are never read
                    state_dict[f'{prefix}bank.{name}'] = hat.squeeze(-1)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return f'J={self.J}, shape={self.shape}, L={self.L}, max_order={self.max_order}, paths={len(self.paths)}, ' \
               f'mode={"learnable" if self.learnable else "fixed"}'


Scattering2D = ScatteringTorch2D


def _check_out_type(out_type: str) -> None:
    if out_type not in OUT_TYPES:
        raise RuntimeError(f"The out_type must be one of 'array' or 'list'. (It is {out_type!r}.)")


def _kymatio_meta(path: geometry.Path, L: int) -> Dict[str, Tuple[int, ...]]:
    """kymatio's description of a path: scales, places in its list of wavelets, orientations."""
    j = tuple(j for j in (path.j1, path.j2) if j is not None)
    theta = tuple(theta for theta in (path.theta1, path.theta2) if theta is not None)
    return {'j': j, 'n': tuple(scale * L + t for scale, t in zip(j, theta)), 'theta': theta}


def _kymatio_order(J: int, L: int) -> List[str]:
    """The name that kymatio's tensor0, tensor1, ... have in a `PixelwiseBank`."""
    names = [f'phi.level{level}.hat' for level in range(J)]
    names += [f'psi.j{j}_theta{t}_level{level}.hat'
              for j in range(J) for t in range(L) for level in range(min(j + 1, max(J - 1, 1)))]
    return names
