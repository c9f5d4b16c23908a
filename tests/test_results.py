"""The tables of results in the docs are those of the runs that were recorded, in docs/results."""
import json
import re
from pathlib import Path

import pytest

from scat_zoo.train.recipes import RECIPES
from scat_zoo.train.study import tabulate

DOCS = Path(__file__).parents[1] / 'docs'
RECORDED = sorted((DOCS / 'results').glob('*.json'))


@pytest.mark.parametrize('file', RECORDED, ids=lambda file: file.stem)
def test_a_table_is_what_the_runs_recorded(file):
    recipe, results = RECIPES[file.stem], json.loads(file.read_text())
    arms = [arm for arm in recipe.arms if any(r['arm'] == arm for r in results)]
    expected = {(arm, size, seed) for arm in arms for size in recipe.per_class for seed in recipe.seeds}
    assert {(r['arm'], r['per_class'], r['seed']) for r in results} == expected     # no run left out
    assert len(results) == len(expected)
    assert tabulate(results, arms, list(recipe.per_class)) in (DOCS / 'when-to-learn.md').read_text()


def test_the_readme_repeats_these_tables():
    cells = re.findall(r'\d+\.\d+ ± \d+\.\d+', (DOCS.parent / 'README.md').read_text())
    recorded = (DOCS / 'when-to-learn.md').read_text()
    assert cells
    assert all(cell in recorded for cell in cells)
