"""The README does what it says: its Python runs, its commands are the ones that exist."""
import re
from pathlib import Path

import pytest

from scat_zoo import cli

README = (Path(__file__).parents[1] / 'README.md').read_text()


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
    assert namespace['coefficients'].shape == (8, 3, 81, 8, 8)
    assert not list(namespace['S'].parameters())


def test_the_first_two_bash_blocks_are_one_line_each():
    main, test = blocks('bash')[:2]
    assert main.count('\n') == test.count('\n') == 1
    assert 'scat-zoo train' in main
    assert 'pytest' in test


@pytest.mark.parametrize('line', [line for block in blocks('text') for line in block.splitlines()])
def test_command_lines_parse(line):
    line = re.sub(r'^(scat-zoo|torchrun .* -m scat_zoo) ', '', line)
    cli._parser().parse_args(line.split())


def test_links_inside_the_repository_exist():
    for target in re.findall(r'\]\((?!http)([^)]+)\)', README):
        assert (Path(__file__).parents[1] / target).exists(), target
