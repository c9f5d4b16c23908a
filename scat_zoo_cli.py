"""The command `scat-zoo` as far as it goes without torch: the names of its commands, `--help` and `--version`.

Outside the package, since importing any part of that registers the zoo.
"""
import argparse
import contextlib
import difflib
import os
import re
import signal
import sys
import threading
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Dict, Iterator, List, NoReturn, Optional, Tuple

COMMANDS = {
    'train': 'train a model on images',
    'predict': 'classify images with a checkpoint, or shipped weights',
    'explain': 'show what speaks for a class in an image',
    'test': 'test a checkpoint, or weights that come with the package',
    'extract': 'write features of any number of images',
    'export': 'write a model as a file that runs without this package',
    'filters': "draw a model's filters, and tell what they guarantee",
    'list': 'list the models of the zoo',
    'run': 'run a script, or an installed module, that finds the zoo registered',
}
LONGEST = 200                   # characters of an error that come from argparse and from the user


class _Parser(argparse.ArgumentParser):
    """Tells a mistake on one line, which points to the help; the usage alone takes a screen.

    Half an option is a mistake: it would mean another one as soon as there are more options.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        message = ' '.join(message.split())
        wrong = re.match(r"argument COMMAND: invalid choice: '(.*?)'", message)
        alike = difflib.get_close_matches(wrong[1], COMMANDS, n=1) if wrong else []
        message += ''.join(f'; did you mean {name}?' for name in alike)
        if len(message) > LONGEST:
            message = f'{message[:LONGEST // 2]}...{message[-LONGEST // 2:]}'
        self.exit(2, f'{self.prog}: error: {message} (see {self.prog} --help)\n')

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse here what a command does not know: the whole command line would point to its own help."""
        found, others = super().parse_known_args(args, namespace)
        if others:
            name, options = others[0].partition('=')[0], self._option_string_actions
            alike = [option for option in options if option.startswith(name)]
            if len(alike) != 1:
                alike = difflib.get_close_matches(name, options, n=1, cutoff=0.75)
            self.error(f'unknown arguments: {" ".join(others)}' + ''.join(f'; did you mean {name}?' for name in alike))
        return found, others


def parsers(number: str) -> Tuple[argparse.ArgumentParser, Dict[str, argparse.ArgumentParser]]:
    """The parser of the command line of this version, and those of its commands by name, which have no options yet."""
    parser = _Parser(prog='scat-zoo', description='Learnable wavelet scattering models.')
    parser.add_argument('--version', action='version', version=number)
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    return parser, {name: commands.add_parser(name, help=text) for name, text in COMMANDS.items()}


def main(argv: Optional[List[str]] = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if not COMMANDS.keys() & set(argv):                 # help, the version or a mistake: it ends here
        try:
            number = version('scat_zoo')
        except PackageNotFoundError:
            number = 'not installed'
        parsers(number)[0].parse_args(argv)
    with _ended_by_ctrl_c():                            # importing takes seconds
        from scat_zoo import cli
    return cli.main(argv)


@contextlib.contextmanager
def _ended_by_ctrl_c() -> Iterator[None]:
    """Within, Ctrl-C ends the process: as an exception, what is being imported may make another one of it."""
    if (threading.current_thread() is not threading.main_thread()
            or signal.getsignal(signal.SIGINT) is not signal.default_int_handler):
        yield
        return
    signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: Any) -> None:
    os.write(2, b'stopped\n')
    os._exit(130)
