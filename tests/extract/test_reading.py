"""What a folder of features may say of itself: whatever else it says is refused in one sentence, and nothing is read.
"""
import json
import os

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from scat_zoo.extract import load
from scat_zoo.extract.reading import read_header
from scat_zoo.extract.shards import FeatureFolder

SETTINGS = {'model': 'runs/a', 'weights': 'f00', 'level': 0}
GONE = object()


@pytest.fixture
def folder(tmp_path):
    made = FeatureFolder(tmp_path / 'f', 2, SETTINGS)
    made.begin(range(2))
    for part in range(2):
        made.write(part, torch.arange(8.).reshape(2, 2, 2) + part, [f'{part}a.png', f'{part}b.png'], [], [1, 2])
    made.finish()
    return tmp_path / 'f'


@pytest.mark.parametrize(('way', 'value', 'phrase'), [
    (['rows'], 10 ** 12, 'broken, rows must be the sum of those of all files, got 1000000000000'),
    (['rows'], -4, 'broken, rows must be a whole number, got -4'), (['rows'], True, 'rows must be a whole number'),
    (['shape'], [10 ** 9], "does not have the shape that index.json tells"), (['shape'], [4, 1], 'not have the shape'),
    (['shape'], [10 ** 30], 'shape must be that of a row'), (['shape'], [-2, 2], 'shape must be that of a row'),
    (['dtype'], 'F16', 'does not have the dtype'), (['dtype'], 'U8', "dtype must be F32 or F16, got 'U8'"),
    (['dtype'], [], 'dtype must be F32 or F16'), (['left_out'], GONE, 'there is no entry left_out'),
    (['settings', 'level'], 1, 'does not have the settings'), (['settings'], 'x', 'settings must be entries by name'),
    (['shards'], [], 'rows must be the sum'), (['shards'], [None], 'shards must be entries by name, for each file'),
    (['shards', 1, 'file'], '../../etc/passwd', r'file 1 must be features-00001-of-00002.safetensors, got '),
    (['shards', 1, 'file'], 'features-00000-of-00002.safetensors', 'file 1 must be features-00001'),
    (['shards', 0, 'rows'], 10 ** 12, 'rows must be the sum'), (['shards', 0, 'sha256'], '', 'not have the checksum'),
    (['shards', 0], GONE, 'file 0 must be features-00000-of-00001')])
def test_what_the_index_tells(way, value, phrase, folder):
    index = json.loads((folder / 'index.json').read_text())
    *above, key = way
    at = index
    for step in above:
        at = at[step]
    if value is GONE:
        del at[key]
    else:
        at[key] = value
    (folder / 'index.json').write_text(json.dumps(index))
    with pytest.raises(ValueError, match=phrase) as raised:
        load(folder)
    assert str(raised.value).endswith('`scat-zoo extract` with the same options writes it anew')
    assert len(str(raised.value)) <= 300


@pytest.mark.parametrize('shards', [1., [1.], True, '', b'1', [None], {'a': 1}])
def test_what_is_no_number_of_a_file(shards, folder):
    with pytest.raises(TypeError, match='shards must be one or several numbers of files, got '):
        load(folder, shards)
    assert len(load(folder, np.int64(1)).paths) == len(load(folder, [np.int64(1)]).paths) == 2


def test_an_index_larger_than_any(folder):
    os.truncate(folder / 'index.json', 1 << 30)
    with pytest.raises(ValueError, match='it has more than 268,435,456 bytes'):
        load(folder)


def test_an_index_without_files_asks_for_nothing(folder):
    index = json.loads((folder / 'index.json').read_text())
    (folder / 'index.json').write_text(json.dumps({**index, 'shards': [], 'rows': 0, 'shape': [2 ** 31] * 3}))
    with pytest.raises(ValueError, match='shape must be that of a row'):
        load(folder)


def rewritten(file, features=None, **changes):
    """The file with other features, or entries of its record."""
    with safe_open(file, 'pt') as stored:
        record, before = json.loads(stored.metadata()['scat_zoo']), stored.get_tensor('features')
    kept = {key: value for key, value in {**record, **changes}.items() if value is not GONE}
    save_file({'features': before if features is None else features}, file, {'scat_zoo': json.dumps(kept)})


@pytest.mark.parametrize('change', [
    {'paths': ['a']}, {'paths': [1, 2]}, {'paths': GONE}, {'sizes': [-2, 1]}, {'sizes': None}, {'left_out': [['a']]},
    {'sha256': 3}, {'settings': {}}, {'features': torch.zeros(2, 2, 2, dtype=torch.int32)},
    {'features': torch.zeros(3, 2, 2)}, {'features': torch.zeros(())}, {'features': torch.zeros(2, 0)}])
def test_what_a_file_says_of_itself(change, folder):
    file = folder / 'features-00001-of-00002.safetensors'
    rewritten(file)
    assert read_header(file).record['paths'] == ['1a.png', '1b.png']
    rewritten(file, **change)
    assert read_header(file) is None
    with pytest.raises(ValueError, match=r'features-00001-of-00002.safetensors is missing or broken'):
        load(folder)
    assert load(folder, 0).paths == ['0a.png', '0b.png']


def test_rows_of_nan_are_never_read(folder):
    again = FeatureFolder(folder, 2, SETTINGS)
    again.write(1, torch.full((2, 2, 2), float('nan')), ['1a.png', '1b.png'], [], [1, 2])
    again.finish()
    with pytest.raises(ValueError, match=r'features-00001-of-00002.safetensors holds rows that are not finite, or not'):
        load(folder)
    assert not again.is_done(1, ['1a.png', '1b.png'], [1, 2])
