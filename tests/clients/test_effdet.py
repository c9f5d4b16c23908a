"""effdet: EfficientDet over scat_resnet18, trained to find the garment in a picture."""
import torch

import scat_zoo  # noqa: F401

from .images import boxes, garments
from .training import check_filters_learn, step

SIZE = 128                                                      # EfficientDet's levels 3 to 7 need it


def create(**backbone_args):
    from effdet.config.model_config import default_detection_model_configs
    from effdet.factory import create_model_from_config
    config = default_detection_model_configs()
    config.update({
        'name': 'scat', 'backbone_name': 'scat_resnet18', 'backbone_args': backbone_args,
        'backbone_indices': (1, 2, 3),                          # strides 8, 16, 32: levels 3 to 5
        'image_size': (SIZE, SIZE), 'num_classes': 10, 'fpn_channels': 32, 'fpn_cell_repeats': 1,
        'box_class_repeats': 1})
    return create_model_from_config(config, bench_task='train', bench_labeler=True, pretrained_backbone=False)


def loss_of(model):
    x, masks, labels = garments(4, SIZE)
    corners = boxes(masks)[:, None, [1, 0, 3, 2]]               # effdet wants (y0, x0, y1, x1)
    target = {'bbox': list(corners), 'cls': list(labels[:, None] + 1)}
    return lambda: model(x, target)['loss']


def test_train():
    model = create().train()
    step(model, loss_of(model))
    from effdet import DetBenchPredict
    x, _, _ = garments(2, SIZE)
    with torch.no_grad():
        assert DetBenchPredict(model.model).eval()(x).isfinite().all()


def test_train_learnable():
    model = create(learnable=True, img_size=SIZE).train()
    check_filters_learn(model, loss_of(model))
