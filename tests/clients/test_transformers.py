"""transformers: a checkpoint folder of scat_zoo's read as a TimmWrapper, and scat_resnet18 as a TimmBackbone."""
import pytest
import timm
import torch

import scat_zoo  # noqa: F401
from scat_zoo.train import checkpoint
from scat_zoo.train.data import CLASSES

from .images import batch, pictures
from .training import check_filters_learn, step

SIZE = 32


@pytest.fixture(params=[
    ('scat_linear', {}), ('scat_linear', {'learnable': True, 'L': 4}), ('scat_mlp', {}), ('scat_resnet', {}),
    ('scat_resnet', {'learnable': True, 'J': 3}), ('scat_resnet', {'frozen_filters': True})],
    ids=lambda p: '-'.join([p[0], *p[1]]))
def saved(request, tmp_path):
    """A model whose batch norms have seen images, in eval mode, and its checkpoint folder."""
    name, kwargs = request.param
    model = timm.create_model(name, num_classes=10, **kwargs)
    with torch.no_grad():                                       # learned filters, away from the analytic ones
        for hat in model.scattering.state_dict().values():
            hat.add_(0.01 * torch.randn_like(hat))
    model.train()(batch(16, SIZE)[0])
    checkpoint.save(model.eval(), tmp_path / 'checkpoint', CLASSES)
    return model, tmp_path / 'checkpoint'


def test_image_classification_agrees_with_timm(saved):
    from transformers import AutoImageProcessor, AutoModelForImageClassification
    model, folder = saved
    wrapper = AutoModelForImageClassification.from_pretrained(folder)
    assert type(wrapper).__name__ == 'TimmWrapperForImageClassification'
    assert wrapper.config.id2label == dict(enumerate(CLASSES))
    images, _ = pictures(4, 40)
    x = AutoImageProcessor.from_pretrained(folder)(images)['pixel_values']
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    assert torch.equal(x, torch.stack([transform(image) for image in images]))
    with torch.no_grad():
        assert torch.equal(wrapper(x).logits, model(x))
        output = wrapper(x, output_hidden_states=True)
        assert torch.equal(output.hidden_states[-1], model.forward_features(x))


def test_headless_model_agrees_with_timm(saved):
    from transformers import AutoModel
    model, folder = saved
    wrapper = AutoModel.from_pretrained(folder)
    x, _ = batch(4, SIZE)
    model.reset_classifier(0)
    with torch.no_grad():
        assert torch.equal(wrapper(x).pooler_output, model(x))


def test_train_and_save_again(saved, tmp_path):
    from transformers import TimmWrapperForImageClassification
    _, folder = saved
    wrapper = TimmWrapperForImageClassification.from_pretrained(folder).train()
    x, labels = batch(8, SIZE)
    train = check_filters_learn if wrapper.timm_model.scattering.learnable else step
    train(wrapper, lambda: wrapper(x, labels=labels).loss)
    wrapper.eval().save_pretrained(tmp_path / 'again')
    again = TimmWrapperForImageClassification.from_pretrained(tmp_path / 'again')
    with torch.no_grad():
        assert torch.equal(again(x).logits, wrapper(x).logits)


@pytest.mark.parametrize('kwargs', [{}, {'learnable': True, 'img_size': 64}], ids=['fixed', 'learnable'])
def test_backbone(kwargs):
    from transformers import TimmBackbone, TimmBackboneConfig
    features = timm.create_model('scat_resnet18', features_only=True, out_indices=(1, 3), **kwargs)
    features.train()(batch(8, 64)[0])
    backbone = TimmBackbone(TimmBackboneConfig(backbone='scat_resnet18', out_indices=[1, 3]), **kwargs)
    assert backbone.channels == [128, 512]
    backbone._backbone.load_state_dict(features.state_dict())   # afterwards: construction resets batch norms
    x, labels = batch(8, 64)
    with torch.no_grad():
        maps = backbone.eval()(x).feature_maps
        assert all(torch.equal(a, b) for a, b in zip(maps, features.eval()(x)))
    head = torch.nn.Linear(512, 10)

    def loss():
        return torch.nn.functional.cross_entropy(head(backbone(x).feature_maps[-1].mean((2, 3))), labels)
    train = check_filters_learn if kwargs else step
    train(backbone.train(), loss)
