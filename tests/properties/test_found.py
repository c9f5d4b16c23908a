"""What the machines found, or their making, in a few lines each."""
import pytest
import torch

from scat_zoo import ScatteringTorch2D
from scat_zoo.models.stem import ScatteringStem


def stem(**kwargs):
    return ScatteringStem(3, 2, 2, 1, (8, 8), **kwargs)


def to_pixelwise(module):
    module.to_pixelwise()


def set_max_order(module):
    module.max_order = 2


def set_learnable(module):
    module.set_learnable(True)


def load(module):
    module.load_state_dict(stem(learnable=True).state_dict())


def transform(**kwargs):
    return ScatteringTorch2D(3, (8, 8), L=2, max_order=1, **kwargs)


@pytest.mark.parametrize('parametrization', ['morlet', 'equivariant'])
def test_what_is_built_in_inference_mode_can_learn(parametrization):
    with torch.inference_mode():
        module = stem(learnable=True, parametrization=parametrization)
    module(torch.randn(1, 1, 8, 8)).square().sum().backward()
    assert all(p.grad is not None for p in module.parameters())


def test_a_size_for_which_there_is_no_memory_changes_nothing(monkeypatch):
    module, x = stem(), torch.randn(1, 1, 8, 8)
    before = module(x)
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, 'new_empty', lambda *args, **kwargs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            module.set_input_size((16, 16))
    assert (module.img_size, module.bank.image_size) == ((8, 8), (8, 8))
    assert torch.equal(module(x), before)


@pytest.mark.parametrize(('make', 'options', 'change'), [
    (stem, {'parametrization': 'morlet'}, to_pixelwise), (transform, {}, set_max_order)])
@pytest.mark.parametrize('held', [True, False])
def test_new_filters_are_held_as_the_old_ones_were(make, options, change, held):
    module = make(learnable=True, **options).requires_grad_(not held)
    mode = module.mode
    change(module)
    assert module.mode == mode
    assert {p.requires_grad for p in module.parameters()} == {not held}


@pytest.mark.parametrize(('make', 'change'), [
    (stem, to_pixelwise), (stem, set_learnable), (stem, load),
    (lambda: stem(parametrization='morlet'), set_learnable), (transform, set_max_order)])
def test_filters_that_are_made_in_inference_mode_can_learn(make, change):
    module = make()
    with torch.inference_mode():
        change(module)
    module.set_learnable(True)
    module(torch.randn(1, 1, 8, 8)).square().sum().backward()
    assert all(p.grad is not None for p in module.parameters())
