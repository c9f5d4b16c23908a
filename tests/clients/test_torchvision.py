"""torchvision: a feature pyramid and Faster R-CNN over scat_resnet18 or a hybrid, trained to find garments."""
import timm
import torch

import scat_zoo  # noqa: F401

from .images import boxes, garments
from .training import check_filters_learn, step

SIZE = 64
LAYERS = ['stages_0', 'stages_1', 'stages_2']


def pyramid(name='scat_resnet18', layers=LAYERS, **kwargs):
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    body = timm.create_model(name, features_only=True, **kwargs)
    channels = body.feature_info.channels()[-len(layers):]
    return BackboneWithFPN(body, {name: name for name in layers}, channels, out_channels=32)


def faster_rcnn(name='scat_resnet18', layers=LAYERS, **kwargs):
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.ops import MultiScaleRoIAlign
    anchors = (16,), (32,), (48,), (64,), (96,)
    levels = len(layers) + 1                                    # and what the pyramid pools of the last
    return FasterRCNN(
        pyramid(name, layers, **kwargs), num_classes=11, min_size=SIZE, max_size=SIZE,
        rpn_anchor_generator=AnchorGenerator(anchors[:levels], ((0.5, 1., 2.),) * levels),
        box_roi_pool=MultiScaleRoIAlign(list(layers), output_size=5, sampling_ratio=2))


def loss_of(model, count=4):
    x, masks, labels = garments(count, SIZE)
    targets = [{'boxes': box[None], 'labels': label[None] + 1} for box, label in zip(boxes(masks), labels)]

    def loss():
        losses = model(list(x), targets)
        assert set(losses) == {'loss_classifier', 'loss_box_reg', 'loss_objectness', 'loss_rpn_box_reg'}
        return sum(losses.values())
    return loss


def test_the_pyramid_returns_what_the_stages_give():
    backbone = pyramid().eval()
    x, _, _ = garments(2, SIZE)
    with torch.no_grad():
        maps = backbone.body(x)
        assert [tuple(m.shape[2:]) for m in backbone(x).values()] == [(8, 8), (4, 4), (2, 2), (1, 1)]
    expected = timm.create_model('scat_resnet18', features_only=True, out_indices=(1, 2, 3)).eval()
    expected.load_state_dict(backbone.body.state_dict())
    assert list(maps) == LAYERS
    assert all(torch.equal(a, b) for a, b in zip(maps.values(), expected(x)))


def test_faster_rcnn_trains():
    model = faster_rcnn().train()
    step(model, loss_of(model))
    x, _, _ = garments(2, SIZE)
    detections = model.eval()(list(x))
    assert all(d['boxes'].isfinite().all() for d in detections)


def test_faster_rcnn_trains_filters():
    model = faster_rcnn(learnable=True, img_size=SIZE).train()
    check_filters_learn(model, loss_of(model))


def test_faster_rcnn_trains_a_hybrid():
    """scat_resnet50, whose stages have the names of timm's resnet50."""
    model = faster_rcnn('scat_resnet50', ['layer1', 'layer2', 'layer3', 'layer4'], learnable=True).train()
    check_filters_learn(model, loss_of(model))
    x, _, _ = garments(2, SIZE)
    assert all(d['boxes'].isfinite().all() for d in model.eval()(list(x)))
