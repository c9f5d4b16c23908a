"""Running statistics: right after one step and after forty, for every model, whatever trains it."""
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.transforms.v2.functional import normalize, pil_to_tensor

from scat_zoo.models.norms import BatchNorm, BatchNormAct
from scat_zoo.train.data import few, load

from .architectures import MODELS, create


@pytest.fixture(scope='module')
def sixty():
    """Normalised images (60, 1, 28, 28) and classes, twenty of each of three."""
    sample = load('sample', val_fraction=0.)
    train = [image for image in few(sample.train, 20, seed=0) if image[1] < 3]
    pixels = torch.stack([pil_to_tensor(image) for image, _ in train]).float() / 255
    return normalize(pixels, sample.mean, sample.std), torch.tensor([c for _, c in train])


def outputs_of_norms(model, x):
    """What each batch normalisation of the model gives for x."""
    found, handles = {}, []
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            handles.append(module.register_forward_hook(
                lambda _module, _inputs, output, name=name: found.__setitem__(name, output.detach().clone())))
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize('name', MODELS)
def test_one_step_makes_eval_mode_what_the_step_saw(name, sixty):
    model, x = create(name).train(), sixty[0][::10]                 # six: the last stage has six samples a channel
    seen = outputs_of_norms(model, x)                               # the step: nothing but the norms keeps of it
    told = outputs_of_norms(model.eval(), x)
    assert len(seen) == len(told) >= 3
    for norm in seen:                                               # those that begin at zero give zeros
        assert (told[norm] - seen[norm]).norm() <= 1e-4 * seen[norm].norm(), norm


@pytest.mark.parametrize('name', MODELS)
def test_forty_steps_on_sixty_images(name, sixty):
    """An ordinary loop with a constant rate: eval mode knows what train mode knows."""
    (x, y), model = sixty, create(name, num_classes=3, learnable=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    for step in range(40):
        batch = torch.randperm(60, generator=torch.Generator().manual_seed(step))[:20]
        loss = F.cross_entropy(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        told = (model.eval()(x).argmax(1) == y).float().mean().item()
        seen = (model.train()(x).argmax(1) == y).float().mean().item()
    assert seen > 0.9
    assert abs(told - seen) <= 0.02


@pytest.mark.parametrize('norm', [BatchNorm(5), BatchNormAct(5)])
def test_running_statistics_are_the_average_of_ten_steps_then_torchs(norm):
    batches = torch.randn(14, 50, 5, 9, 9) * 3 + 1
    means, variances = batches.mean((1, 3, 4)), batches.var((1, 3, 4), unbiased=False)
    for i in range(10):
        norm(batches[i])
        assert torch.allclose(norm.running_mean, means[:i + 1].mean(0), atol=1e-6)
        assert torch.allclose(norm.running_var, variances[:i + 1].mean(0), rtol=1e-5)
    torchs = nn.BatchNorm2d(5)
    torchs.load_state_dict(norm.state_dict())
    for x in batches[10:]:
        norm(x), torchs(x)
    for key, value in torchs.state_dict().items():                  # torch's variance: n / (n - 1) of ours
        assert torch.allclose(norm.state_dict()[key], value, rtol=1e-3), key
    # With no momentum, an average over all; so torch's own recalibration of averaged weights works.
    torch.optim.swa_utils.update_bn(list(batches), norm)
    assert torch.allclose(norm.running_mean, means.mean(0), atol=1e-5)


def test_normalisation_and_gradients_are_torchs():
    ours, torchs, x = BatchNorm(4), nn.BatchNorm2d(4), torch.randn(6, 4, 3, 3)
    results = []
    for norm in (ours, torchs):
        images = x.clone().requires_grad_()
        y = norm(images)
        y.square().sum().mul(0.5).add((y * x).sum()).backward()
        results.append((y, images.grad, norm.weight.grad))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*results))


def test_update_bn_recalibrates_the_logarithms_too(sixty):
    model, x = create('scat_resnet'), sixty[0]
    for _ in range(30):
        model.train()(x + 5)                                        # other images than those to come
    torch.optim.swa_utils.update_bn([x], model)
    fresh = create('scat_resnet').train()
    fresh(x)
    for (name, a), b in zip(model.named_buffers(), fresh.buffers()):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5), name


def held_by_eval_mode(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def held_by_timm(model):
    timm.utils.freeze(model, ['norm'])


@pytest.mark.parametrize('hold', [held_by_eval_mode, held_by_timm])
def test_held_norms_hold_the_means_of_the_logarithms(hold, sixty):
    """Where a user holds batch norms, in either of the usual ways, train mode does what eval mode does."""
    model, x = create('scat_linear').train(), sixty[0]
    with torch.no_grad():
        model(x)
        expected = model.eval()(2 * x)
        means = [order.running_mean.clone() for order in model.norm.orders[1:]]
        model.train()
        hold(model)
        assert torch.allclose(model(2 * x), expected, atol=1e-5)
    assert all(torch.equal(order.running_mean, mean) for order, mean in zip(model.norm.orders[1:], means))
