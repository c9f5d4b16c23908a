"""The private names of timm and torchvision that we import still exist; scat_zoo itself is not imported here."""
import ast
import importlib
from importlib.metadata import version
from pathlib import Path

import pytest

UPSTREAM = Path(__file__).parents[1] / 'scat_zoo' / 'models' / 'upstream.py'
NAMES = [(node.module, alias.name) for node in ast.parse(UPSTREAM.read_text()).body if isinstance(node, ast.ImportFrom)
         for alias in node.names if '._' in node.module]


@pytest.mark.parametrize(('module', 'name'), NAMES)
def test_a_private_name_exists(module, name):
    package = module.split('.')[0]
    assert hasattr(importlib.import_module(module), name), f'{package} {version(package)} has no {module}.{name}'


def test_the_names_are_found():
    assert len(NAMES) >= 4
