"""The weights that come with the package: every way to load them, what their cards say, and how well they do."""
import json
import re

import pytest
import timm
import torch
from huggingface_hub import ModelCard

from scat_zoo.models import shipped
from scat_zoo.train import checkpoint, job
from scat_zoo.train.recipes import RECIPES
from tools.ship import card

NAMES = sorted(folder.name for folder in shipped.WEIGHTS.iterdir())


def test_the_weights_that_there_are():
    assert NAMES == timm.list_models('scat_*', pretrained=True)
    files = [file for folder in shipped.WEIGHTS.iterdir() for file in folder.iterdir()]
    assert sum(file.stat().st_size for file in files) < 14e6
    assert {file.suffix for file in files} == {'.safetensors', '.json', '.md'}


@pytest.mark.parametrize('name', NAMES)
def test_what_is_saved_of_them_loads(name, tmp_path):
    """With other classes and channels too; a tag's own keywords are saved, which nobody typed."""
    for kwargs in ({}, {'num_classes': 3, 'in_chans': 3}):
        model = timm.create_model(name, pretrained=True, **kwargs).eval()
        checkpoint.save(model, tmp_path / 'saved')
        x = torch.randn(2, *model.pretrained_cfg['input_size'])
        assert torch.equal(checkpoint.load(tmp_path / 'saved')(x), model(x))


@pytest.mark.parametrize('name', NAMES)
def test_they_do_what_their_card_says(name):
    """On the built-in test images, which were not trained on; 2,000 have a standard error of up to 0.7 points."""
    recorded = shipped.results(name)
    figures = job.test(name, 'sample', None, torch.device('cpu'))
    assert (figures['images'], recorded['tested']) == (2000, 10000)
    assert abs(figures['accuracy'] - recorded['accuracy']) < 2
    model = timm.create_model(name, pretrained=True)
    assert sum(p.numel() for p in model.parameters()) == recorded['parameters'] <= 1.4e6
    text = (shipped.WEIGHTS / name / 'README.md').read_text()
    assert f'{recorded["accuracy"]:.2f} % of 10,000 images' in text
    assert f'B = {model.scattering.frame_bounds()[1]:.6g} |' in text
    assert RECIPES[recorded['recipe']].selection in text
    arm = RECIPES[recorded['recipe']].arms[recorded['arm']]
    settings = json.loads(json.dumps({'kwargs': arm.kwargs, 'training': vars(arm.training)}))
    assert card(name, model, settings, recorded) == text        # the recipe is still the one that trained them


@pytest.mark.parametrize('name', NAMES)
def test_the_card_is_of_the_format_of_the_hub(name):
    card = ModelCard.load(shipped.WEIGHTS / name / 'README.md')
    result, = card.data.eval_results                # of model-index, as the Hub understands it
    recorded = shipped.results(name)
    assert card.data.model_name == name
    assert result.metric_type in card.data.metrics
    assert f'{100 * result.metric_value:.2f}' == f'{recorded["accuracy"]:.2f}'
    assert [result.dataset_type] == card.data.datasets
    assert card.data.license == timm.get_pretrained_cfg(name).license
    assert card.data.library_name in card.data.tags
    assert result.task_type == card.data.pipeline_tag in card.data.tags
    assert ModelCard(f'---\n{card.data.to_yaml()}\n---\n').data.to_dict() == card.data.to_dict()


@pytest.mark.parametrize('name', NAMES)
def test_the_python_of_the_card_runs(name, capsys):
    blocks = re.findall(r'^```python\n(.*?)^```$', (shipped.WEIGHTS / name / 'README.md').read_text(), re.M | re.S)
    assert len(blocks) == 2
    assert blocks[0].startswith('import scat_zoo ')             # or timm would not know the name
    names = {}
    for block in blocks:
        exec(compile(block, 'README.md', 'exec'), names)
    assert capsys.readouterr().out.strip() in timm.get_pretrained_cfg(name).label_names
    assert names['probabilities'].sum().item() == pytest.approx(1, abs=1e-5)
    assert (names['model'].num_classes, names['model'].in_chans, names['features'].num_classes) == (4, 3, 0)


@pytest.mark.parametrize('name', NAMES)
def test_they_adapt(name):
    other = timm.create_model(name, pretrained=True, num_classes=3, in_chans=3)
    assert other(torch.randn(2, 3, 28, 28)).shape == (2, 3)
    features = timm.create_model(name, pretrained=True, features_only=True)
    levels = features(torch.randn(2, 1, 28, 28))
    assert [level.shape[1] for level in levels] == features.feature_info.channels()
    grey = torch.randn(2, 1, 28, 28)
    one, three = (timm.create_model(name, pretrained=True, in_chans=n).eval() for n in (1, 3))
    assert torch.allclose(one(grey), three(grey.expand(-1, 3, -1, -1)), atol=1e-3)
    learnable = timm.create_model(name, pretrained=True, learnable=True).eval()
    assert torch.allclose(learnable(grey), one(grey), atol=1e-3)
    frozen = timm.create_model(name, pretrained=True, learnable=False).eval()
    assert torch.allclose(frozen(grey), one(grey), atol=1e-3)


@pytest.mark.parametrize('name', ['scat_linear.fashion_mnist', 'scat_mlp.fashion_mnist'])
def test_a_classifier_of_another_grid_is_refused(name):
    for channels in (1, 3):
        with pytest.raises(RuntimeError, match='size mismatch for head'):
            timm.create_model(name, pretrained=True, in_chans=channels, img_size=40)


@pytest.mark.parametrize('architecture', sorted({name.partition('.')[0] for name in NAMES}))
def test_a_bare_name_keeps_the_generic_cfg(architecture):
    model = timm.create_model(architecture)
    assert (model.num_classes, model.pretrained_cfg['input_size']) == (1000, (3, 32, 32))
    assert 'file' not in model.pretrained_cfg
    with pytest.raises(RuntimeError, match=rf'for {architecture} without a tag: ask for {architecture}\.fashion_mnist'):
        timm.create_model(architecture, pretrained=True)


@pytest.mark.parametrize('name', NAMES)
def test_the_files_name_no_place_on_the_machine_that_trained_them(name):
    for file in ('config.json', 'results.json'):
        values = str(json.loads((shipped.WEIGHTS / name / file).read_text()))
        assert "'/" not in values
        assert 'file:' not in values
