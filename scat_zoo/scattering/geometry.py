"""Padding, output size, the table of scattering paths, and which filter is read at which level. Plain integers."""
import math
import numbers
import operator
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

from ..wording import brief

LARGEST = 1 << 31           # of any size: beyond what there is memory for
MOST_PATHS = 1 << 17        # of which a table takes a tenth of a second
BOUNDARIES = ('reflect', 'periodic')
ROTATIONS = (None, 'average')


class Path(NamedTuple):
    """One scattering path: its order, and scale and orientation index of each wavelet on it (None past its order).

    Of an average over rotations theta1 is None, and theta2 counts from it: theta2 - theta1 modulo L.
    """
    order: int
    j1: Optional[int] = None
    theta1: Optional[int] = None
    j2: Optional[int] = None
    theta2: Optional[int] = None


class Channel(NamedTuple):
    """An output channel: its scattering path, as in `Path`, the image channel that it comes from, and where.

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


def padded_size(height: int, width: int, J: int, border: int = 1) -> Tuple[int, int]:
    """Size of the image on which the transform works, multiples of 2^J.

    Args:
        border: cells of 2^J pixels that are padding, on each side: 1 as kymatio's compute_padding has it, 0 for none.
    """
    scale = 1 << J
    return (height // scale + 2 * border) * scale, (width // scale + 2 * border) * scale


def output_size(height: int, width: int, J: int) -> Tuple[int, int]:
    """Spatial size of every scattering coefficient."""
    return height >> J, width >> J


def paths(J: int, L: int, max_order: int, rotation: Optional[str] = None) -> List[Path]:
    """All paths up to max_order, in the order of the output's path axis: by order, j1, theta1, j2, theta2.

    Args:
        rotation: 'average' for those that are left of an average over rotations.
    """
    table = [Path(0)]
    if rotation is not None:
        table += [Path(1, j1) for j1 in range(J if max_order >= 1 else 0)]
        return table + [Path(2, j1, None, j2, turn) for j1 in range(J if max_order >= 2 else 0)
                        for j2 in range(j1 + 1, J) for turn in range(L)]
    if max_order >= 1:
        table += [Path(1, j1, t1) for j1 in range(J) for t1 in range(L)]
    if max_order >= 2:
        table += [Path(2, j1, t1, j2, t2)
                  for j1 in range(J) for t1 in range(L) for j2 in range(j1 + 1, J) for t2 in range(L)]
    return table


def order_counts(J: int, L: int, max_order: int, rotation: Optional[str] = None) -> List[int]:
    """Number of paths of each order up to max_order."""
    turns = 1 if rotation is None else L                # paths that become one
    return [1, J * L // turns, J * (J - 1) // 2 * L * L // turns][:max_order + 1]


def levels(scales: List[int], max_order: int) -> Tuple[List[int], List[int]]:
    """Number of levels at which the low-pass of each scale, and the wavelets of each scale j < J, are read.

    Level l works at resolution 2^-l. Wavelets are read by the image (level 0), then by each j1 < j.
    """
    phi = [scale if max_order >= 1 else 1 for scale in scales]
    return phi, [max(j, 1) if max_order >= 2 else max_order for j in range(scales[0])]


def check(J: Any, L: Any, max_order: Any) -> Tuple[int, int, int]:
    """These three as plain integers, from whatever stands for one: NumPy's, arrays and tensors without dimensions.

    Raises:
        TypeError: if one is not an integer.
        ValueError: if J or L is below 1, max_order is neither 1 nor 2, 2^J is beyond LARGEST, or they make more than
            MOST_PATHS paths.
    """
    J, L, max_order = integer('J', J), integer('L', L), integer('max_order', max_order)
    if J < 1 or L < 1:
        raise ValueError(f'J and L must be at least 1, got J={brief(J, 40)}, L={brief(L, 40)}')
    if max_order not in (1, 2):
        raise ValueError(f'max_order must be 1 or 2, got {brief(max_order, 40)}')
    if 1 << min(J, 40) > LARGEST:
        raise ValueError(f'J={brief(J, 40)} needs images of at least 2^J pixels a side, which are too large')
    count = sum(order_counts(J, L, max_order))
    if count > MOST_PATHS:
        raise ValueError(f'J={brief(J, 40)} and L={brief(L, 40)} make {brief(f"{count:,}", 40)} scattering paths, more '
                         f'than {MOST_PATHS:,}')
    return J, L, max_order


def integer(name: str, value: Any, least: Optional[int] = None) -> int:
    """The plain integer that a value stands for.

    Raises:
        TypeError: if it is none.
        ValueError: if it is below `least`, or beyond what a size can be.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or _is_switch(value):
        raise TypeError(f'{name} must be an integer, got {brief(repr(value), 60)}')
    if least is not None and number < least:
        raise ValueError(f'{name} must be at least {least}, got {brief(number, 40)}')
    if abs(number) > LARGEST:
        raise ValueError(f'{name} must be at most {LARGEST:,}, got {brief(number, 40)}')
    return number


def image_size(name: str, value: Any, least: Optional[int] = None) -> Tuple[int, int]:
    """(H, W) as plain integers.

    Raises:
        ValueError: if there are not two integers, or one is below `least`.
    """
    try:
        sides = [] if isinstance(value, (str, bytes, dict)) else [operator.index(side) for side in value]
    except TypeError:
        sides = []
    if len(sides) != 2:
        hint = ''
        if isinstance(value, numbers.Integral):
            hint = f': a square image is {brief((value, value), 60)}'
        elif len(sides) == 3:
            hint = ': without the channels'
        raise ValueError(f'{name} must be (H, W) in pixels, got {brief(repr(value), 60)}{hint}')
    if max(sides) >= LARGEST:
        raise ValueError(f'{name} must be below {LARGEST:,} pixels a side, got {brief(tuple(sides), 60)}')
    return integer(name, sides[0], least), integer(name, sides[1], least)


def sides(name: str, value: Any, least: Optional[int] = None) -> Tuple[int, int]:
    """As `image_size`, or of one integer, a square's."""
    try:
        value = (operator.index(value),) * 2
    except TypeError:
        pass
    return image_size(name, value, least)


def switch(name: str, value: Any) -> bool:
    """The plain boolean that a value stands for.

    Raises:
        ValueError: if it is none.
    """
    if not _is_switch(value):
        raise ValueError(f'{name} must be True or False, got {brief(repr(value), 60)}')
    return bool(value)


def number(name: str, value: Any, least: float, most: float, what: str) -> float:
    """The plain number that a value stands for.

    Raises:
        ValueError: if it is none, or not from `least` to `most`; `what` tells what was expected.
    """
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if isinstance(value, str) or not least <= found <= most:
        raise ValueError(f'{name} must be {what}, got {brief(repr(value), 60)}')
    return found


def _is_switch(value: Any) -> bool:
    # NumPy's, and arrays and tensors without dimensions.
    return isinstance(value, bool) or (
        str(getattr(value, 'dtype', '')).endswith('bool') and getattr(value, 'ndim', 1) == 0)


def check_boundary(boundary: str, height: int, width: int, J: int) -> int:
    """The border for `padded_size`.

    Raises:
        ValueError: for an unknown boundary, or sides of a periodic image that are no multiples of 2^J.
    """
    if boundary not in BOUNDARIES:
        raise ValueError(f'boundary must be one of {", ".join(BOUNDARIES)}, got {brief(repr(boundary), 60)}')
    if boundary == 'reflect':
        return 1
    if height % (1 << J) or width % (1 << J):
        raise ValueError(f"boundary='periodic' needs sides that are multiples of 2^J = {1 << J}, "
                         f'got {height} x {width}')
    return 0


def check_rotation(rotation: Any) -> Optional[str]:
    """None or 'average'.

    Raises:
        ValueError: for anything else.
    """
    if not (rotation is None or (isinstance(rotation, str) and rotation in ROTATIONS)):
        raise ValueError(f"rotation must be 'average' or None, got {brief(repr(rotation), 60)}")
    return rotation


def check_scales(scales: Optional[Sequence[int]], J: int) -> List[int]:
    """The scales of the low-passes in descending order, [J] for None.

    Raises:
        ValueError: if they are no distinct integers from 1 to J with J among them.
    """
    if scales is None:
        return [J]
    found = [] if isinstance(scales, (str, bytes, dict)) or not hasattr(scales, '__iter__') else list(scales)
    integers = all(isinstance(s, numbers.Integral) and not isinstance(s, bool) for s in found)
    if not integers or J not in found or len(set(found)) < len(found) or min(found) < 1 or max(found) > J:
        raise ValueError(f'scales must be distinct integers from 1 to J={J}, J itself among them, got '
                         f'{brief(repr(scales), 60)}')
    return sorted((int(s) for s in found), reverse=True)
