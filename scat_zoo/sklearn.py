"""For scikit-learn (the extra `sklearn`): scattering features of images as a transformer, and kymatio's front end.

`import scat_zoo` does not import this file: it needs scikit-learn, and like the command line it stands above all else.
"""
import math
import os
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor, nn

from .models.stem import ScatteringStem
from .scattering import geometry
from .scattering.geometry import Channel
from .scattering.torch2d import ScatteringTorch2D
from .train.images import Picture, channels_of, open_image, prepare
from .wording import brief, nearest

try:
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError('scat_zoo.sklearn needs scikit-learn 1.6.1 or newer: install it, or scat_zoo with the extra '
                      'sklearn') from error

__all__ = ['Scattering2D', 'ScatteringFeatures']

# What becomes of a map (B, C, h, w).
POOLS: Dict[str, Callable[[Tensor], Tensor]] = {
    'flat': lambda x: x.flatten(1), 'avg': lambda x: x.mean((2, 3)), 'max': lambda x: x.amax((2, 3))}
KEPT_AS_THEY_ARE = [np.float32, np.uint8]       # until their batch's turn; other numbers become the first


class ScatteringFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Images to rows of float32 features: those of `scat_linear`, but for its batch normalisation.

    `fit` learns the mean m of each scattering channel, over all images and places. A feature of order 1 or 2 is
    log(S / m + log_floor) of a coefficient S; order 0, a local mean of the image, is standardised. So the unit does not
    matter, as long as it is one: images from 0 to 255 have the features that they have from 0 to 1. Nor do
    `batch_size` and the number of threads, but for rounding.

    Images come as arrays or tensors (n, H, W) or (n, C, H, W), all of one size; as rows of C * H * W values, with
    `img_size`; or as names of image files, in a list or one column of a table. Files are read as `scat-zoo predict`
    reads them, 8 bits as 0 to 255, and scaled and cropped to `img_size` if it is given.

    Features are ordered by channel, as `ScatteringStem.channels` tells, then row, then column;
    `get_feature_names_out` names them all.

    Args:
        J, L, max_order, scales, rotation, channel_differences: of the scattering, as for `ScatteringStem`; the filters
            are fixed.
        log_floor: 0 for no logarithm: then all orders are standardised.
        global_pool: 'flat' for every place of the maps, 'avg' or 'max' for one number a channel.
        img_size: side of the images, or (H, W). Needed for rows of values; arrays and files tell theirs.
        in_chans: number of image channels; unless given, those of the array or of the first file.
        batch_size: images at a time.
        device: where to compute, such as 'cuda'; the CPU unless given.

    Attributes:
        image_shape_: (C, H, W) of the images.
        n_features_in_: the number of their values.
        mean_: mean of each channel.
        scale_: what its coefficients are divided by: the mean, or of what is standardised the standard deviation.

    Raises:
        ValueError, TypeError: from `fit` and `transform`, in one sentence, on images or arguments that do not fit.
    """

    def __init__(self, J: int = 2, L: int = 8, max_order: int = 2, *, scales: Optional[Sequence[int]] = None,
                 rotation: Optional[str] = None, channel_differences: bool = False, log_floor: float = 0.1,
                 global_pool: str = 'flat', img_size: Union[int, Tuple[int, int], None] = None,
                 in_chans: Optional[int] = None, batch_size: int = 64, device: Optional[str] = None) -> None:
        self.J, self.L, self.max_order, self.scales, self.rotation = J, L, max_order, scales, rotation
        self.channel_differences, self.log_floor, self.global_pool = channel_differences, log_floor, global_pool
        self.img_size, self.in_chans = img_size, in_chans
        self.batch_size, self.device = batch_size, device

    def fit(self, X: Any, y: Any = None) -> 'ScatteringFeatures':
        """Learn the channels' means from images, in one pass over them. y is not read."""
        self._learn(self._scattered(self._images(X, reset=True)))
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Features (n, features) of images of the size that `fit` saw."""
        check_is_fitted(self)
        images = self._images(X, reset=False)
        return self._features(self._scattered(images), len(images))

    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """`fit`, then `transform`. With the pool 'flat', each image is scattered once."""
        images = self._images(X, reset=True)
        if self.global_pool == 'flat':                          # the maps are as large as the result
            maps = list(self._scattered(images))
            self._learn(maps)
            return self._features((maps.pop(0) for _ in range(len(maps))), len(images))
        self._learn(self._scattered(images))
        return self._features(self._scattered(images), len(images))

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """A name a feature: its `Channel`, of what is not None, and with the pool 'flat' its row and column.

        Such as 'order=2_j1=0_theta1=3_j2=1_theta2=5_colour=0_row=2_column=6'. With several `scales` there are scale,
        dy and dx too.

        Args:
            input_features: not read, as a feature is made of all values of an image.
        """
        check_is_fitted(self)
        return _names(self._stem().channels, self._grid() if self.global_pool == 'flat' else None)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = self.img_size is not None
        tags.input_tags.three_d_array = tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = ['float32']
        return tags

    # ---- images ----

    def _images(self, X: Any, reset: bool) -> Union[np.ndarray, '_Files']:
        """Images (n, C, H, W), or what gives them when it is sliced; `reset` for those of `fit`."""
        self._check()
        names = _file_names(X)
        if names is None:
            images: Union[np.ndarray, _Files] = self._array(X, reset)
        else:
            validate_data(self, names, reset=reset, ensure_2d=False, skip_check_array=True)     # no names of columns
            images = self._files(names, reset)
        shape = images.shape[1:]
        if reset:
            self.image_shape_ = shape
            self._deep = images.deep if isinstance(images, _Files) else None
        elif shape != self.image_shape_:
            raise ValueError(f'expected images of shape (C, H, W) = {self.image_shape_}, as `fit` saw, got '
                             f'{brief(shape, 60)}')
        return images

    def _check(self) -> None:
        if self.global_pool not in POOLS:
            raise ValueError(f'unknown pool {brief(repr(self.global_pool), 60)}; {nearest(self.global_pool, POOLS)}')
        if not 0 <= self.log_floor < math.inf:
            raise ValueError(f'log_floor must be 0, for no logarithm, or a positive number, got {self.log_floor}')
        geometry.integer('batch_size', self.batch_size, least=1)
        if self.in_chans is not None:
            geometry.integer('in_chans', self.in_chans, least=1)

    def _size(self) -> Optional[Tuple[int, int]]:
        return None if self.img_size is None else geometry.sides('img_size', self.img_size, least=1)

    def _array(self, X: Any, reset: bool) -> np.ndarray:
        """Images (n, C, H, W) of an array, a list or a table."""
        X = _as_array(X)
        if X.ndim <= 2:
            rows = validate_data(self, X, reset=reset, dtype=KEPT_AS_THEY_ARE)
            return self._of_rows(rows, reset)
        images = validate_data(self, X, reset=reset, dtype=KEPT_AS_THEY_ARE, ensure_2d=False, allow_nd=True)
        if images.ndim == 3:
            images = images[:, None]
        size, channels = self._size() or images.shape[-2:], self.in_chans or images.shape[1]
        fit = images.ndim == 4 and images.shape[1:] == (channels, *size)
        channels_last = images.ndim == 4 and images.shape[3] in (1, 3, 4) and images.shape[1] not in (1, 3, 4)
        if channels_last and not (fit and self.img_size is not None):
            raise ValueError(f'channels come before height and width, and the images are {brief(X.shape, 60)}: '
                             'X.transpose(0, 3, 1, 2)')
        if not fit:
            where = 'C' if self.in_chans is None else self.in_chans, *(self._size() or 'HW')
            raise ValueError(f'expected images of shape (n, {", ".join(map(str, where))}), or rows of their values, '
                             f'got {brief(X.shape, 60)}')
        if reset:
            self.n_features_in_ = images[:1].size
        return images

    def _of_rows(self, rows: np.ndarray, reset: bool) -> np.ndarray:
        """Images (n, C, H, W) that come as rows (n, C * H * W)."""
        if not reset:
            return rows.reshape(-1, *self.image_shape_)
        count, size = rows.shape[1], self._size()
        if size is None:
            side = math.isqrt(count)
            hint = f', such as img_size={side}' if side * side == count else ''
            raise ValueError(f'rows of {count} values are no images yet: tell img_size=(H, W){hint}, or bring X into '
                             'the shape (n, H, W) or (n, C, H, W)')
        channels = self.in_chans or max(1, count // math.prod(size))
        if count != channels * math.prod(size):
            raise ValueError(f'expected rows of {brief(self.in_chans or "C", 20)} * {size[0]} * {size[1]} values, as '
                             f'img_size and in_chans have it, got {count}')
        return rows.reshape(-1, channels, *size)

    def _files(self, names: List[str], reset: bool) -> '_Files':
        if not reset:
            return _Files(names, self.image_shape_, self.img_size is not None, self._deep, converted=True)
        first = open_image(names[0])
        shape = self.in_chans or channels_of(first), *(self._size() or _height_and_width(first))
        self.n_features_in_ = math.prod(shape)
        return _Files(names, shape, self.img_size is not None, _is_deep(first), self.in_chans is not None)

    # ---- features ----

    def _stem(self) -> ScatteringStem:
        channels, *size = self.image_shape_
        return ScatteringStem(self.J, self.L, self.max_order, channels, (size[0], size[1]), scales=self.scales,
                              rotation=self.rotation, channel_differences=self.channel_differences,
                              device=torch.device(self.device or 'cpu'), dtype=torch.float32)

    def _grid(self) -> Tuple[int, int]:
        return geometry.output_size(self.image_shape_[1], self.image_shape_[2], self.J)

    def _scattered(self, images: Union[np.ndarray, '_Files']) -> Iterator[Tensor]:
        """Their scattering (b, channels, h, w), a batch after the other, on the CPU."""
        stem = self._stem()
        for start in range(0, len(images), self.batch_size):
            yield stem(_tensor(images[start:start + self.batch_size], stem)).cpu()

    def _learn(self, maps: Iterable[Tensor]) -> None:
        orders = self._stem().order_channels()
        self._standardised = orders[0] if self.log_floor > 0 else sum(orders)
        count, total, squares = 0, *torch.zeros(2, sum(orders), dtype=torch.float64, device='cpu')
        squares = squares[:self._standardised]
        for s in maps:
            count += s[:, 0].numel()
            total += s.sum((0, 2, 3), dtype=torch.float64)
            squares += s[:, :self._standardised].double().square().sum((0, 2, 3))
        mean, square = total / count, squares / count
        deviation = (square - mean[:self._standardised].square()).clamp(min=0).sqrt()
        # Beside the local means, what is smaller than this is rounding error, as in images without any detail.
        least = 1e-6 * square[:orders[0]].max().sqrt().item()
        self.mean_ = mean.numpy()
        self.scale_ = torch.cat([deviation, mean[self._standardised:]]).clamp(min=least or 1.).numpy()

    def _features(self, maps: Iterable[Tensor], images: int) -> np.ndarray:
        mean, scale = (torch.from_numpy(learned).float()[:, None, None] for learned in (self.mean_, self.scale_))
        n, of_channel = self._standardised, math.prod(self._grid()) if self.global_pool == 'flat' else 1
        features, start = np.empty((images, len(mean) * of_channel), np.float32), 0
        for s in maps:
            s = torch.cat([(s[:, :n] - mean[:n]) / scale[:n],
                           torch.log(s[:, n:].clamp(min=0) / scale[n:] + self.log_floor)], 1)
            features[start:start + len(s)] = POOLS[self.global_pool](s).numpy()
            start += len(s)
        return features


class Scattering2D(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """kymatio 0.3.0's `kymatio.sklearn.Scattering2D`: the transform of rows of values, H * W of a channel.

    The coefficients are kymatio's, in float32 of float32 images and in float64 of others. `fit` does nothing but note
    the number of columns. Arguments are checked when they are first used, as scikit-learn wants it, and what
    `set_params` changes counts.

    Args:
        J, shape, L, max_order, pre_pad, out_type: as for `ScatteringTorch2D`. The out_type 'list' is for `scattering`;
            `transform` gives arrays.
        backend: 'numpy', or kymatio's object of that name; computing is the same.
    """

    def __init__(self, J: int, shape: Tuple[int, int], L: int = 8, max_order: int = 2, pre_pad: bool = False,
                 backend: Any = 'numpy', out_type: str = 'array') -> None:
        self.J, self.shape, self.L, self.max_order = J, shape, L, max_order
        self.pre_pad, self.backend, self.out_type = pre_pad, backend, out_type

    def fit(self, X: Any = None, y: Any = None) -> 'Scattering2D':
        if X is not None:
            self._rows(X, reset=True)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Images as rows (n, C * H * W), or as (n, ..., H, W), to rows of coefficients (n, C * paths * h * w)."""
        rows = self._rows(X, reset=False)
        module = self._module(rows)
        height, width = _sides(module)
        if rows.shape[1] % (height * width):
            raise ValueError(f'expected rows of C * {height} * {width} values, by the shape (H, W) of the images, got '
                             f'rows of {rows.shape[1]}')
        return module.array(_tensor(rows.reshape(-1, height, width), module)).numpy().reshape(len(rows), -1)

    def predict(self, X: Any) -> np.ndarray:
        """The same as `transform`, as in kymatio."""
        return self.transform(X)

    def scattering(self, x: Any) -> Union[np.ndarray, List[Dict[str, Any]]]:
        """Images (..., H, W) to coefficients (..., paths, h, w), or with the out_type 'list' to kymatio's dicts."""
        x = np.asarray(x)
        module = self._module(x)
        s = module.scattering(_tensor(x, module))
        if isinstance(s, Tensor):
            return s.numpy()
        return [{**path, 'coef': path['coef'].numpy()} for path in s]

    __call__ = scattering

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """A name a column, as for `ScatteringFeatures`, but ordered by image channel (colour) first.

        Args:
            input_features: not read, as a coefficient is made of many values of an image.
        """
        module = self._module(np.empty(0, np.float32))
        count = math.prod(_sides(module))
        channels = [channel._replace(colour=colour) for colour in range(getattr(self, 'n_features_in_', count) // count)
                    for channel in module.channels]
        return _names(channels, geometry.output_size(*module.shape, module.J))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ['float64', 'float32']
        return tags

    def _module(self, images: np.ndarray) -> ScatteringTorch2D:
        """The transform that takes these."""
        name = self.backend if isinstance(self.backend, str) else getattr(self.backend, 'name', None)
        if name != 'numpy':
            raise ImportError(f'The backend {brief(name or repr(self.backend), 60)} can not be called from the '
                              "frontend sklearn. (Known: 'numpy'.)")
        dtype = torch.float32 if images.dtype == np.float32 else torch.float64
        return ScatteringTorch2D(self.J, self.shape, self.L, self.max_order, self.pre_pad, out_type=self.out_type,
                                 device=torch.device('cpu'), dtype=dtype)

    def _rows(self, X: Any, reset: bool) -> np.ndarray:
        X = _as_array(X)
        return validate_data(self, X if X.ndim <= 2 else X.reshape(len(X), -1), reset=reset,
                             dtype=[np.float64, np.float32])


class _Files:
    """Image files as an array of images (n, C, H, W), of which a slice is read when it is asked for.

    Args:
        shape: (C, H, W) that the images get.
        scaled: whether they are scaled and cropped to H and W, or refused if they have others.
        deep: whether they have more than 8 bits, which do not mix with others; None if both will do.
        converted: whether images in colour become grey if C is 1, or are refused.
    """

    def __init__(self, names: List[str], shape: Tuple[int, int, int], scaled: bool, deep: Optional[bool],
                 converted: bool) -> None:
        self.names, self.shape = names, (len(names), *shape)
        self.scaled, self.deep, self.converted = scaled, deep, converted
        # What `scat-zoo predict` does to a picture, but for the mean and deviation.
        self.to_size = create_transform(shape, interpolation='bicubic', crop_pct=1., mean=(0.,) * shape[0],
                                        std=(1.,) * shape[0])

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, batch: slice) -> np.ndarray:
        return np.stack([self._read(name) for name in self.names[batch]])

    def _read(self, name: str) -> np.ndarray:
        picture = open_image(name)
        self._check(name, picture)
        try:
            ready = prepare(picture, self.shape[1], (0., 1.))
        except ValueError as error:
            raise ValueError(f'{brief(name, 80)}: {error}') from error
        values = self.to_size(ready)                            # (C, H, W)
        return (values if _is_deep(picture) else (255 * values).round()).numpy()

    def _check(self, name: str, picture: Picture) -> None:
        channels, size = channels_of(picture), _height_and_width(picture)
        if not self.scaled and size != self.shape[2:]:
            raise ValueError(f'{brief(name, 80)} has {size[0]} x {size[1]} pixels, others have {self.shape[2]} x '
                             f'{self.shape[3]}: img_size scales files to one size')
        if not self.converted and channels > self.shape[1]:
            raise ValueError(f'{brief(name, 80)} has {channels} channels, the first file has {self.shape[1]}: tell how '
                             'many all get by in_chans')
        if self.deep is not None and self.deep != _is_deep(picture):
            has, others = ('8', 'more') if self.deep else ('more than 8', '8')
            raise ValueError(f'{brief(name, 80)} has {has} bits, others have {others}, so their values do not compare: '
                             'save all with as many')


def _file_names(X: Any) -> Optional[List[str]]:
    """The names, if X is a column of names of files, whatever holds it; None if not."""
    if isinstance(X, (str, os.PathLike)):
        raise ValueError(f'expected images or a list of files, got one name, {brief(X)}: put it into a list')
    if not isinstance(X, (list, tuple)):
        if isinstance(X, Tensor) or getattr(X, 'ndim', 0) not in (1, 2) or X.shape[1:] not in ((), (1,)):
            return None
        X = np.asarray(X, dtype=object).ravel()
    if len(X) == 0 or not isinstance(X[0], (str, os.PathLike)):
        return None
    for i, name in enumerate(X):
        if not isinstance(name, (str, os.PathLike)):
            raise ValueError(f'expected names of files, got {brief(repr(name), 60)} as number {i}')
    return [os.fspath(name) for name in X]


def _as_array(X: Any) -> Any:
    """An array that holds the same, of a tensor or a list; a table stays what it is, since its columns have names."""
    if isinstance(X, Tensor):
        X = X.detach().cpu()
        return (X.float() if X.dtype == torch.bfloat16 else X).numpy()
    if hasattr(X, 'ndim'):
        return X
    try:
        return np.asarray(X)
    except ValueError as error:
        shapes = list(dict.fromkeys(np.shape(image) for image in X))[:2]
        raise ValueError(f'expected images of one shape, got {" and ".join(map(str, shapes))}') from error


def _sides(module: ScatteringTorch2D) -> Tuple[int, int]:
    """(H, W) of the images that it takes."""
    return module.padded_size if module.pre_pad else module.shape


def _is_deep(picture: Picture) -> bool:
    """Whether it has other values than the 8 bits of Pillow's images."""
    return not isinstance(picture, Image.Image)


def _height_and_width(picture: Picture) -> Tuple[int, int]:
    if isinstance(picture, Image.Image):
        return picture.height, picture.width
    return picture.shape[0], picture.shape[1]


def _tensor(images: np.ndarray, module: nn.Module) -> Tensor:
    """A copy of the images, of the type of the module's filters and where these are."""
    filters = next(buffer for buffer in module.buffers() if buffer.is_floating_point())
    return torch.from_numpy(np.array(images, order='C')).to(filters)


def _names(channels: List[Channel], grid: Optional[Tuple[int, int]]) -> np.ndarray:
    """Names of the channels, or of their places on a grid (rows, columns)."""
    several = len({channel.scale for channel in channels}) > 1
    shown = [field for field in Channel._fields if several or field not in ('scale', 'dy', 'dx')]
    places = [''] if grid is None else [f'_row={row}_column={column}' for row in range(grid[0])
                                        for column in range(grid[1])]
    names = ['_'.join(f'{field}={getattr(channel, field)}' for field in shown if getattr(channel, field) is not None)
             for channel in channels]
    return np.array([name + place for name in names for place in places], dtype=object)
