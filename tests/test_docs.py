"""The pages in docs/ and the scripts in examples/ run, and print what they say they print; links lead somewhere.

The Python blocks of a page are one program, run in order. A text block right after a Python block is its output.
"""
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scat_zoo import cli

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / 'docs').glob('*.md'))
LINKED = [*ROOT.glob('*.md'), *PAGES, *(ROOT / 'docs' / 'api').glob('*.md')]
COMMAND = re.compile(r'^(?:scat-zoo|torchrun .* -m scat_zoo) (.*)$', re.MULTILINE)
EXAMPLES = sorted((ROOT / 'examples').glob('*.py'))
BLOCK = re.compile(r'^```python\n(.*?)^```$(?:\n\n?```text\n(.*?)^```$)?', re.MULTILINE | re.DOTALL)
MARK = '---- end of a block ----'


def run(script, folder):
    """What the script prints, run with one thread in this folder."""
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    done = subprocess.run([sys.executable, '-W', 'ignore', str(script)], cwd=folder, env=env, timeout=300,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def program(page):
    """The page with everything but Python turned into blank lines, so that tracebacks give its line numbers."""
    lines, inside = [], False
    for line in page.splitlines():
        if line == '```python':
            lines.append('')
            inside = True
        elif inside and line == '```':
            lines.append(f'print({MARK!r})')
            inside = False
        else:
            lines.append(line if inside else '')
    lines[0] = 'import torch; torch.manual_seed(0)'
    return '\n'.join(lines)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_blocks_run_and_print_what_the_page_says(page, tmp_path):
    text = page.read_text()
    assert text.startswith('# ')
    script = tmp_path / f'{page.stem}.py'
    script.write_text(program(text))
    *outputs, rest = run(script, tmp_path).split(MARK + '\n')
    blocks = BLOCK.findall(text)
    assert len(outputs) == len(blocks) >= 1
    assert not rest
    assert any(outputs)
    for output, (code, expected) in zip(outputs, blocks):
        assert not expected or output == expected, code


# That one takes a minute or more, and scikit-image: test_synthesis.py.
@pytest.mark.parametrize('example', [e for e in EXAMPLES if e.stem != 'synthesis'], ids=lambda example: example.stem)
def test_examples_run(example, tmp_path):
    source = example.read_text()
    assert f'python examples/{example.name}' in source              # the docstring says how
    assert len(source.splitlines()) < 60
    assert run(example, ROOT).strip()


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_command_lines_parse(page):
    blocks = re.findall(r'^```text\n(.*?)^```$', page.read_text(), re.MULTILINE | re.DOTALL)
    for line in (line for block in blocks for line in COMMAND.findall(block)):
        cli._parser().parse_args(line.split())


@pytest.mark.parametrize('page', LINKED, ids=lambda page: page.stem)
def test_links_inside_the_repository_lead_somewhere(page):
    for link in re.findall(r'\]\((?!http)([^)]+)\)', page.read_text()):
        assert leads_somewhere(page, link), link


def leads_somewhere(page, link):
    """Whether there is such a file, and in it, if it is a page, such a heading."""
    target, _, anchor = link.partition('#')
    there = page.parent / target if target else page
    return there.exists() and (not anchor or anchor in anchors(there.read_text()))


def anchors(text):
    """Those of a page's headings, as GitHub makes them."""
    without_code = re.sub(r'^```.*?^```$', '', text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r'^#+ (.+)$', without_code, re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


def test_every_example_is_linked_from_a_page():
    prose = ''.join(page.read_text() for page in PAGES)
    assert [e.name for e in EXAMPLES if f'(../examples/{e.name})' not in prose] == []


def test_an_architecture_is_under_fifty_lines():
    blocks = [code for code, _ in BLOCK.findall((ROOT / 'docs' / 'new-architecture.md').read_text())]
    assert len(next(code for code in blocks if 'register_model' in code).splitlines()) < 50


def test_the_tests_see_a_link_to_nowhere(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('# A page\n\n## What it is, in `code`\n\n```bash\n# no heading\n```\n')
    assert all(leads_somewhere(page, link) for link in ('page.md', '#a-page', 'page.md#what-it-is-in-code'))
    assert not any(leads_somewhere(page, link) for link in ('other.md', '#another', 'page.md#no-heading'))


def test_the_tests_see_a_wrong_output():
    page = '# A page\n\n```python\nprint(1)\n```\n\n```text\n2\n```\n\n```python\nx = 3\n```\n'
    assert BLOCK.findall(page) == [('print(1)\n', '2\n'), ('x = 3\n', '')]
    assert program(page).splitlines()[3] == 'print(1)'
