"""Train filters and classifier together, save a checkpoint, and reload it with the learned filters frozen.

    python examples/fine_tune.py [CHECKPOINT_FOLDER]

Three epochs show the steps; `scat-zoo train --learnable` chooses how to train, and begins with a fitted classifier.
"""
import sys
import tempfile
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from torchvision.transforms import v2

import scat_zoo  # noqa: F401  (registers the models)
from scat_zoo.train import checkpoint, data


def main(folder):
    torch.manual_seed(0)
    sample = data.load('sample')
    transform = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True),
                            v2.Normalize(sample.mean, sample.std)])
    train, val = (data.Prepared(part, 1, transform) for part in (sample.train, sample.val))

    model = timm.create_model('scat_linear', learnable=True, num_classes=10, in_chans=1, img_size=28)
    start = torch.cat([p.detach().flatten() for p in model.scattering.parameters()])
    optimizer = torch.optim.AdamW([
        {'params': model.scattering.parameters(), 'lr': 1e-3, 'weight_decay': 0.},     # decay would shrink the filters
        {'params': model.head_parameters(), 'lr': 1e-3, 'weight_decay': 0.05}])
    for epoch in range(3):
        model.train()
        losses = []
        for images, classes in DataLoader(train, batch_size=32, shuffle=True, drop_last=True):
            loss = F.cross_entropy(model(images), classes)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(f'epoch {epoch + 1}: training loss {sum(losses) / len(losses):.3f}')
    change = (torch.cat([p.detach().flatten() for p in model.scattering.parameters()]) - start).norm() / start.norm()
    print(f'the filters changed by {100 * change:.1f} % (relative norm)')

    checkpoint.save(model.eval(), folder, sample.classes)
    frozen = timm.create_model(f'local-dir:{folder}', pretrained=True, learnable=False).eval()
    images, classes = next(iter(DataLoader(val, batch_size=len(val))))
    with torch.no_grad():
        logits = frozen(images)
        print(f'reloaded with {len(list(frozen.scattering.parameters()))} filter parameters, '
              f'logits equal: {torch.equal(logits, model(images))}, '
              f'{(logits.argmax(1) == classes).sum()} of {len(val)} validation images right')


if __name__ == '__main__':
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(scratch) / 'checkpoint')
