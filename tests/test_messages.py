"""What the package says to mistakes: on one line, in at most 300 characters, what was expected and what came."""
import ast
import builtins
import concurrent.futures
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.models import save_for_hf

import scat_zoo_cli
from scat_zoo import wording
from scat_zoo.train import checkpoint, study
from tools import make_sample, make_textures, ship

ROOT = Path(scat_zoo_cli.__file__).parent
SOURCES = [ROOT / 'scat_zoo_cli.py', *ROOT.glob('scat_zoo/**/*.py'), *ROOT.glob('tools/*.py')]
# Messages that name nothing that came, for nothing came.
NOTHING_CAME = ('scikit-', 'needs matplotlib', 'needs tifffile', 'need pydicom', 'without AVIF', 'was killed',
                'needs --root', 'it is no ', 'it holds NaN', 'got none', 'be contiguous', 'leave pre_pad out')


def errors(source):
    """Calls of exceptions in it, and exceptions raised without one."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Raise) and isinstance(node.exc, (ast.Name, ast.Attribute)) and is_exception(node.exc):
            yield node.exc
        if isinstance(node, ast.Call) and is_exception(node.func):
            yield node


def is_exception(node):
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, 'id', '')
    return name in ('ArgumentTypeError', 'ArgumentError', 'SystemExit') or (
        name.endswith('Error') and hasattr(builtins, name))


def faults(error):
    """What is wrong with how the source words a message, unless it does so elsewhere."""
    if isinstance(error, ast.Call) and error.args and isinstance(error.args[-1], ast.Name):
        return []
    if isinstance(error, ast.Call) and len(error.args) == 3:    # OSError's number, reason and file
        return []
    parts = [node for node in ast.walk(error) if isinstance(node, (ast.Constant, ast.FormattedValue))]
    constant = ''.join(node.value for node in parts if isinstance(node, ast.Constant) and isinstance(node.value, str))
    values = [node for node in parts if isinstance(node, ast.FormattedValue)]
    found = ['no message'] * (not constant) + ['too long'] * (len(constant) > 260)
    if not values and not any(phrase in constant for phrase in NOTHING_CAME):
        found.append('it does not name what came')
    if any(node.conversion == ord('r') and not isinstance(node.value, ast.Call) for node in values):
        found.append('a value of any length: brief(repr(value), 60)')
    return found


@pytest.mark.parametrize('file', SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_error_is_worded(file):
    wrong = [f'{file}:{error.lineno}: {fault}' for error in errors(file.read_text()) for fault in faults(error)]
    assert not wrong, '\n'.join(wrong)


@pytest.mark.parametrize('source', [
    'raise NotImplementedError', 'raise ValueError()', 'raise ValueError("expected a number")',
    f'raise TypeError(f"{"a" * 261} {{name}}")', 'raise argparse.ArgumentTypeError(f"unknown {name!r}")'])
def test_the_test_sees_a_fault(source):
    assert [faults(error) for error in errors(source)] != [[]]


LONG = 'x' * 200


@pytest.mark.parametrize('text', ['', 'a b', LONG * 30, 'two\nlines' + LONG, '\udcff\0', 'naïve ☺'])
def test_any_text_is_brief(text):
    for most in (40, 60, 101):
        found = wording.brief(text, most)
        assert len(found) <= most
        assert found.isprintable()
        found.encode()                                          # which raises at what is no text
        for names in ([], [text] * 3, [text] * 300):
            assert len(wording.some(names, max(60, most))) <= max(60, most)
        assert len(wording.nearest(text, [f'{i}{LONG}' for i in range(99)])) < 120
    assert wording.brief('short') == 'short'
    assert wording.brief('0123456789' * 20, 20) == '01234567...123456789'
    assert wording.some(['a', 'b']) == 'a, b'
    assert wording.some([f'name{i}' for i in range(1000)], 60) == (
        'name0, name1, name2, name3, name4, name5 and 994 more')
    assert wording.nearest('LEARNBLE', ['learnable', 'J']) == 'did you mean learnable?'


def images(folder, count=3, size=(8, 8)):
    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(np.random.RandomState(i).randint(0, 255, size[::-1], np.uint8)).save(folder / f'{i}.png')
    return folder


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """Folders of everything that a newcomer might give, under a path of 1,600 characters."""
    deep = tmp_path_factory.mktemp('deep') / '/'.join([LONG] * 8)
    for name in ('cat', 'dog'):
        images(deep / 'good' / name)
        images(deep / 'one pixel' / name, size=(1, 1))
        images(deep / 'single' / name, count=1)
        (deep / 'hollow' / name).mkdir(parents=True)
        for part in ('train', 'test'):
            images(deep / 'divided' / part / name)
    for i in range(30):
        images(deep / 'others' / 'train' / f'{i}{LONG}', count=1)
        images(deep / 'others' / 'test' / f'{i}{LONG}o', count=1)
    images(deep / 'one class' / LONG)
    for name in ('', 'checkpoint', 'full', 'flat', 'no test/train/cat'):
        (deep / name).mkdir(parents=True, exist_ok=True)
    (deep / 'full' / 'thesis.tex').write_text('')
    for i in range(30):
        (deep / 'flat' / f'{i}{LONG}.png').write_text('')
    for name in ('Train', 'Test'):
        shutil.copytree(deep / 'divided' / 'train', deep / 'capital' / name)
    broken(deep)
    checkpoints(deep)
    return deep


def broken(deep):
    for kind in ('text', 'cut', 'huge', 'nan', 'deep', 'all'):
        shutil.copytree(deep / 'divided', deep / f'{kind} images')
        at = deep / f'{kind} images' / 'train' / 'cat'
        if kind == 'text':
            (at / f'{LONG}.png').write_text('hello')
        elif kind == 'cut':
            Image.new('RGB', (99, 99)).save(at / 'a.jpg')
            (at / 'a.jpg').write_bytes((at / 'a.jpg').read_bytes()[:400])
        elif kind == 'huge':
            head = b'P5 99999 99999 255\n'
            (at / 'a.pgm').write_bytes(head)
        elif kind == 'nan':
            np.save(at / 'a.npy', np.full((8, 8), np.nan, np.float32))
        elif kind == 'deep':                                    # of two and of four channels
            np.save(at / 'a.npy', np.zeros((8, 8, 2), np.float32))
            np.save(at / 'b.npy', np.zeros((8, 8, 4), np.float32))
        else:
            for file in (deep / 'all images').rglob('*.png'):
                file.write_text('hello')


def checkpoints(deep):
    model = timm.create_model('scat_linear', num_classes=2, in_chans=1, img_size=8, L=2)
    checkpoint.save(model, deep / 'run', ['cat', 'dog'])
    checkpoint.save(timm.create_model('scat_linear', num_classes=2, in_chans=5, img_size=8, L=2), deep / 'five')
    save_for_hf(timm.create_model('test_vit'), str(deep / 'vit'), model_config={}, safe_serialization=True)
    torch.save(model.state_dict(), deep / 'model.pth')
    for name in ('half', 'no config', 'no json', 'a list', 'of another', 'of the future'):
        shutil.copytree(deep / 'run', deep / name)
    (deep / 'half' / 'model.safetensors').write_bytes((deep / 'run' / 'model.safetensors').read_bytes()[:500])
    (deep / 'no config' / 'config.json').unlink()
    (deep / 'no json' / 'config.json').write_text('{"a')
    (deep / 'a list' / 'config.json').write_text('[]')
    shutil.copy(deep / 'vit' / 'model.safetensors', deep / 'of another')
    config = json.loads((deep / 'run' / 'config.json').read_text())
    config['model_args'][LONG] = 4
    (deep / 'of the future' / 'config.json').write_text(json.dumps(config))


TRAIN = {
    'nowhere': (['--data', 'AT/nowhere'], ' is not there: expected a folder of images'),
    'a name too long': (['--data', LONG * 30], ' is not there: expected a folder of images'),
    'a file': (['--data', 'AT/good/cat/0.png'], ' is a file: expected a folder of images'),
    'a set nearly known': (['--data', 'fashion_mnist'], 'did you mean fashion-mnist?'),
    'an empty folder': (['--data', 'AT/checkpoint'], 'it holds nothing'),
    'folders of nothing': (['--data', 'AT/hollow'], 'a folder of images for each class, and no image lies in cat'),
    'no folders of classes': (['--data', 'AT/flat'], 'must hold the folders train and test (or val)'),
    'no test': (['--data', 'AT/no test'], 'it holds train'),
    'names in capitals': (['--data', 'AT/capital'], 'it holds Test, Train'),
    'one class': (['--data', 'AT/one class'], 'or such folders of two or more classes itself; it holds xxx'),
    'one image a class': (['--data', 'AT/single'], 'none can be held out of classes of one: cat, dog'),
    'other classes to test': (['--data', 'AT/others'], 'must have the same classes; only train has 0xxx'),
    'text': (['--data', 'AT/text images'], '1 of 13 images cannot be read: mend or remove them, or leave them'),
    'half a JPEG': (['--data', 'AT/cut images'], '--skip-broken; the first is /'),
    'too many pixels': (['--data', 'AT/huge images'], 'pixels, which is too large: scale it down'),
    'NaN': (['--data', 'AT/nan images'], 'it holds NaN or infinite values'),
    'channels': (['--data', 'AT/deep images'], 'or else of the same channels: '),
    'nothing left': (['--data', 'AT/all images', '--skip-broken'], 'no train images are left of cat, dog'),
    'one pixel': (['--data', 'AT/one pixel'], 'J=1 needs images of at least 2 pixels a side, img_size is (1, 1)'),
    'size 0': (['--img-size', '0'], 'height x width such as 48x80, got 0'),
    'half a size': (['--img-size', '64x'], 'height x width such as 48x80, got 64x'),
    'a large size': (['--img-size', '1000000'], 'from 1 to 4,096 pixels, got 1000000'),
    'epochs': (['--epochs', '0'], 'expected a whole number of at least 1, got 0'),
    'seed': (['--seed', '-1'], 'expected a whole number of at least 0, got -1'),
    'a large batch': (['--batch-size', '1' + '0' * 400], 'less than 2^31, got 1000'),
    'a rate': (['--lr', LONG], 'expected a finite number of at least 0, got xxx'),
    'an optimiser': (['--opt', 'adamww'], "unknown optimiser 'adamww'; did you mean adamw"),
    'an augmentation': (['--augment', 'flop'], "invalid choice: 'flop'"),
    'fractions': (['--val-fraction', '20'], 'must be at least 0 and less than 1, got 20'),
    'a model': (['--model', 'scat_liner'], "unknown model 'scat_liner'; did you mean scat_linear"),
    'a long model': (['--model', LONG * 9], 'known: scat_convnext_atto, scat_hybrid'),
    'a keyword': (['--model-kwargs', 'learnble=True'], 'has no keyword learnble; did you mean learnable?'),
    'a long keyword': (['--model-kwargs', f'{LONG}=1'], 'has no keyword xxx'),
    'a long value': (['--model-kwargs', f'scales={[1] * 999}'], 'scales must be distinct integers from 1 to J=1'),
    'no keyword': (['--model-kwargs', '=3'], "expected KEY=VALUE, such as J=3, got '=3'"),
    'J in words': (['--model-kwargs', 'J=two'], "J must be an integer, got 'two'"),
    'scales as one number': (['--model-kwargs', 'scales=2'], 'scales must be distinct integers'),
    'a large J': (['--model-kwargs', 'J=20000'], 'J=20000 needs images of at least 2^J pixels a side'),
    'size in words': (['--model-kwargs', 'img_size=large'], "whole numbers from 1 to 4,096 pixels, got 'large'"),
    'size without end': (['--model-kwargs', 'img_size=1e999'], 'whole numbers from 1 to 4,096 pixels, got inf'),
    'features_only': (['--model-kwargs', 'features_only=True'], 'features_only cannot be one of the model keywords'),
    'a precision': (['--model-kwargs', 'dtype=float64'], 'dtype cannot be one of the model keywords'),
    'a path of weights': (['--model-kwargs', 'checkpoint_path=a.pth'], '--from gives weights to start from'),
    'a file to write to': (['--output', 'AT/good/cat/0.png'], 'cannot write to /'),
    'below a file': (['--output', 'AT/good/cat/0.png/run'], 'Not a directory; choose another --output'),
    'a full folder': (['--output', 'AT/full'], ' is not empty and holds no run; choose another --output'),
    'an output too long': (['--output', LONG * 30], ': File name too long; choose another --output'),
    'among the images': (['--data', 'AT/good', '--output', 'AT/good/run'], ' lies among the images in /'),
    'a device': (['--device', 'abacus' * 30], "no device 'abacus"),
    'weights nearly known': (['--from', 'scat_linear.fashion_mnst'], 'did you mean scat_linear.fashion_mnist'),
    'no weights': (['--from', 'scat_linear'], 'scat_linear has no weights: expected the folder of a checkpoint'),
    'weights of another kind': (['--from', 'AT/vit'], 'scattering filters (`scat-zoo list`), test_vit has none'),
    'an option': (['--batchsize', '3'], '--batchsize 3; did you mean --batch-size? (see scat-zoo train --help)'),
    'part of an option': (['--epoch', '3'], 'unknown arguments: --epoch 3; did you mean --epochs? (see '),
    'a small part of one': (['--warm', '3'], 'unknown arguments: --warm 3; did you mean --warmup-epochs?'),
    'no option': ([LONG * 9], 'unknown arguments: xxx'),
    'a recipe': (['--recipe', 'fashion-tinny'], "unknown recipe 'fashion-tinny'; did you mean fashion-tiny"),
    'a long recipe': (['--recipe', LONG * 9], '(`scat-zoo train --help` has all)'),
    'an arm': (['--recipe', 'sample', '--arms', 'morlett'], "unknown arm 'morlett'; did you mean morlet?"),
    'the start of a recipe': (['--recipe', 'sample', '--from', 'AT/run'], '--from has no effect on a recipe'),
}
OTHERS = {
    'a command': (['trian'], "'run'); did you mean train?"),
    'a .pth file': (['predict', 'AT/model.pth', 'AT/good'], ' is a file: expected the folder of a checkpoint or a run'),
    'half the weights': (['predict', 'AT/half', 'AT/good'], ' is corrupt or does not fit: Error while '),
    'no config': (['test', 'AT/no config'], 'config.json and model.safetensors, config.json is missing'),
    'no checkpoint': (['test', 'AT/full'], 'a folder with config.json and model.safetensors, there is neither'),
    'part of an option': (['predict', 'AT/run', 'AT/good', '--top=1'], '--top=1; did you mean --topk? (see '),
    'no JSON': (['test', 'AT/no json'], ' is corrupt or does not fit: config.json is no JSON: Unterminated string'),
    'a list': (['predict', 'AT/a list', 'AT/good'], ' is corrupt or does not fit: '),
    'weights of another': (['filters', 'AT/of another'], ' is corrupt or does not fit: '),
    'a later keyword': (['filters', 'AT/of the future'], 'ScatLinear has no keyword xxx'),
    'keywords of a checkpoint': (['filters', 'AT/run', '--model-kwargs', 'J=1'], ' is a checkpoint, which tells '),
    'no images': (['predict', 'AT/run', 'AT/checkpoint'], 'no images in the folder /'),
    'no file': (['predict', 'AT/run', 'AT/absent.png'], 'no file or folder /'),
    'no picture': (['predict', 'AT/run', 'AT/full/thesis.tex'], '1 of 1 images could not be read: see their '),
    'a table too long': (['predict', 'AT/run', 'AT/good', '--csv', LONG * 30], 'expected a file in a folder that '),
    'other channels': (['test', 'AT/five', '--data', 'AT/divided'], 'channels, the model takes 5: only grey and '),
    'other classes': (['test', 'AT/run', '--data', 'sample'], 'sample has 10 classes, /'),
    'no weights to test': (['test', 'scat_linear'], 'scat_linear has no weights: expected the folder'),
    'a picture nowhere': (['filters', 'scat_linear', '-o', 'AT/absent/a.png'], 'expected a file in a folder that '),
    'a picture of another kind': (['filters', 'scat_linear', '-o', 'AT/a.jpg'], 'a name that ends in .png, got '),
    'another explanation': (['explain', 'scat_linear', 'AT/image', '-o', 'AT/a'], 'a name that ends in .png'),
    'no script': (['run', 'AT/absent.py'], ': expected a Python file, or -m and an installed module'),
    'no module': (['run', '-m', LONG], 'no script xxx'),
    'too much': (['list', 'scat_tiny'], 'unknown arguments: scat_tiny (see scat-zoo list --help)'),
}

EXTRACT = {                                                     # what stands before `-o out`
    'no folder': (['AT/run', 'AT/absent'], 'no file or folder /'),
    'an empty list': (['AT/run', 'AT/full/thesis.tex'], ': expected the path of an image a line'),
    'two folders': (['AT/run', 'AT/good', 'AT/full'], 'expected one folder or list of images, or tar files, got /'),
    'no tar file': (['AT/run', 'AT/absent.tar'], '1 of 1 tar files are missing'),
    'a level': (['AT/run', 'AT/good', '--level', LONG], 'expected a level from 0 to 2, pre_logits or logits, got '),
    'the pool of no map': (['AT/run', 'AT/good', '--pool', 'max'], 'pool max is for a feature map, a level from 0 '),
    'a type': (['AT/run', 'AT/good', '--dtype', 'int8'], "invalid choice: 'int8'"),
    'no model': (['AT/absent', 'AT/good'], ' is not there: expected the folder of a checkpoint or a run, or a '),
}


@pytest.mark.parametrize(('args', 'phrase'), [
    *[pytest.param(['train', *args], phrase, id=name) for name, (args, phrase) in TRAIN.items()],
    *[pytest.param(['extract', *args, '-o', 'out'], phrase, id=f'extract, {name}')
      for name, (args, phrase) in EXTRACT.items()],
    *[pytest.param(*mistake, id=name) for name, mistake in OTHERS.items()]])
def test_a_newcomers_mistake(args, phrase, place, tmp_path, monkeypatch, capsys):
    """It ends in one short line, last of all that is printed, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    try:
        code = scat_zoo_cli.main([arg.replace('AT/', f'{place}/') for arg in args])
    except SystemExit as stop:                                  # argparse's own
        code = stop.code
    *before, message = capsys.readouterr().err.strip().splitlines()
    assert code == 2
    assert phrase in message
    assert message.startswith('scat-zoo')
    assert ' error: ' in message
    assert len(message) <= 300
    assert not any('error: ' in line for line in before)
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_resumed_with_others_options(place, tmp_path, capsys):
    settings = {'training': None, 'data': str(place), **{f'option{i}': LONG for i in range(9)}}
    (tmp_path / 'probe.json').write_text('')
    (tmp_path / 'settings.json').write_text(json.dumps(settings))
    args = ['train', '--data', str(place / 'divided'), '--output', str(tmp_path)]
    for more, phrase in ([], 'holds a run already: continue it with --resume'), (['--resume'], 'with other settings; '):
        assert scat_zoo_cli.main([*args, *more]) == 2
        assert phrase in capsys.readouterr().err


def test_a_killed_worker_of_a_recipe(tmp_path, monkeypatch, capsys):
    def run(*args):
        raise concurrent.futures.process.BrokenProcessPool      # as the pool does whose process was killed

    monkeypatch.setattr(concurrent.futures, 'ProcessPoolExecutor', concurrent.futures.ThreadPoolExecutor)
    monkeypatch.setattr(study, '_begin', lambda *args: None)
    monkeypatch.setattr(study, '_run_in_worker', run)
    assert scat_zoo_cli.main(['train', '--recipe', 'sample', '--jobs', '2', '--output', str(tmp_path / 'run')]) == 2
    assert 'a process that trained was killed' in capsys.readouterr().err


@pytest.mark.parametrize('meanwhile', ['time.sleep(60)', '''
try:
    time.sleep(60)
except BaseException as error:                                  # as Python 3.11 does where it makes a class
    raise RuntimeError from error'''])
def test_ctrl_c_while_torch_is_imported(meanwhile, tmp_path):
    (tmp_path / 'torch.py').write_text(f'import pathlib, time\npathlib.Path("begun").touch()\n{meanwhile}\n')
    code = 'import sys, scat_zoo_cli\nsys.exit(scat_zoo_cli.main(["list"]))'
    with subprocess.Popen([sys.executable, '-c', code], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / 'begun').exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[1] == 'stopped\n'
    assert process.returncode == 130


@pytest.mark.parametrize(('tool', 'args', 'phrase'), [
    (make_sample, [], 'expected the file train-images-idx3-ubyte or train-images-idx3-ubyte.gz in'),
    (make_textures, [], ', expected a zip file: '),
    (ship, ['fashion-tiny', 'scat_tiny.x'], 'expected the folder of one run of fashion-tiny, got')])
def test_what_a_tool_does_not_find(tool, args, phrase, tmp_path, monkeypatch, capsys):
    absent = str(tmp_path / '/'.join(['x' * 200] * 9))
    monkeypatch.setattr('sys.argv', ['tool', *args[:1], absent, *args[1:], *[str(tmp_path / 'new')] * (not args)])
    with pytest.raises(SystemExit, match='2'):
        tool.main()
    message = capsys.readouterr().err.splitlines()[-1]
    assert phrase in message
    assert len(message) <= 300
    assert not list(tmp_path.iterdir())
