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
# Of one seed on all images, these share a table, a row each.
SINGLE = [file for file in RECORDED if (RECIPES[file.stem].seeds, RECIPES[file.stem].per_class) == ((0,), (None,))]


@pytest.mark.parametrize('file', [file for file in RECORDED if file not in SINGLE], ids=lambda file: file.stem)
def test_a_table_is_what_the_runs_recorded(file):
    recipe, results = RECIPES[file.stem], json.loads(file.read_text())
    arms = [arm for arm in recipe.arms if any(r['arm'] == arm for r in results)]
    expected = {(arm, size, seed) for arm in arms for size in recipe.per_class for seed in recipe.seeds}
    assert {(r['arm'], r['per_class'], r['seed']) for r in results} == expected     # no run left out
    assert len(results) == len(expected)
    assert tabulate(results, arms, list(recipe.per_class)) in (DOCS / 'when-to-learn.md').read_text()


@pytest.mark.parametrize('file', SINGLE, ids=lambda file: file.stem)
def test_a_row_is_what_two_runs_recorded(file):
    fixed, learned = json.loads(file.read_text())
    model = RECIPES[file.stem].arms['fixed'].model
    assert fixed['arm'] == 'fixed'
    assert {(r['per_class'], r['seed'], r['tested']) for r in (fixed, learned)} == {(None, 0, 10_000)}
    assert shipped.results(f'{model}.fashion_mnist').items() >= fixed.items()
    row = (f'{fixed["accuracy"]:.2f} % | {learned["arm"]} {learned["accuracy"]:.2f} % '
           f'| {learned["accuracy"] - fixed["accuracy"]:+.2f} |')
    page = (DOCS / 'when-to-learn.md').read_text()
    assert re.search(rf'^\| `{model}`[^|]* \| {re.escape(row)}$', page, re.MULTILINE)
    row = (f'| `{model}` | {fixed["learned_numbers"]:,} | **{fixed["accuracy"]:.2f} %** '
           f'| {learned["accuracy"]:.2f} % ({learned["arm"]}, '
           f'{learned["learned_numbers"] - fixed["learned_numbers"]:,} numbers more) |')
    assert row in (DOCS.parent / 'README.md').read_text()


@pytest.mark.parametrize(('files', 'first', 'arm', 'sizes'), [
    (['fashion-few', 'fashion-few-cnn'], 'resnet18', 'fixed', [10, 50, 100]),
    (['textures'], 'pixelwise', 'morlet', [20, 5]),
    (['textures'], 'morlet', 'equivariant', [20]),
])
def test_differences_between_other_arms(files, first, arm, sizes):
    results = [r for name in files for r in json.loads((DOCS / 'results' / f'{name}.json').read_text())]
    row = tabulate(results, [first, arm], sizes).splitlines()[-1]
    page = ' '.join((DOCS / 'when-to-learn.md').read_text().split())
    differences = re.findall(r'[+-]\d+\.\d+ \([^)]*\)', row)
    assert len(differences) == len(sizes)
    for difference in differences:
        assert difference in page


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
