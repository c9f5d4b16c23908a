"""`ScatteringTorch2D`: kymatio's 2-D torch front end, with filters that can be learned."""
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor

from ..wording import brief
from . import engine, frame, geometry
from .banks import PixelwiseBank
from .filters import Filters, copied
from .loading import AllOrNothing


class ScatteringTorch2D(AllOrNothing):
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
        pre_pad: whether inputs come padded to `padded_size`.
        backend: 'torch', or kymatio's object of that name; computing is the same.
        out_type: 'array' or 'list'. It can be switched later. TorchScript has arrays only.
        learnable: whether the filters are parameters (with a gradient) or buffers.
        frontend: 'torch', as `kymatio.Scattering2D` is told.
        boundary: what lies beyond the image: 'reflect', or 'periodic', the image again. Then H and W are multiples of
            2^J, nothing is padded, and turning an image round by 2^J pixels turns its coefficients round by one.
        device, dtype: of the filters; float32 unless given.

    Raises:
        RuntimeError: if 2^J exceeds the shape, or the out_type or the frontend is unknown.
        ImportError: if the backend is unknown.
        TypeError: if J, L or max_order is no integer.
        ValueError: if one of these, the shape or the boundary is out of range.
    """

    # TorchScript would compile them.
    __jit_unused_properties__ = (
        'J', 'L', 'shape', 'max_order', 'learnable', 'mode', 'padded_size', 'paths', 'channels')

    def __init__(self, J: int, shape: Sequence[int], L: int = 8, max_order: int = 2, pre_pad: bool = False,
                 backend: Any = 'torch', out_type: str = 'array', learnable: bool = False, *, frontend: str = 'torch',
                 boundary: str = 'reflect', device: Optional[torch.device] = None,
                 dtype: Optional[torch.dtype] = None) -> None:
        super().__init__()
        J = geometry.integer('J', J)
        height, width = geometry.image_size('shape', shape)
        if not max(0, min(height, width)) >> max(0, J):         # kymatio's error comes before the zoo's for the same
            raise RuntimeError(f'The smallest dimension should be larger than 2^J. (J={brief(J, 20)}, '
                               f'shape={brief((height, width), 60)})')
        J, L, max_order = geometry.check(J, L, max_order)
        _check_kymatio(frontend, backend)
        _check_out_type(out_type)
        learnable, pre_pad = geometry.switch('learnable', learnable), geometry.switch('pre_pad', pre_pad)
        border = geometry.check_boundary(boundary, height, width, J)
        if pre_pad and border == 0:
            raise ValueError("boundary='periodic' needs no padding: leave pre_pad out")
        self._J, self._shape, self._L = J, (height, width), L
        self.pre_pad, self.backend, self.out_type, self.boundary = pre_pad, backend, out_type, boundary
        self._max_order, self._border = max_order, border
        self._M_padded, self._N_padded = geometry.padded_size(height, width, J, border)
        self.bank = PixelwiseBank(J, L, (height, width), max_order, learnable=learnable, border=border, device=device,
                                  dtype=dtype or torch.float32)

    # The filters are built for these: they can be read, not set.
    @property
    def J(self) -> int:
        """Log-2 of the scale."""
        return self._J

    @property
    def L(self) -> int:
        """Number of orientations."""
        return self._L

    @property
    def shape(self) -> Tuple[int, int]:
        """(H, W) of the images."""
        return self._shape

    @property
    def max_order(self) -> int:
        return self._max_order

    @max_order.setter
    def max_order(self, max_order: int) -> None:
        max_order = geometry.check(self.J, self.L, max_order)[2]
        # Filters that a lower order does not read stay, so that nothing learned is lost on the way back.
        self.bank.set_max_order(max(max_order, self.bank.max_order))
        self._max_order = max_order

    @property
    def learnable(self) -> bool:
        return self.bank.learnable

    @property
    def mode(self) -> str:
        """What the filters are: 'fixed' (analytic), 'learnable' (parameters that require grad) or 'frozen'.

        Filters that are held are fixed as long as their values are the analytic ones, to float precision.
        """
        return 'fixed' if self.bank.mode == 'frozen' and self.bank.is_analytic() else self.bank.mode

    @property
    def padded_size(self) -> Tuple[int, int]:
        """(M, N) of the images on which the filters work."""
        return self._M_padded, self._N_padded

    @property
    def paths(self) -> List[geometry.Path]:
        """The path of each output channel."""
        return geometry.paths(self.J, self.L, self.max_order)

    @property
    def channels(self) -> List[geometry.Channel]:
        """What each output channel is, as models of the zoo tell it; colours have their own axis, and here it is 0."""
        return [geometry.Channel(*path, colour=0, scale=self.J, dy=0, dx=0) for path in self.paths]

    @torch.no_grad()
    def filters(self) -> Filters:
        """Copies of the present filters: `phi[scale][level]` and `psi[j][level]`."""
        return copied(self.bank.own())

    def frame_bounds(self) -> Tuple[float, float]:
        """(A, B): minimum and maximum of the Littlewood-Paley sum of the present filters.

        B <= 1 certifies that coefficients are never further apart than the padded images are, as
        `scat_zoo.scattering.frame` proves.
        """
        return frame.frame_bounds(self.filters())

    def set_learnable(self, learnable: bool) -> None:
        """Turn all filters into parameters that require grad (True), or into buffers (False), keeping their values.

        Build the optimiser afterwards: it would hold parameters that are no longer part of the module.
        """
        self.bank.set_learnable(learnable)

    def reset_parameters(self) -> None:
        """Give all filters their analytic values again, for instance after `to_empty`."""
        self.bank.reset_parameters()

    @torch.jit.unused
    def scattering(self, x: Tensor) -> Union[Tensor, List[Dict[str, Any]]]:
        """Scattering coefficients of images (..., H, W), or of padded images with `pre_pad`.

        Raises:
            TypeError: if x is no tensor, or float64 where the filters are float32 or the reverse.
            RuntimeError: if x has fewer than two dimensions, another spatial size, no floating-point values, or is not
                contiguous, or if the out_type is unknown.
        """
        _check_out_type(self.out_type)
        s = self.array(x)
        if self.out_type == 'array':
            return s
        return [{'coef': coef, **_kymatio_meta(path, self.L)} for coef, path in zip(s.unbind(-3), self.paths)]

    def forward(self, x: Tensor) -> Tensor:
        if not torch.jit.is_scripting():                        # which wants one type
            return self.scattering(x)  # type: ignore[return-value]
        if self.out_type != 'array':
            raise RuntimeError(f"TorchScript gives arrays only: the out_type is {self.out_type}, set 'array' before")
        return self.array(x)

    def array(self, x: Tensor) -> Tensor:
        """The same as one tensor, whatever the out_type."""
        self._check_input(x)
        if torch.jit.is_scripting():
            filters = self.bank.own()
        else:
            filters = engine.known(self.bank, x, own=True)
        return engine.scattering2d(x, filters, [self._J], self._max_order, self.pre_pad, self._border)[0]

    def _check_input(self, x: Tensor) -> None:
        if not isinstance(x, Tensor):
            raise TypeError(f'The input should be a PyTorch Tensor. (It is a {type(x).__name__}.)')
        if x.dim() < 2:
            raise RuntimeError(f'Input tensor must have at least two dimensions. (Its shape is {engine.sizes(x)}.)')
        if not x.is_contiguous():
            raise RuntimeError('Tensor must be contiguous. (Tensors must be contiguous: call x.contiguous() first.)')
        sizes = engine.sizes(x)
        height, width = sizes[-2], sizes[-1]
        M, N = (self._M_padded, self._N_padded) if self.pre_pad else self._shape
        if height != M or width != N:
            what = 'Padded tensor' if self.pre_pad else 'Tensor'
            hint = ''
            if len(sizes) > 2 and sizes[-3] == M and sizes[-2] == N:
                hint = ' Channels come before height and width: x.movedim(-1, -3).contiguous().'
            shape = f'{sizes}' if len(sizes) < 9 else f'(..., {height}, {width})'
            raise RuntimeError(f'{what} must be of spatial size ({M},{N}). (Its shape is {shape}.){hint}')
        filters = self.bank.phi['level0'].hat.dtype
        if (x.dtype == torch.float64) != (filters == torch.float64) and (
                x.dtype == torch.float64 or x.dtype == torch.float32):
            raise TypeError(f'Input and filter must be of the same dtype. (They are {x.dtype} and {filters}: '
                            'convert the input, or create the module with the dtype that it has.)')

    def _load_from_state_dict(self, state_dict: Dict[str, Any], prefix: str, *args: Any) -> None:
        if prefix + 'tensor0' in state_dict:
            ours = self.bank.state_dict()
            for n, name in enumerate(_kymatio_order(self.J, self.L)):
                hat = state_dict.pop(f'{prefix}tensor{n}', None)
                if hat is not None and name in ours:        # kymatio also keeps filters that are never read
                    state_dict[f'{prefix}bank.{name}'] = hat.squeeze(-1) if isinstance(hat, Tensor) else hat
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return f'J={self.J}, shape={self.shape}, L={self.L}, max_order={self.max_order}, paths={len(self.paths)}, ' \
               f'mode={self.mode}' + ('' if self.boundary == 'reflect' else f', boundary={self.boundary}')


Scattering2D = ScatteringTorch2D


def _check_kymatio(frontend: Any, backend: Any) -> None:
    """Refuse what is not torch, in kymatio's words."""
    if str(frontend).lower() != 'torch':
        raise RuntimeError(f"The frontend {brief(repr(frontend), 60)} is not valid. Must be 'torch', the one here.")
    name = backend if isinstance(backend, str) else getattr(backend, 'name', None)
    if name != 'torch':
        phrase = 'can not be called from' if isinstance(backend, str) else 'is not supported by'
        known = "Known: 'torch', which works on every device."
        raise ImportError(f'The backend {brief(name or repr(backend), 60)} {phrase} the frontend torch. ({known})')


def _check_out_type(out_type: str) -> None:
    if out_type not in ('array', 'list'):
        raise RuntimeError(f"The out_type must be one of 'array' or 'list'. (It is {brief(repr(out_type), 60)}.)")


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
