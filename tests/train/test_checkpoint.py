"""Checkpoint folders."""
import json
import os
import resource
import tempfile

import pytest
import timm
import torch
from safetensors.torch import save_file

from scat_zoo.train import checkpoint


def create(**kwargs):
    return timm.create_model(
        'scat_linear', num_classes=3, in_chans=1, img_size=(16, 24), L=3, learnable=True, **kwargs).eval()


def test_save_and_load_are_bit_equal(tmp_path):
    model = create()
    checkpoint.save(model, tmp_path / 'run' / 'checkpoint', ['a', 'b', 'c'])
    again = checkpoint.load(tmp_path / 'run' / 'checkpoint')
    x = torch.randn(2, 1, 16, 24)
    assert torch.equal(again(x), model(x))
    assert not again.training
    assert list(again.pretrained_cfg['label_names']) == ['a', 'b', 'c']
    config = json.loads((tmp_path / 'run' / 'checkpoint' / 'config.json').read_text())
    assert config['num_classes'] == 3
    assert 'num_classes' not in config['model_args']            # transformers would be given it twice
    assert [p.name for p in (tmp_path / 'run').iterdir()] == ['checkpoint']


@pytest.mark.parametrize('learnable', [False, True])
def test_the_checkpoint_tells_the_present_state_of_the_filters(tmp_path, learnable):
    model = create()
    model.scattering.set_learnable(learnable)
    checkpoint.save(model, tmp_path / 'checkpoint')
    again = checkpoint.load(tmp_path / 'checkpoint')
    assert again.scattering.learnable == learnable
    assert not again.pretrained_cfg['fixed_input_size']
    # A loader that knows only names finds a place for every tensor.
    config = json.loads((tmp_path / 'checkpoint' / 'config.json').read_text())
    args = {**config['model_args'], 'num_classes': 3}
    assert list(timm.create_model(config['architecture'], **args).state_dict()) == list(model.state_dict())
    x = torch.randn(2, 1, 16, 24)
    assert torch.equal(again(x), model(x))


@pytest.mark.parametrize('given', [(0, 1023), (-0.5, 2.25)])
def test_the_value_range_is_kept(tmp_path, given):
    model = create()
    checkpoint.save(model, tmp_path / 'run' / 'checkpoint', ['a', 'b', 'c'], given)
    assert checkpoint.value_range(str(tmp_path / 'run' / 'checkpoint')) == given
    assert checkpoint.value_range(str(tmp_path / 'run')) == given       # a run's folder
    config = json.loads((tmp_path / 'run' / 'checkpoint' / 'config.json').read_text())
    assert config['value_range'] == list(given)
    # timm goes by its own entries.
    again = timm.create_model(f'local-dir:{tmp_path}/run/checkpoint', pretrained=True).eval()
    assert list(again.pretrained_cfg['label_names']) == ['a', 'b', 'c']
    x = torch.randn(2, 1, 16, 24)
    assert torch.equal(again(x), model(x))


def test_without_a_value_range_there_is_none(tmp_path):
    checkpoint.save(create(), tmp_path / 'checkpoint')
    assert 'value_range' not in json.loads((tmp_path / 'checkpoint' / 'config.json').read_text())
    assert checkpoint.value_range(tmp_path / 'checkpoint') is None
    assert checkpoint.value_range('scat_linear.fashion_mnist') is None
    with pytest.raises(ValueError, match='two finite numbers, the lower first'):
        checkpoint.save(create(), tmp_path / 'other', value_range=(5, 5))
    assert not (tmp_path / 'other').exists()


@pytest.mark.parametrize('text', ['[0]', '[1, 0]', '[0, NaN]', '["0", "1"]', '[false, true]', '5', '{"low": 0}'])
def test_a_malformed_value_range_is_refused(tmp_path, text):
    checkpoint.save(create(), tmp_path / 'checkpoint', value_range=(0, 7))
    config = tmp_path / 'checkpoint' / 'config.json'
    content = json.loads(config.read_text())
    config.write_text(json.dumps({**content, 'value_range': json.loads(text)}))
    with pytest.raises(ValueError, match=r'value_range in .* must be two finite numbers, the lower first, got'):
        checkpoint.value_range(tmp_path / 'checkpoint')
    config.write_text('{"value_range"')
    with pytest.raises(ValueError, match="cannot read the checkpoint's"):
        checkpoint.value_range(tmp_path / 'checkpoint')


def test_a_runs_folder_will_do(tmp_path):
    model = create()
    checkpoint.save(model, tmp_path / 'run' / 'checkpoint')
    (tmp_path / 'run' / 'settings.json').write_text('{}')
    x = torch.randn(2, 1, 16, 24)
    for again in (checkpoint.load(tmp_path / 'run'), checkpoint.open_model(str(tmp_path / 'run'), {})):
        assert torch.equal(again(x), model(x))


def test_weights_that_are_not_finite_are_refused(tmp_path):
    for value in (torch.nan, torch.inf):
        model = create()
        checkpoint.save(model, tmp_path / 'run' / 'checkpoint')
        with torch.no_grad():
            model.head.fc.weight[1, 5] = value
        save_file(model.state_dict(), tmp_path / 'run' / 'checkpoint' / 'model.safetensors', {'format': 'pt'})
        for load in (checkpoint.load, lambda folder: checkpoint.open_model(str(folder), {})):
            with pytest.raises(ValueError, match=r'its weights are not finite, first head\.fc\.weight$'):
                load(tmp_path / 'run')


def test_a_failing_save_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    folder = tmp_path / 'checkpoint'
    model = create()
    checkpoint.save(model, folder)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def fail(*args, **kwargs):
        raise OSError('disk full')
    monkeypatch.setattr(checkpoint, 'save_for_hf', fail)
    with pytest.raises(OSError, match='disk full'):
        checkpoint.save(create(drop_rate=0.5), folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ['checkpoint']
    monkeypatch.undo()
    with torch.no_grad():
        model.head.fc.weight.zero_()
    checkpoint.save(model, folder)                              # and a good one replaces it
    assert not checkpoint.load(folder).head.fc.weight.any()


@pytest.mark.parametrize('damage', ['missing folder', 'missing weights', 'cut weights', 'cut config', 'other weights',
                                    'no dict', 'unknown keyword', 'unknown model'])
def test_a_damaged_checkpoint_is_refused_in_one_sentence(tmp_path, damage):
    folder = tmp_path / 'checkpoint'
    checkpoint.save(create(), folder)
    weights, config = folder / 'model.safetensors', folder / 'config.json'
    if damage == 'missing folder':
        folder = tmp_path / 'absent'
    elif damage == 'missing weights':
        weights.unlink()
    elif damage == 'cut weights':
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == 'cut config':
        config.write_text(config.read_text()[:100])
    elif damage == 'no dict':
        config.write_text('[]')
    elif damage == 'unknown keyword':
        config.write_text(config.read_text().replace('"L": 3', '"nonsense": 3'))
    elif damage == 'unknown model':
        config.write_text(config.read_text().replace('scat_linear', 'scat_nothing'))
    else:
        config.write_text(config.read_text().replace('"L": 3', '"L": 4'))
    with pytest.raises(ValueError, match='checkpoint') as raised:
        checkpoint.load(folder)
    assert '\n' not in str(raised.value)


@pytest.fixture
def full():
    """No file can become larger than 2,000 bytes, as where the disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path, request):
    good, other = create(), create()
    checkpoint.save(good, tmp_path / 'checkpoint')
    request.getfixturevalue('full')
    with pytest.raises(OSError, match='File too large') as caught:
        checkpoint.save(other, tmp_path / 'checkpoint')
    assert caught.value.filename == str(tmp_path / 'checkpoint')
    assert [p.name for p in tmp_path.iterdir()] == ['checkpoint']
    again = checkpoint.load(tmp_path / 'checkpoint')
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), good.state_dict().values(), strict=True))


def test_what_is_no_checkpoint_is_not_replaced(tmp_path):
    (tmp_path / 'file').write_text('')
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'folder' / 'thesis.tex').write_text('')
    for name in ('file', 'folder'):
        with pytest.raises(ValueError, match='expected a checkpoint to replace, or nothing, at '):
            checkpoint.save(create(), tmp_path / name)
    assert sorted(p.name for p in tmp_path.rglob('*')) == ['file', 'folder', 'thesis.tex']
    with pytest.raises(ValueError, match='classes, or none, got 1'):
        checkpoint.save(create(), tmp_path / 'new', ['ant'])


def test_names_that_no_file_can_have(tmp_path):
    """Are told as others are that lead nowhere; and what cannot be written is an OSError."""
    for name in ('x' * 5000, f'{"x" * 5000}/run'):
        with pytest.raises(ValueError, match=r'no checkpoint in xxx.*, there is neither$'):
            checkpoint.load(name)
        with pytest.raises(ValueError, match=r'^xxx.* is not there: expected the folder of a checkpoint or a run'):
            checkpoint.open_model(name, {})
        assert checkpoint.value_range(name) is None
        with pytest.raises(OSError, match='File name too long'):
            checkpoint.save(create(), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    good, bad = create(), create()
    checkpoint.save(good, tmp_path / 'checkpoint')
    next(bad.parameters()).data.fill_(float('nan'))
    with pytest.raises(ValueError, match=r'cannot save the model in .*: its weights are not finite, first '):
        checkpoint.save(bad, tmp_path / 'checkpoint')
    again = checkpoint.load(tmp_path / 'checkpoint')
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), good.state_dict().values(), strict=True))


def killed_at(step, model, folder, monkeypatch):
    """Save, and be killed before the folder is replaced (0), between the two moves (1), or after them (2)."""
    moves = []
    replace = os.replace

    def move(source, target):
        if len(moves) == step:
            raise SystemExit
        moves.append(target)
        replace(source, target)

    with monkeypatch.context() as killed:
        killed.setattr(os, 'replace', move)
        killed.setattr(tempfile.TemporaryDirectory, '__exit__', lambda self, *_: self._finalizer.detach() and None)
        if step < 2:
            with pytest.raises(SystemExit):
                checkpoint.save(model, folder)
        else:
            checkpoint.save(model, folder)


@pytest.mark.parametrize('step', [0, 1, 2])
def test_what_a_kill_leaves_is_tidied(step, tmp_path, monkeypatch):
    """At any moment there is a whole checkpoint, the old or the new one."""
    old, new = create(), create()
    checkpoint.save(old, tmp_path / 'checkpoint')
    killed_at(step, new, tmp_path / 'checkpoint', monkeypatch)
    (tmp_path / 'state.partial').write_bytes(b'half')
    assert len(list(tmp_path.iterdir())) == (2 if step == 1 else 3)
    checkpoint.tidy(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ['checkpoint']
    expected = old if step == 0 else new
    again = checkpoint.load(tmp_path / 'checkpoint')
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), expected.state_dict().values(),
                                                 strict=True))
