"""Learning pays where the fixed bank is blind.

With L = 2, the wavelets point along rows and along columns, and each is its own mirror image. So the average-pooled
coefficients of a texture and of its mirror image are the same in distribution: fixed filters can only guess between
waves at +40 and -40 degrees, at whatever frequency. Rates and noise were chosen on other draws than those used here.
"""
import math

import pytest
import timm
import torch
import torch.nn.functional as F

import scat_zoo

SIDE = 24
# (degrees from the rows' axis, wavelength in pixels): between the wavelets of 0 and 90 degrees, 2.67 and 5.33 pixels.
FOUR = [(degrees, wavelength) for degrees in (40, -40) for wavelength in (3.2, 4.4)]


def textures(classes, count, noise, seed):
    """Colour images (count, 3, SIDE, SIDE) of plane waves of random colour and phase in noise; None is noise alone."""
    g = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % len(classes)
    angle, k = (torch.tensor(numbers)[targets].reshape(-1, 1, 1) for numbers in zip(
        *((math.radians(c[0]), 2 * math.pi / c[1]) if c else (0., 0.) for c in classes)))
    u = torch.arange(SIDE, dtype=torch.float32)
    phase = 2 * math.pi * torch.rand(count, 1, 1, generator=g)
    wave = torch.cos(k * (angle.cos() * u[:, None] + angle.sin() * u) + phase) * (k > 0)
    colour = 0.2 + 0.8 * torch.rand(count, 3, 1, 1, generator=g)
    return colour * wave.unsqueeze(1) + noise * torch.randn(count, 3, SIDE, SIDE, generator=g), targets


def trained(classes, noise, steps, batch_size, filter_lr=None, seed=0, **kwargs):
    """A model trained on 2,000 images, and its accuracy on 1,000 others."""
    torch.manual_seed(seed)
    images, targets = textures(classes, 2000, noise, seed=10 + seed)
    model = timm.create_model('scat_linear', L=2, img_size=SIDE, num_classes=len(classes), global_pool='avg', **kwargs)
    groups = scat_zoo.param_groups(model, lr=1e-2, filter_lr=filter_lr)
    optimizer = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [group['lr'] for group in groups], total_steps=steps)
    model.train()
    for _ in range(steps):
        batch = torch.randint(len(images), (batch_size,))
        loss = F.cross_entropy(model(images[batch]), targets[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    images, targets = textures(classes, 1000, noise, seed=1000 + seed)
    with torch.no_grad():
        correct = model.eval()(images).argmax(1) == targets
    return model, correct.float().mean().item()


@pytest.mark.parametrize(('kwargs', 'filter_lr', 'least', 'most'), [
    ({}, None, 0.25, 0.75),
    ({'learnable': True, 'parametrization': 'morlet'}, None, 0.95, 1),
    ({'learnable': True, 'parametrization': 'pixelwise'}, 1e-2, 0.95, 1),
], ids=['fixed', 'morlet', 'pixelwise'])
def test_orientation_and_frequency_between_the_filters(kwargs, filter_lr, least, most):
    _, accuracy = trained(FOUR, 1.0, 300, 32, filter_lr, J=2, **kwargs)
    print(f'accuracy {100 * accuracy:.1f} %')
    assert least <= accuracy <= most


@pytest.mark.parametrize('seed', [0, 1])
def test_learning_recovers_orientation_and_frequency(seed):
    """Two wavelets, from 0 and 90 degrees and 2.67 pixels, find the two waves to be told from noise."""
    classes = [(40, 3.8), (-40, 3.8), None]
    model, accuracy = trained(classes, 1.5, 600, 48, seed=seed, J=1, max_order=1, learnable=True,
                              parametrization='morlet')
    assert accuracy > 0.95
    found = model.scattering.filter_parameters()
    for degrees, wavelength in classes[:2]:
        # A wave vector and its opposite are one orientation.
        off = {abs((w.angle - degrees + 90) % 180 - 90): w for w in found}
        nearest = off[min(off)]
        print(f'{degrees} degrees: {nearest.angle:.1f}; {wavelength} pixels: {nearest.wavelength:.2f}')
        assert min(off) < 3
        assert abs(nearest.wavelength / wavelength - 1) < 0.05
