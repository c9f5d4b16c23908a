"""The scattering front end of every architecture: images to a feature map whose channels are scattering paths."""
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor, nn

from ..scattering import fast, geometry
from ..scattering.banks import FixedBank, PixelwiseBank


class Channel(NamedTuple):
    """An output channel: its scattering path, as in `geometry.Path`, and the image channel that it comes from."""
    order: int
    j1: Optional[int]
    theta1: Optional[int]
    j2: Optional[int]
    theta2: Optional[int]
    colour: int


class ScatteringStem(nn.Module):
    """Scattering of (B, C, H, W) images into (B, paths * C, H // 2^J, W // 2^J), path-major.

    Fixed filters are analytic, follow the size of the image and stay out of the state dict. Learnable ones are tied to
    `img_size` and part of it, and so are frozen ones, which hold learned values. A state dict with filters, loaded into
    a stem with fixed ones, makes them frozen.

    Args:
        J: log-2 of the scale.
        L: number of orientations.
        max_order: highest order of scattering, 1 or 2.
        in_chans: number of image channels, C.
        img_size: (H, W), to which learnable filters are tied, and for which fixed ones are kept ready.
        learnable: whether every Fourier coefficient of every filter is a parameter.
        frozen_filters: without `learnable`, whether to keep a place for learned values in the state dict, for loaders
            that do not ask the module.

    Raises:
        RuntimeError: on images with another number of channels, too small, or of another size than learned filters.
    """

    # TorchScript would compile them.
    __jit_unused_properties__ = ('learnable', 'fixed_input_size', 'paths', 'channels')

    def __init__(self, J: int = 2, L: int = 8, max_order: int = 2, in_chans: int = 3,
                 img_size: Tuple[int, int] = (32, 32), learnable: bool = False, frozen_filters: bool = False,
                 device: Optional[torch.device] = None, dtype: Optional[torch.dtype] = None) -> None:
        super().__init__()
        geometry.check(J, L, max_order)
        if 2 ** J > min(img_size):
            raise ValueError(f'J={J} needs images of at least {2 ** J} pixels a side, img_size is {img_size}')
        self.J, self.L, self.max_order, self.in_chans, self.img_size = J, L, max_order, in_chans, img_size
        if learnable or frozen_filters:
            self.bank = PixelwiseBank(J, L, img_size, max_order, learnable, device, dtype)
        else:
            self.bank = FixedBank(J, L, img_size, max_order, device, dtype)

    @property
    def learnable(self) -> bool:
        return isinstance(self.bank, PixelwiseBank) and self.bank.learnable

    @property
    def fixed_input_size(self) -> bool:
        """Whether the filters, learnable or learned and frozen, are tied to `img_size`."""
        return isinstance(self.bank, PixelwiseBank)

    @property
    def paths(self) -> List[geometry.Path]:
        """The path of each group of `in_chans` output channels."""
        return geometry.paths(self.J, self.L, self.max_order)

    @property
    def channels(self) -> List[Channel]:
        """What each output channel is."""
        return [Channel(*path, colour) for path in self.paths for colour in range(self.in_chans)]

    def order_channels(self) -> List[int]:
        """Number of output channels of each order that has any."""
        orders = [path.order for path in self.paths]
        return [self.in_chans * orders.count(order) for order in sorted(set(orders))]

    def set_learnable(self, learnable: bool) -> None:
        """Make the filters parameters that require grad, or frozen; build the optimiser afterwards.

        Fixed filters become parameters at their analytic values, tied to `img_size`. Learned filters that are frozen
        keep their values and their size.
        """
        if isinstance(self.bank, PixelwiseBank):
            self.bank.set_learnable(learnable)
        elif learnable:
            self.bank = self._pixelwise(learnable=True)

    def set_max_order(self, max_order: int) -> None:
        """Compute orders up to max_order (0 leaves the low-pass), and keep only the filters that they read."""
        self.max_order = max_order
        self.bank.set_max_order(max_order)

    def forward(self, x: Tensor) -> Tensor:
        phi, psi = self.bank(x)
        return scattering_map(x, phi, psi, self.J, self.max_order, self.in_chans)

    def _pixelwise(self, learnable: bool) -> PixelwiseBank:
        like = self.bank.hat
        return PixelwiseBank(self.J, self.L, self.img_size, self.max_order, learnable, like.device, like.dtype)

    def _load_from_state_dict(self, state_dict: Dict[str, Any], prefix: str, *args: Any) -> None:
        if isinstance(self.bank, FixedBank) and any(key.startswith(prefix + 'bank.') for key in state_dict):
            self.bank = self._pixelwise(learnable=False)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        mode = 'learnable' if self.learnable else 'frozen' if self.fixed_input_size else 'fixed'
        return f'J={self.J}, L={self.L}, max_order={self.max_order}, in_chans={self.in_chans}, ' \
               f'paths={len(self.paths)}, mode={mode}'


@torch.fx.wrap
def scattering_map(x: Tensor, phi: List[Tensor], psi: List[List[Tensor]], J: int, max_order: int,
                   in_chans: int) -> Tensor:
    """(B, C, H, W) -> (B, paths * C, h, w)."""
    if x.dim() != 4 or x.shape[1] != in_chans:
        raise RuntimeError(f'expected images of shape (B, {in_chans}, H, W), got {x.shape}')
    s = fast.scattering2d(x.contiguous(), phi, psi, J, max_order, False)     # (B, C, paths, h, w)
    return s.transpose(1, 2).flatten(1, 2)
