"""The README does what it says, and is short: its Python runs, its commands are the ones that exist."""
import re
import shlex
from pathlib import Path

import pytest

from scat_zoo import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text()


def blocks(language):
    return re.findall(rf'^```{language}\n(.*?)^```$', README, re.MULTILINE | re.DOTALL)


def test_python_blocks_run_in_order(capsys):
    namespace = {}
    sources = blocks('python')
    assert len(sources) >= 3
    for source in sources:
        exec(compile(source, 'README.md', 'exec'), namespace)
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == ['torch.Size([8, 243])', '[3, 51, 243]']
    assert namespace['logits'].shape == (8, 10)
    assert namespace['coefficients'].shape == (8, 3, 81, 8, 8)
    assert not list(namespace['S'].parameters())


def test_the_first_two_bash_blocks_are_one_line_each():
    main, test = blocks('bash')[:2]
    assert main.count('\n') == test.count('\n') == 1
    assert 'scat-zoo train' in main
    assert 'pytest' in test


@pytest.mark.parametrize('line', [line for block in blocks('text') for line in block.splitlines()])
def test_command_lines_parse(line):
    if line.startswith('scat-zoo '):
        cli._parser().parse_args(shlex.split(line)[1:])
        return
    *others, install = line.split(' && ')
    assert others in ([], ['git clone URL scat_zoo', 'cd scat_zoo'])
    pip, command, requirement = shlex.split(install)
    name, extra, where = re.fullmatch(r'(\.|\w+)\[(\w+)\]( @ git\+URL)?', requirement).groups()
    assert (pip, command) == ('pip', 'install')
    project = (ROOT / 'pyproject.toml').read_text()
    assert re.search(rf'^name = "{name}"$', project, re.MULTILINE) if where else name == '.'
    assert re.search(rf'^{extra} = \[', project, re.MULTILINE)


def test_a_newcomer_gets_through_it():
    assert len(README.split()) < 1200
    first_screen = README[:README.index('## Your own pictures')]
    assert len(first_screen.splitlines()) < 50
    places = [first_screen.index(part) for part in ('# scat_zoo', '![', '## Install', 'pip install', 'scat-zoo train')]
    assert places == sorted(places)                     # what it is, what it looks like, how to install and to run it
    assert README.count('![') == 2
