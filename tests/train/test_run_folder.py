"""The folder of a run: whom it takes, which settings may change, files that are whole."""
import errno

import pytest

from scat_zoo.train import run_folder


def test_whole_follows_links_and_fails_at_once(tmp_path):
    (tmp_path / 'link').symlink_to(tmp_path / 'target')
    for content in 'ab':
        with run_folder.whole(tmp_path / 'link') as partial:
            partial.write_text(content)
        assert (tmp_path / 'link').is_symlink()
        assert (tmp_path / 'target').read_text() == content
    (tmp_path / 'other.partial').mkdir()
    for name in ('', 'other', 'absent/file'):
        with pytest.raises(OSError, match=r'file|directory'), run_folder.whole(tmp_path / name):
            pytest.fail('got to work')


def settings(**changes):
    return {'model': 'scat_linear', 'data': 'a', 'root': 'None', 'fingerprint': 'f', 'input_size': (1, 28, 28),
            'training': {'epochs': 4, 'lr': 0.1}, 'learnable': True, 'model_kwargs': {'nonexpansive': True},
            'ways': ['probe', 'learned'], 'processes': 1, **changes}


@pytest.fixture
def run(tmp_path):
    """A run that has saved something."""
    run_folder.write_json(tmp_path / 'settings.json', settings())
    (tmp_path / 'learned.state').write_text('')
    return tmp_path


def test_folders_of_a_first_run(tmp_path):
    run_folder.check_folder(tmp_path / 'absent', settings(), False)
    run_folder.check_folder(tmp_path, settings(), False)
    for name in (run_folder.LOCK, 'settings.json.partial'):          # as a run leaves them that could not begin
        (tmp_path / name).write_text('')
    run_folder.check_folder(tmp_path, settings(), True)
    (tmp_path / 'thesis.tex').write_text('')
    for resume in (False, True):
        with pytest.raises(ValueError, match='is not empty and holds no run'):
            run_folder.check_folder(tmp_path, settings(), resume)


def test_folders_of_runs(tmp_path):
    for name in ('absent', ''):
        run_folder.check_folder_of_runs(tmp_path / name, ['fixed-seed0'])
    for name in (run_folder.LOCK, 'fixed-seed0'):               # as a start leaves them that could not begin
        (tmp_path / name).mkdir()
        run_folder.check_folder_of_runs(tmp_path, ['fixed-seed0'])
    (tmp_path / 'results.json').write_text('')
    with pytest.raises(ValueError, match='is not empty and holds no runs, but results'):
        run_folder.check_folder_of_runs(tmp_path, ['fixed-seed0'])
    run_folder.write_json(tmp_path / 'fixed-seed0' / 'settings.json', settings())
    run_folder.check_folder_of_runs(tmp_path, ['morlet-seed0'])


def test_a_run_goes_on_only_if_asked_to(run):
    run_folder.check_folder(run, settings(), True)
    with pytest.raises(ValueError, match='holds a run already: continue it with --resume'):
        run_folder.check_folder(run, settings(), False)


@pytest.mark.parametrize('changes', [
    {'training': {'epochs': 5, 'lr': 0.1}},                     # more epochs
    {'data': 'b', 'root': 'there'},                             # the same images elsewhere
    {'training': {'epochs': 4, 'lr': 0.1, 'new': 0}},           # what the version that began did not know
])
def test_what_may_change(run, changes):
    run_folder.check_folder(run, settings(**changes), True)


@pytest.mark.parametrize(('changes', 'told'), [
    ({'training': {'epochs': 3, 'lr': 0.1}}, '--epochs was 4, now it is 3'),
    ({'training': {'epochs': 5, 'lr': 0.2}}, '--lr was 0.1, now it is 0.2'),
    ({'training': {'epochs': 4}}, '--lr was 0.1, now it is not given'),
    ({'training': {'epochs': 4, 'lr': 0.1, 'whiten': 2}}, '--whiten was not given, now it is 2'),
    ({'training': None}, 'training by gradients was asked for, now it is not'),
    ({'fingerprint': 'g'}, 'the images are others than they were'),
    ({'data': 'b', 'fingerprint': 'g'}, '--data was a, now it is b'),
    ({'model': 'scat_mlp', 'input_size': (1, 28, 32)},
     '--model was scat_linear, now it is scat_mlp; --img-size was 28x28, now it is 28x32'),
    ({'start': 'a', 'amp': True}, '--from was not given, now it is a; --amp was not given, now it is given'),
    ({'learnable': None}, '--learnable was given, now it is not given'),
    ({'learnable': False}, '--learnable was given, now it is not given; --no-learnable was not given, now it is given'),
    ({'model_kwargs': {'in_chans': 3, 'J': 3, 'nonexpansive': False}},
     '--model-kwargs nonexpansive was True, now it is False; --in-chans was not given, now it is 3; --model-kwargs J'),
    ({'ways': ['probe']}, 'what to train was probe, learned, now it is probe'),
    ({'processes': 2}, 'the number of processes was 1, now it is 2'),
    ({'val_fraction': None}, 'they are those of another version'),
])
@pytest.mark.parametrize('saved', [True, False])                # nothing, if it was killed before its first state
def test_what_may_not(run, changes, told, saved):
    if not saved:
        (run / 'learned.state').unlink()
    with pytest.raises(ValueError, match='; --resume takes the options that it began with: ') as caught:
        run_folder.check_folder(run, settings(**changes), True)
    assert f' began with: {told[:55]}' in str(caught.value)


def test_a_run_that_saved_nothing_gives_way_to_another(run):
    (run / 'learned.state').unlink()
    run_folder.check_folder(run, settings(training={'epochs': 4, 'lr': 0.01}), False)


def test_runs_of_a_recipe_differ_in_its_options_or_in_the_recipe(run):
    of_recipe = {'data': 'a', 'select': False, 'arm': 'fixed', 'seed': 0, 'training': {'epochs': 4}}
    run_folder.write_json(run / 'settings.json', of_recipe)
    with pytest.raises(ValueError, match='with: --select was not given, now it is given; the recipe is another than '):
        run_folder.check_folder(run, {**of_recipe, 'select': True, 'training': {'epochs': 5}, 'side': 28}, True)


def test_a_run_that_only_fitted_may_train_now_but_not_the_other_way(run):
    run_folder.write_json(run / 'settings.json', settings(training=None))
    run_folder.check_folder(run, settings(training=None), True)
    run_folder.check_folder(run, settings(), True)
    run_folder.write_json(run / 'settings.json', settings())
    with pytest.raises(ValueError, match='training by gradients was '):
        run_folder.check_folder(run, settings(training=None), True)


def test_no_fingerprint_is_no_sign_of_the_same_images(run):
    run_folder.write_json(run / 'settings.json', settings(fingerprint=''))
    with pytest.raises(ValueError, match='--data was a, now it is b'):
        run_folder.check_folder(run, settings(fingerprint='', data='b'), True)


@pytest.mark.parametrize(('content', 'phrase'), [('{"model"', 'is broken'), ('[1]', 'expected entries by name'),
                                                  ('{"training": 3}', 'expected the settings of a run')])
def test_broken_settings(run, content, phrase):
    (run / 'settings.json').write_text(content)
    with pytest.raises(ValueError, match=phrase):
        run_folder.check_folder(run, settings(), True)


def test_one_at_a_time(tmp_path):
    with run_folder.held(tmp_path / 'a' / 'run'):
        assert (tmp_path / 'a' / 'run').is_dir()
        with pytest.raises(ValueError, match='another process is training in'), run_folder.held(tmp_path / 'a' / 'run'):
            pass
    with run_folder.held(tmp_path / 'a' / 'run'):               # it is free again
        pass
    (tmp_path / 'file').write_text('')
    with pytest.raises(ValueError, match=r'cannot write to .*: Not a directory'):
        run_folder.held(tmp_path / 'file' / 'a').__enter__()


def test_files_are_whole_or_as_before(tmp_path):
    file = tmp_path / 'x.json'
    run_folder.write_json(file, {'a': (1, 2)})
    with pytest.raises(TypeError):
        run_folder.write_json(file, {'a': object()})
    assert run_folder.read_json(file) == {'a': [1, 2]}
    table = tmp_path / 'x.csv'
    run_folder.write_csv(table, ('a', 'b'), [(1, 'two, three'), (2, None)])
    assert table.read_bytes() == b'a,b\r\n1,"two, three"\r\n2,\r\n'
    assert {p.suffix for p in tmp_path.iterdir()} == {'.json', '.csv'}


def test_names_that_no_file_can_have(tmp_path):
    long = tmp_path / ('x' * 5000)
    with pytest.raises(OSError, match='File name too long'):
        run_folder.write_json(long, {})
    run_folder.check_folder(long, settings(), True)             # there is nothing yet
    run_folder.check_folder_of_runs(long, [])
    with pytest.raises(ValueError, match=r'cannot write to .*: File name too long; choose another --output'):
        run_folder.held(long).__enter__()


def test_a_file_beside_it_of_a_like_name_is_left_alone(tmp_path):
    """As the rest of what is written stands beside it, whatever its name, until it is whole."""
    other, file = tmp_path / 'table.partial', tmp_path / 'table.csv'
    other.write_text('mine')

    def fail(target):
        with run_folder.whole(target) as partial:
            partial.write_text('half')
            raise KeyError
    for target in (file, other):
        with pytest.raises(KeyError):
            fail(target)
        assert other.read_text() == 'mine'
        assert sorted(tmp_path.iterdir()) == [other]
    run_folder.write_csv(file, ['a'], [[1]])
    assert other.read_text() == 'mine'
    assert sorted(tmp_path.iterdir()) == [file, other]


def test_an_error_of_an_open_file_names_it(tmp_path):
    with pytest.raises(OSError, match='No space left') as caught, run_folder.whole(tmp_path / 'a'):
        raise OSError(errno.ENOSPC, 'No space left on device')
    assert caught.value.filename == str(tmp_path / 'a')
    with pytest.raises(FileNotFoundError) as caught, run_folder.whole(tmp_path / 'a'):
        open(tmp_path / 'b')
    assert caught.value.filename == str(tmp_path / 'b')
    assert list(tmp_path.iterdir()) == []
