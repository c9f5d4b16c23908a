"""docs/determinism.md: what is equal to the bit, and that the rest differs by rounding alone."""
import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from scat_zoo import ScatteringTorch2D, cli
from tests.scattering.reference import images

TRAIN = ['--model', 'scat_tiny', '--model-kwargs', 'L=2', 'J=1', '--epochs', '2', '--learnable', '--device', 'cpu']
IN_A_PROCESS = '''
import sys, torch
from tests.test_determinism import values
torch.save(values(), sys.argv[1])
'''


@pytest.fixture
def threads():
    """Sets the number of threads, which is put back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def values():
    """Coefficients, and gradients to images and filters."""
    torch.manual_seed(0)
    S, x = ScatteringTorch2D(2, (20, 28), L=2, learnable=True), torch.randn(3, 20, 28, requires_grad=True)
    s = S(x)
    return [s.detach(), *torch.autograd.grad(s.square().sum(), [x, *S.parameters()])]


def equal(a, b):
    return len(a) == len(b) and all(map(torch.equal, a, b))


def weights(output, *options):
    """What a training of two epochs on the images that come with the package writes."""
    assert cli.main(['train', *TRAIN, '--output', str(output), *options]) == 0
    return [t for file in sorted(output.rglob('*.safetensors')) for t in load_file(file).values()]


def test_again_and_elsewhere(tmp_path, threads):
    threads(1)
    first = values()
    assert equal(first, values())
    subprocess.run([sys.executable, '-c', IN_A_PROCESS, str(tmp_path / 'values')], check=True, timeout=300,
                   cwd=Path(__file__).parents[1], env={'PATH': '', 'OMP_NUM_THREADS': '1'})
    assert equal(first, torch.load(tmp_path / 'values', weights_only=True))


@pytest.mark.parametrize('name', ['scat_linear', 'scat_mlp', 'scat_tiny', 'scat_resnet', 'scat_resnet18'])
@pytest.mark.parametrize('parametrization', ['pixelwise', 'morlet', 'equivariant'])
def test_deterministic_algorithms(name, parametrization):
    model = timm.create_model(name, num_classes=3, J=1, learnable=True, parametrization=parametrization).train()
    found, x = [], torch.randn(2, 3, 64, 64)
    before = copy.deepcopy(model.state_dict())
    torch.use_deterministic_algorithms(True)
    try:
        for _ in range(2):
            model.load_state_dict(before)
            model.zero_grad()
            model(x).square().sum().backward()
            found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    finally:
        torch.use_deterministic_algorithms(False)
    assert equal(*found)


def test_copies():
    model = timm.create_model('scat_tiny', num_classes=3, learnable=True).eval()
    other = timm.create_model('scat_tiny', num_classes=3, learnable=True).eval()
    other.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 32, 32)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), other):
        assert torch.equal(twin(x), model(x))


@pytest.mark.parametrize(('options', 'others', 'same'), [
    (['--augment', 'shift-flip'], [], True),
    (['--augment', 'shift-flip', '--workers', '2'], ['--workers', '2'], True),
    (['--augment', 'none'], ['--workers', '2'], True),
    (['--augment', 'shift-flip'], ['--workers', '2'], False),
], ids=['again', 'again with workers', 'other workers', 'other workers, images changed at random'])
def test_training(tmp_path, threads, options, others, same):
    threads(1)
    assert equal(weights(tmp_path / 'a', *options), weights(tmp_path / 'b', *options, *others)) == same


def alone(S, x):
    return torch.cat([S(image[None]) for image in x])


def reversed_batch(S, x):
    return S(x.flip(0)).flip(0)


def more_threads(S, x):
    torch.set_num_threads(2)
    return S(x)


def with_gradients(S, x):
    return S(x.clone().requires_grad_())


def compiled(S, x):
    return torch.compile(S, backend='eager')(x)


@pytest.mark.parametrize('size', [(28, 28), (50, 70)])
@pytest.mark.parametrize('way', [alone, reversed_batch, more_threads, with_gradients, compiled])
def test_only_rounding(threads, way, size):
    threads(1)
    S, x = ScatteringTorch2D(2, size), images(size, 5).float()
    first = S(x)
    difference = (way(S, x) - first).abs()
    for order in (0, 1, 2):
        mine = [i for i, path in enumerate(S.paths) if path.order == order]
        assert difference[:, mine].max() <= 1e-5 * first[:, mine].abs().max()
