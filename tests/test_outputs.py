"""Places where nothing can be written, or should not be: every command refuses them, in one sentence."""
import os

import pytest

from scat_zoo import cli
from tests.fuzz import images

WEIGHTS = 'scat_tiny.fashion_mnist'
COMMANDS = {
    'train': ('', ['train', '--data', 'DATA', '--epochs', '1', '--model-kwargs', 'L=2', 'J=1', '--output']),
    'recipe': ('', ['train', '--recipe', 'images', '--arms', 'fixed', '--data', 'DATA', '--output']),
    'extract': ('', ['extract', WEIGHTS, 'DATA', '-o']),
    'filters': ('.png', ['filters', WEIGHTS, '-o']),
    'explain': ('.png', ['explain', WEIGHTS, 'DATA/test/a/0.png', '-o']),
    'export': ('.pt2', ['export', WEIGHTS, '-o']),
}
PLACES = {
    'a file, or a folder for it': lambda place, folder: place.mkdir() if folder is False else place.write_text(''),
    'below a file': None,
    'a link to nowhere': lambda place, folder: place.symlink_to(place.parent / 'not' / 'there'),
    'a pipe': lambda place, folder: os.mkfifo(place),
    'a folder of other things': lambda place, folder: (place.mkdir(), (place / 'thesis.tex').write_text('')),
}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return images.two_classes(tmp_path_factory.mktemp('images') / 'data')


@pytest.mark.parametrize('command', COMMANDS)
@pytest.mark.parametrize('place', [*PLACES, '/dev/full', '/dev/null', '/proc/self/new', 'x' * 300])
def test_a_place_that_does_not_do(command, place, data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    suffix, arguments = COMMANDS[command]
    output = tmp_path / f'out{suffix}'
    if place == 'below a file':
        (tmp_path / 'file').write_text('')
        output = tmp_path / 'file' / output.name
    elif place in PLACES:
        PLACES[place](output, suffix == '')
    else:
        output = place + suffix * (place[0] != '/' or place.endswith('new'))
    before = sorted(tmp_path.rglob('*'))
    try:
        code = cli.main([*(word.replace('DATA', str(data)) for word in arguments), str(output)])
    except SystemExit as end:
        code = end.code
    assert code == 2
    error, = (line for line in capsys.readouterr().err.splitlines() if 'error: ' in line)
    assert ('not/there' if place == 'a link to nowhere' and 'file' in error else str(output)[-8:]) in error
    assert len(error) <= 300
    assert sorted(tmp_path.rglob('*')) == before
