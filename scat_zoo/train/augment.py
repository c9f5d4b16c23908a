"""Random changes of training images, by name. All keep the image size, 'timm' aside, which crops and resizes."""
from typing import Callable, Dict, List, Tuple, Union

import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import Tensor, nn
from torchvision import transforms
from torchvision.transforms import functional

from ..wording import brief, nearest

Picture = Union[Image.Image, Tensor]        # of 8 bits, or of more: (C, H, W)


class RotateZoom:
    """Rotate an image by any angle and zoom by 0.8 to 1.25, about its centre; what is beyond its borders is mirrored.
    """

    def __call__(self, image: Picture) -> Picture:
        height, width = functional.get_dimensions(image)[1:]
        wide = functional.pad(image, [min(height, width) // 2], padding_mode='reflect')
        turn = transforms.RandomAffine.get_params((-180., 180.), None, (0.8, 1.25), None, [1, 1])
        if isinstance(wide, Tensor):            # torchvision has no bicubic rotation of these, Pillow has
            channels = [_affine(functional.to_pil_image(channel, 'F'), turn) for channel in wide]
            turned: Picture = torch.cat([functional.pil_to_tensor(channel) for channel in channels])
        else:
            turned = _affine(wide, turn)
        return functional.center_crop(turned, [height, width])


def _affine(image: Image.Image, turn: Tuple) -> Image.Image:
    return functional.affine(image, *turn, interpolation=transforms.InterpolationMode.BICUBIC)


def _shift() -> transforms.RandomAffine:
    return transforms.RandomAffine(0, translate=(0.08, 0.08))       # by whole pixels, two of 28


# Name -> (what is done to the image, what is done to the normalised tensor).
AUGMENTATIONS: Dict[str, Callable[[], Tuple[List[Callable], List[Callable]]]] = {
    'none': lambda: ([], []),
    'flip': lambda: ([transforms.RandomHorizontalFlip()], []),
    'shift': lambda: ([_shift()], []),
    'shift-flip': lambda: ([_shift(), transforms.RandomHorizontalFlip()], []),
    'shift-flip-erase': lambda: ([_shift(), transforms.RandomHorizontalFlip()],
                                 [transforms.RandomErasing(0.5, scale=(0.02, 0.25))]),
    # What leaves a texture the texture it is.
    'rotate-zoom': lambda: ([transforms.RandomHorizontalFlip(), RotateZoom()], []),
}
NAMES = ('timm', *AUGMENTATIONS)


def check(name: str) -> None:
    """Refuse an unknown augmentation.

    Raises:
        ValueError: in one sentence.
    """
    if name not in NAMES:
        raise ValueError(f'unknown augmentation {brief(repr(name), 60)}; {nearest(name, NAMES)}')


def train_transform(model: nn.Module, name: str) -> Callable[[Picture], Tensor]:
    """Image -> normalised tensor for training this model."""
    check(name)
    config = resolve_data_config({}, model=model)
    if name == 'timm':
        # Brightness and hue are those of grey or colour.
        jitter = 0.4 if config['input_size'][0] in (1, 3) else None
        return create_transform(**config, is_training=True, color_jitter=jitter)  # type: ignore[arg-type]
    on_image, on_tensor = AUGMENTATIONS[name]()
    return transforms.Compose([*on_image, *eval_transform(model).transforms, *on_tensor])


def eval_transform(model: nn.Module) -> transforms.Compose:
    """Image -> normalised tensor for this model, nothing random."""
    return create_transform(**resolve_data_config({}, model=model))
