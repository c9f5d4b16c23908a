"""The figures of a test, against their definitions, and their print."""
import importlib.util
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torch import nn
from torch.utils.data import TensorDataset

from scat_zoo.train import metrics

ROOT = Path(__file__).parents[2]


def one_hot(answers, classes):
    """Probabilities of a model that is rather sure."""
    return (0.1 + 0.9 * classes * np.eye(classes)[answers]) / classes


def random_answers(n=500, classes=5, seed=0):
    rng = np.random.RandomState(seed)
    logits = rng.randn(n, classes)
    targets = np.concatenate([np.arange(classes), rng.randint(0, classes, n - classes)])
    logits[np.arange(n), targets] += 1
    return targets, np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def names(count):
    return [f'class {i}' for i in range(count)]


def test_190_against_10():
    """A model that always answers the common class is right in 95 per cent, and of no use."""
    targets = np.repeat([0, 1], [190, 10])
    found = metrics.summary(targets, one_hot(np.zeros(200, int), 2), ['healthy', 'ill'])
    assert (found['images'], found['accuracy'], found['majority_accuracy']) == (200, 95, 95)
    assert found['balanced_accuracy'] == 50
    assert found['roc_auc'] == 0.5
    assert found['classes'] == [{'name': 'healthy', 'images': 190, 'recall': 100, 'precision': 95},
                                {'name': 'ill', 'images': 10, 'recall': 0, 'precision': None}]
    assert found['confusion'] == [[190, 0], [10, 0]]


def test_the_figures_are_what_they_are_called():
    targets, probabilities = random_answers()
    found = metrics.summary(targets, probabilities, names(5))
    answers = probabilities.argmax(1)
    recall = [np.mean(answers[targets == c] == c) for c in range(5)]
    assert found['accuracy'] == pytest.approx(100 * np.mean(answers == targets))
    assert found['balanced_accuracy'] == pytest.approx(100 * np.mean(recall))
    assert found['majority_accuracy'] == pytest.approx(100 * max(np.mean(targets == c) for c in range(5)))
    for c, of_class in enumerate(found['classes']):
        assert of_class['recall'] == pytest.approx(100 * recall[c])
        assert of_class['precision'] == pytest.approx(100 * np.mean(targets[answers == c] == c))
    for true in range(5):                                       # a row a true class
        for answer in range(5):
            assert found['confusion'][true][answer] == np.sum((targets == true) & (answers == answer))
    # The area is the chance that an image of the class gets a higher probability of it than one of another class.
    areas = []
    for c in range(5):
        of_class, others = probabilities[targets == c, c], probabilities[targets != c, c]
        areas.append(np.mean(of_class[:, None] > others))
    assert found['roc_auc'] == pytest.approx(np.mean(areas), abs=1e-12)
    assert 0.6 < found['roc_auc'] < 0.95


def test_two_classes_have_the_usual_area():
    targets, probabilities = random_answers(classes=2)
    found = metrics.summary(targets, probabilities, names(2))
    assert found['roc_auc'] == sklearn_metrics.roc_auc_score(targets, probabilities[:, 1])


def test_float32_probabilities_of_many_classes():
    targets, probabilities = random_answers(n=3000, classes=1000)
    for scale in (1, 0.9999):                                   # sums of rounded numbers are not one
        found = metrics.summary(targets, (scale * probabilities).astype(np.float32), names(1000))
        assert 0.6 < found['roc_auc'] < 0.95


def test_json_ready_and_none_where_undefined():
    """Class 1 has no image, class 2 no answer; nothing is NaN, and no warning reaches the user."""
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        found = metrics.summary(np.array([0, 0, 2, 2]), one_hot([0, 1, 1, 0], 3), names(3))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert [(c['images'], c['recall'], c['precision']) for c in found['classes']] == [
        (2, 50, 50), (0, None, 0), (2, 0, None)]
    assert (found['accuracy'], found['balanced_accuracy'], found['roc_auc']) == (25, 25, None)
    assert found['confusion'] == [[1, 1, 0], [0, 0, 0], [1, 1, 0]]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        only = metrics.summary(np.array([1, 1]), one_hot([1, 1], 2), names(2))
        assert metrics.summary(np.zeros(3, int), np.ones((3, 1)), ['all'])['roc_auc'] is None
    assert (only['accuracy'], only['majority_accuracy'], only['roc_auc']) == (100, 100, None)
    assert 'ROC AUC undefined: a class has no image' in metrics.report(only)


@pytest.mark.parametrize(('targets', 'probabilities', 'phrase'), [
    ([], np.empty((0, 2)), 'at least one image'),
    ([0, 1], one_hot([0], 2), 'got shapes'),
    ([0, 1], one_hot([0, 1], 3), 'for the 2 classes'),
    ([0, 2], one_hot([0, 1], 2), 'from 0 to 1'),
    ([0, 1], np.full((2, 2), np.nan), 'finite'),
])
def test_what_does_not_fit_is_refused(targets, probabilities, phrase):
    with pytest.raises(ValueError, match=phrase):
        metrics.summary(np.array(targets, int), probabilities, names(2))


def test_without_scikit_learn_one_sentence(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ValueError, match=r'^figures of a test need scikit-learn: install it, or .* the extra train$'):
        metrics.summary(np.array([0, 1]), one_hot([0, 1], 2), names(2))


def test_report():
    targets, probabilities = random_answers(n=2000, classes=3)
    found = metrics.summary(targets, probabilities, ['cat', 'a longer name', 'dog'])
    lines = metrics.report(found).splitlines()
    assert re.match(r'^test accuracy (\d+\.\d\d) % ', lines[0])[1] == f'{found["accuracy"]:.2f}'
    assert lines[0].split()[2] == f'{found["accuracy"]:.2f}'    # as continuous integration reads it
    assert lines[0].endswith(
        f' of 2,000 images (balanced {found["balanced_accuracy"]:.2f} %, always the commonest class '
        f'{found["majority_accuracy"]:.2f} %), ROC AUC {found["roc_auc"]:.3f}')
    assert lines[1].split() == ['class', 'images', 'recall', 'precision']
    for line, of_class in zip(lines[2:5], found['classes']):
        cells = re.fullmatch(r'(.+?) +(\d+) +([\d.]+) % +([\d.]+) %', line).groups()
        assert cells == (of_class['name'], str(of_class['images']), f'{of_class["recall"]:.2f}',
                         f'{of_class["precision"]:.2f}')
    assert len({len(line) for line in lines[1:5]}) == 1
    assert 'a row the images of a class, a column those taken for a class' in lines[5]
    for line, row, name in zip(lines[6:], found['confusion'], ['cat', 'a longer name', 'dog'], strict=True):
        assert line.startswith(name)
        assert line[len(name):].split() == [str(count) for count in row]
    assert len({len(line) for line in lines[6:]}) == 1


def test_many_classes_print_the_worst_ten():
    answers = np.repeat(np.arange(31), 10)
    targets = answers.copy()
    for c in range(12):                                         # class c is missed 10 - c times, up to class 9
        answers[10 * c:10 * c + 10 - c] = 30
    text = metrics.report(metrics.summary(targets, one_hot(answers, 32), names(32)))
    lines = text.splitlines()
    assert lines[1] == 'of 32 classes, the 10 of lowest recall:'
    assert [line[:8].strip() for line in lines[3:]] == names(10)
    assert 'confusion' not in text


def test_the_confusion_matrix_is_printed_up_to_12_classes():
    assert 'confusion' in metrics.report(metrics.summary(*random_answers(classes=12), names(12)))
    text = metrics.report(metrics.summary(*random_answers(classes=13), names(13)))
    assert 'confusion' not in text
    assert len(text.splitlines()) == 2 + 13


def test_names_of_any_kind_keep_the_columns():
    """A wide script takes two columns a sign, an accent over a letter none."""
    classes = ['猫' * 50, 'e\u0301te\u0301', 'two\nlines\x1b[31m', 'x' * 300, 'not text \udcff', 'cat']
    lines = metrics.report(metrics.summary(*random_answers(classes=6), classes)).splitlines()
    assert len(lines) == 2 + 6 + 1 + 6
    '\n'.join(lines).encode('utf-8')
    assert '\x1b' not in ''.join(lines)
    assert lines[2].startswith('猫' * 19 + '…')
    assert lines[4].startswith('two\\nlines\\x1b[31m ')
    assert lines[5].startswith('x' * 39 + '… ')
    assert lines[6].startswith('not text \\udcff ')
    heads = [line.index(' %') + 2 * line.count('猫') - line.count('猫') - line.count('\u0301') for line in lines[2:8]]
    assert len(set(heads)) == 1


class Scale(nn.Module):
    """Logits that are the images themselves."""

    def __init__(self, factor=1.):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(x) * self.factor


def test_probabilities_are_in_order_and_in_eval_mode():
    images, targets = torch.randn(23, 4), torch.arange(23) % 4
    model = Scale().train()
    state = torch.get_rng_state()
    found_targets, found = metrics.probabilities(model, TensorDataset(images, targets), torch.device('cpu'), 5)
    assert np.array_equal(found_targets, targets.numpy())
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, images.softmax(1).numpy(), rtol=1e-6)     # a last bit of float32, or two
    assert not model.training
    assert torch.equal(torch.get_rng_state(), state)            # a training that goes on is not disturbed


@pytest.mark.parametrize('bad', [torch.nan, torch.inf, -torch.inf])
def test_outputs_that_are_not_finite_are_refused(bad):
    """One logit of minus infinity, too, though the probabilities would be finite."""
    images = torch.randn(7, 3)
    images[4, 1] = bad
    with pytest.raises(FloatingPointError, match=r'not finite for 1 of 7 images: its weights or the images hold NaN, '):
        metrics.probabilities(Scale(), TensorDataset(images, torch.zeros(7, dtype=torch.int64)), torch.device('cpu'), 2)
    with pytest.raises(FloatingPointError, match='7 of 7'):
        metrics.probabilities(Scale(torch.nan), TensorDataset(images, torch.arange(7)), torch.device('cpu'))


WORKER = '''
import sys
import numpy as np
import torch
from timm.utils.distributed import init_distributed_device_so
from torch import distributed, nn
from torch.utils.data import TensorDataset
from scat_zoo.train import metrics
from scat_zoo.train.distributed import rank

init_distributed_device_so(device='cpu')
for count in (1, 2, 11):                                        # of one image, the second process has none
    images = torch.arange(count * 3.).reshape(count, 3).sin()
    data = TensorDataset(images, torch.arange(count))
    targets, found = metrics.probabilities(nn.Identity(), data, torch.device('cpu'), 2)
    assert np.array_equal(targets, np.arange(count))
    assert np.allclose(found, images.softmax(1).numpy(), rtol=1e-6)
images[3, 0] = torch.nan                                        # in the second process's part
try:
    metrics.probabilities(nn.Identity(), TensorDataset(images, torch.arange(count)), torch.device('cpu'), 2)
except FloatingPointError:
    open(f'{sys.argv[1]}/done{rank()}', 'w').close()
distributed.destroy_process_group()
'''


def test_every_process_has_the_whole(tmp_path):
    (tmp_path / 'worker.py').write_text(WORKER)
    result = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2',
         str(tmp_path / 'worker.py'), str(tmp_path)], capture_output=True, text=True, timeout=300,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'})
    assert result.returncode == 0, result.stderr[-3000:]
    assert {p.name for p in tmp_path.glob('done*')} == {'done0', 'done1'}
