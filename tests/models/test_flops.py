"""What torch's counter of operations sees of the scattering: every product, on any number of threads."""
import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from scat_zoo.models import shipped


def multiply_adds(model, x, backward=False):
    with FlopCounterMode(display=False) as counter:
        y = model(x)
        if backward:
            y.sum().backward()
    return counter.get_total_flops() // 2


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def test_one_image_is_what_the_card_says():
    name = 'scat_linear.fashion_mnist'
    model = timm.create_model(name, pretrained=True).eval()
    x = torch.rand(1, *model.pretrained_cfg['input_size'])
    with torch.no_grad():
        model(x)                                                # what is computed of the filters once is no part of it
        assert multiply_adds(model, x) == shipped.results(name)['multiply_adds']


@pytest.mark.parametrize('learnable', [False, True])
def test_threads_are_counted(two_threads, learnable):
    model = timm.create_model('scat_linear', in_chans=1, img_size=28, L=2, max_order=1, num_classes=10,
                              learnable=learnable).eval()
    x = torch.rand(64, 1, 28, 28)
    expected = model(x)
    on_two = multiply_adds(model, x, learnable)
    with FlopCounterMode(display=False):
        assert torch.allclose(model(x), expected, atol=1e-5)
    torch.set_num_threads(1)
    assert on_two == multiply_adds(model, x, learnable)
    # 2,450 of the classifier, and some 0.3 million of the scattering; backward takes about twice as much.
    assert (7e5 if learnable else 2e5) < on_two / 64 < (1.5e6 if learnable else 4e5)
