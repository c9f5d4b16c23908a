"""Imports point one way, scattering -> models -> train -> extract -> cli -> tools; the mathematics knows no zoo.

Read off the syntax tree: importing any submodule registers the zoo, and so imports everything.
"""
import ast
import subprocess
import sys
from pathlib import Path

import pytest

import scat_zoo

ROOT = Path(scat_zoo.__file__).parent
COMMAND = {'scat_zoo.cli', 'scat_zoo.ending', 'scat_zoo_cli'}
ABOVE = {*COMMAND, 'scat_zoo.sklearn', 'scat_zoo.ray', 'scat_zoo.opacus'}      # what stands on all layers
FORBIDDEN = {
    'scattering': {'timm', 'torchvision', 'scat_zoo.models', 'scat_zoo.train', 'scat_zoo.extract', *ABOVE},
    'models': {'scat_zoo.train', 'scat_zoo.extract', *ABOVE},
    'train': {'scat_zoo.extract', *ABOVE},
    'extract': ABOVE,
}


def imports(source, package):
    """Full names of everything that a module in `package` imports, at any depth of its code."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split('.')[:len(package.split('.')) - node.level + 1] if node.level else []
            module = '.'.join(base + ([node.module] if node.module else []))
            yield from (f'{module}.{alias.name}' for alias in node.names)


def violations(source, package, forbidden):
    return [name for name in imports(source, package)
            if any(name == f or name.startswith(f + '.') for f in forbidden)]


@pytest.mark.parametrize('layer', FORBIDDEN)
def test_layers(layer):
    files = list((ROOT / layer).rglob('*.py'))
    assert files
    for file in files:
        assert not violations(file.read_text(), f'scat_zoo.{layer}', FORBIDDEN[layer]), file


def test_above_the_layers_none_knows_another():
    for name in ('sklearn', 'ray', 'opacus'):
        assert not violations((ROOT / f'{name}.py').read_text(), 'scat_zoo', ABOVE)
    assert not [name for name in ('cli.py', '__init__.py', '__main__.py')
                if violations((ROOT / name).read_text(), 'scat_zoo', ABOVE - COMMAND)]


def test_importing_the_package_does_not_import_extras():
    extras = {'sklearn', 'ray', 'webdataset', 'opacus'}
    code = f'import sys, scat_zoo.cli, scat_zoo.ray; sys.exit(bool({extras} & set(sys.modules)))'
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0


def test_without_scikit_learn_the_message_says_what_is_missing():
    code = 'import sys; sys.modules["sklearn"] = None; import scat_zoo.sklearn'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith('install it, or scat_zoo with the extra sklearn')


def test_the_package_knows_no_tools():
    assert not [file for file in ROOT.rglob('*.py') if violations(file.read_text(), 'scat_zoo', {'tools', 'tests'})]


@pytest.mark.parametrize('line', [
    'import timm', 'from timm.layers import x', 'def f():\n    from ..models import stem', 'from .. import cli',
    'from ..models.stem import ScatteringStem', 'import scat_zoo.train.loop'])
def test_the_test_sees_a_violation(line):
    assert violations(line, 'scat_zoo.scattering', FORBIDDEN['scattering'])


def test_private_names_of_timm_stand_in_one_file():
    files = [file for file in ROOT.rglob('*.py') for name in imports(file.read_text(), 'scat_zoo.models')
             if name.startswith(('timm.', 'torchvision.')) and any(part.startswith('_') for part in name.split('.'))]
    assert {file.name for file in files} == {'upstream.py'}
