"""How a command ends that cannot do its work: in one sentence, whatever went wrong; and as Ctrl-C does when told to."""
import contextlib
import os
import signal
import sys
import tempfile
import threading
import traceback
from typing import Any, Iterator

import timm
import torch

from . import __version__
from .wording import brief

LONGEST = 280                   # characters of a message, before which stands what it is


def sentence(error: BaseException) -> str:
    """What the error says, on one line; its kind if it says nothing."""
    if isinstance(error, OSError) and error.filename is not None:
        return f'{error.strerror}: {brief(error.filename, 200)}'
    return brief(' '.join(str(error).split()) or type(error).__name__, LONGEST)


def unforeseen(error: Exception) -> str:
    """What to say of an error that is a fault of this program; how it came about goes into a file."""
    what = f'a fault of scat_zoo, {type(error).__name__}: {brief(sentence(error), 80)}'
    try:
        with tempfile.NamedTemporaryFile('w', prefix='scat-zoo-fault-', suffix='.txt', delete=False,
                                         encoding='utf-8', errors='backslashreplace') as file:
            file.write(f'scat_zoo {__version__}, torch {torch.__version__}, timm {timm.__version__}\n{sys.argv}\n'
                       + ''.join(traceback.format_exception(error)))
    except OSError:
        return what
    return f'{what}; please open an issue with what is in {file.name}'


@contextlib.contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Within, SIGTERM, as a scheduler sends it before it takes the machine away, does what Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    process = os.getpid()

    def stop(number: int, frame: Any) -> None:
        if os.getpid() == process:
            signal.raise_signal(signal.SIGINT)
            return
        signal.signal(number, signal.SIG_DFL)           # whoever was forked off ends as ever
        signal.raise_signal(number)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
