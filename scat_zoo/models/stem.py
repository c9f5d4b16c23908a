"""The scattering front end of every architecture: images to a feature map whose channels are scattering paths."""
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from ..scattering import frame, geometry, morlet, parametric
from ..scattering import scales as several
from ..scattering.banks import FixedBank, PixelwiseBank


class Channel(NamedTuple):
    """An output channel: its scattering path, as in `geometry.Path`, the image channel that it comes from, and where.

    It is low-passed at `scale` (log-2), and of the 2^(J - scale) x 2^(J - scale) samples in a cell of the feature map
    it is that of row dy and column dx. The first, (0, 0), is where the channels of scale J are.
    """
    order: int
    j1: Optional[int]
    theta1: Optional[int]
    j2: Optional[int]
    theta2: Optional[int]
    colour: int
    scale: int
    dy: int
    dx: int


class ScatteringStem(nn.Module):
    """Scattering of (B, C, H, W) images into (B, paths * C, H // 2^J, W // 2^J), path-major.

    Fixed filters are analytic, follow the size of the image and stay out of the state dict. What is learned is part of
    it, whether parameters or frozen. A state dict with filters, loaded into a stem with fixed ones, makes them frozen.

    Args:
        J: log-2 of the scale.
        L: number of orientations.
        max_order: highest order of scattering, 1 or 2.
        in_chans: number of image channels, C.
        img_size: (H, W), to which pixelwise filters are tied, and for which fixed ones are kept ready.
        learnable: whether the filters are learned.
        frozen_filters: without `learnable`, whether to keep a place for learned values in the state dict, for loaders
            that do not ask the module.
        parametrization: how they are learned. 'pixelwise': every Fourier coefficient of every filter is a parameter.
            'morlet': orientation, frequency, width and slant of each wavelet are; 'equivariant': of one wavelet a
            scale, whose rotations are the others. The last two follow the size of the image, with a fixed low-pass.
        init: 'tight_frame' (the fixed filters) or 'random'. Random filters that are not learnable are frozen.
        nonexpansive: 'morlet' and 'equivariant' only: divide the filters so that coefficients are never further apart
            than the padded images, however they are trained; see `frame_bounds`.
        scales: log-2 of the scales to low-pass at, J among them; J alone unless given. A path of scale s, whose
            wavelets are j < s, has a grid 2^(J - s) times as fine, and so 4^(J - s) channels a colour. Channels are
            by order, then scale (descending), path, dy, dx (see `Channel`) and colour.

    Raises:
        ValueError: if an option is out of range, or img_size below 2^J.
        RuntimeError: on images with another number of channels, too small, or of another size than pixelwise filters.
    """

    # TorchScript would compile them.
    __jit_unused_properties__ = (
        'learnable', 'fixed_input_size', 'parametrization', 'nonexpansive', 'paths', 'channels')

    def __init__(self, J: int = 2, L: int = 8, max_order: int = 2, in_chans: int = 3,
                 img_size: Tuple[int, int] = (32, 32), learnable: bool = False, frozen_filters: bool = False,
                 parametrization: str = 'pixelwise', init: str = 'tight_frame', nonexpansive: bool = False,
                 scales: Optional[Sequence[int]] = None, device: Optional[torch.device] = None,
                 dtype: Optional[torch.dtype] = None) -> None:
        super().__init__()
        geometry.check(J, L, max_order)
        self.scales = geometry.check_scales(scales, J)
        parametric.check(parametrization, init, nonexpansive)
        if 2 ** J > min(img_size):
            raise ValueError(f'J={J} needs images of at least {2 ** J} pixels a side, img_size is {img_size}')
        self.J, self.L, self.max_order, self.in_chans, self.img_size = J, L, max_order, in_chans, img_size
        self.default_parametrization = parametrization
        if learnable or frozen_filters or init != 'tight_frame' or nonexpansive:
            self.bank = self._bank(parametrization, learnable, init, nonexpansive, device, dtype)
        else:
            self.bank = FixedBank(J, L, img_size, max_order, device, dtype, self.scales)

    @property
    def learnable(self) -> bool:
        return not isinstance(self.bank, FixedBank) and self.bank.learnable

    @property
    def fixed_input_size(self) -> bool:
        """Whether the filters, learnable or learned and frozen, are tied to `img_size`."""
        return isinstance(self.bank, PixelwiseBank)

    @property
    def parametrization(self) -> str:
        """What the filters are, or if they are fixed, what `set_learnable` would make of them."""
        if isinstance(self.bank, FixedBank):
            return self.default_parametrization
        return next(name for name, bank in parametric.PARAMETRIZATIONS.items() if type(self.bank) is bank)

    @property
    def nonexpansive(self) -> bool:
        return isinstance(self.bank, parametric.MorletBank) and self.bank.nonexpansive

    @property
    def paths(self) -> List[geometry.Path]:
        """The path of each group of `in_chans` output channels; with several scales, `channels` tells them apart."""
        return [group.path for group in several.groups(self.scales, self.L, self.max_order)]

    @property
    def channels(self) -> List[Channel]:
        """What each output channel is."""
        return [Channel(*path, colour, *place) for path, *place in several.groups(self.scales, self.L, self.max_order)
                for colour in range(self.in_chans)]

    def order_channels(self) -> List[int]:
        """Number of output channels of each order that has any."""
        orders = [path.order for path in self.paths]
        return [self.in_chans * orders.count(order) for order in sorted(set(orders))]

    def set_learnable(self, learnable: bool) -> None:
        """Make the filters parameters that require grad, or frozen; build the optimiser afterwards.

        Fixed filters become parameters at their analytic values. Learned filters that are frozen keep their values.
        """
        if not isinstance(self.bank, FixedBank):
            self.bank.set_learnable(learnable)
        elif learnable:
            self.bank = self._bank_like_fixed(self.default_parametrization, learnable=True)

    def to_pixelwise(self) -> None:
        """Store every Fourier coefficient of the present filters, for images that are padded as `img_size` is.

        Such images keep their coefficients, to the bit in float32 and float64; others are refused from now on. What was
        learnable stays so, and so does what was frozen; fixed filters become frozen. Build the optimiser afterwards.
        """
        if isinstance(self.bank, PixelwiseBank):
            return
        phi, psi = self.filters()
        bank = PixelwiseBank(self.J, self.L, self.img_size, self.max_order, self.learnable, device=phi[0].device,
                             dtype=next(iter(self.bank.state_dict().values()), phi[0]).dtype, scales=self.scales)
        bank.copy_filters(phi, psi)
        self.bank = bank

    @torch.no_grad()
    def filters(self, image_size: Optional[Tuple[int, int]] = None) -> Tuple[List[Tensor], List[List[Tensor]]]:
        """The present filters in Fourier for images (H, W), `img_size` unless given: phi by level, psi by j and level.

        With several scales, phi has the levels of scale J, then those of the next scale, and so on.

        Raises:
            ValueError: if the filters are tied to another size.
        """
        size = image_size or self.img_size
        padded, own = (geometry.padded_size(height, width, self.J) for height, width in (size, self.img_size))
        if self.fixed_input_size and padded != own:
            raise ValueError(f'these filters are tied to images of {self.img_size}, there are none for {size}')
        phi, psi = self.bank(torch.empty(0, *size))
        # Copies: fixed filters are shared with other models, learned ones are the parameters themselves.
        return [hat.clone() for hat in phi], [[hat.clone() for hat in levels] for levels in psi]

    def filter_parameters(self) -> List[morlet.Wavelet]:
        """Scale and orientation index, angle in degrees, wavelength and scale in pixels, and slant of each wavelet.

        An empty list for pixelwise filters, behind which there are no such numbers.
        """
        return self.bank.wavelets()

    def frame_bounds(self, image_size: Optional[Tuple[int, int]] = None) -> Tuple[float, float]:
        """(A, B): minimum and maximum of the Littlewood-Paley sum of the present filters, for images of this size.

        B is that of all levels on which filters are read, A that of the finest. B <= 1 certifies that coefficients are
        never further apart than the padded images are, in plain l2 norm over all channels; in general they are at most
        sqrt(B max(B, 1)^max_order) times as far apart. The proof stands in `scat_zoo.scattering.frame`. The sum counts
        the low-passes of all scales, so that this holds for all channels together: for k scales B is about k, unless
        `nonexpansive` divides them by sqrt(k).

        Args:
            image_size: (H, W), `img_size` unless given.

        Raises:
            ValueError: if the filters are tied to another size.
        """
        return frame.frame_bounds(*self.filters(image_size))

    def set_max_order(self, max_order: int) -> None:
        """Compute orders up to max_order (0 leaves the low-pass), and keep only the filters that they read."""
        self.max_order = max_order
        self.bank.set_max_order(max_order)

    def forward(self, x: Tensor) -> Tensor:
        phi, psi = self.bank(x)
        return scattering_map(x, phi, psi, self.scales, self.L, self.max_order, self.in_chans)

    def _bank(self, parametrization: str, learnable: bool, init: str, nonexpansive: bool,
              device: Optional[torch.device], dtype: Optional[torch.dtype]) -> nn.Module:
        options = {'nonexpansive': True} if nonexpansive else {}
        return parametric.PARAMETRIZATIONS[parametrization](
            self.J, self.L, self.img_size, self.max_order, learnable, init, device, dtype, scales=self.scales,
            **options)

    def _bank_like_fixed(self, parametrization: str, learnable: bool, nonexpansive: bool = False) -> nn.Module:
        hat = self.bank.hat
        return self._bank(parametrization, learnable, 'tight_frame', nonexpansive, hat.device, hat.dtype)

    def _load_from_state_dict(self, state_dict: Dict[str, Any], prefix: str, *args: Any) -> None:
        keys = {key.removeprefix(f'{prefix}bank.') for key in state_dict if key.startswith(f'{prefix}bank.')}
        if isinstance(self.bank, FixedBank) and keys:
            parametrization, nonexpansive = 'pixelwise', False
            if 'theta' in keys:
                parametrization = 'equivariant' if state_dict[f'{prefix}bank.theta'].dim() == 1 else 'morlet'
                nonexpansive = 'limit' in keys
            stored = self._bank_like_fixed(parametrization, learnable=False, nonexpansive=nonexpansive)
            # Where others come, loading will say what is unexpected, and these filters stay what they are.
            if keys == set(stored.state_dict()):
                self.bank = stored
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        mode = 'fixed' if isinstance(self.bank, FixedBank) else 'learnable' if self.learnable else 'frozen'
        if mode != 'fixed':
            mode += f', parametrization={self.parametrization}'
        scales = f', scales={tuple(self.scales)}' if len(self.scales) > 1 else ''
        return f'J={self.J}, L={self.L}, max_order={self.max_order}{scales}, in_chans={self.in_chans}, ' \
               f'paths={len(self.paths)}, mode={mode}'


@torch.fx.wrap
def scattering_map(x: Tensor, phi: List[Tensor], psi: List[List[Tensor]], scales: List[int], L: int, max_order: int,
                   in_chans: int) -> Tensor:
    """(B, C, H, W) -> (B, maps * C, h, w)."""
    if x.dim() != 4 or x.shape[1] != in_chans:
        raise RuntimeError(f'expected images of shape (B, {in_chans}, H, W), got {x.shape}')
    return several.scattering2d(x.contiguous(), phi, psi, scales, L, max_order).flatten(1, 2)
