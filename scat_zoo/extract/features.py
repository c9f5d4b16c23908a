"""What is computed: images to rows of features of one model."""
import hashlib
import json
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple, Union

import torch
from timm.data import resolve_data_config
from timm.data.transforms import MaybeToTensor
from torch import Tensor, nn
from torchvision import transforms

from ..models import shipped
from ..scattering import geometry
from ..train import augment, checkpoint, images
from ..train.model import is_linear
from ..wording import brief, nearest

DTYPES = {'float32': torch.float32, 'float16': torch.float16}
# What becomes of a feature map (B, C, h, w).
POOLS = {'avg': lambda x: x.mean((2, 3)), 'max': lambda x: x.amax((2, 3)), 'none': lambda x: x}
ENDS = ('pre_logits', 'logits')                 # levels that are no feature maps


class Reader:
    """An image to a tensor (C, H, W) as a model takes it, but for the mean and deviation: bytes where it has 8 bits.

    Apart from the model, for processes that only decode.
    """

    def __init__(self, model: nn.Module, value_range: Optional[Tuple[float, float]]) -> None:
        self.channels, self.value_range = resolve_data_config({}, model=model)['input_size'][0], value_range
        steps = augment.eval_transform(model).transforms
        # What these do to one image after the other is done to a batch at once, by the same arithmetic.
        self.to_size = transforms.Compose([step for step in steps
                                           if not isinstance(step, (MaybeToTensor, transforms.Normalize))])

    def open(self, file: Union[str, Path], content: Optional[bytes] = None) -> Tensor:
        """Of a file, or of its content.

        Raises:
            ValueError: in one sentence, which names the file.
        """
        return self.ready(images.open_image(file, content), file)

    def ready(self, picture: images.Picture, name: Union[str, Path]) -> Tensor:
        """Of a decoded image, or an array (H, W) or (H, W, C).

        Raises:
            ValueError: in one sentence, with its name, if it has other channels than the model, or an unknown range.
        """
        try:
            sized = self.to_size(images.prepare(images.picture_of(picture), self.channels, self.value_range))
        except Exception as error:              # its sides, for one, may be beyond what can be resized
            reason = ' '.join(str(error).split()) or type(error).__name__
            raise ValueError(f'cannot use the image {brief(name, 100)}: {brief(reason, 170)}') from error
        return sized if isinstance(sized, Tensor) else transforms.functional.pil_to_tensor(sized)


class FeatureExtractor:
    """Features of images by one model, a row an image.

    The model sees `batch_size` images at a time, blank ones where there are fewer, so that a row does not depend on how
    many others are computed with it. Nor does it on which ones, but for the rounding of logits.

    Args:
        model: folder of a run or a checkpoint, name of weights that come with the package, or name of a model, whose
            layers behind the scattering are then random, the same ones each time.
        level: the feature map of this number, as `forward_intermediates` counts them, negative from the last;
            'pre_logits', what the classifier sees; or 'logits'.
        pool: of a feature map, 'avg' (unless given), 'max', or 'none' for the whole map.
        dtype: 'float32' or 'float16'.
        batch_size: images at a time.
        model_kwargs: keywords of a model without weights.
        device: where to compute.

    Raises:
        ValueError, TypeError: in one sentence, on arguments that do not fit.
    """

    def __init__(self, model: str, level: Union[int, str] = 'pre_logits', pool: Optional[str] = None,
                 dtype: str = 'float32', batch_size: int = 64, model_kwargs: Optional[Dict[str, Any]] = None,
                 device: Union[str, torch.device] = 'cpu') -> None:
        self.dtype = DTYPES[_known('dtype', dtype, DTYPES)]
        self.batch_size = geometry.integer('batch_size', batch_size, least=1)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.model: Any = checkpoint.open_model(model, model_kwargs or {}).to(device)
        self.name, self.kwargs, self.device = model, model_kwargs or {}, torch.device(device)
        self.has_weights = checkpoint.has_weights(model)
        self.level, self.pool = self._level(level), pool
        if self.level in ENDS:
            if pool is not None:
                raise ValueError(f'pool {brief(pool, 60)} is for a feature map, a level from 0 to '
                                 f'{len(self.model.feature_info) - 1}: {self.level} come from the pool of the model')
        else:
            self.pool = _known('pool', pool or 'avg', POOLS)
        config = resolve_data_config({}, model=self.model)
        self.mean, self.std = (torch.tensor(config[key], device=self.device)[:, None, None] for key in ('mean', 'std'))
        self.reader = Reader(self.model, checkpoint.value_range(model))
        channels, height, width = config['input_size']
        self.shape = tuple(next(self._batches(torch.zeros(1, channels, height, width))).shape[1:])

    def _level(self, level: Union[int, str]) -> Union[int, str]:
        levels = len(self.model.feature_info)
        if level == 'logits' and not (self.has_weights and self.model.num_classes):
            raise ValueError(f'{brief(self.name)} has no weights, or no classifier, so there are no logits: take '
                             'pre_logits or a feature map')
        if level in ENDS:
            return level
        if type(level) is not int or not -levels <= level < levels:
            raise ValueError(f'expected a level from 0 to {levels - 1}, pre_logits or logits, got '
                             f'{brief(repr(level), 60)}')
        return level % levels

    @property
    def notes(self) -> List[str]:
        """What a user should know of the model."""
        if self.has_weights or is_linear(self.model):
            return []
        return [f'{brief(self.name)} has no weights: its layers behind the scattering are random']

    def settings(self) -> Dict[str, Any]:
        """All that the rows depend on, as JSON has it."""
        files = checkpoint.folder_of(self.name) if Path(self.name).is_dir() else shipped.WEIGHTS / self.name
        weights = _digest(files) if self.has_weights else None
        return {'model': self.name, 'model_kwargs': json.loads(json.dumps(self.kwargs, default=str)),
                'weights': weights, 'level': self.level, 'pool': self.pool,
                'dtype': str(self.dtype).removeprefix('torch.'), 'batch_size': self.batch_size}

    def __call__(self, pictures: Tensor) -> Tensor:
        """Images (n, C, H, W), bytes or from 0 to 1, to features (n, ...) on the CPU."""
        return self.joined(list(self._batches(pictures)))

    def joined(self, features: List[Tensor]) -> Tensor:
        """All of these rows, also if there are none."""
        return torch.cat([torch.empty(0, *self.shape, dtype=self.dtype), *features])

    @torch.inference_mode()
    def _batches(self, pictures: Tensor) -> Iterator[Tensor]:
        for part in pictures.split(self.batch_size):
            x = part.to(self.device)
            x = ((x.float() / 255 if x.dtype == torch.uint8 else x) - self.mean) / self.std
            blank = x.new_zeros(self.batch_size - len(x), *x.shape[1:])
            yield self._features(torch.cat([x, blank]))[:len(x)].to(self.dtype).cpu()

    def _features(self, x: Tensor) -> Tensor:
        if self.level == 'logits':
            return self.model(x)
        if self.level == 'pre_logits':
            return self.model.forward_head(self.model.forward_features(x), pre_logits=True)
        maps: Any = self.model.forward_intermediates(x, indices=[int(self.level)], stop_early=True,
                                                     intermediates_only=True)
        return POOLS[self.pool or 'none'](maps[0])


def finite(features: Tensor) -> Tensor:
    """Which rows (n, ...) hold neither NaN nor infinity, to which float16 rounds what is beyond 65,504."""
    return features.flatten(1).isfinite().all(1)


def not_finite(name: str) -> str:
    """What to say of other rows."""
    return f'the features of {brief(name, 120)} are not finite, or too large for float16'


def stacked(pictures: Sequence[Tensor]) -> Tensor:
    """Images (C, H, W) as one tensor: bytes if all are, else from 0 to 1."""
    if len({picture.dtype for picture in pictures}) > 1:
        pictures = [p.float() / 255 if p.dtype == torch.uint8 else p for p in pictures]
    return torch.stack(list(pictures))


def _known(what: str, name: Any, known: Iterable[str]) -> str:
    if name not in known:
        raise ValueError(f'unknown {what} {brief(repr(name), 60)}; {nearest(name, known)}')
    return name


def _digest(folder: Path) -> str:
    found = hashlib.sha256()
    for name in ('config.json', 'model.safetensors'):
        found.update((folder / name).read_bytes())
    return found.hexdigest()[:16]
