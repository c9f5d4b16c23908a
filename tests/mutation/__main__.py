"""`python -m tests.mutation --count N`: change the source in so many places, one by one, and see if a test notices.

Mutants are cosmic-ray's (`pip install cosmic-ray`), drawn at random from the formulas and the models. Each is a copy of
the package in a process of its own, with torch loaded already. The test file that is named after the changed one runs
first, then those of its folder, the quick ones first, within --seconds.
"""
import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import tokenize
from io import StringIO
from pathlib import Path
from typing import Dict, Iterator, NamedTuple, Set, Tuple

import kymatio.scattering2d.frontend.torch_frontend  # noqa: F401  what all tests import, but for the package itself
import pytest
import timm  # noqa: F401
import torch
import torchvision  # noqa: F401
from cosmic_ray import plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from tqdm import tqdm

ROOT = Path(__file__).parents[2]
FOLDERS = 'scattering', 'models'
# One other operator for each: all of them would be ten mutants a place, nearly all noticed.
OPERATORS = [f'core/{name}' for name in (
    'ReplaceBinaryOperator_Add_Sub', 'ReplaceBinaryOperator_Sub_Add', 'ReplaceBinaryOperator_Mul_Div',
    'ReplaceBinaryOperator_Div_Mul', 'ReplaceBinaryOperator_FloorDiv_Mul', 'ReplaceBinaryOperator_Mod_Add',
    'ReplaceBinaryOperator_Pow_Mul', 'ReplaceBinaryOperator_RShift_LShift', 'ReplaceBinaryOperator_LShift_RShift',
    'ReplaceComparisonOperator_Eq_NotEq', 'ReplaceComparisonOperator_NotEq_Eq', 'ReplaceComparisonOperator_Lt_LtE',
    'ReplaceComparisonOperator_LtE_Lt', 'ReplaceComparisonOperator_Gt_GtE', 'ReplaceComparisonOperator_GtE_Gt',
    'ReplaceComparisonOperator_Is_IsNot', 'ReplaceComparisonOperator_IsNot_Is', 'AddNot',
    'ReplaceUnaryOperator_Delete_Not', 'ReplaceUnaryOperator_Delete_USub', 'ReplaceTrueWithFalse',
    'ReplaceFalseWithTrue', 'ReplaceAndWithOr', 'ReplaceOrWithAnd', 'ReplaceBreakWithContinue',
    'ReplaceContinueWithBreak', 'NumberReplacer', 'RemoveDecorator', 'ZeroIterationForLoop')]
# Lines that only choose words, or keep what can be made anew.
WORDS = 'brief(', 'some(', 'nearest(', '@functools.lru_cache', '@cached', '@matrices.cached', '@overload'
SLOW = 100          # seconds of processor time of a test file beyond which others have to notice
# Whose tests have another's name.
OWN = {**dict.fromkeys(('autograd', 'cascade', 'plan', 'program', 'steps'), 'engine'), 'kernels': 'gpu',
       **dict.fromkeys(('build', 'graft', 'scat_hybrid'), 'hybrid'), 'scat_mlp': 'zoo', 'scat_resnet': 'zoo'}


class Mutant(NamedTuple):
    file: str
    line: int
    operator: str
    occurrence: int

    def source(self) -> str:
        """The whole file, changed."""
        changed = mutate_code((ROOT / self.file).read_text(), plugins.get_operator(self.operator)(), self.occurrence)
        if changed is None:
            raise RuntimeError(f'{self} changes nothing')
        return changed

    def __str__(self) -> str:
        before, after = ((text.splitlines() + [''])[self.line - 1].strip()
                         for text in ((ROOT / self.file).read_text(), self.source()))
        return f'{self.file}:{self.line} {self.operator.split("/")[1]}\n  - {before}\n  + {after}'


def mutants(file: Path) -> Iterator[Mutant]:
    """All of one file, but for changes of words."""
    source = file.read_text()
    words, nodes = _lines_of_words(source), list(ast_nodes(get_ast(source)))
    for name in OPERATORS:
        operator = plugins.get_operator(name)()
        places = [start for node in nodes for start, _ in operator.mutation_positions(node)]
        for occurrence, (line, _) in enumerate(places):
            if line not in words:
                yield Mutant(str(file.relative_to(ROOT)), line, name, occurrence)


def _lines_of_words(source: str) -> Set[int]:
    """Numbers of the lines of imports, of what `raise` says, and of WORDS."""
    found, inside = set(), False
    for token in tokenize.generate_tokens(StringIO(source).readline):
        if token.type == tokenize.NAME and token.string in ('raise', 'import', 'from'):
            inside = True
        if inside or any(word in token.line for word in WORDS):
            found.update(range(token.start[0], token.end[0] + 1))
        inside = inside and token.type != tokenize.NEWLINE
    return found


class Runner:
    """Runs tests on a copy of the repository."""

    def __init__(self, copy: Path) -> None:
        self.copy = copy
        for name in ('scat_zoo', 'tests', 'tools', 'docs'):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns('__pycache__'))
        for name in ('scat_zoo_cli.py', 'pyproject.toml', 'hubconf.py', 'README.md'):
            shutil.copy(ROOT / name, copy / name)
        self.took: Dict[str, float] = {}

    def run(self, file: str, seconds: float) -> Tuple[bool, float]:
        """Whether the tests in this file pass within so many seconds of processor time; and the seconds."""
        child = os.fork()
        if child == 0:
            self._test(file, seconds)
        _, status, used = os.wait4(child, 0)
        return status == 0, used.ru_utime + used.ru_stime

    def _test(self, file: str, seconds: float) -> None:
        os.chdir(self.copy)
        sys.path.insert(0, str(self.copy))
        sys.dont_write_bytecode = True
        for name in [name for name in sys.modules if name.partition('.')[0] == 'tests']:
            del sys.modules[name]                               # this one, which is not of the copy
        with open(os.devnull, 'w') as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        signal.setitimer(signal.ITIMER_PROF, seconds)           # at its end the process dies
        code = pytest.main(['-x', '-q', '-p', 'no:cacheprovider', '-p', 'no:timeout', '-p', 'no:xdist', file])
        os._exit(int(code))

    def measure(self, folder: str) -> None:
        """How long each test file of the folder takes on the source as it is."""
        files = sorted(str(file.relative_to(ROOT)) for file in (ROOT / 'tests' / folder).rglob('test_*.py'))
        for file in tqdm(files, desc=f'{folder}, as it is', dynamic_ncols=True):
            passed, took = self.run(file, SLOW)
            if passed:
                self.took[file] = took
            else:
                print(f'{file} is left out: on a copy as it is, it fails or takes {SLOW} s', flush=True)
        if not self.took:
            raise RuntimeError(f'no test of {folder} passes on a copy as it is')

    def notices(self, mutant: Mutant, seconds: float) -> bool:
        folder, stem = Path(mutant.file).parts[1], Path(mutant.file).stem
        files = sorted((file for file in self.took if f'/{folder}/' in file), key=lambda file: self.took[file])
        own = [file for file in files if Path(file).stem == f'test_{OWN.get(stem, stem)}']
        with self._changed(mutant):
            for file in [*own, *(file for file in files if file not in own)]:
                if seconds <= 0:
                    break
                # A mutant that never ends is one that is noticed.
                passed, took = self.run(file, 20 + 4 * self.took[file])
                if not passed:
                    return True
                seconds -= took
        return False

    @contextlib.contextmanager
    def _changed(self, mutant: Mutant) -> Iterator[None]:
        file = self.copy / mutant.file
        before = file.read_text()
        file.write_text(mutant.source())
        try:
            yield
        finally:
            file.write_text(before)


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m tests.mutation', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--count', type=int, default=100)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--seconds', type=float, default=600, help='of tests for each mutant (default: 600)')
    parser.add_argument('--only', default='', help='a part of the names of the files to change')
    args = parser.parse_args()
    torch.set_num_threads(1)
    files = [file for folder in FOLDERS for file in sorted((ROOT / 'scat_zoo' / folder).rglob('*.py'))
             if args.only in str(file) and file.name != 'plot.py']         # of which people judge the pictures
    everything = [mutant for file in tqdm(files, desc='mutants', dynamic_ncols=True) for mutant in mutants(file)]
    drawn = random.Random(args.seed).sample(everything, min(args.count, len(everything)))
    survivors = 0
    with tempfile.TemporaryDirectory() as copy:
        runner = Runner(Path(copy))
        for folder in sorted({Path(mutant.file).parts[1] for mutant in drawn}):
            runner.measure(folder)
        for mutant in tqdm(drawn, dynamic_ncols=True):
            if not runner.notices(mutant, args.seconds):
                survivors += 1
                print(mutant, flush=True)
    print(f'{len(drawn):,} of {len(everything):,} mutants, seed {args.seed}: {len(drawn) - survivors:,} noticed '
          f'({1 - survivors / len(drawn):.1%})')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
