"""Checkpoint folders."""
import json

import pytest
import timm
import torch

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
    assert again.pretrained_cfg['fixed_input_size']             # learned filters, frozen or not
    # A loader that knows only names finds a place for every tensor.
    config = json.loads((tmp_path / 'checkpoint' / 'config.json').read_text())
    args = {**config['model_args'], 'num_classes': 3}
    assert list(timm.create_model(config['architecture'], **args).state_dict()) == list(model.state_dict())
    x = torch.randn(2, 1, 16, 24)
    assert torch.equal(again(x), model(x))


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


@pytest.mark.parametrize('damage', ['missing folder', 'missing weights', 'cut weights', 'cut config', 'other weights'])
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
    else:
        config.write_text(config.read_text().replace('"L": 3', '"L": 4'))
    with pytest.raises(ValueError, match='checkpoint') as raised:
        checkpoint.load(folder)
    assert '\n' not in str(raised.value)
