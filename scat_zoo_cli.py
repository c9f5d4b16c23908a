"""The command `scat-zoo` as far as it goes without torch: the names of its commands, `--help` and `--version`.

Outside the package, since importing any part of that registers the zoo.
"""
import argparse
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Dict, List, Optional, Tuple

COMMANDS = {
    'train': 'train a model on images',
    'predict': 'classify images with a checkpoint, or shipped weights',
    'test': 'test a checkpoint, or weights that come with the package',
    'filters': "draw a model's filters, and tell what they guarantee",
    'list': 'list the models of the zoo',
    'run': 'run a script, or an installed module, that finds the zoo registered',
}


def parsers(number: str) -> Tuple[argparse.ArgumentParser, Dict[str, argparse.ArgumentParser]]:
    """The parser of the command line of this version, and those of its commands by name, which have no options yet."""
    parser = argparse.ArgumentParser(prog='scat-zoo', description='Learnable wavelet scattering models.')
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
    from scat_zoo import cli

    return cli.main(argv)
