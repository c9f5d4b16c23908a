"""ONNX files of torch's two exporters, run by onnxruntime."""
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

import scat_zoo  # noqa: F401  (registers the models)
from scat_zoo.cli import main
from scat_zoo.train import data, export

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')

KINDS = {'fixed': {}, 'morlet': {'learnable': True, 'parametrization': 'morlet', 'init': 'random'},
         'pixelwise': {'learnable': True, 'init': 'random'}}
LONGEST = 60                    # nodes of the scattering


def onnx_file(model, x, file, dynamo):
    dynamic = {'dynamic_shapes': ({0: torch.export.Dim('batch')},)} if dynamo else {
        'dynamic_axes': {'x': {0: 'batch'}}, 'opset_version': 18}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.onnx.export(model, (x,), file, dynamo=dynamo, external_data=False, verbose=False, input_names=['x'],
                          **dynamic)
    return onnx.load(file).graph


def nodes_of_scattering(graph):
    return sum(any("'scattering'" in entry.value for entry in node.metadata_props if 'name_scopes' in entry.key)
               for node in graph.node)


@pytest.mark.parametrize('dynamo', [True, False])
@pytest.mark.parametrize(('name', 'kind', 'size'), [
    ('scat_linear', 'fixed', (32, 32)), ('scat_mlp', 'morlet', (32, 32)), ('scat_resnet', 'pixelwise', (40, 33)),
    ('scat_tiny', 'pixelwise', (32, 32)), ('scat_resnet18', 'fixed', (96, 96))])
def test_models(name, kind, size, dynamo, tmp_path):
    model = timm.create_model(name, num_classes=10, img_size=size, **KINDS[kind]).eval()
    x = torch.randn(2, 3, *size)
    graph = onnx_file(model, x, tmp_path / 'model.onnx', dynamo)
    assert not {node.op_type for node in graph.node} & {'DFT', 'STFT', 'Loop', 'Scan', 'If'}
    assert not dynamo or 30 < nodes_of_scattering(graph) <= LONGEST
    session = onnxruntime.InferenceSession(tmp_path / 'model.onnx', providers=['CPUExecutionProvider'])
    for batch in (1, 2, 5):
        x = torch.randn(batch, 3, *size)
        with torch.no_grad():
            wanted = model(x).numpy()
        found = session.run(None, {'x': x.numpy()})[0]
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
    for other in ((size[0] + 4, size[1]), (size[0], size[1] - 1), (2 * size[0], size[1] // 2)):
        with pytest.raises(Exception, match='dimensions'):
            session.run(None, {'x': np.zeros((2, 3, *other), np.float32)})


def test_a_learned_low_pass_of_large_images_is_as_short(tmp_path):
    model = timm.create_model('scat_resnet18', num_classes=10, **KINDS['pixelwise']).eval()
    with torch.no_grad():
        for hat in model.scattering.parameters():
            hat.add_(1e-3 * torch.randn_like(hat))
    graph = onnx_file(model, torch.randn(2, 3, 224, 224), tmp_path / 'model.onnx', True)
    assert 30 < nodes_of_scattering(graph) <= LONGEST


def test_the_page_says_how_to_use_a_file(tmp_path, monkeypatch, capsys):
    """The example of docs/deploy.md gives the classes that `scat-zoo predict` gives."""
    monkeypatch.chdir(tmp_path)
    assert main(['export', 'scat_tiny.fashion_mnist', '-o', 'model.onnx']) == 0
    page, names = (Path(__file__).parents[2] / 'docs' / 'deploy.md').read_text(), {}
    exec(re.search(r'```py\n(.*?)```', page, re.DOTALL)[1], names)
    for i, (image, _) in enumerate(data.load('sample', val_fraction=0.).test):
        if i < 20:
            image.save(f'{i}.png')
            capsys.readouterr()
            assert main(['predict', 'scat_tiny.fashion_mnist', f'{i}.png', '--topk', '1']) == 0
            assert names['classify'](f'{i}.png') in capsys.readouterr().out


@pytest.mark.parametrize('large', [0.005, 100.])
def test_int8_warns_where_it_changes_much(large, tmp_path, capsys, monkeypatch):
    """How much that is hangs on the processor: 4 % of the largest logit, or more where sums of 16 bits overflow."""
    monkeypatch.setattr(export, 'LARGE', large)
    assert main(['export', 'scat_tiny.fashion_mnist', '-o', str(tmp_path / 'model.onnx'), '--int8']) == 0
    assert ('8 bits change this model a lot' in capsys.readouterr().out) == (large < 1)


@pytest.mark.parametrize('int8', [False, True])
def test_command(int8, tmp_path, capsys):
    file = tmp_path / 'model.onnx'
    assert main(['export', 'scat_resnet.fashion_mnist', '-o', str(file), *['--int8'][:int8]]) == 0
    said = capsys.readouterr().out
    files, torchs = map(float, re.search(r'images: ([\d.]+) % right, in torch ([\d.]+) %', said).groups())
    assert abs(files - torchs) < (0.5 if int8 else 0.01)
    kinds = {node.op_type for node in onnx.load(file).graph.node}
    assert ('ConvInteger' in kinds) == int8
    assert ('Conv' in kinds) != int8
