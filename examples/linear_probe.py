"""Linear probe: fixed scattering features of the built-in images under logistic regression, fitted by L-BFGS.

    python examples/linear_probe.py
"""
import timm
import torch
import torch.nn.functional as F
from torchvision.transforms.v2.functional import normalize, pil_to_tensor

import scat_zoo  # noqa: F401  (registers the models)
from scat_zoo.train import data

WEIGHT_DECAY = 1e-2                     # of 1e-4 to 1e-1, chosen on the validation images


def tensors(dataset, mean, std):
    """All images (B, 1, 28, 28), normalised, and their classes (B)."""
    images, classes = zip(*dataset)
    pixels = torch.stack([pil_to_tensor(image) for image in images]).float() / 255
    return normalize(pixels, mean, std), torch.tensor(classes)


def fit_norm(backbone, images):
    """Show the images to the norms: their running statistics come from what they see and not from a gradient."""
    scattering = torch.cat([backbone.scattering(batch) for batch in images.split(100)])
    backbone.norm.train()
    backbone.norm(scattering)
    backbone.norm.eval()


def main():
    torch.manual_seed(0)
    sample = data.load('sample')
    x_train, y_train = tensors(sample.train, sample.mean, sample.std)
    x_test, y_test = tensors(sample.test, sample.mean, sample.std)

    backbone = timm.create_model('scat_linear', num_classes=0, in_chans=1, img_size=28).eval()
    with torch.no_grad():
        fit_norm(backbone, x_train)
        train, test = (torch.cat([backbone(batch) for batch in x.split(100)]) for x in (x_train, x_test))

    probe = torch.nn.Linear(train.shape[1], len(sample.classes))
    optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=100, line_search_fn='strong_wolfe')

    def loss():
        optimizer.zero_grad()
        value = F.cross_entropy(probe(train), y_train) + WEIGHT_DECAY * probe.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    correct = (probe(test).argmax(1) == y_test).float().mean()
    print(f'{len(train)} training images, {train.shape[1]} features: {100 * correct:.2f} % of {len(test)} test images')


if __name__ == '__main__':
    main()
