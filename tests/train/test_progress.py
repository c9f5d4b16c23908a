"""Progress bars: drawn as they move in a terminal, and hardly ever in a log file."""
import re
import sys
import time
from pathlib import Path

import scat_zoo
from scat_zoo.train import progress

from .terminal import Terminal


def draw(seconds=0.01):
    for _ in progress.bar(range(40), 'bar'):
        time.sleep(seconds)


def test_all_bars_are_such():
    package = Path(scat_zoo.__file__).parent
    assert [file.name for file in package.rglob('*.py') if re.search(r'\btqdm\(', file.read_text())] == ['progress.py']


def test_in_a_log_file_short_work_says_nothing(capsys):
    draw()
    assert not capsys.readouterr().err


def test_in_a_log_file_long_work_says_now_and_then_how_far_it_is(capsys, monkeypatch):
    monkeypatch.setattr(progress, 'SECONDS', 0.2)
    draw(0.02)
    lines = capsys.readouterr().err.strip().split('\r')
    assert 2 <= len(lines) <= 5                                 # of 0.8 s, and the last
    assert lines[-1].startswith('bar: 100%')


def test_in_a_terminal_it_is_there_at_once(monkeypatch):
    monkeypatch.setattr('sys.stderr', Terminal())
    draw()
    lines = sys.stderr.getvalue().strip().split('\r')
    assert lines[0].startswith('bar:   0%')
    assert len(lines) > 2
