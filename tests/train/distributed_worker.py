"""Run by test_distributed.py, alone or under torchrun: train for 20 updates, write each process's weights.

    python distributed_worker.py BATCH_SIZE_PER_PROCESS OUTPUT_FOLDER
"""
import sys
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from timm.utils.distributed import init_distributed_device_so
from timm.utils.model import freeze_batch_norm_2d
from torchvision.transforms.v2.functional import to_dtype, to_image

from scat_zoo.train.data import Prepared, load
from scat_zoo.train.distributed import rank
from scat_zoo.train.loop import Training, evaluate, fit


def to_tensor(image):
    return to_dtype(to_image(image), torch.float32, scale=True)


def main():
    torch.set_num_threads(1)
    batch_size, output = int(sys.argv[1]), Path(sys.argv[2])
    init_distributed_device_so(device='cpu')
    timm.utils.random_seed(0)
    # Batch statistics would differ by process: none are used here.
    model = timm.create_model('scat_linear', L=2, in_chans=1, img_size=28, num_classes=10, learnable=True, log_floor=0.)
    model = freeze_batch_norm_2d(model)
    data = load('sample', val_fraction=0.2)
    train, val = Prepared(data.train, 1, to_tensor), Prepared(data.val, 1, to_tensor)
    training = Training(epochs=1, batch_size=batch_size, opt='sgd', lr=0.1, filter_lr=0.1, weight_decay=0.,
                        warmup_epochs=0, label_smoothing=0.)
    history = fit(model, train, val, training, torch.device('cpu'), output / 'state', 'test')
    assert history[0]['val_accuracy'] == evaluate(model, val, torch.device('cpu'))
    tensors = {**model.state_dict(), 'loss': torch.tensor(history[0]['loss']),
               'val_accuracy': torch.tensor(history[0]['val_accuracy'])}
    save_file(tensors, output / f'rank{rank()}.safetensors')


if __name__ == '__main__':
    main()
