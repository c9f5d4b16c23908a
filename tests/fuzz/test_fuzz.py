"""A few hundred hostile inputs of each kind; `python -m tests.fuzz --count 10000` tries as many as it is told to."""
import collections
import subprocess
import sys
from pathlib import Path

import pytest

from .__main__ import faults


@pytest.mark.parametrize(('kind', 'count'), [('checkpoints', 150), ('images', 120), ('states', 30),
                                              ('command_lines', 40), ('features', 40)])
def test_hostile_inputs_are_taken_well(kind, count, tmp_path):
    codes = collections.Counter()
    assert list(faults(kind, count, 0, tmp_path, codes)) == []
    assert codes[0] > 0
    assert codes[2] > 0                                         # else nothing was tried


def test_what_is_killed_goes_on():
    """In a process of its own, since one that has computed may not be copied."""
    done = subprocess.run([sys.executable, '-m', 'tests.fuzz', 'kills', '--count', '4'], capture_output=True, text=True,
                          cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert '4 accepted, 0 refused, 0 not taken well' in done.stdout
