"""Random changes of training images, by name. All keep the image size, 'timm' aside, which crops and resizes."""
from typing import Callable, Dict, List, Tuple

from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import Tensor, nn
from torchvision import transforms
from torchvision.transforms import functional


class RotateZoom:
    """Rotate an image by any angle and zoom by 0.8 to 1.25, about its centre; what is beyond its borders is mirrored.
    """

    def __init__(self) -> None:
        self.affine = transforms.RandomAffine(
            180, scale=(0.8, 1.25), interpolation=transforms.InterpolationMode.BICUBIC)

    def __call__(self, image: Image.Image) -> Image.Image:
        height, width = image.height, image.width
        wide = functional.pad(image, [min(height, width) // 2], padding_mode='reflect')
        return functional.center_crop(self.affine(wide), [height, width])


def _shift() -> transforms.RandomAffine:
    return transforms.RandomAffine(0, translate=(0.08, 0.08))       # by whole pixels, two of 28


# Name -> (what is done to the image, what is done to the normalised tensor).
AUGMENTATIONS: Dict[str, Callable[[], Tuple[List[Callable], List[Callable]]]] = {
    'none': lambda: ([], []),
    'flip': lambda: ([transforms.RandomHorizontalFlip()], []),
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
        raise ValueError(f'unknown augmentation {name!r}; known: {", ".join(NAMES)}')


def train_transform(model: nn.Module, name: str) -> Callable[[Image.Image], Tensor]:
    """Image -> normalised tensor for training this model."""
    check(name)
    config = resolve_data_config({}, model=model)
    if name == 'timm':
        return create_transform(**config, is_training=True)
    on_image, on_tensor = AUGMENTATIONS[name]()
    return transforms.Compose([*on_image, *eval_transform(model).transforms, *on_tensor])


def eval_transform(model: nn.Module) -> transforms.Compose:
    """Image -> normalised tensor for this model, nothing random."""
    return create_transform(**resolve_data_config({}, model=model))
