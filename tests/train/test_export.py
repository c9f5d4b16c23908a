"""`scat-zoo export`: files that give what the model gives. ONNX is tested among the clients."""
import json
import os
import re

import pytest
import timm
import torch

from scat_zoo.cli import main
from scat_zoo.train import checkpoint, export


def test_exports_what_the_model_gives(tmp_path, capsys):
    file = tmp_path / 'model.pt2'
    assert main(['export', 'scat_tiny.fashion_mnist', '-o', str(file)]) == 0
    said = capsys.readouterr().out
    assert re.search(r'images of 1 x 28 x 28\nlargest difference: \S+ of the largest logit\none image', said)
    right = re.search(r'built-in test images: ([\d.]+) % right, in torch ([\d.]+) %', said)
    assert right.group(1) == right.group(2)
    model = timm.create_model('scat_tiny.fashion_mnist', pretrained=True).eval()
    loaded = torch.export.load(file).module()
    x = torch.randn(5, 1, 28, 28)
    torch.testing.assert_close(loaded(x), model(x), rtol=0, atol=1e-3)
    with pytest.raises(Exception, match='28'):
        loaded(torch.randn(5, 1, 32, 28))


def test_the_file_tells_how_to_use_it(tmp_path):
    files = {'scat_zoo': ''}
    torch.export.load(export.export('scat_tiny.fashion_mnist', tmp_path / 'model.pt2').file, extra_files=files)
    about = json.loads(files['scat_zoo'])
    assert about['input_size'] == [1, 28, 28]
    assert about['label_names'][1] == 'Trouser'
    assert set(about) >= {'mean', 'std', 'interpolation', 'crop_pct', 'crop_mode'}


def test_the_file_tells_the_range_of_deep_images(tmp_path):
    model = timm.create_model('scat_tiny', num_classes=2, in_chans=1, img_size=16, L=2, J=1)
    checkpoint.save(model, tmp_path / 'checkpoint', value_range=(0, 4095))
    files = {'scat_zoo': ''}
    torch.export.load(export.export(str(tmp_path / 'checkpoint'), tmp_path / 'model.pt2').file, extra_files=files)
    assert json.loads(files['scat_zoo'])['value_range'] == [0, 4095]


def test_random_weights_are_told(tmp_path, capsys):
    assert main(['export', 'scat_tiny', '-o', str(tmp_path / 'model.pt2')]) == 0
    assert 'the model has no weights: its layers behind the scattering are random\n' in capsys.readouterr().out


def test_what_is_no_file_is_left_alone(tmp_path, capsys):
    os.mkfifo(tmp_path / 'pipe.pt2')
    (tmp_path / 'model.pt2.partial').mkdir()
    for name in ('pipe.pt2', 'model.pt2'):
        assert main(['export', 'scat_tiny', '-o', str(tmp_path / name)]) == 2
        assert capsys.readouterr().err.count('\n') == 1
    assert (tmp_path / 'pipe.pt2').is_fifo()


def test_image_size_and_keywords(tmp_path):
    kwargs = {'J': 1, 'learnable': True, 'num_classes': 3}
    done = export.export('scat_linear', tmp_path / 'file', 'pt2', kwargs, (20, 24))
    assert done.image == (3, 20, 24)
    assert done.accuracy is None
    assert done.difference < 1e-4
    assert torch.export.load(done.file).module()(torch.randn(1, 3, 20, 24)).shape == (1, 3)


def test_a_file_that_gives_something_else_is_not_written(tmp_path, monkeypatch):
    form = export.FORMATS['pt2']
    monkeypatch.setitem(export.FORMATS, 'pt2', form._replace(open=lambda file: lambda x: form.open(file)(x) + 1))
    with pytest.raises(RuntimeError, match='differs'):
        export.export('scat_tiny', tmp_path / 'model.pt2')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(('args', 'said'), [
    (['scat_tiny', '-o', 'model.xyz'], 'xyz'), (['scat_tiny', '-o', 'model.pt2', '--int8'], 'pt2'),
    (['scat_tniy', '-o', 'model.pt2'], 'scat_tiny'), (['scat_tiny', '-o', 'model.pt2', '--img-size', '3'], '3')])
def test_bad_input_is_told_on_one_line(args, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(['export', *args]) == 2
    error = capsys.readouterr().err
    assert error.startswith('scat-zoo: error: ')
    assert error.count('\n') == 1
    assert said in error
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export.importlib.util, 'find_spec', lambda name: None)
    assert main(['export', 'scat_tiny', '-o', str(tmp_path / 'model.onnx')]) == 2
    assert "pip install 'scat_zoo[export]'" in capsys.readouterr().err
