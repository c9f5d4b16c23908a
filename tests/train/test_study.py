"""Recipes: their runs resumed and on several processors, their table, their small training sets, bad input."""
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from scipy import stats
from torch.utils.data import DataLoader

from scat_zoo import cli
from scat_zoo.train import augment, checkpoint, choices, data, study
from scat_zoo.train.images import with_channels
from scat_zoo.train.recipes import RECIPES, SEEDS, Arm, Average, Probe

ROOT = Path(__file__).parents[2]


def recipe(output, *args, jobs=2):
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    return subprocess.run(
        [sys.executable, '-m', 'scat_zoo', 'train', '--recipe', 'sample', '--output', str(output), '--jobs', str(jobs),
         *args], env=env, capture_output=True, text=True, timeout=500, check=False)


def test_a_recipe_on_two_processors_and_resumed_on_one(tmp_path):
    done = recipe(tmp_path / 'runs')
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / 'runs' / 'results.json').read_text())
    assert len(results) == 12
    assert {(r['arm'], r['per_class'], r['seed']) for r in results} == {
        (arm, size, seed) for arm in ('fixed', 'morlet', 'average') for size in (10, 20) for seed in SEEDS[:2]}
    assert {r['images'] for r in results} == {100, 200}
    assert min(r['accuracy'] for r in results) > 15                 # chance is 10
    assert 'test accuracy in per cent' in done.stdout
    assert (tmp_path / 'runs' / 'results.md').read_text() in done.stdout
    assert timm.create_model(f'local-dir:{tmp_path}/runs/morlet-20-seed{SEEDS[0]}/checkpoint', pretrained=True)
    assert_an_average_of_models(tmp_path / 'runs', results)
    # One run is to be done again, from a state in its middle or from its start; the others are not touched.
    again = tmp_path / 'runs' / f'morlet-10-seed{SEEDS[1]}' / 'results.json'
    other = tmp_path / 'runs' / f'fixed-10-seed{SEEDS[1]}' / 'results.json'
    written = other.stat().st_mtime_ns
    again.unlink()
    left = other.with_name('state')                                 # as by a kill before it is forgotten
    left.write_text('')
    assert 'continue it with --resume' in recipe(tmp_path / 'runs').stderr
    done = recipe(tmp_path / 'runs', '--resume', jobs=1)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / 'runs' / 'results.json').read_text()) == results
    assert other.stat().st_mtime_ns == written
    assert not left.exists()


def test_processes_end_with_the_one_that_started_them(tmp_path):
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    with subprocess.Popen([sys.executable, '-m', 'scat_zoo', 'train', '--recipe', 'sample', '--jobs', '2', '--output',
                           str(tmp_path / 'runs')], env=env, stderr=subprocess.PIPE) as process:
        while not list(tmp_path.glob('runs/*/state')):              # a worker is past an epoch
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
        process.communicate(timeout=20)                             # returns once nobody can write there any more


def assert_an_average_of_models(runs, results):
    """The accuracy and learned numbers of an average are those of the mean log-probability of its models."""
    found = {(r['arm'], r['per_class'], r['seed']): r for r in results}
    fixed, morlet, average = (found[arm, 20, SEEDS[0]] for arm in ('fixed', 'morlet', 'average'))
    assert average['learned_numbers'] == fixed['learned_numbers'] + morlet['learned_numbers']
    models = [timm.create_model(f'local-dir:{runs}/{arm}-20-seed{SEEDS[0]}/checkpoint', pretrained=True).eval()
              for arm in ('fixed', 'morlet')]
    test = data.Prepared(data.load('sample').test, 1, augment.eval_transform(models[0]))
    images, targets = next(iter(DataLoader(test, len(test))))
    with torch.inference_mode():
        mean = sum(model(images).log_softmax(1) for model in models) / 2
    correct = (mean.argmax(1) == targets).float().mean().item()
    assert average['accuracy'] == pytest.approx(100 * correct, abs=0.051)      # one image of 2,000 at a tie


def test_an_average_needs_its_parts(tmp_path, capsys):
    options = ['--recipe', 'sample', '--arms', 'fixed', 'average', '--output', str(tmp_path / 'runs')]
    assert cli.main(['train', *options]) != 0
    assert 'the arm average is an average of others and needs --arms morlet too' in capsys.readouterr().err
    assert not (tmp_path / 'runs').exists()


def test_selection_reads_no_test_image(tmp_path, monkeypatch, capsys):
    read = []
    load = data.load

    class Forbidden:
        def __len__(self):
            read.append('length')
            return 10

        def __getitem__(self, i):
            read.append(i)
            raise AssertionError('a test image was read')

    study._load.cache_clear()
    monkeypatch.setattr(study, 'load', lambda *args: load(*args)._replace(test=Forbidden()))
    options = ['--recipe', 'sample', '--arms', 'fixed', '--jobs', '1', '--output', str(tmp_path)]
    assert cli.main(['train', *options, '--select']) == 0
    study._load.cache_clear()
    assert 'validation accuracy in per cent' in capsys.readouterr().out
    assert not read
    results = json.loads((tmp_path / 'results.json').read_text())
    assert {r['images'] for r in results} == {90, 180}              # a tenth of each subset is held out


def test_the_table_gives_paired_differences():
    first, second = [80., 81., 83., 80.5], [81., 81.5, 84.5, 80.]
    results = [{'arm': arm, 'per_class': 10, 'seed': seed, 'accuracy': value, 'learned_numbers': 1234}
               for arm, values in (('a', first), ('b', second)) for seed, value in enumerate(values)]
    *_, a, b = study.tabulate(results, ['a', 'b'], [10]).splitlines()
    assert a == f'| a | 1,234 | {np.mean(first):.2f} ± {np.std(first, ddof=1):.2f} |  |'
    difference = np.subtract(second, first)
    low, high = stats.ttest_1samp(difference, 0).confidence_interval(0.95)
    assert b.endswith(f'| {difference.mean():+.2f} ({low:+.2f} to {high:+.2f}) |')


def test_few_images_are_balanced_nested_and_seeded():
    train = data.load('sample', val_fraction=0.).train
    subset, larger, other = (data.few(train, n, seed) for n, seed in ((5, 3), (8, 3), (5, 4)))
    assert np.bincount(subset.targets).tolist() == [5] * 10
    assert set(subset.indices) < set(larger.indices)
    assert set(subset.indices) != set(other.indices)
    of_class = np.flatnonzero(np.asarray(train.targets) == 7)
    assert set(of_class[np.random.RandomState(3).permutation(100)[:5]]) <= set(subset.indices)
    with pytest.raises(ValueError, match='at least 101 images of each class, class 0 has 100'):
        data.few(train, 101, 0)


@pytest.mark.parametrize('name', augment.NAMES)
def test_augmentations_change_images_and_keep_their_size(name):
    model = timm.create_model('scat_linear', img_size=16)
    image, _ = data.load('sample').train[0]
    transform = augment.train_transform(model, name)
    torch.manual_seed(0)
    tensors = [transform(with_channels(image.resize((16, 16)), 3)) for _ in range(8)]
    assert {t.shape for t in tensors} == {(3, 16, 16)}
    assert all(torch.equal(t, tensors[0]) for t in tensors) == (name == 'none')


@pytest.mark.parametrize('name', RECIPES)
def test_every_recipe_tells_how_it_was_chosen_and_its_models_can_be_made(name):
    made = RECIPES[name]
    assert len(made.selection) > 5
    assert bool(made.data) != bool(made.how_to_get)
    for name, arm in made.arms.items():
        if isinstance(arm, Average):
            assert set(arm.of) <= set(list(made.arms)[:list(made.arms).index(name)])
            continue
        if isinstance(arm, Probe):
            for kwargs in choices.features((made.side, made.side), 1, arm.kwargs):
                assert timm.create_model('scat_linear', device='meta', in_chans=1, img_size=made.side, **kwargs)
            continue
        kwargs = {'num_classes': 10, 'in_chans': 1} | ({'img_size': 28} if arm.model.startswith('scat_') else {})
        assert timm.create_model(arm.model, device='meta', **{**kwargs, **arm.kwargs})
        augment.check(arm.training.augment)


@pytest.fixture
def folder(tmp_path):
    """Images of two classes: 24 to train and 8 to test, as 10-bit values in 16-bit files."""
    d = data.load('sample', val_fraction=0.)
    for part, images, count in (('train', d.train, 12), ('test', d.test, 4)):
        for c in (1, 8):
            place = tmp_path / 'images' / part / data.CLASSES[c]
            place.mkdir(parents=True)
            for i in np.flatnonzero(np.asarray(images.targets) == c)[:count]:
                Image.fromarray(np.asarray(images[i][0]).astype(np.uint16) * 4).save(place / f'{i}.png')
    return tmp_path / 'images'


def shorter(name, monkeypatch):
    """The recipe with one epoch for every arm, whatever the size."""
    made = RECIPES[name]
    arms = {key: arm if not isinstance(arm, Arm) else replace(
        arm, training=replace(arm.training, epochs=1), by_size={size: {'epochs': 2} for size in arm.by_size})
        for key, arm in made.arms.items()}
    monkeypatch.setitem(RECIPES, name, replace(made, arms=arms))


@pytest.mark.parametrize(('name', 'arms', 'sizes'), [
    ('sample', ['fixed', 'morlet', 'average'], 1), ('fashion-few', ['fixed', 'resnet', 'average'], 2)])
def test_a_recipe_on_a_folder_of_ones_own(name, arms, sizes, folder, tmp_path, monkeypatch, capsys):
    """On all its images, from no more than three seeds, those of the next smaller size where it has sizes."""
    shorter(name, monkeypatch)
    study._load.cache_clear()
    output = tmp_path / 'runs'
    assert cli.main(['train', '--recipe', name, '--data', str(folder), '--arms', *arms, '--jobs', '1', '--output',
                     str(output)]) == 0
    results = json.loads((output / 'results.json').read_text())
    seeds = RECIPES[name].seeds[:3]
    assert [(r['arm'], r['per_class'], r['seed']) for r in results] == [(arm, None, s) for s in seeds for arm in arms]
    assert {(r['images'], r['tested']) for r in results} == {(24, 8)}
    for arm in arms[:2]:
        run = output / f'{arm}-seed{seeds[0]}'
        assert checkpoint.value_range(run) == (0, 1020)
        assert checkpoint.load(run).num_classes == 2
        assert json.loads((run / 'settings.json').read_text())['training']['epochs'] == sizes
        assert not (run / 'state').exists()
    assert f'recipe {name}: {len(results)} runs on {folder}' in capsys.readouterr().out
    assert (output / 'results.md').read_text().startswith('| arm | learned numbers | accuracy | less fixed |')


def test_a_probe_is_what_the_command_does_of_itself(folder, tmp_path, monkeypatch):
    shorter('fashion-few', monkeypatch)
    few = RECIPES['fashion-few']
    monkeypatch.setitem(RECIPES, 'fashion-few', replace(few, arms={**few.arms, 'both': Average(('probe', 'resnet'))}))
    study._load.cache_clear()
    assert cli.main(['train', '--data', str(folder), '--output', str(tmp_path / 'run')]) == 0
    found = {'probe': json.loads((tmp_path / 'run' / 'results.json').read_text())['test']['accuracy']}
    assert cli.main(['train', '--recipe', 'fashion-few', '--data', str(folder), '--arms', 'resnet', 'probe',
                     'both', '--jobs', '1', '--output', str(tmp_path / 'runs')]) == 0
    expected = (tmp_path / 'run' / 'checkpoint' / 'model.safetensors').read_bytes()
    for seed in RECIPES['fashion-few'].seeds[:3]:
        run = tmp_path / 'runs' / f'probe-seed{seed}'
        assert (run / 'checkpoint' / 'model.safetensors').read_bytes() == expected      # the images are the same
        assert json.loads((run / 'results.json').read_text())['accuracy'] == pytest.approx(found['probe'])


def test_a_recipe_has_a_size_of_images_and_its_probes_have_keywords(folder, tmp_path, monkeypatch):
    keywords = {'J': 2, 'L': 2, 'global_pool': 'avgstd'}
    for side in (14, 64):
        monkeypatch.setitem(RECIPES, 'neu', replace(RECIPES['neu'], arms={'probe': Probe(keywords)}, side=side,
                                                    per_class=(5,), seeds=SEEDS[:1]))
        study._load.cache_clear()
        assert cli.main(['train', '--recipe', 'neu', '--data', str(folder), '--jobs', '1', '--output',
                         str(tmp_path / f'{side}')]) == 0
        run = tmp_path / f'{side}' / f'probe-5-seed{SEEDS[0]}'
        model = checkpoint.load(run)
        assert model.pretrained_cfg['input_size'][1:] == (min(side, 28), min(side, 28))
        assert json.loads((run / 'checkpoint' / 'config.json').read_text())['model_args'].items() >= keywords.items()
        assert json.loads((run / 'settings.json').read_text())['side'] == side


def test_an_average_gives_each_model_the_images_as_it_takes_them():
    torch.manual_seed(0)
    kwargs = {'in_chans': 3, 'img_size': 16, 'num_classes': 3, 'L': 2}
    plain, logs = (timm.create_model('scat_linear', **kwargs, **more).eval() for more in ({}, {'log_input': 0.1}))
    x = torch.rand(4, 3, 16, 16)
    mean, std = (torch.tensor(plain.pretrained_cfg[name]).reshape(3, 1, 1) for name in ('mean', 'std'))
    with torch.inference_mode():
        expected = (plain((x - mean) / std).log_softmax(1) + logs(x).log_softmax(1)) / 2
        torch.testing.assert_close(study.Averaged([plain, logs])((x - mean) / std), expected)
        torch.testing.assert_close(study.Averaged([logs, plain])(x), expected)


def test_a_folder_has_its_own_validation_images(folder, tmp_path, monkeypatch):
    shutil.copytree(folder / 'test', folder / 'val')
    next((folder / 'val' / 'Bag').iterdir()).unlink()
    shorter('sample', monkeypatch)
    study._load.cache_clear()
    options = ['--recipe', 'sample', '--data', str(folder), '--arms', 'fixed', '--jobs', '1', '--output', str(tmp_path)]
    assert cli.main(['train', *options[:-1], str(tmp_path / 'runs'), '--select']) == 0
    results = json.loads((tmp_path / 'runs' / 'results.json').read_text())
    assert {(r['images'], r['tested']) for r in results} == {(24, 7)}


def test_help_names_every_recipe(capsys):
    with pytest.raises(SystemExit):
        cli.main(['train', '--help'])
    text = ''.join(capsys.readouterr().out.split())             # names may be broken at their hyphens
    assert all(f'{name},' in text or f'{name}(' in text for name in RECIPES)


@pytest.mark.parametrize(('args', 'phrase'), [
    (['--recipe', 'nothing'], "unknown recipe 'nothing'; known: sample"),
    (['--recipe', 'sample', '--arms', 'nothing'], "unknown arm 'nothing'; known: fixed, morlet"),
    (['--recipe', 'sample', '--lr', '0.5'], '--lr has no effect on a recipe'),
    (['--recipe', 'sample', '--data', 'cifar10'], 'CIFAR-10 needs --root FOLDER'),
    (['--recipe', 'cifar10'], 'CIFAR-10 needs --root FOLDER'),
    (['--recipe', 'textures'], 'needs --data FOLDER'),
    (['--recipe', 'textures', '--data', 'FOLDER'], 'has images of one class, cat: a classifier needs two'),
])
def test_bad_input(args, phrase, tmp_path, capsys):
    for part in ('train', 'test'):
        (tmp_path / 'images' / part / 'cat').mkdir(parents=True)
        Image.new('RGB', (8, 8)).save(tmp_path / 'images' / part / 'cat' / '0.png')
    args = [arg.replace('FOLDER', str(tmp_path / 'images')) for arg in args]
    assert cli.main(['train', *args, '--output', str(tmp_path / 'run')]) == 2
    assert phrase in capsys.readouterr().err
    assert not (tmp_path / 'run').exists()


def test_sizes_that_a_folder_has_not_are_left_out():
    """A recipe for a user's folder takes the sizes that it has, or all images; one for its own data insists."""
    train = data.load('sample', val_fraction=0.).train
    for least, sizes in ((100, (20, 5)), (8, (5,)), (3, (None,))):
        images = data.Data(data.few(train, least, seed=0), None, None, data.CLASSES, (1, 28, 28), (0.,), (1.,))
        assert study._with_sizes(RECIPES['textures'], images).per_class == sizes
    with pytest.raises(ValueError, match='expected at least 10 images of each class'):
        study._with_sizes(RECIPES['fashion-few'], images)
