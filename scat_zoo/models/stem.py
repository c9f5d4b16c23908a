"""The scattering front end of every architecture: images to a feature map whose channels are scattering paths."""
import inspect
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from ..scattering import engine, frame, geometry, morlet, parametric
from ..scattering import rotation as rotations
from ..scattering import scales as several
from ..scattering.banks import Bank, FixedBank, PixelwiseBank
from ..scattering.filters import Filters, copied
from ..scattering.geometry import Channel as Channel  # by this name since 0.1.0
from ..scattering.loading import AllOrNothing
from ..wording import brief, nearest
from .inputs import Inputs


class ScatteringStem(AllOrNothing):
    """Scattering of (B, C, H, W) images into (B, paths * C, H // 2^J, W // 2^J), path-major.

    Fixed filters are analytic, follow the size of the image and stay out of the state dict. What is learned is part of
    it, whether parameters or frozen. A state dict with filters, loaded into a stem with fixed ones, makes them frozen.

    Args:
        J: log-2 of the scale.
        L: number of orientations.
        max_order: highest order of scattering, 1 or 2.
        in_chans: number of image channels, C.
        img_size: (H, W), for which filters are kept ready. Images of other sizes get filters for theirs: the same ones
            of all kinds but 'pixelwise', which are resampled, and so close to the same.
        learnable: whether the filters are learned.
        frozen_filters: without `learnable`, whether to keep a place for learned values in the state dict, for loaders
            that do not ask the module.
        parametrization: how they are learned. 'pixelwise': every Fourier coefficient of every filter is a parameter.
            'morlet': orientation, frequency, width and slant of each wavelet are; 'equivariant': of one wavelet a
            scale, whose rotations are the others.
        scales: log-2 of the scales to low-pass at, J among them; J alone unless given. A path of scale s, whose
            wavelets are j < s, has a grid 2^(J - s) times as fine, and so 4^(J - s) channels a colour. Channels are
            by order, then scale (descending), path, dy, dx (see `Channel`) and colour.
        rotation: 'average' to average over the turns, by pi / L, of all wavelets of a path together: L times fewer
            channels, which change little when an image is turned, and turn exactly with it by 90 degrees if L is even.
            Where orientation tells classes apart, that is lost. See `scattering.rotation`.
        channel_differences: whether the differences of neighbouring channels, 0 - 1, 1 - 2 and so on, are scattered
            beside the channels, as more of them: 2 C - 1 in all. How channels vary together is lost in the moduli of
            each, and is not in these. A grey image has none.
        log_input: c, to scatter log(x + c) of images x whose values lie from 0 to 1, and are not otherwise normalised;
            0 for the images as they are. Other light multiplies the values of an image, and adds to their logarithm a
            constant, which wavelets do not see. The smaller c is, the more do dark pixels count: 0.03 suits 8 bits.
        options: of the parametrization. `init`: 'tight_frame' (the fixed filters) or 'random'; random filters that are
            not learnable are frozen. And of 'morlet' and 'equivariant': `nonexpansive`, to divide the filters so that
            coefficients are never further apart than the padded images, however they are trained (see
            `frame_bounds`); `learn_lowpass`, to learn the width of the low-pass, which is fixed otherwise.

    Raises:
        ValueError: if an option is out of range, or img_size below 2^J.
        TypeError: for a keyword that is none of these, or no number where there must be one.
        RuntimeError: on images with another number of channels, or too small.
        TypeError: on images of float64 where the filters are float32, or the reverse.
    """

    # TorchScript would compile them.
    __jit_unused_properties__ = ('learnable', 'mode', 'parametrization', 'nonexpansive', 'colours', 'paths',
                                 'channels')

    def __init__(self, J: int = 2, L: int = 8, max_order: int = 2, in_chans: int = 3,
                 img_size: Tuple[int, int] = (32, 32), learnable: bool = False, frozen_filters: bool = False,
                 parametrization: str = 'pixelwise', scales: Optional[Sequence[int]] = None,
                 rotation: Optional[str] = None, channel_differences: bool = False, log_input: float = 0.,
                 device: Optional[torch.device] = None, dtype: Optional[torch.dtype] = None, **options: Any) -> None:
        super().__init__()
        unknown = [name for name in options if name not in self.keywords()]
        if unknown:
            raise TypeError(f'the stem has no keyword {brief(unknown[0], 60)}; {nearest(unknown[0], self.keywords())}')
        J, L, max_order = geometry.check(J, L, max_order)
        self.scales = geometry.check_scales(scales, J)
        self.rotation = geometry.check_rotation(rotation)
        changed = parametric.check(parametrization, options, learnable=learnable, frozen_filters=frozen_filters)
        self.J, self.L, self.max_order = J, L, max_order
        self.in_chans = geometry.integer('in_chans', in_chans, least=1)
        self.inputs = Inputs(self.in_chans, channel_differences, log_input, device)
        if changed.get('nonexpansive'):
            self._check_images_as_they_are()
        self.img_size = img_size = self._checked_size(img_size)
        self.default_parametrization = parametrization
        if learnable or frozen_filters or changed:
            self.bank = self._bank(parametrization, learnable, device, dtype, **changed)
        else:
            self.bank = FixedBank(J, L, img_size, max_order, self.scales, device, dtype)

    @classmethod
    def keywords(cls) -> List[str]:
        """The names of all keywords, those of every parametrization among them."""
        own = [name for name in inspect.signature(cls.__init__).parameters if name not in ('self', 'options')]
        return [*own, *dict.fromkeys(name for bank in parametric.KINDS.values() for name in bank.OPTIONS)]

    @property
    def learnable(self) -> bool:
        return self.bank.learnable

    @property
    def mode(self) -> str:
        """What the filters are: 'fixed' (analytic), 'learnable' (parameters that require grad) or 'frozen'."""
        return self.bank.mode

    @property
    def parametrization(self) -> str:
        """What the filters are, or if they are fixed, what `set_learnable` would make of them."""
        return self.bank.kind if self.bank.kind in parametric.KINDS else self.default_parametrization

    @property
    def nonexpansive(self) -> bool:
        return self.bank.options().get('nonexpansive', False)

    @property
    def colours(self) -> int:
        """Number of image channels that are scattered, differences among them."""
        return self.inputs.colours

    @property
    def paths(self) -> List[geometry.Path]:
        """The path of each group of `colours` output channels; with several scales, `channels` tells them apart."""
        return [group.path for group in self._groups()]

    @property
    def channels(self) -> List[Channel]:
        """What each output channel is."""
        return [Channel(*path, colour, *place) for path, *place in self._groups() for colour in range(self.colours)]

    def _groups(self) -> List[several.Group]:
        return several.groups(self.scales, self.L, self.max_order, self.rotation)

    def order_channels(self) -> List[int]:
        """Number of output channels of each order that has any."""
        orders = [path.order for path in self.paths]
        return [self.colours * orders.count(order) for order in sorted(set(orders))]

    def set_learnable(self, learnable: bool) -> None:
        """Make the filters parameters that require grad, or frozen; build the optimiser afterwards.

        Fixed filters become parameters at their analytic values. Learned filters that are frozen keep their values.
        """
        if self.bank.kind in parametric.KINDS:
            self.bank.set_learnable(learnable)
        elif learnable:
            self.bank = self._bank_like_fixed(self.default_parametrization, learnable=True)

    @torch.inference_mode(False)
    def to_pixelwise(self) -> None:
        """Store every Fourier coefficient of the present filters, for images that are padded as `img_size` is.

        Such images keep their coefficients, to the bit where no gradient is asked for; others get close to theirs.
        What was learnable stays so, and so does what was frozen; fixed filters become frozen. Build the optimiser
        afterwards.
        """
        if self.bank.kind == PixelwiseBank.kind:
            return
        filters = self.filters()
        finest = filters.phi[0][0]
        stored = next(iter(self.bank.state_dict().values()), finest)
        bank = PixelwiseBank(self.J, self.L, self.img_size, self.max_order, self.scales, self.learnable,
                             device=finest.device, dtype=stored.dtype)
        bank.copy_filters(filters)
        self.bank = bank.requires_grad_(self.mode == 'learnable')

    def set_input_size(self, img_size: Tuple[int, int]) -> None:
        """Be for images of that size (H, W) from now on: pixelwise filters are resampled, others stay what they are.

        Build the optimiser afterwards.

        Raises:
            ValueError: if a side is below 2^J.
        """
        size = self._checked_size(img_size)
        self.bank.set_image_size(size)                          # where memory may run out
        self.img_size = size

    def _checked_size(self, img_size: Sequence[int]) -> Tuple[int, int]:
        height, width = geometry.image_size('img_size', img_size)
        if not max(0, min(height, width)) >> self.J:
            least = 1 << self.J if self.J < 30 else '2^J'
            raise ValueError(f'J={brief(self.J, 20)} needs images of at least {least} pixels a side, img_size is '
                             f'{brief((height, width), 60)}: take a smaller J, or larger images')
        return height, width

    @torch.no_grad()
    def filters(self, image_size: Optional[Tuple[int, int]] = None) -> Filters:
        """The present filters for images (H, W), `img_size` unless given: `phi[scale][level]` and `psi[j][level]`."""
        return copied(self.bank(torch.empty(0, *(image_size or self.img_size))))

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
        `nonexpansive` divides them by sqrt(k). With `channel_differences` or `log_input` it is no bound for the images,
        but for what is made of them and scattered.

        Args:
            image_size: (H, W), `img_size` unless given.
        """
        return frame.frame_bounds(self.filters(image_size))

    def set_max_order(self, max_order: int) -> None:
        """Compute orders up to max_order (0 leaves the low-pass), and keep only the filters that they read."""
        max_order = geometry.integer('max_order', max_order, least=0)
        if max_order > 2:
            raise ValueError(f'max_order must be 0, 1 or 2, got {brief(max_order, 40)}')
        self.max_order = max_order
        self.bank.set_max_order(max_order)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inputs(checked(x, self.in_chans))
        filters = self.bank(x) if torch.jit.is_scripting() else engine.known(self.bank, x)
        return scattering_map(x, filters, self.scales, self.L, self.max_order, self.rotation)

    @torch.inference_mode(False)                                # whose tensors no gradient could pass
    def _bank(self, parametrization: str, learnable: bool, device: Optional[torch.device],
              dtype: Optional[torch.dtype], **options: Any) -> Bank:
        return parametric.KINDS[parametrization](self.J, self.L, self.img_size, self.max_order, self.scales, learnable,
                                                 device=device, dtype=dtype, **options)

    def _bank_like_fixed(self, parametrization: str, learnable: bool, **options: Any) -> Bank:
        hat = next(self.bank.buffers())
        return self._bank(parametrization, learnable, hat.device, hat.dtype, **options)

    def state_keywords(self) -> Dict[str, Any]:
        """The keywords of a stem whose filters are in the present state."""
        none = {name: False for bank in parametric.KINDS.values() for name in bank.OPTIONS if name != 'init'}
        frozen = self.bank.kind in parametric.KINDS and not self.learnable
        return {'learnable': self.learnable, 'frozen_filters': frozen, 'parametrization': self.parametrization,
                **none, **self.bank.options()}

    def analytic_state(self) -> Dict[str, Tensor]:
        """The state dict that these filters would have had at the tight frame."""
        if self.bank.kind not in parametric.KINDS:
            return {}
        bank = self._bank(self.bank.kind, False, None, None, **self.bank.options())
        return {f'bank.{key}': value for key, value in bank.state_dict().items()}

    def _load_from_state_dict(self, state_dict: Dict[str, Any], prefix: str, *args: Any) -> None:
        prefix = f'{prefix}bank.'
        state = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
        if state and self.bank.kind not in parametric.KINDS:
            # Where others come, loading will say what is unexpected, and these filters stay what they are.
            self.bank = self._bank_of(state) or self.bank
        state_dict.update({f'{prefix}{key}': value for key, value in self.bank.fitted(state).items()})
        super()._load_from_state_dict(state_dict, prefix.removesuffix('bank.'), *args)

        if self.nonexpansive and not self.inputs.leaves_alone:
            args[-1].append('expected filters that are not nonexpansive, for images that are changed before, got '
                            f'nonexpansive={self.nonexpansive}')

    def _check_images_as_they_are(self) -> None:
        if not self.inputs.leaves_alone:
            raise ValueError(f'nonexpansive=True needs images as they are, got {self.inputs.extra_repr()}')

    def _bank_of(self, state: Dict[str, Tensor]) -> Optional[Bank]:
        """The frozen bank of the kind that has such a state, None if there is none."""
        for kind, bank in parametric.KINDS.items():
            if self._bank(kind, False, torch.device('meta'), None, **bank.options_of(list(state))).fits(state):
                return self._bank_like_fixed(kind, False, **bank.options_of(list(state)))
        return None

    def extra_repr(self) -> str:
        mode = self.mode
        if mode != 'fixed':
            mode += f', parametrization={self.parametrization}'
        scales = f', scales={tuple(self.scales)}' if len(self.scales) > 1 else ''
        if self.rotation is not None:
            scales += f', rotation={self.rotation}'
        return f'J={self.J}, L={self.L}, max_order={self.max_order}{scales}, in_chans={self.in_chans}, ' \
               f'paths={len(self.paths)}, mode={mode}'


@torch.fx.wrap
def checked(x: Tensor, in_chans: int) -> Tensor:
    """Images (B, C, H, W), refused if they are none."""
    if not torch.jit.is_scripting() and not isinstance(x, Tensor):
        raise TypeError(f'expected a tensor of images (B, {in_chans}, H, W), got {brief(type(x).__name__, 60)}: '
                        'torch.as_tensor(x) makes one of an array')
    shape = engine.sizes(x)
    if len(shape) != 4 or shape[1] != in_chans:
        hint = ''
        if len(shape) == 4 and shape[3] == in_chans:
            hint = ': channels come before height and width, x.permute(0, 3, 1, 2)'
        elif len(shape) == 3 and shape[0] == in_chans:
            hint = ': one image is a batch too, x.unsqueeze(0)'
        elif len(shape) == 4:
            hint = ': in_chans of the model tells how many channels there are'
        raise RuntimeError(f'expected images of shape (B, {in_chans}, H, W), got {shape}{hint}')
    return x


@torch.fx.wrap
def scattering_map(x: Tensor, filters: Filters, scales: List[int], L: int, max_order: int,
                   rotation: Optional[str] = None) -> Tensor:
    """(B, C, H, W) -> (B, maps * C, h, w)."""
    of_filters = filters.phi[0][0].dtype
    if (x.dtype == torch.float64) != (of_filters == torch.float64) and (
            x.dtype == torch.float64 or x.dtype == torch.float32):
        raise TypeError(f'images are {x.dtype}, filters {of_filters}: convert the images, x.float() or x.double(), or '
                        'the model')
    if rotation is None:
        coefficients = engine.scattering2d(x.contiguous(), filters, scales, max_order)
    else:
        J, dtype, finest = scales[0], x.dtype, filters.phi[0][0]
        x = rotations.centred(x, finest.shape[0], finest.shape[1])
        everywhere = engine.scattering2d(x.contiguous(), filters, scales, max_order, True, 0)
        coefficients = [rotations.average(rotations.cells(s, 1 << (J - scale)), scale, L, max_order).to(dtype)
                        for s, scale in zip(everywhere, scales)]
    return several.path_major(coefficients, scales, L, max_order, rotation).flatten(1, 2)
