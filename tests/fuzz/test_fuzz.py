"""A few hundred hostile inputs of each kind; `python -m tests.fuzz --count 10000` tries as many as it is told to."""
import collections

import pytest

from .__main__ import faults


@pytest.mark.parametrize(('kind', 'count'), [('checkpoints', 150), ('images', 120), ('states', 30),
                                              ('command_lines', 40)])
def test_hostile_inputs_are_taken_well(kind, count, tmp_path):
    codes = collections.Counter()
    assert list(faults(kind, count, 0, tmp_path, codes)) == []
    assert codes[0] > 0
    assert codes[2] > 0                                         # else nothing was tried
