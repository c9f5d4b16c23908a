"""The tables of results in the docs are those of the runs that were recorded, in docs/results."""
import json
import re
from pathlib import Path

import pytest

from scat_zoo.models import shipped
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
    readme, page = ((DOCS.parent / 'README.md').read_text(), (DOCS / 'when-to-learn.md').read_text())
    recorded = [(number, means(row)) for row in page.splitlines() for number in row.split('|')[2:3] if means(row)]
    rows = [row for row in readme.splitlines() if means(row)]
    assert rows
    for row in rows:
        matching = [number for number, values in recorded if values == means(row)]
        assert len(matching) == 1, row
        learned_numbers = re.findall(r'\d+(?:,\d+)+', row)
        assert learned_numbers in ([], [matching[0].strip()]), row
    intervals = re.findall(r'(-?\d+\.\d+)( points)? \((-?\d+\.\d+) to (-?\d+\.\d+)\)', ' '.join(readme.split()))
    assert intervals
    for mean, _, low, high in intervals:
        assert f'{float(mean):+.2f} ({float(low):+.2f} to {float(high):+.2f})' in page


def means(row):
    """What a row of a table says of each size."""
    return re.findall(r'\d+\.\d+ ± \d+\.\d+', row) if row.startswith('|') else []


@pytest.mark.parametrize('name', shipped.names())
def test_the_readme_and_the_page_tell_the_accuracy_of_the_weights(name):
    recorded = shipped.results(name)
    model, accuracy = name.partition('.')[0], f'{recorded["accuracy"]:.2f} %'
    row = f'| `{model}` | {recorded["learned_numbers"]:,} | **{accuracy}** |'
    assert row in (DOCS.parent / 'README.md').read_text()
    page = (DOCS / 'when-to-learn.md').read_text()
    assert re.search(rf'^\| `{model}`[^|]* \| {re.escape(accuracy)} \|', page, re.MULTILINE)
