"""The folder of features: what is written is whole, is read back, and belongs to one set of settings."""
import json
import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from scat_zoo.extract import load, shards
from scat_zoo.extract.shards import FeatureFolder

SETTINGS = {'scat_zoo': '0', 'data': ['a'], 'model': 'runs/a', 'weights': 'f00', 'level': 0, 'pool': 'avg',
            'names': 'abc', 'images': 5}
ROWS = torch.arange(10.).reshape(5, 2)
PATHS = ['a.png', 'naïve "b".png', '\udcff.png', 'd.png', 'e.png']


def whole(path, settings=SETTINGS):
    folder = FeatureFolder(path, 3, settings)
    folder.begin(range(3))
    folder.write(0, ROWS[:2], PATHS[:2], [], [10, 10])
    folder.write(1, ROWS[2:2], [], [('x.png', 'cannot read x.png')], [3])
    assert folder.finish() is None
    folder.write(2, ROWS[2:], PATHS[2:], [], [10, 10, -1])
    return folder


def test_what_is_written_is_read_back(tmp_path):
    index = whole(tmp_path / 'out').finish()
    assert (index['rows'], index['left_out'], index['shape'], index['dtype']) == (5, 1, [2], 'F32')
    assert index['settings'] == SETTINGS
    assert index == json.loads((tmp_path / 'out' / 'index.json').read_text())
    features, paths = load(tmp_path / 'out')
    assert torch.equal(features, ROWS)
    assert paths == PATHS
    assert load(tmp_path / 'out', [2, 0]).paths == PATHS[2:] + PATHS[:2]
    assert load(tmp_path / 'out', 0).paths == load(tmp_path / 'out', [0]).paths
    with pytest.raises(ValueError, match=r'has the files 0 to \d, got shards=\[99\]'):
        load(tmp_path / 'out', 99)
    assert sorted(file.name for file in (tmp_path / 'out').iterdir()) == [
        *(f'features-0000{i}-of-00003.safetensors' for i in range(3)), 'index.json', 'settings.json']


def test_plain_safetensors_read_it(tmp_path):
    whole(tmp_path)
    file = tmp_path / 'features-00002-of-00003.safetensors'
    assert torch.equal(load_file(file)['features'], ROWS[2:])
    with safe_open(file, 'pt') as stored:
        told = json.loads(stored.metadata()['scat_zoo'])
    assert told['paths'] == PATHS[2:]


def test_the_bytes_are_the_same_each_time(tmp_path):
    for name in 'ab':
        whole(tmp_path / name).finish()
    for file in (tmp_path / 'a').iterdir():
        assert file.read_bytes() == (tmp_path / 'b' / file.name).read_bytes()


@pytest.mark.parametrize(('other', 'phrase'), [
    ({'level': 1}, '--level was 0, now it is 1;'), ({'images': 6}, 'the number of images was 5, now it is 6;'),
    ({'pool': None, 'level': 'logits'}, '--level was 0, now it is logits; --pool was avg, now it is not given;'),
    ({'model_kwargs': {'J': 3}}, '--model-kwargs J was not given, now it is 3;'),
    ({'names': 'x'}, 'the names of the images were others'), ({'weights': 'x'}, 'the weights were others'),
    ({'weights': None, 'model': 'scat_linear'}, 'the weights were others')])
def test_other_settings_are_refused(other, phrase, tmp_path):
    whole(tmp_path)
    with pytest.raises(ValueError, match=f'holds features with other settings: .*{phrase}.* or choose another -o'):
        FeatureFolder(tmp_path, 3, {**SETTINGS, **other}).begin(range(3))


def test_where_data_and_weights_lie_is_no_matter(tmp_path):
    whole(tmp_path)
    moved = FeatureFolder(tmp_path, 3, {**SETTINGS, 'data': ['b'], 'model': 'runs/b', 'scat_zoo': '1'})
    moved.begin(range(3))
    assert moved.is_done(0, ['a', 'b'], [10, 10])
    without = {**SETTINGS, 'weights': None}
    whole(tmp_path / 'without', without)
    with pytest.raises(ValueError, match='the model was runs/a, now it is scat_linear'):    # its name is all there is
        FeatureFolder(tmp_path / 'without', 3, {**without, 'model': 'scat_linear'}).begin(range(3))


def test_a_folder_of_anything_else_is_refused(tmp_path):
    (tmp_path / 'thesis.tex').write_text('mine')
    with pytest.raises(ValueError, match='is not empty and holds no features'):
        FeatureFolder(tmp_path, 3, SETTINGS).begin(range(3))
    with pytest.raises(ValueError, match=r'cannot write to .*thesis.tex: File exists'):
        FeatureFolder(tmp_path / 'thesis.tex', 3, SETTINGS).begin(range(3))
    (tmp_path / 'list').mkdir()
    (tmp_path / 'list' / 'settings.json').write_text('[]')
    with pytest.raises(ValueError, match=r'settings.json is broken: expected entries by name, got'):
        FeatureFolder(tmp_path / 'list', 3, SETTINGS).begin(range(3))
    assert (tmp_path / 'thesis.tex').read_text() == 'mine'


def test_a_file_made_with_other_settings_is_noticed(tmp_path):
    whole(tmp_path)
    mixed = FeatureFolder(tmp_path, 3, {**SETTINGS, 'level': 1})        # as if both had begun at one moment
    with pytest.raises(ValueError, match=r'was made with other settings than settings.json beside it tells'):
        mixed.finish()


@pytest.mark.parametrize('damage', ['cut off', 'empty', 'of another program'])
def test_a_broken_file_counts_as_not_there(damage, tmp_path):
    folder = whole(tmp_path)
    file = folder.file(1)
    if damage == 'of another program':
        save_file({'features': ROWS}, file)
    else:
        file.write_bytes(file.read_bytes()[:-1 if damage == 'cut off' else 0])
    assert not folder.is_done(1, ['x.png'], [3])
    assert folder.finish() is None
    folder.write(1, ROWS[2:2], [], [], [3])
    assert folder.finish()['rows'] == 5
    file.unlink()
    with pytest.raises(ValueError, match=r'features-00001-of-00003.safetensors is missing or broken: `scat-zoo'):
        load(tmp_path)


def test_the_file_of_another_part_counts_as_not_there(tmp_path):
    folder = whole(tmp_path)
    folder.file(0).write_bytes(folder.file(2).read_bytes())
    assert not folder.is_done(0, ['a', 'b', 'c'], [10, 10, -1])
    assert folder.finish() is None


def test_settings_told_in_other_words_are_those_of_the_files(tmp_path):
    folder = whole(tmp_path)
    (tmp_path / 'settings.json').write_text(json.dumps({**SETTINGS, 'level': 0.0, 'none': None}))
    folder.begin(range(3))
    folder.finish()
    assert load(tmp_path).paths == PATHS


def test_rows_of_other_shapes_make_no_index(tmp_path):
    folder = whole(tmp_path)
    folder.write(1, torch.zeros(1, 3), ['x.png'], [], [3])
    with pytest.raises(ValueError, match='hold rows of 2 shapes or dtypes: delete the folder'):
        folder.finish()


@pytest.mark.parametrize('name', ['settings.json', 'index.json', 'features-00001-of-00003.safetensors'])
def test_what_is_no_file_is_left_alone(name, tmp_path):
    folder = whole(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)                                  # which would be waited for
    with pytest.raises(ValueError, match=f'expected a file, or none yet, at .*{name}: what is there is something'):
        folder.begin(range(3))
    with pytest.raises(ValueError, match=r'no index.json in'):
        load(tmp_path)


def test_flipped_bits_are_noticed(tmp_path):
    folder = whole(tmp_path)
    folder.finish()
    content = bytearray(folder.file(2).read_bytes())
    content[-1] ^= 1
    folder.file(2).write_bytes(content)
    with pytest.raises(ValueError, match=r'00002-of-00003.safetensors holds rows that are not .* of its checksum'):
        load(tmp_path)
    assert not folder.is_done(2, ['c', 'd', 'e'], [10, 10, -1])
    for name in ('absent', f'absent{"x" * 5000}'):
        with pytest.raises(ValueError, match=r'no index.json in .*absent'):
            load(name)


def test_a_file_that_changed_since_is_named(tmp_path):
    folder = whole(tmp_path)
    assert folder.is_done(2, ['c', 'd', 'e'], [10, -1, 77])     # one is gone by now, one was not there then
    with pytest.raises(ValueError, match=r'^b.png had 10 bytes when .*, and has 1,200: delete features-00000-of-00003'):
        folder.is_done(0, ['a.png', 'b.png'], [10, 1200])


def test_what_was_left_half_done_is_removed(tmp_path):
    folder = whole(tmp_path)
    halves = [tmp_path / f'{name}.0123abcd.partial'
              for name in (folder.file(0).name, folder.file(1).name, 'index.json')]
    for half in halves:
        half.write_text('half')
    folder.begin([0, 2])
    assert [half.exists() for half in halves] == [False, True, False]   # the second is another process's
    folder.finish()
    assert not halves[1].exists()


def test_a_process_whose_half_written_file_is_removed_writes_it_again(tmp_path, monkeypatch):
    """Someone begins the same command once more."""
    folder = FeatureFolder(tmp_path, 1, SETTINGS)
    folder.begin([0])
    sync, meanwhile = shards._sync, [folder]

    def begin_meanwhile(path):
        while meanwhile:
            meanwhile.pop().begin([0])
        sync(path)
    monkeypatch.setattr(shards, '_sync', begin_meanwhile)
    folder.write(0, ROWS, PATHS, [], [])
    assert torch.equal(load_file(folder.file(0))['features'], ROWS)


def test_names_that_no_header_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, 'LARGEST', 10_000)
    folder = FeatureFolder(tmp_path, 1, SETTINGS)
    folder.begin([0])
    with pytest.raises(ValueError, match=r'the names of 5 rows take 10,\d\d\d bytes, .*: take fewer rows a file'):
        folder.write(0, ROWS, ['x' * 2000] * 5, [], [])
    assert [file.name for file in tmp_path.iterdir()] == ['settings.json']
