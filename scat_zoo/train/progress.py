"""Progress bars, for a terminal and for a log file."""
import sys
from typing import Any

from tqdm import tqdm

SECONDS = 60                    # between two lines of a bar in a log file


def bar(*args: Any, **kwargs: Any) -> tqdm:
    """tqdm's, of the same arguments; where there is no terminal it is silent for a minute, and then tells of itself
    once in each.
    """
    if not sys.stderr.isatty():
        kwargs.update(delay=SECONDS, mininterval=SECONDS, maxinterval=SECONDS)
    return tqdm(*args, dynamic_ncols=True, **kwargs)
