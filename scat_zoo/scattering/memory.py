"""What is kept between calls, to give it back."""
from . import banks, rotation
from .engine import run


def empty_cache() -> None:
    """Give back the memory that the package keeps between calls; the next ones make anew what they need.

    Kept are, for the whole process: analytic filters of the 4 latest image sizes; on the CPU, matrices for the latest
    filters (up to 512 MB) and for the latest image sizes; and for each thread that lives, the memory that its last
    transform worked in (up to 128 MB). What models hold, their filters among it, is theirs and stays.
    """
    run.empty_cache()
    banks.cached_filter_bank.cache_clear()
    rotation.kept.cache_clear()
