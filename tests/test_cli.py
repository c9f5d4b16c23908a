"""The commands as a user runs them, in processes of their own."""
import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import timm
from PIL import Image
from safetensors.numpy import load_file
from safetensors.torch import save_file

import scat_zoo_cli
from scat_zoo import cli
from scat_zoo.train import checkpoint, data

ROOT = Path(__file__).parents[1]
# A small model, for a run of seconds.
SMALL = ['--model-kwargs', 'L=2', 'global_pool=avg', '--epochs', '4', '--augment']
# How many threads help depends on the load, and bits on the number of threads.
ONE_THREAD = {**os.environ, 'OMP_NUM_THREADS': '1'}


def command(*args):
    return [sys.executable, '-m', 'scat_zoo', *map(str, args)]


def scat_zoo(*args, env=ONE_THREAD):
    return subprocess.run(command(*args), capture_output=True, text=True, timeout=300, env=env)


def exit_code(*args):
    """What the command ends with in this process, by argparse or not."""
    try:
        return cli.main([str(arg) for arg in args])
    except SystemExit as stop:
        return stop.code


def weights(folder):
    return {f'{part}/{key}': value for part in ('checkpoint', 'checkpoint-probe', 'checkpoint-fixed')
            for key, value in load_file(folder / part / 'model.safetensors').items()}


@pytest.fixture(scope='module')
def whole_run(tmp_path_factory):
    output = tmp_path_factory.mktemp('run') / 'whole'
    result = scat_zoo('train', *SMALL, '--output', output)
    assert result.returncode == 0, result.stderr
    assert not result.stderr                                    # nor a bar, where no terminal is
    return output, result


def test_train_writes_what_it_says(whole_run):
    output, result = whole_run
    accuracies = re.findall(r'^test accuracy (\d\d\.\d\d) % of 2,000 images', result.stdout, re.MULTILINE)
    told = re.findall(r'^(?:fitted|trained).*validation (\d\d\.\d\d) %, test (\d\d\.\d\d) %(.*)', result.stdout,
                      re.MULTILINE)
    results = json.loads((output / 'results.json').read_text())
    ways = results['ways']
    assert (results['kept'], list(ways)) == ('learned', ['probe', 'fixed', 'learned'])
    assert [float(a) for a in accuracies] == [round(ways['learned']['test_accuracy'], 2)]
    assert [tuple(map(float, figures)) for *figures, _ in told] == [
        (round(way['val_accuracy'], 2), round(way['test_accuracy'], 2)) for way in ways.values()]
    assert [kept.strip() for *_, kept in told] == ['', '', '(kept, as asked for)']
    assert float(accuracies[0]) > 50                            # four epochs; chance is 10
    assert ways['learned']['filter_change'] > 0.01
    assert str(output / 'checkpoint') in result.stdout
    with Image.open(output / 'filters.png') as picture:
        assert picture.format == 'PNG'
        assert picture.width >= 1200
        assert len(np.unique(np.asarray(picture).reshape(-1, (picture.mode == 'RGBA' and 4) or 3), axis=0)) > 100


def test_ctrl_c_then_resume_is_bit_equal(whole_run, tmp_path):
    output = tmp_path / 'run'
    with subprocess.Popen(command('train', *SMALL, '--output', output), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, env=ONE_THREAD) as process:
        deadline = time.monotonic() + 240
        while not (output / 'learned.state').exists():          # the first of four epochs is done
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert 'Traceback' not in stderr
    assert 'with --resume goes on' in stderr
    assert not (output / 'checkpoint').exists()
    refused = scat_zoo('train', *SMALL, '--output', output)
    assert refused.returncode == 2
    assert 'holds a run already: continue it with --resume' in refused.stderr
    resumed = scat_zoo('train', *SMALL, '--output', output, '--resume')
    assert resumed.returncode == 0, resumed.stderr
    assert (output / 'results.json').read_text() == (whole_run[0] / 'results.json').read_text()
    expected, actual = weights(whole_run[0]), weights(output)
    assert expected.keys() == actual.keys()
    assert all(np.array_equal(expected[key], actual[key]) for key in expected)
    other = scat_zoo('train', *SMALL, '--output', output, '--resume', '--lr', '0.5')
    assert other.returncode == 2
    assert 'with other settings' in other.stderr


def test_one_process_at_a_time_in_a_folder(tmp_path):
    for options, other in ((SMALL, ['--lr', '0.5']), (['--recipe', 'sample', '--jobs', '1'], ['--select'])):
        output = tmp_path / str(len(options))
        with subprocess.Popen(command('train', *options, '--output', output), stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 240
            while not list(output.rglob('settings.json')):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(signal.SIGSTOP)
            settings = {file: file.read_text() for file in output.rglob('settings.json')}
            try:
                refused = scat_zoo('train', *options, *other, '--output', output)
            finally:
                process.kill()
        assert {file: file.read_text() for file in output.rglob('settings.json')} == settings
        assert refused.returncode == 2
        assert f'another process is training in {output}' in refused.stderr
        assert not refused.stdout


def test_predict(whole_run, tmp_path):
    output, _ = whole_run
    image, _target = data.load('sample').test[0]
    image.save(tmp_path / 'a.png')
    image.convert('RGB').resize((56, 56)).save(tmp_path / 'b.jpg')
    result = scat_zoo('predict', output / 'checkpoint', tmp_path / 'a.png', tmp_path / 'b.jpg', '--topk', 10)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [lines[0], lines[11]] == [str(tmp_path / 'a.png'), str(tmp_path / 'b.jpg')]
    # The run's folder stands for its checkpoint, a folder for its images.
    assert scat_zoo('predict', output, tmp_path, '--topk', 10, '--device', 'cpu').stdout == result.stdout
    assert {line.split('%')[1].strip() for line in lines[1:11]} == set(data.CLASSES)
    probabilities = [float(line.split('%')[0]) for line in lines[1:11]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert abs(sum(probabilities) - 100) < 0.1


def test_predict_with_shipped_weights(tmp_path, capsys):
    test, expected = data.load('sample').test, []
    for i in range(50):
        image, target = test[i]
        image.save(tmp_path / f'{i}.png')
        expected.append(data.CLASSES[target])
    files = [str(tmp_path / f'{i}.png') for i in range(50)]
    assert cli.main(['predict', 'scat_tiny.fashion_mnist', '--topk', '1', *files]) == 0
    found = [line.split('%')[1].strip() for line in capsys.readouterr().out.splitlines()[1::2]]
    assert sum(a == b for a, b in zip(found, expected)) >= 40       # it is right for nine of ten


def test_predict_a_folder_into_a_table(tmp_path, capsys):
    """One file in it is broken: its row says so, and so do the last line and the exit code."""
    test = data.load('sample').test
    for i in range(3):
        test[i][0].save(tmp_path / f'{i}.png')
    (tmp_path / '1.png').write_bytes(b'no image')
    assert cli.main(['predict', 'scat_tiny.fashion_mnist', str(tmp_path), '--topk', '2', '--csv',
                     str(tmp_path / 'table.csv')]) == 2
    out, err = capsys.readouterr()
    assert err == 'scat-zoo: error: 1 of 3 images could not be read: see their errors above, and in the table\n'
    assert f'{tmp_path}/1.png\n  error: ' in out
    with open(tmp_path / 'table.csv', newline='', encoding='utf-8') as stream:
        header, *rows = csv.reader(stream)
    assert header == ['path', 'class1', 'probability1', 'class2', 'probability2', 'error']
    assert [row[0] for row in rows] == [str(tmp_path / f'{i}.png') for i in range(3)]
    assert [bool(row[5]) for row in rows] == [False, True, False]
    assert rows[1][1:5] == [''] * 4
    for row in (rows[0], rows[2]):
        assert f'{100 * float(row[2]):6.2f} %  {row[1]}\n' in out
    for bad in (tmp_path, tmp_path / 'absent' / 'table.csv'):
        with pytest.raises(SystemExit):
            cli.main(['predict', 'scat_tiny.fashion_mnist', str(tmp_path), '--csv', str(bad)])
        assert f'expected a file in a folder that can be written to, got {bad}' in capsys.readouterr().err


def test_filters_of_a_checkpoint(whole_run, tmp_path):
    result = scat_zoo('filters', whole_run[0] / 'checkpoint', '-o', tmp_path / 'bank.png')
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith('checkpoint: learnable filters, pixelwise; J=3, L=2\n')
    assert re.search(r'frame bounds at 28 x 28: A = 0\.\d+, B = \d\.\d+\n', result.stdout)
    with Image.open(tmp_path / 'bank.png') as picture:
        assert picture.height > 1000


def test_filters_of_a_model(tmp_path, capsys):
    """Every number of the table, and a row of panels for what moved only if anything did."""
    options = ['--model-kwargs', 'J=3', 'L=4', 'parametrization=equivariant', 'learnable=True', 'nonexpansive=True']
    heights = {}
    for init in ('tight_frame', 'random'):
        assert cli.main(['filters', 'scat_linear', *options, f'init={init}', '-o', str(tmp_path / f'{init}.png')]) == 0
        with Image.open(tmp_path / f'{init}.png') as picture:
            heights[init] = picture.height
    lines = capsys.readouterr().out.splitlines()[:17]
    assert lines[0] == 'scat_linear: learnable filters, equivariant, nonexpansive; J=3, L=4'
    assert lines[2].split() == ['0', '0', '45.00', '2.667', '0.800', '1.000']
    assert lines[13].split() == ['2', '3', '90.00', '10.667', '3.200', '1.000']
    assert re.fullmatch(r'frame bounds at 32 x 32: A = 0\.\d+, B = (1|0\.\d+)', lines[14])
    assert lines[15] == 'coefficients are at most 1 times as far apart as padded images'
    assert heights['random'] > heights['tight_frame'] + 300


@pytest.mark.parametrize(('args', 'phrase'), [
    (['absent'], 'absent is not there: expected the folder of a checkpoint or a run, or a name of `scat-'),
    (['resnet18'], 'expected a model with scattering filters (`scat-zoo list`), resnet18 has none'),
    (['scat_linear', '--model-kwargs', 'parametrization=gabor'], "unknown parametrization 'gabor'; known: pixelwise"),
    (['FOLDER'], 'no checkpoint in FOLDER: expected a folder with config.json'),
    (['FOLDER', '--model-kwargs', 'J=2'], 'FOLDER is a checkpoint, which tells its own keywords'),
    (['scat_linear', '--model-kwargs', 'checkpoint_path=a.pth'], 'checkpoint_path=a.pth is no keyword of scat_linear'),
    (['scat_linear', '-o', 'FOLDER/absent/a.png'], 'a folder that can be written to, got FOLDER/absent/a.png'),
])
def test_bad_input_to_filters(args, phrase, tmp_path, capsys):
    assert exit_code('filters', *(arg.replace('FOLDER', str(tmp_path)) for arg in args)) == 2
    assert phrase.replace('FOLDER', str(tmp_path)) in capsys.readouterr().err


@pytest.mark.parametrize('parametrization', ['morlet', 'equivariant'])
def test_train_the_numbers_behind_wavelets(parametrization, tmp_path):
    result = scat_zoo('train', '--model-kwargs', 'L=2', 'global_pool=avg', f'parametrization={parametrization}',
                      '--learnable', '--epochs', 1, '--output', tmp_path / 'run')
    assert result.returncode == 0, result.stderr
    config = json.loads((tmp_path / 'run' / 'checkpoint' / 'config.json').read_text())
    assert config['model_args']['parametrization'] == parametrization
    assert 0 < json.loads((tmp_path / 'run' / 'results.json').read_text())['ways']['learned']['filter_change'] < 1
    assert (tmp_path / 'run' / 'filters.png').exists()


def test_fixed_filters_and_a_folder_of_images(tmp_path):
    rng = np.random.RandomState(0)
    for part in ('train', 'val'):
        for c, name in enumerate(('dark', 'light')):
            (tmp_path / 'images' / part / name).mkdir(parents=True)
            for i in range(12):
                pixels = rng.randint(0, 128, (20, 20, 3)) + 120 * c
                Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / 'images' / part / name / f'{i}.png')
    result = scat_zoo('train', '--no-learnable', '--data', tmp_path / 'images', '--img-size', 16, '--epochs', 2,
                      '--batch-size', 8, '--workers', 1, '--output', tmp_path / 'run')
    assert result.returncode == 0, result.stderr
    assert re.search(r'^test accuracy \d+\.\d\d % of 24 images', result.stdout, re.MULTILINE)
    assert not (tmp_path / 'run' / 'filters.png').exists()


MISTAKES = {
    'unknown model': (['--model', 'nothing'], "unknown model 'nothing'; known: scat_convnext_atto"),
    'unknown keyword': (['--model-kwargs', 'nonsense=1'], 'ScatLinear has no keyword nonsense; known: num_classes'),
    'J too large': (['--model-kwargs', 'J=5'], 'J=5 needs images of at least 32 pixels'),
    'channels': (['--in-chans', '4'], 'image files give 1 or 3 channels, the model takes 4'),
    'no data': (['--data', 'nowhere'], 'nowhere is not there: expected a folder of images'),
    'no Fashion-MNIST': (['--data', 'fashion-mnist', '--root', '/dev/null/x'], 'Not a directory'),
    'NaN': (['--lr', 'nan'], 'expected a finite number'),
    'no optimiser': (['--opt', 'nothing'], "unknown optimiser 'nothing'; known: adabelief"),
    'no number': (['--lr', 'high'], 'expected a finite number of at least 0, got high'),
    'no device': (['--device', 'abacus'], "no device 'abacus'"),
    'not this device': (['--device', 'hpu'], "no device 'hpu'"),
    'epochs': (['--epochs', '0'], 'at least 1'),
    'half an epoch': (['--epochs', '1.5'], 'at least 1, got 1.5'),
    'workers': (['--workers', '-1'], 'at least 0'),
    'unknown option': (['--nonsense'], 'nonsense'),
    'no value': (['--model-kwargs', 'J'], "expected KEY=VALUE, such as J=3, got 'J'"),
    'the learned twin': (['--model-kwargs', 'learnable=True'], 'use --learnable or --no-learnable'),
    'classes': (['--model-kwargs', 'num_classes=5'], 'num_classes cannot be one of the model keywords'),
    'not of the zoo': (['--model', 'resnet18'], "unknown model 'resnet18'; did you mean scat_resnet18"),
    'of recipes': (['--select'], '--select is an option of recipes'),
    'arms': (['--arms', 'fixed'], '--arms is an option of recipes'),
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_mistakes_end_in_one_sentence_and_nothing_written(mistake, tmp_path, capsys):
    args, phrase = MISTAKES[mistake]
    output = tmp_path / 'run'
    assert exit_code('train', *args, '--output', output) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert 'error: ' in message
    assert phrase in message
    assert not output.exists()


def test_a_run_that_saved_nothing_begins_anew_with_other_settings(tmp_path, capsys):
    output = ['--output', str(tmp_path / 'run')]
    # A linear model's probe is saved first, which other settings would not fit.
    options = ['train', *SMALL[:3], 'head_hidden_size=8', '--no-learnable', '--epochs', '1', *output]
    assert cli.main([*options, '--opt', 'sgd', '--lr', '1e30', '--warmup-epochs', '0']) == 2
    assert 'try a lower --lr' in capsys.readouterr().err
    assert cli.main([*options, '--resume']) == 2                # it would be another run than the one to resume
    assert 'began with: --opt was sgd, now it is adamw; --lr was 1e+30, now it is not gi' in capsys.readouterr().err
    assert cli.main(options) == 0
    capsys.readouterr()
    assert cli.main([*options, '--resume', '--lr', '0.5']) == 2
    assert capsys.readouterr().err.endswith('that it began with: --lr was not given, now it is 0.5\n')
    (tmp_path / 'run' / 'settings.json').write_text('{"model"')
    assert cli.main([*options, '--resume']) == 2
    assert 'settings.json is broken' in capsys.readouterr().err


def test_an_output_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / 'file').write_text('')
    assert cli.main(['train', '--output', str(tmp_path / 'file' / 'run')]) == 2
    assert 'cannot write to' in capsys.readouterr().err
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other' / 'thesis.tex').write_text('')
    assert cli.main(['train', '--output', str(tmp_path / 'other')]) == 2
    assert 'is not empty and holds no run' in capsys.readouterr().err
    if os.geteuid():                                            # root may write anywhere
        (tmp_path / 'closed').mkdir(mode=0o500)
        assert cli.main(['train', '--output', str(tmp_path / 'closed' / 'run')]) == 2
        assert 'cannot write to' in capsys.readouterr().err


def test_test_gives_the_accuracy_that_training_told(whole_run, tmp_path, capsys):
    assert cli.main(['test', str(whole_run[0] / 'checkpoint')]) == 0
    told = re.search(r'^(test accuracy \d\d\.\d\d %)', whole_run[1].stdout, re.MULTILINE)[1]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f'{told} of 2,000 images (balanced {told.split()[2]} %')
    assert [line.split('  ')[0] for line in lines[2:12]] == list(data.CLASSES)
    assert len(lines) == 2 + 10 + 1 + 10                        # with the confusion matrix
    for name in 'abcdefghij':
        for part in ('train', 'test'):
            (tmp_path / part / name).mkdir(parents=True)
            Image.new('L', (28, 28)).save(tmp_path / part / name / '0.png')
    assert cli.main(['test', str(whole_run[0] / 'checkpoint'), '--data', str(tmp_path)]) == 2
    assert "was trained on: 'a' stands where 'T-shirt/top' did" in capsys.readouterr().err
    assert cli.main(['test', 'scat_linear']) == 2
    assert 'scat_linear has no weights: ' in capsys.readouterr().err


def test_the_figures_of_a_test_as_json(whole_run, tmp_path, capsys):
    """Of the run's folder, which stands for its checkpoint."""
    assert cli.main(['test', str(whole_run[0]), '--json', str(tmp_path / 'figures.json')]) == 0
    out = capsys.readouterr().out
    figures = json.loads((tmp_path / 'figures.json').read_text())
    assert (figures['model'], figures['data'], figures['images']) == (str(whole_run[0]), 'sample', 2000)
    assert float(out.split()[2]) == round(figures['accuracy'], 2)
    assert figures['balanced_accuracy'] == pytest.approx(figures['accuracy'])       # 200 images of each class
    assert figures['majority_accuracy'] == 10
    assert 0.8 < figures['roc_auc'] <= 1
    assert [of_class['name'] for of_class in figures['classes']] == list(data.CLASSES)
    assert np.trace(figures['confusion']) == round(20 * figures['accuracy'])
    assert [p.name for p in tmp_path.iterdir()] == ['figures.json']
    for bad in (tmp_path, tmp_path / 'absent' / 'figures.json'):
        with pytest.raises(SystemExit) as stop:
            cli.main(['test', str(whole_run[0]), '--json', str(bad)])
        assert stop.value.code == 2
        assert f'expected a file in a folder that can be written to, got {bad}' in capsys.readouterr().err


def test_test_on_a_folder_without_a_split_of_deep_images(tmp_path, capsys):
    """10-bit values in 16-bit files, of a model that was trained on such; one file is broken."""
    model = timm.create_model('scat_linear', num_classes=2, in_chans=1, img_size=28, L=2)
    checkpoint.save(model, tmp_path / 'run' / 'checkpoint', ['a', 'b'], value_range=(0, 1023))
    checkpoint.save(model, tmp_path / 'plain', ['a', 'b'])
    for name in 'ab':
        (tmp_path / 'images' / name).mkdir(parents=True)
        for i in range(6):
            pixels = np.random.RandomState(i).randint(0, 1024, (28, 28)).astype(np.uint16)
            Image.fromarray(pixels).save(tmp_path / 'images' / name / f'{i}.png')
    test = ['--data', str(tmp_path / 'images'), '--test-fraction', '0.5']
    assert cli.main(['test', str(tmp_path / 'run'), *test]) == 0
    assert ' % of 6 images (' in capsys.readouterr().out
    assert cli.main(['test', str(tmp_path / 'plain'), *test]) == 2
    assert 'more than 8 bits' in capsys.readouterr().err
    broken = Path(data.load(str(tmp_path / 'images'), test_fraction=0.5, scan=False).test.samples[4][0])
    broken.write_bytes(broken.read_bytes()[:60])
    assert cli.main(['test', str(tmp_path / 'run'), *test]) == 2
    out, err = capsys.readouterr()
    assert f'cannot read the image {broken}' in err.splitlines()[-1]
    assert not out
    assert cli.main(['test', str(tmp_path / 'run'), *test, '--skip-broken']) == 0
    assert ' % of 5 images (' in capsys.readouterr().out


def test_predict_mistakes(whole_run, tmp_path, capsys):
    trained = str(whole_run[0] / 'checkpoint')
    assert cli.main(['predict', str(tmp_path / 'absent'), 'a.png']) == 2
    assert 'absent is not there: expected the folder of a checkpoint or a run' in capsys.readouterr().err
    assert cli.main(['predict', 'scat_linear', 'a.png']) == 2       # a model without weights
    assert 'scat_linear has no weights: ' in capsys.readouterr().err
    assert cli.main(['predict', trained, str(tmp_path / 'absent.png')]) == 2
    assert f'no file or folder {tmp_path}/absent.png' in capsys.readouterr().err
    assert cli.main(['predict', trained, str(tmp_path)]) == 2
    assert f'no images in the folder {tmp_path}' in capsys.readouterr().err
    (tmp_path / 'broken.png').write_bytes(b'')
    assert cli.main(['predict', trained, str(tmp_path / 'broken.png')]) == 2
    assert '1 of 1 images could not be read' in capsys.readouterr().err


@pytest.mark.parametrize('command', ['predict', 'test', 'filters'])
def test_weights_that_are_not_finite_end_in_one_sentence(command, tmp_path, capsys):
    model = timm.create_model('scat_linear', num_classes=10, in_chans=1, img_size=28, L=2)
    checkpoint.save(model, tmp_path / 'checkpoint')
    model.head.fc.bias.data[3] = float('nan')
    save_file(model.state_dict(), tmp_path / 'checkpoint' / 'model.safetensors', {'format': 'pt'})
    Image.new('L', (28, 28)).save(tmp_path / 'a.png')
    assert cli.main([command, str(tmp_path / 'checkpoint'), *([str(tmp_path / 'a.png')] * (command == 'predict'))]) == 2
    out, err = capsys.readouterr()
    assert err.endswith('its weights are not finite, first head.fc.bias\n')
    assert len(err.splitlines()) == 1
    assert not out


def imported(code):
    """The modules that are there after this code, in a process of its own."""
    done = subprocess.run([sys.executable, '-c', f'import sys\n{code}\nprint(*sys.modules, file=sys.stderr)'],
                          stderr=subprocess.PIPE, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize('args', [['--help'], ['--version'], ['nonsense'], []])
def test_help_needs_no_torch(args, capsys):
    """And is that of the whole command line."""
    modules = imported(f"""
import contextlib, io, scat_zoo_cli
with contextlib.suppress(SystemExit), contextlib.redirect_stderr(io.StringIO()):
    scat_zoo_cli.main({args})
""")
    assert 'scat_zoo_cli' in modules
    assert not modules & {'torch', 'timm', 'numpy', 'scat_zoo'}
    told = []
    for main in (scat_zoo_cli.main, cli.main):
        with pytest.raises(SystemExit) as stop:
            main(args)
        told.append((stop.value.code, *capsys.readouterr()))
    assert told[0] == told[1]


def test_imports_are_not_slow():
    """The package imports nothing that timm does not, and its command line what is heavy when it is used."""
    assert {name.partition('.')[0] for name in imported('import scat_zoo') - imported('import timm')} == {'scat_zoo'}
    assert not imported('import scat_zoo.cli') & {'scipy', 'sklearn', 'matplotlib', 'pandas'}


def test_version(capsys):
    with pytest.raises(SystemExit):
        cli.main(['--version'])
    assert re.fullmatch(r'\d+\.\d+\.\d+\n', capsys.readouterr().out)


def test_list_shows_every_model(capsys):
    assert cli.main(['list']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == timm.list_models('scat_*')
    line = next(line for line in lines if line.startswith('scat_resnet18 '))
    assert line.split()[1:6] == ['13,370,702', '928,464', '3', 'x', '224']
    assert '4, 8, 16, 32' in line


def test_run_registers_the_zoo_for_a_script_and_a_module(tmp_path):
    (tmp_path / 'beside.py').write_text('value = 7\n')
    script = tmp_path / 'script.py'
    script.write_text('import sys, timm, beside\n'
                      'print(__name__, sys.argv, beside.value, timm.create_model("scat_linear", L=2).num_classes)\n'
                      'sys.exit(3)\n')
    result = scat_zoo('run', script, '--model', 'x', '-m', 'y')
    assert result.stdout == f"__main__ {[str(script), '--model', 'x', '-m', 'y']} 7 1000\n"
    assert result.returncode == 3
    result = scat_zoo('run', '-m', 'script', '-h', env={**os.environ, 'PYTHONPATH': f'{ROOT}:{tmp_path}'})
    assert result.stdout == f"__main__ {[str(script), '-h']} 7 1000\n"
    script.write_text('raise ValueError("of the script")\n')
    result = scat_zoo('run', script)
    assert result.returncode == 1
    assert 'Traceback' in result.stderr                         # its errors are its own
