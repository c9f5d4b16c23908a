"""fastai: vision_learner with a model of scat_zoo's, by timm name."""
import pytest
import torch

import scat_zoo  # noqa: F401

from .images import folders


@pytest.mark.parametrize(('name', 'kwargs'), [
    ('scat_resnet', {}), ('scat_resnet', {'learnable': True, 'img_size': 32}), ('scat_resnet18', {})])
def test_vision_learner_trains(name, kwargs, tmp_path):
    from fastai.vision.all import CrossEntropyLossFlat, ImageDataLoaders, accuracy, load_learner, vision_learner
    loaders = ImageDataLoaders.from_folder(
        folders(tmp_path, 32, train=40, valid=20), valid='valid', bs=20, num_workers=0, device=torch.device('cpu'))
    learner = vision_learner(
        loaders, name, pretrained=False, metrics=accuracy, loss_func=CrossEntropyLossFlat(), **kwargs)
    before = {key: p.detach().clone() for key, p in learner.model.named_parameters()}
    assert learner.model[1][-1].out_features == 10
    with learner.no_bar(), learner.no_logging():
        learner.fit(1, lr=1e-3)
    assert torch.tensor(learner.recorder.values[-1]).isfinite().all()
    unmoved = [key for key, p in learner.model.named_parameters() if torch.equal(p, before[key])]
    assert not unmoved
    predictions, _ = learner.get_preds()
    learner.export(tmp_path / 'learner.pkl')
    again = load_learner(tmp_path / 'learner.pkl')
    assert torch.equal(again.get_preds(dl=loaders.valid)[0], predictions)
