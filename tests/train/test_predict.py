"""Classifying files and folders: what is found, what is answered, and what a broken file costs."""
import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from scat_zoo.train import checkpoint, predict
from scat_zoo.train.predict import Predictor, find

from .terminal import Terminal

CPU = torch.device('cpu')
NAMES = ['dark', 'grey', 'light']


def create():
    return timm.create_model('scat_linear', num_classes=3, in_chans=1, img_size=16, L=2).eval()


@pytest.fixture
def run(tmp_path):
    """A run's folder."""
    checkpoint.save(create(), tmp_path / 'run' / 'checkpoint', NAMES)
    return tmp_path / 'run'


def write(file, seed=0, size=16):
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 256, (size, size)) // (1 + seed % 3)
    Image.fromarray(pixels.astype(np.uint8)).save(file)
    return file


def rows(file):
    with open(file, newline='', encoding='utf-8') as stream:
        return list(csv.DictReader(stream))


def test_find_takes_files_as_they_come_and_searches_folders_sorted(tmp_path):
    for name in ('b/2.png', 'b/10.png', 'a/deep/er/x.PNG', 'c.jpg', '.hidden/y.png', 'a/.ipynb_checkpoints/z.png',
                 'a/._x.png'):
        write(tmp_path / 'images' / name.replace('PNG', 'png')).rename(tmp_path / 'images' / name)
    (tmp_path / 'images' / 'notes.txt').write_text('no image')
    named = write(tmp_path / 'named.png')
    found = find([named, tmp_path / 'images', tmp_path / 'images' / 'c.jpg'])
    assert [str(file.relative_to(tmp_path)) for file in found] == [
        'named.png', 'images/a/deep/er/x.PNG', 'images/b/10.png', 'images/b/2.png', 'images/c.jpg', 'images/c.jpg']


def test_a_link_that_leads_round_in_a_circle(tmp_path):
    write(tmp_path / 'images' / 'a.png')
    for name in ('again', 'too'):               # two of them: the ways round are without number
        (tmp_path / 'images' / name).symlink_to(tmp_path / 'images')
    elsewhere = write(tmp_path / 'elsewhere' / 'b.png')
    (tmp_path / 'images' / 'link').symlink_to(elsewhere.parent)
    assert [file.name for file in find([tmp_path / 'images'])] == ['a.png', 'b.png']


def test_what_is_not_there_is_refused_before_any_work(tmp_path, run, capsys):
    good = write(tmp_path / 'good.png')
    (tmp_path / 'empty' / 'sub').mkdir(parents=True)
    (tmp_path / 'empty' / 'notes.txt').write_text('no image')
    (tmp_path / 'broken-link').symlink_to(tmp_path / 'nowhere')
    os.mkfifo(tmp_path / 'fifo')
    for name, phrase in (('absent.png', 'no file or folder .*absent.png: 1 of 2 are missing$'),
                         ('empty', 'no images in the folder .*empty: expected files that end in .jpg, '),
                         ('broken-link', 'no file or folder .*broken-link: 1 of 2 are missing$'),
                         ('fifo', 'fifo is neither a file nor a folder$')):
        with pytest.raises(ValueError, match=phrase):
            predict.show(str(run), [good, tmp_path / name], 1, CPU, tmp_path / 'out.csv')
    assert not capsys.readouterr().out
    assert not list(tmp_path.glob('out.csv*'))


def test_of_paths_that_are_not_there_the_first_is_named(tmp_path):
    """Also if something else is wrong with one before it, or its name is longer than any file's can be."""
    (tmp_path / 'empty').mkdir()
    for name in ('a.png', 'x' * 5000):
        with pytest.raises(ValueError, match=f'no file or folder .*{name[-9:]}: 2 of 4 are missing$'):
            find([tmp_path / 'empty', write(tmp_path / 'good.png'), tmp_path / name, tmp_path / 'b.png'])


def test_300_images_in_batches_are_as_each_alone(tmp_path, run):
    files = [write(tmp_path / f'{i}.png', i) for i in range(300)]
    sizes = []
    predictor = Predictor(str(run), CPU)
    predictor.model.register_forward_pre_hook(lambda model, args: sizes.append(len(args[0])))
    found = list(predictor(files, 3, batch_size=64))
    assert sizes == [64, 64, 64, 64, 44]
    assert [path for path, _, _ in found] == files
    for i in (0, 63, 64, 299):
        alone, = predictor([files[i]], 3)
        assert [name for name, _ in found[i].classes] == [name for name, _ in alone.classes]
        for (_, a), (_, b) in zip(found[i].classes, alone.classes):
            assert a == pytest.approx(b, rel=1e-5)              # float32, summed in another order
    assert sorted(NAMES) == sorted(name for name, _ in found[0].classes)
    assert sum(p for _, p in found[0].classes) == pytest.approx(1, abs=1e-6)
    assert len({found[i].classes[0][1] for i in range(300)}) > 200


def test_one_batch_at_a_time_is_read(tmp_path, run):
    files = [write(tmp_path / f'{i}.png', i) for i in range(9)]
    answers = Predictor(str(run), CPU)(files, 1, batch_size=4)
    next(answers)
    for file in files[:4]:
        file.unlink()                                           # these are read already, the others not yet
    write(files[5], seed=77)
    assert all(answer.error is None for answer in answers)


def test_the_answers_are_the_models(tmp_path, run):
    file = write(tmp_path / 'a.png', size=32)
    model = checkpoint.load(run)
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model))
    with torch.inference_mode():
        expected = model(transform(Image.open(file))[None]).softmax(1)[0].tolist()
    (_, classes, error), = Predictor(str(run), CPU)([file], 5)          # of three classes, all
    assert error is None
    assert dict(classes) == pytest.approx(dict(zip(NAMES, expected)), rel=1e-5)
    assert [p for _, p in classes] == sorted((p for _, p in classes), reverse=True)


def test_a_bad_file_costs_only_itself(tmp_path, run, capsys):
    files = [write(tmp_path / f'{i}.png', i) for i in range(5)]
    files[1].write_bytes(b'no image')
    files[3].write_bytes(files[3].read_bytes()[:100])
    with pytest.raises(ValueError, match=r'^2 of 5 images could not be read: see their errors above, and in the ta'):
        predict.show(str(run), files, 2, CPU, tmp_path / 'out.csv')
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(' ')] == [str(file) for file in files]
    at = lines.index(str(files[1]))
    assert lines[at + 1].startswith('  error: ')
    assert lines[at + 2] == str(files[2])
    assert sum('%' in line for line in lines) == 3 * 2
    table = rows(tmp_path / 'out.csv')
    assert [row['path'] for row in table] == [str(file) for file in files]
    assert list(table[0]) == ['path', 'class1', 'probability1', 'class2', 'probability2', 'error']
    for i, row in enumerate(table):
        assert bool(row['error']) == (i in (1, 3))
        assert bool(row['class1']) == bool(row['probability2']) == (i not in (1, 3))
    expected, = Predictor(str(run), CPU)([files[2]], 2)
    assert [(table[2]['class1'], float(table[2]['probability1'])), (table[2]['class2'], float(table[2]['probability2']))
            ] == [(name, pytest.approx(p, rel=1e-4)) for name, p in expected.classes]
    assert not list(tmp_path.glob('*.partial'))


def test_all_files_bad(tmp_path, run):
    (tmp_path / 'a.png').write_bytes(b'')
    with pytest.raises(ValueError, match=r'^1 of 1 images could not be read: see their errors above'):
        predict.show(str(run), [tmp_path / 'a.png'], 2, CPU, tmp_path / 'out.csv')
    row, = rows(tmp_path / 'out.csv')
    assert row['error']


def test_an_output_that_is_not_finite_is_an_error_of_that_image(tmp_path, run):
    files = [write(tmp_path / f'{i}.png', i) for i in range(3)]
    predictor = Predictor(str(run), CPU)
    predictor.model.register_forward_hook(
        lambda model, args, output: output.index_fill(0, torch.tensor([1]), torch.nan))
    found = list(predictor(files, 1))
    assert [error is None for _, _, error in found] == [True, False, True]
    assert 'not finite' in found[1].error


def test_names_of_any_kind_in_the_table(tmp_path, run, capsys):
    """Commas, quotes, line breaks and signs of any script come back; bytes that are no text are escaped."""
    names = [b'a,"b".png', b'two\nlines.png', '猫.png'.encode(), b'\xff.png']
    for name in names:
        (tmp_path / 'images').mkdir(exist_ok=True)
        write(tmp_path / 'plain.png').rename(tmp_path / 'images' / os.fsdecode(name))
    predict.show(str(run), [tmp_path / 'images'], 1, CPU, tmp_path / 'out.csv')
    found = {Path(row['path']).name for row in rows(tmp_path / 'out.csv')}
    assert found == {'a,"b".png', 'two\nlines.png', '猫.png', '\\udcff.png'}
    lines = capsys.readouterr().out.splitlines()[::2]           # in print, line breaks are escaped too
    assert {Path(line).name for line in lines} == {'a,"b".png', 'two\\nlines.png', '猫.png', '\\udcff.png'}


@pytest.mark.parametrize('fails', ['stopped', 'broken model'])
def test_the_old_table_stays_if_it_is_not_replaced_whole(tmp_path, run, fails, monkeypatch):
    file = write(tmp_path / 'a.png')
    (tmp_path / 'out.csv').write_text('old')
    error = KeyboardInterrupt if fails == 'stopped' else RuntimeError

    def fail(*args):
        raise error
    monkeypatch.setattr(Predictor, '_classify', fail)
    with pytest.raises(error):
        predict.show(str(run), [file], 1, CPU, tmp_path / 'out.csv')
    assert (tmp_path / 'out.csv').read_text() == 'old'
    assert not list(tmp_path.glob('*.partial'))


def test_a_table_that_cannot_be_written_is_refused_before_any_work(tmp_path, run, capsys):
    file = write(tmp_path / 'a.png')
    with pytest.raises(OSError, match='absent'):
        predict.show(str(run), [file], 1, CPU, tmp_path / 'absent' / 'out.csv')
    assert not capsys.readouterr().out


@pytest.mark.parametrize(('count', 'bar'), [(49, False), (50, True)])
def test_many_images_have_a_progress_bar(tmp_path, run, count, bar, monkeypatch, capsys):
    monkeypatch.setattr('sys.stderr', Terminal())
    for i in range(count):
        write(tmp_path / 'images' / f'{i}.png')
    predict.show(str(run), [tmp_path / 'images'], 1, CPU)
    assert (f'{count}/{count}' in sys.stderr.getvalue()) == bar
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 2 * count


def test_numbers_where_classes_have_no_names(tmp_path):
    checkpoint.save(create(), tmp_path / 'checkpoint')
    assert Predictor(str(tmp_path / 'checkpoint'), CPU).classes == ['0', '1', '2']


def test_the_value_range_of_the_checkpoint_is_applied(tmp_path):
    """10-bit values in a 16-bit file are the grey levels that they are."""
    model = create()
    checkpoint.save(model, tmp_path / 'plain', NAMES)
    checkpoint.save(model, tmp_path / 'ranged', NAMES, value_range=(0, 1020))
    eight = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(eight).save(tmp_path / '8.png')
    Image.fromarray(eight.astype(np.uint16) * 4).save(tmp_path / '16.png')
    (_, expected, _), = Predictor(str(tmp_path / 'plain'), CPU)([tmp_path / '8.png'], 3)
    (_, found, error), = Predictor(str(tmp_path / 'ranged'), CPU)([tmp_path / '16.png'], 3)
    assert error is None
    assert dict(found) == pytest.approx(dict(expected), rel=1e-4)
    (_, _, error), = Predictor(str(tmp_path / 'plain'), CPU)([tmp_path / '16.png'], 3)
    assert 'more than 8 bits' in error


def ranged(folder, average):
    """A checkpoint of images whose values are 0 to 65535, and this on average."""
    model = create()
    model.pretrained_cfg['mean'] = (average / 65535,)
    checkpoint.save(model, folder / f'{average}', NAMES, value_range=(0, 65535))
    return str(folder / f'{average}')


SCENE = np.linspace(0, 1, 256).reshape(16, 16) ** 1.5            # 0.4 on average


@pytest.mark.parametrize(('values', 'told'), [
    ((4095 * SCENE).astype(np.uint16), 'from 0 to 4095'),               # 12 bits in 16
    (SCENE.astype(np.float32), 'from 0 to 1'),
    ((255 * SCENE).astype(np.uint8), 'of 8 bits'),
    (1e6 * SCENE.astype(np.float32), 'from 0 to 1e+06')])
def test_pictures_of_another_range_are_told_once(values, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)                                 # a long name of the folder would be shortened
    for name in ('b.tif', 'c.tif'):
        Image.fromarray(values).save(name)
    Image.fromarray((65535 * SCENE).astype(np.uint16)).save('a.tif')
    predict.show(ranged(tmp_path, 20000), [Path(f'{name}.tif') for name in 'abc'], 1, CPU)
    assert capsys.readouterr().err == (
        'scat-zoo: warning: 2 of 3 images have values of another range than the training images, 0 to 65535, so their '
        f'answers may mean nothing; the first is b.tif, {told}\n')


@pytest.mark.parametrize('top', [1, 255])
def test_eight_bits_are_on_the_scale_of_floats_that_they_became(top, tmp_path, capsys):
    Image.fromarray((255 * SCENE).astype(np.uint8)).save(tmp_path / 'a.png')
    checkpoint.save(create(), tmp_path / 'model', NAMES, value_range=(0, top))
    predict.show(str(tmp_path / 'model'), [tmp_path / 'a.png'], 1, CPU)
    assert not capsys.readouterr().err


def test_dark_bright_and_empty_pictures_are_of_the_range_all_the_same(tmp_path, capsys):
    spot = np.zeros((16, 16))
    spot[3, 4] = 0.2
    for i, values in enumerate((0.15 * SCENE, 0.9 + 0.1 * SCENE, spot, 0 * SCENE, 1 + 0 * SCENE)):
        Image.fromarray((65535 * values).astype(np.uint16)).save(tmp_path / f'{i}.png')
    predict.show(ranged(tmp_path, 20000), [tmp_path / f'{i}.png' for i in range(5)], 1, CPU)
    # A hot pixel among the training images makes their range: this is what they look like.
    Image.fromarray((3000 * SCENE).astype(np.uint16)).save(tmp_path / 'dim.png')
    predict.show(ranged(tmp_path, 1000), [tmp_path / 'dim.png'], 1, CPU)
    assert not capsys.readouterr().err


def piped(run, folder, *options):
    """`scat-zoo predict ... | head -1`, with a reader that is gone after the first line."""
    process = subprocess.Popen([sys.executable, '-m', 'scat_zoo', 'predict', str(run), str(folder), *options],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    first = process.stdout.readline()
    process.stdout.close()
    _, err = process.communicate(timeout=300)
    return first, err, process.returncode


def test_a_closed_pipe_ends_without_a_word(tmp_path, run):
    for i in range(200):
        write(tmp_path / 'images' / f'{i}.png')
    first, err, code = piped(run, tmp_path / 'images')
    assert first == f'{tmp_path}/images/0.png\n'
    assert 'Traceback' not in err
    assert 'error' not in err
    assert 'Exception' not in err
    assert code == 141                          # as of a program that SIGPIPE ends
    for expected in (0, 2):                     # the table is written to its end all the same
        _, err, code = piped(run, tmp_path / 'images', '--csv', str(tmp_path / 'out.csv'))
        assert 'Traceback' not in err
        assert 'Exception' not in err
        assert code == expected
        assert len(rows(tmp_path / 'out.csv')) == 200
        (tmp_path / 'images' / '5.png').write_bytes(b'')
    assert err.splitlines()[-1].startswith('scat-zoo: error: 1 of 200 images could not be read: ')
