"""The workflows run what they name, and nothing that others can change afterwards."""
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize('workflow', sorted((ROOT / '.github' / 'workflows').glob('*.yml')), ids=lambda path: path.stem)
def test_actions_are_pinned_to_commits(workflow):
    used = re.findall(r'uses: (\S+)', workflow.read_text())
    assert used
    assert [name for name in used if not re.fullmatch(r'[\w.-]+/[\w.-]+@[0-9a-f]{40}', name)] == []
