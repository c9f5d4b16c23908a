"""What a command may do with an input of any kind: its work, or one sentence and exit code 2, soon."""
import contextlib
import io
import re
import resource
import signal
import time
import traceback
from typing import Any, Callable, Iterator, List, NamedTuple, Optional, Tuple

from scat_zoo import cli

SECONDS, LONGEST = 2., 300
FOR_PROGRAMMERS = re.compile(r'Traceback|a fault of scat_zoo|weights_only|object has no attribute|object is not|'
                             r'unhashable|NoneType|unexpected keyword argument|unsupported operand')
MEGABYTES = 400                 # that an input of some kilobytes may add to the process' largest size


class Trial(NamedTuple):
    """A command to try: its arguments, what is hostile in its input, whether it must be refused, within what time it
    must end, and what takes the arguments and gives the exit code, in place of the command line."""
    arguments: List[str]
    what: str
    refused: bool
    seconds: float = SECONDS
    main: Callable[[List[str]], int] = cli.main


class Ended(NamedTuple):
    """How a command ended: its exit code, what it printed, and what is wrong with that, if anything."""
    code: int
    out: str
    fault: Optional[str]


class _TooLong(BaseException):
    pass


def fault_of(trial: Trial) -> Tuple[int, Optional[str]]:
    """The exit code of the command, and what is wrong with how it ended."""
    ended = run(trial.arguments, trial.seconds, trial.main)
    if ended.fault is None and ended.code == 0 and trial.refused:
        return 0, 'it was accepted'
    if ended.fault is None and ended.code == 0 and 'nan %' in ended.out:
        return 0, f'it answered {ended.out!r}'
    return ended.code, ended.fault


def run(arguments: List[str], seconds: float = SECONDS, main: Callable[[List[str]], int] = cli.main) -> Ended:
    """Run `scat-zoo ARGUMENTS`, or whatever else takes them, in this process."""
    out, err = io.StringIO(), io.StringIO()
    began, size = time.process_time(), _megabytes()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _at_most(10 * seconds):
            code = main(arguments)
    except SystemExit as end:                           # argparse's
        code = end.code if isinstance(end.code, int) else 1
    except _TooLong:
        return Ended(1, '', f'it took more than {10 * seconds:g} s')
    except BaseException:
        return Ended(1, '', traceback.format_exc())
    took, grown = time.process_time() - began, _megabytes() - size
    fault = _fault(code, err.getvalue())
    if fault is None and took > seconds:
        fault = f'it took {took:.1f} s'
    if fault is None and grown > MEGABYTES:
        fault = f'it took {grown:.0f} MB more than any before'
    return Ended(code, out.getvalue(), fault)


def _fault(code: int, err: str) -> Optional[str]:
    if code not in (0, 2):
        return f'exit code {code}: {err}'
    if code == 0:
        return None
    errors = [line for line in err.splitlines() if 'error: ' in line]
    if len(errors) != 1:
        return f'expected one error, got {err!r}'
    if len(errors[0]) > LONGEST:
        return f'an error of {len(errors[0])} characters: {errors[0]}'
    if FOR_PROGRAMMERS.search(errors[0]):
        return f'an error for programmers: {errors[0]}'
    return None


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
