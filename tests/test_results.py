"""The tables in docs/results.md are those of the runs recorded in docs/results, and the README repeats some rows."""
import json
import re
from pathlib import Path

import pytest

from scat_zoo.models import shipped
from scat_zoo.train.recipes import RECIPES
from scat_zoo.train.study import tabulate

DOCS = Path(__file__).parents[1] / 'docs'
PAGE = (DOCS / 'results.md').read_text()
README = (DOCS.parent / 'README.md').read_text()
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
    assert tabulate(results, arms, list(recipe.per_class)) in PAGE


@pytest.mark.parametrize('file', SINGLE, ids=lambda file: file.stem)
def test_a_row_is_what_two_runs_recorded(file):
    fixed, learned = json.loads(file.read_text())
    model = RECIPES[file.stem].arms['fixed'].model
    assert fixed['arm'] == 'fixed'
    assert {(r['per_class'], r['seed'], r['tested']) for r in (fixed, learned)} == {(None, 0, 10_000)}
    assert shipped.results(f'{model}.fashion_mnist').items() >= fixed.items()
    row = (f'{fixed["learned_numbers"]:,} | **{fixed["accuracy"]:.2f} %** '
           f'| {learned["accuracy"]:.2f} % ({learned["arm"]}, '
           f'{learned["learned_numbers"] - fixed["learned_numbers"]:,} numbers more) '
           f'| {learned["accuracy"] - fixed["accuracy"]:+.2f} |')
    assert re.search(rf'^\| `{model}`[^|]* \| {re.escape(row)}$', PAGE, re.MULTILINE)


@pytest.mark.parametrize(('files', 'first', 'arm', 'sizes'), [
    (['fashion-few', 'fashion-few-cnn'], 'resnet18', 'fixed', [10, 50, 100]),
    (['textures'], 'pixelwise', 'morlet', [20, 5]),
    (['textures'], 'morlet', 'equivariant', [20]),
    (['textures'], 'pixelwise', 'invariant', [20, 5]),
    (['textures'], 'resnet', 'invariant', [20, 5]),
    (['textures'], 'invariant', 'invariant-mlp', [20, 5]),
    (['textures'], 'resnet', 'invariant-mlp', [20, 5]),
])
def test_differences_between_other_arms(files, first, arm, sizes):
    results = [r for name in files for r in json.loads((DOCS / 'results' / f'{name}.json').read_text())]
    row = tabulate(results, [first, arm], sizes).splitlines()[-1]
    page = ' '.join(PAGE.split())
    differences = re.findall(r'[+-]\d+\.\d+ \([^)]*\)', row)
    assert len(differences) == len(sizes)
    for difference in differences:
        assert difference in page


def test_the_readme_repeats_these_tables():
    recorded = [means(row) for row in PAGE.splitlines() if means(row)]
    rows = [row for row in README.splitlines() if means(row)]
    assert rows
    for row in rows:
        assert recorded.count(means(row)) == 1, row
    text, page = ' '.join(README.split()), ' '.join(PAGE.split())
    intervals = re.findall(r'(-?\d+\.\d+)(?: points)? \((-?\d+\.\d+) to (-?\d+\.\d+)\)', text)
    assert intervals
    for mean, low, high in intervals:
        assert f'{float(mean):+.2f} ({float(low):+.2f} to {float(high):+.2f})' in page


def test_every_accuracy_in_the_readme_is_one_of_the_page():
    accuracies = re.findall(r'\d+\.\d\d', README[README.index('## Results'):README.index('## Speed')])
    assert len(accuracies) > 10
    assert [accuracy for accuracy in accuracies if not re.search(rf'\b{accuracy}\b', PAGE)] == []


def means(row):
    """What a row of a table says of each size."""
    return re.findall(r'\d+\.\d+ ± \d+\.\d+', row) if row.startswith('|') else []


@pytest.mark.parametrize('name', shipped.names())
def test_the_page_tells_the_accuracy_of_the_weights(name):
    recorded = shipped.results(name)
    model, accuracy = name.partition('.')[0], f'{recorded["accuracy"]:.2f} %'
    row = f'{recorded["learned_numbers"]:,} | **{accuracy}** |'
    assert re.search(rf'^\| `{model}`[^|]* \| {re.escape(row)}', PAGE, re.MULTILINE)


def test_the_readme_tells_the_best_accuracy_of_the_weights():
    best = max(shipped.names(), key=lambda name: shipped.results(name)['accuracy'])
    text = ' '.join(README.split())
    assert f'`{best.partition(".")[0]}` reaches {shipped.results(best)["accuracy"]:.2f} %' in text


def test_the_readme_repeats_the_speeds_of_their_page():
    on_cpu, on_gpu = (DOCS / 'speed.md').read_text().split('## On a GPU')
    rows = [cells(row) for row in README.splitlines() if 'one CPU thread |' in row]
    assert len(rows) == 2
    for images, J, forward, to_filters in rows:
        recorded = [row for row in map(cells, on_cpu.splitlines()) if row[:2] == [images.partition(',')[0], J]]
        assert [(row[2], row[4]) for row in recorded] == [(forward, to_filters)]
    told = re.search(r'(\d+x\d+x\d+x\d+) took ([\d.]+) ms forward and ([\d.]+) ms to the filters, kymatio (\d+) and '
                     r'(\d+) in another session', ' '.join(README.split()))
    row, = (row for row in map(cells, on_gpu.splitlines()) if row[:1] == [told[1]] and len(row) == 8)
    assert [row[2], row[4], *row[6:]] == list(told.groups()[1:])


def cells(row):
    """Of a table's row."""
    return [cell.strip() for cell in row.split('|')[1:-1]]
