"""The main job as the command runs it: what it keeps and writes, resuming, starting from weights, bad input."""
import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.numpy import load_file

from scat_zoo import cli
from scat_zoo.train import checkpoint, data, job, probe

ROOT = Path(__file__).parents[2]
SMALL = ['--model-kwargs', 'L=2']
FEW = ('Trouser', 'Sandal', 'Bag')


def write(folder, names, train, test, convert=lambda image: image):
    """A folder of the built-in images: so many of each of these classes, the numbers by class if they are dicts."""
    d = data.load('sample', val_fraction=0.)
    for part, images, counts in (('train', d.train, train), ('test', d.test, test)):
        for name in names:
            place = folder / part / name.replace('/', '-')
            place.mkdir(parents=True)
            of_class = np.flatnonzero(np.asarray(images.targets) == data.CLASSES.index(name))
            for i in of_class[:counts[name] if isinstance(counts, dict) else counts]:
                convert(images[i][0]).save(place / f'{i}.png')
    return folder


@pytest.fixture(scope='module')
def few(tmp_path_factory):
    """60 images of 3 classes."""
    return write(tmp_path_factory.mktemp('few'), FEW, 20, 20)


def train(output, *args, code=0):
    assert cli.main(['train', '--output', str(output), *map(str, args)]) == code
    return None if code else json.loads((output / 'results.json').read_text())


def files(output):
    return {entry.name for entry in output.iterdir() if not entry.name.startswith('.')}


def same(a, b):
    a, b = (load_file(folder / 'model.safetensors') for folder in (a, b))
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


@pytest.fixture(scope='module')
def probed(few, tmp_path_factory):
    """A run on them without any option but for speed."""
    output = tmp_path_factory.mktemp('runs') / 'probe'
    return output, train(output, '--data', few, *SMALL)


@pytest.fixture(scope='module')
def trained(few, tmp_path_factory):
    """One that learns the filters for two epochs."""
    output = tmp_path_factory.mktemp('runs') / 'learned'
    return output, train(output, '--data', few, *SMALL, '--learnable', '--epochs', '2')


def test_few_images_keep_the_probe(probed, few, capsys):
    output, results = probed
    assert files(output) == {'checkpoint', 'checkpoint-probe', 'probe.json', 'report.html', 'results.json',
                             'settings.json'}
    assert (results['kept'], list(results['ways'])) == ('probe', ['probe'])
    assert results['test']['accuracy'] == results['ways']['probe']['test_accuracy'] > 80        # chance is 33
    assert results['ways']['probe']['val_accuracy'] is None
    choice = json.loads((output / 'probe.json').read_text())
    assert set(choice) == {'kwargs', 'classifier', 'strength', 'mirrored', 'loss', 'accuracy'}
    assert choice['kwargs']['L'] == 2
    settings = json.loads((output / 'settings.json').read_text())
    assert (settings['input_size'], settings['data'], settings['learnable']) == ([1, 28, 28], str(few), None)
    # What is written is what was tested.
    assert cli.main(['test', str(output), '--data', str(few)]) == 0
    assert f'test accuracy {results["test"]["accuracy"]:.2f} %' in capsys.readouterr().out


def test_every_choice_is_told_with_its_reason(few, tmp_path, capsys):
    train(tmp_path / 'run', '--data', few, *SMALL)
    out = capsys.readouterr().out
    assert f'scat_linear on {few}: 60 training, 0 validation and 60 test images of 3 classes' in out
    for line in (r'images +.*grey', r'image size +28 x 28: their own', r'validation +none held out: 10% of 60',
                 r'filters +fixed: 60 images are too few to tell',
                 r'features +J 3, .*, L 2: .*in cross-validation, the best of 2',
                 r'classifier +linear discriminant analysis with a shrunken covariance'):
        assert re.search(rf'^  {line}', out, re.MULTILINE), line
    assert '  training ' not in out                             # there is none
    assert re.search(r'^test accuracy \d+\.\d\d % of 60 images \(balanced', out, re.MULTILINE)
    assert f'checkpoint {tmp_path}/run/checkpoint' in out


def test_epochs_that_are_asked_for_are_kept(trained):
    output, results = trained
    assert files(output) == {'checkpoint', 'checkpoint-probe', 'checkpoint-fixed', 'probe.json', 'report.html',
                             'results.json', 'settings.json', 'log.csv', 'filters.png', 'fixed.state', 'learned.state'}
    assert (results['kept'], list(results['ways'])) == ('learned', ['probe', 'fixed', 'learned'])
    assert results['test']['accuracy'] == results['ways']['learned']['test_accuracy']
    assert results['ways']['learned']['filter_change'] > 1e-4
    # From few images too it begins with the regression, which training does not leave.
    assert json.loads((output / 'probe.json').read_text())['classifier'] == 'logistic regression'
    assert json.loads((output / 'checkpoint' / 'config.json').read_text())['model_args']['learnable'] is True
    with open(output / 'log.csv', newline='') as stream:
        header, *rows = csv.reader(stream)
    assert header == ['filters', 'epoch', 'train_loss', 'val_accuracy']
    assert [row[:2] for row in rows] == [['fixed', '1'], ['fixed', '2'], ['learned', '1'], ['learned', '2']]
    history = results['ways']['fixed']['history'] + results['ways']['learned']['history']
    assert [float(row[2]) for row in rows] == [entry['loss'] for entry in history]
    with Image.open(output / 'filters.png') as picture:
        assert picture.width >= 1200


def test_fixed_filters_stay(few, tmp_path):
    results = train(tmp_path / 'run', '--data', few, *SMALL, '--no-learnable', '--epochs', '2')
    assert (results['kept'], list(results['ways'])) == ('fixed', ['probe', 'fixed'])
    assert len(results['ways']['fixed']['history']) == 2
    assert not (tmp_path / 'run' / 'filters.png').exists()
    assert json.loads((tmp_path / 'run' / 'checkpoint' / 'config.json').read_text())['model_args']['learnable'] is False


def test_training_begins_where_the_probe_ends(few, tmp_path):
    """Steps of hardly any length, those of the warm-up, leave its answers."""
    results = train(tmp_path / 'run', '--data', few, *SMALL, '--learnable', '--epochs', '1', '--lr', '0',
                    '--filter-lr', '0')
    assert results['ways']['learned']['filter_change'] < 1e-3
    accuracies = {way['test_accuracy'] for way in results['ways'].values()}
    assert max(accuracies) - min(accuracies) < 4                # the norms' statistics are of other batches


def test_with_validation_a_way_is_kept_for_being_better(tmp_path):
    """The sample holds a tenth out; there the filters are tried, unless they are to stay."""
    results = train(tmp_path / 'run', *SMALL, '--no-learnable', '--val-fraction', '0.2')
    assert (results['kept'], list(results['ways'])) == ('probe', ['probe'])
    assert 70 < results['ways']['probe']['val_accuracy'] < 95
    # The kept one was fitted to the validation images too.
    assert not same(tmp_path / 'run' / 'checkpoint', tmp_path / 'run' / 'checkpoint-probe')


def test_resumed_with_more_epochs(trained, few, tmp_path, capsys):
    output, before = trained
    shutil.copytree(output, tmp_path / 'run')
    options = ['--data', few, *SMALL, '--learnable', '--resume']
    train(tmp_path / 'run', *options, '--epochs', '1', code=2)
    assert 'that it began with: --epochs was 2, now it is 1' in capsys.readouterr().err
    assert json.loads((tmp_path / 'run' / 'results.json').read_text()) == before
    after = train(tmp_path / 'run', *options, '--epochs', '4')
    for name in ('fixed', 'learned'):
        history = after['ways'][name]['history']
        assert len(history) == 4
        assert history[:2] == before['ways'][name]['history']
    assert not same(output / 'checkpoint', tmp_path / 'run' / 'checkpoint')
    assert json.loads((tmp_path / 'run' / 'settings.json').read_text())['training']['epochs'] == 4


def test_a_kill_before_the_last_row_of_the_log(trained, few, tmp_path):
    output, _ = trained
    shutil.copytree(output, tmp_path / 'run')
    log = tmp_path / 'run' / 'log.csv'
    whole = log.read_bytes()
    log.write_bytes(whole[:whole.rstrip().rindex(b'\n') + 1])
    (tmp_path / 'run' / 'results.json').unlink()
    train(tmp_path / 'run', '--data', few, *SMALL, '--learnable', '--epochs', '2', '--resume')
    assert log.read_bytes() == whole


def test_what_was_fitted_is_trained_for_epochs(probed, few, tmp_path):
    output, before = probed
    shutil.copytree(output, tmp_path / 'run')
    after = train(tmp_path / 'run', '--data', few, *SMALL, '--resume', '--epochs', '1')
    assert (before['kept'], after['kept'], list(after['ways'])) == ('probe', 'fixed', ['probe', 'fixed'])
    assert after['ways']['probe'] == before['ways']['probe']
    assert same(output / 'checkpoint-probe', tmp_path / 'run' / 'checkpoint-probe')


def test_the_same_images_elsewhere_and_other_settings(trained, few, tmp_path, capsys):
    output, before = trained
    shutil.copytree(output, tmp_path / 'run')
    shutil.copytree(few, tmp_path / 'images')
    options = ['--data', tmp_path / 'images', *SMALL, '--learnable', '--epochs', '2', '--resume']
    assert train(tmp_path / 'run', *options) == before
    assert same(output / 'checkpoint', tmp_path / 'run' / 'checkpoint')
    for other, told in ((['--lr', '0.5'], '--lr was not given, now it is 0.5'),
                        (['--seed', '1'], '--seed was 0, now it is 1'),
                        (['--img-size', '24'], '--img-size was 28x28, now it is 24x24'),
                        (['--class-weights', 'balanced'], '--class-weights was none, now it is balanced')):
        train(tmp_path / 'run', *options, *other, code=2)
        assert told in capsys.readouterr().err
    next((tmp_path / 'images' / 'train' / 'Bag').iterdir()).unlink()
    train(tmp_path / 'run', *options, code=2)
    assert 'the images are others than they were' in capsys.readouterr().err
    assert json.loads((tmp_path / 'run' / 'results.json').read_text()) == before


def test_more_epochs_before_a_discriminant_analysis(few, tmp_path):
    """The filters' own epochs begin anew behind them, not where they ended after fewer."""
    options = ['--data', few, *SMALL, 'parametrization=morlet', 'global_pool=avg', '--learnable', '--lda', '1',
               '--lda-epochs', '1']
    for epochs in (1, 2):
        results = train(tmp_path / 'run', *options, '--epochs', epochs, *['--resume'] * (epochs - 1))
        assert len(results['ways']['learned']['history']) == epochs + 1
        before, after = (torch.load(tmp_path / 'run' / f'{name}.state', weights_only=True)['model']
                         for name in ('learned', 'learned-filters'))
        norms = [key for key in before if 'running' in key]
        assert norms                                            # which these epochs leave as they were
        assert all(torch.equal(before[key], after[key]) for key in norms)


def test_a_model_that_is_not_linear(few, tmp_path):
    """There is no probe of it; its gradients begin at random, and are many enough for few images."""
    results = train(tmp_path / 'run', '--data', few, '--model', 'scat_resnet', '--img-size', '16', '--model-kwargs',
                    'J=1', 'L=2', 'channels=(16,)', 'depths=(1,)', 'strides=(1,)')
    assert (results['kept'], list(results['ways'])) == ('fixed', ['fixed'])
    assert results['test']['accuracy'] > 80
    assert len(results['ways']['fixed']['history']) > 50


def test_starting_from_shipped_weights(few, tmp_path, capsys):
    """With other classes, and in colour."""
    colour = write(tmp_path / 'colour', FEW[:2], 8, 8,
                   lambda image: Image.merge('RGB', [image, image.point(lambda v: v // 2), image]))
    for folder, channels in ((few, 1), (colour, 3)):
        results = train(tmp_path / str(channels), '--data', folder, '--from', 'scat_tiny.fashion_mnist')
        assert results['kept'] == 'probe'
        assert results['test']['accuracy'] > 90
        model = checkpoint.load(tmp_path / str(channels))
        assert (type(model).__name__, model.in_chans) == (type(timm.create_model('scat_tiny')).__name__, channels)
    assert 'image size  28 x 28: that of the weights to start from' in capsys.readouterr().out
    shipped = timm.create_model('scat_tiny.fashion_mnist', pretrained=True).state_dict()
    own = checkpoint.load(tmp_path / '1').state_dict()
    kept = [key for key in own if own[key].ndim == 4 and 'head' not in key]     # norms and classifier are fitted anew
    assert len(kept) > 2
    assert all(torch.equal(own[key], shipped[key]) for key in kept)


def test_starting_from_a_run(probed, trained, few, tmp_path):
    learned = checkpoint.load(trained[0]).scattering.state_dict()
    results = train(tmp_path / 'run', '--data', few, '--from', trained[0])
    assert results['kept'] == 'probe'
    found = checkpoint.load(tmp_path / 'run').scattering.state_dict()
    assert found.keys() == learned.keys()
    assert all(torch.equal(found[key], learned[key]) for key in learned)        # its filters, a classifier of its own
    results = train(tmp_path / 'on', '--data', few, '--from', probed[0] / 'checkpoint', '--learnable', '--epochs', '1')
    assert results['kept'] == 'learned'
    assert results['ways']['learned']['filter_change'] > 1e-5


def test_an_oblong_size(few, tmp_path, capsys):
    train(tmp_path / 'run', '--data', few, *SMALL, '--img-size', '24x32')
    assert 'image size  24 x 32: as asked for' in capsys.readouterr().out
    config = json.loads((tmp_path / 'run' / 'checkpoint' / 'config.json').read_text())
    assert config['pretrained_cfg']['input_size'] == [1, 24, 32]


def test_balanced_weights_find_more_of_a_rare_class(tmp_path, capsys):
    rare = write(tmp_path / 'rare', ('T-shirt/top', 'Shirt'), {'T-shirt/top': 95, 'Shirt': 5},
                 {'T-shirt/top': 190, 'Shirt': 50})
    recalls = {}
    for weights in ('none', 'balanced'):
        for gradients in ([], ['--no-learnable', '--epochs', '3']):
            output = tmp_path / f'{weights}{len(gradients)}'
            figures = train(output, '--data', rare, *SMALL, 'global_pool=avg', '--class-weights', weights,
                            *gradients)['test']
            by_name = {of_class['name']: of_class for of_class in figures['classes']}
            recalls[weights, len(gradients)] = by_name['Shirt']['recall']
            assert figures['majority_accuracy'] == pytest.approx(100 * 190 / 240)
            assert figures['balanced_accuracy'] == pytest.approx(np.mean([c['recall'] for c in by_name.values()]))
            assert re.search(rf'\(balanced {figures["balanced_accuracy"]:.2f} %, always the commonest class 79.17 %\)',
                             capsys.readouterr().out)
    assert recalls['balanced', 0] > recalls['none', 0] + 10
    assert recalls['balanced', 3] > recalls['none', 3] + 10


def test_deep_copies_give_the_accuracy_of_8_bits(probed, few, tmp_path, capsys):
    """10-bit values in 16-bit files."""
    deep = write(tmp_path / 'deep', FEW, 20, 20,
                 lambda image: Image.fromarray(np.asarray(image).astype(np.uint16) * 4 + 1))
    results = train(tmp_path / 'run', '--data', deep, *SMALL)
    assert results['test']['accuracy'] == pytest.approx(probed[1]['test']['accuracy'], abs=1)
    assert checkpoint.value_range(tmp_path / 'run') == (1, 1021)
    assert 'values of the training images, 1 to 1021, become 0 to 1' in capsys.readouterr().out
    assert cli.main(['test', str(tmp_path / 'run'), '--data', str(deep)]) == 0
    assert f'test accuracy {results["test"]["accuracy"]:.2f} %' in capsys.readouterr().out


def test_a_folder_without_a_split_some_of_it_broken(few, tmp_path, capsys):
    shutil.copytree(few / 'train', tmp_path / 'images')
    broken = [tmp_path / 'images' / 'Bag' / 'a.png', tmp_path / 'images' / 'Trouser' / 'b.jpg']
    for file in broken:
        file.write_bytes(b'no image')
    options = ['--data', tmp_path / 'images', *SMALL]
    train(tmp_path / 'run', *options, code=2)
    out, err = capsys.readouterr()
    assert '2 of 62 images cannot be read: mend or remove them, or leave them out with --skip-broken; ' in err
    assert all(f'cannot read the image {file}: ' in err for file in broken)
    assert not out
    assert not (tmp_path / 'run').exists()
    results = train(tmp_path / 'run', *options, '--skip-broken', '--test-fraction', '0.4')
    assert 22 <= results['test']['images'] <= 24
    assert results['test']['accuracy'] > 80
    assert '2 of 62 images cannot be read and are left out' in capsys.readouterr().out


@pytest.mark.parametrize(('args', 'phrase'), [
    (['--from', 'nonsense'], 'nonsense is not there: expected the folder of a checkpoint or a run'),
    (['--from', 'FOLDER'], 'no checkpoint in FOLDER: expected a folder with config.json'),
    (['--from', 'scat_tiny.fashion_mnist', '--model-kwargs', 'max_order=1'], 'leave out --model-kwargs, --in-chans'),
    (['--from', 'scat_tiny.fashion_mnist', '--img-size', '32'], 'leave out --model-kwargs, --in-chans and'),
    (['--from', 'scat_tiny.fashion_mnist', '--model', 'scat_mlp'], 'tells its own model: leave --model out'),
    (['--img-size', '24x'], 'expected a side such as 64, or height x width such as 48x80, got 24x'),
    (['--test-fraction', '1'], 'the test fraction must be more than 0 and less than 1'),
    (['--val-fraction', '1'], 'the validation fraction must be at least 0 and less than 1'),
    (['--lda-epochs', '2'], '--lda-epochs 2 needs a discriminant analysis at the end too'),
    (['--augment', 'mirror'], "invalid choice: 'mirror'"),
    (['--model-kwargs', 'scales=(9,)'], 'J=9 needs images of at least 512 pixels'),
    (['--model-kwargs', 'global_pool=foo'], "unknown global_pool 'foo'; known: flat"),
    (['--model-kwargs', 'global_pool='], 'a classifier needs a pool'),
    (['--in-chans', '2'], 'these image files give 1 or 3 channels, the model takes 2'),
    (['--label-smoothing', '2'], 'label smoothing goes from 0 to 1, got 2.0'),
    (['--data', 'ONE'], "has images of one class, Bag: a classifier needs two or more"),
])
def test_bad_input_writes_nothing(args, phrase, few, tmp_path, capsys):
    (tmp_path / 'FOLDER').mkdir()
    for part in ('train', 'test'):
        shutil.copytree(few / part / 'Bag', tmp_path / 'ONE' / part / 'Bag')
    args = [str(tmp_path / arg) if arg.isupper() else arg for arg in args]
    try:
        train(tmp_path / 'run', *([] if '--data' in args else ['--data', few]), *args, code=2)
    except SystemExit:                                          # argparse's own
        pass
    err = capsys.readouterr().err
    assert phrase.replace('FOLDER', str(tmp_path / 'FOLDER')) in err.splitlines()[-1]
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('name', ['nowhere', 'x' * 5000])
def test_weights_that_are_not_there_are_missed_before_an_image_is_read(name, tmp_path, monkeypatch):
    monkeypatch.setattr(job, 'load', lambda *args: pytest.fail('images are read'))
    with pytest.raises(ValueError, match=' is not there: expected the folder of a checkpoint or a run, or a name of '):
        job.train(job.Job(tmp_path / 'run', start=name), torch.device('cpu'))


def test_an_output_among_the_images(few, capsys):
    for inside in (few / 'run', few / 'train' / 'Bag' / 'run'):
        train(inside, '--data', few, code=2)
        assert f'lies among the images in {few}' in capsys.readouterr().err
        assert not inside.exists()


@pytest.mark.parametrize('options', [['--img-size', '3'], ['--model-kwargs', 'scales=[1]', 'L=2']])
def test_features_follow_small_images_and_given_scales(options, few, tmp_path, capsys):
    train(tmp_path / 'run', '--data', few, *options)
    assert 'features    J 1, scales [1]' in capsys.readouterr().out


def test_who_tells_images_apart_as_in_a_mirror_trains_so(few, tmp_path, monkeypatch, capsys):
    choose = probe.choose
    monkeypatch.setattr(probe, 'choose', lambda *args: choose(*args)._replace(mirrored=True))
    for options, told in (([], 'flip'), (['--augment', 'none'], 'none')):
        train(tmp_path / told, '--data', few, *SMALL, '--learnable', '--epochs', '1', *options)
        out = capsys.readouterr().out
        assert re.search(rf'^  training .*augmentation {told}:', out, re.MULTILINE)
        assert re.search('^  classifier .*, of images and their mirror images$', out, re.MULTILINE)


def test_the_number_of_threads_changes_nothing(probed, few, tmp_path):
    for threads in ('1', '2'):
        output = tmp_path / threads
        done = subprocess.run(
            [sys.executable, '-m', 'scat_zoo', 'train', '--data', str(few), *SMALL, '--output', str(output)],
            env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': threads}, capture_output=True, text=True,
            timeout=300)
        assert done.returncode == 0, done.stderr
        results = json.loads((output / 'results.json').read_text())
        assert results['kept'] == 'probe'
        assert results['test']['accuracy'] == pytest.approx(probed[1]['test']['accuracy'], abs=0.5)
        mine, first = (json.loads((folder / 'probe.json').read_text()) for folder in (output, probed[0]))
        assert (mine['kwargs'], mine['strength']) == (first['kwargs'], first['strength'])


def test_learned_filters_to_start_from_are_frozen(trained, few, tmp_path, capsys):
    """Unless they are learned on; and a run that ended with the fitted classifier goes on to learn them."""
    train(tmp_path / 'run', '--data', few, '--from', trained[0])
    assert 'filters     frozen, as learned before: 60 images' in capsys.readouterr().out
    scattering = checkpoint.load(tmp_path / 'run').scattering
    assert not scattering.learnable
    assert scattering.state_dict()
    learned = train(tmp_path / 'run', '--data', few, '--from', trained[0], '--learnable', '--epochs', 1, '--resume')
    assert learned['kept'] == 'learned'
    assert learned['ways']['learned']['filter_change'] > 0
    assert '(kept, as asked for)' in capsys.readouterr().out
