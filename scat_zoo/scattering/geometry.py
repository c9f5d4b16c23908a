"""Padding, output size, the table of scattering paths, and which filter is read at which level. Plain integers."""
import numbers
from typing import List, NamedTuple, Optional, Sequence, Tuple


class Path(NamedTuple):
    """One scattering path: its order, and scale and orientation index of each wavelet on it (None past its order)."""
    order: int
    j1: Optional[int] = None
    theta1: Optional[int] = None
    j2: Optional[int] = None
    theta2: Optional[int] = None


def padded_size(height: int, width: int, J: int) -> Tuple[int, int]:
    """Size of the reflected image on which the transform works, multiples of 2^J (kymatio's compute_padding)."""
    scale = 1 << J
    return (height // scale + 2) * scale, (width // scale + 2) * scale


def output_size(height: int, width: int, J: int) -> Tuple[int, int]:
    """Spatial size of every scattering coefficient."""
    return height >> J, width >> J


def paths(J: int, L: int, max_order: int) -> List[Path]:
    """All paths up to max_order, in the order of the output's path axis: by order, j1, theta1, j2, theta2."""
    table = [Path(0)]
    if max_order >= 1:
        table += [Path(1, j1, t1) for j1 in range(J) for t1 in range(L)]
    if max_order >= 2:
        table += [Path(2, j1, t1, j2, t2)
                  for j1 in range(J) for t1 in range(L) for j2 in range(j1 + 1, J) for t2 in range(L)]
    return table


def order_counts(J: int, L: int, max_order: int) -> List[int]:
    """Number of paths of each order up to max_order."""
    return [1, J * L, J * (J - 1) // 2 * L * L][:max_order + 1]


def levels(scales: List[int], max_order: int) -> Tuple[List[int], List[int]]:
    """Number of levels at which the low-pass of each scale, and the wavelets of each scale j < J, are read.

    Level l works at resolution 2^-l. Wavelets are read by the image (level 0), then by each j1 < j.
    """
    phi = [scale if max_order >= 1 else 1 for scale in scales]
    return phi, [max(j, 1) if max_order >= 2 else max_order for j in range(scales[0])]


def check(J: int, L: int, max_order: int) -> None:
    """Refuse parameters for which there is no transform.

    Raises:
        TypeError: if one is not an integer.
        ValueError: if J or L is below 1 or max_order is neither 1 nor 2.
    """
    for name, value in (('J', J), ('L', L), ('max_order', max_order)):
        if not isinstance(value, numbers.Integral):
            raise TypeError(f'{name} must be an integer, got {value!r}')
    if J < 1 or L < 1:
        raise ValueError(f'J and L must be at least 1, got J={J}, L={L}')
    if max_order not in (1, 2):
        raise ValueError(f'max_order must be 1 or 2, got {max_order}')


def check_scales(scales: Optional[Sequence[int]], J: int) -> List[int]:
    """The scales of the low-passes in descending order, [J] for None.

    Raises:
        ValueError: if they are no distinct integers from 1 to J with J among them.
    """
    if scales is None:
        return [J]
    found = list(scales) if isinstance(scales, Sequence) and not isinstance(scales, str) else []
    integers = all(isinstance(s, numbers.Integral) and not isinstance(s, bool) for s in found)
    if not integers or J not in found or len(set(found)) < len(found) or min(found) < 1 or max(found) > J:
        raise ValueError(f'scales must be distinct integers from 1 to J={J}, J itself among them, got {scales!r}')
    return sorted((int(s) for s in found), reverse=True)
