"""Where a network can be cut, and that one which cannot is refused with the reason."""
import pytest
import timm
import torch
from torch import nn

from scat_zoo.models import seam

SIZE = (3, 64, 64)


def find(net, J):
    return seam.find(net, 'toy', SIZE, J)


def conv(width, stride, in_chans=3, kernel=3):
    return nn.Conv2d(in_chans, width, kernel, stride, kernel // 2 if kernel != stride else 0, device='meta')


class Toy(nn.Module):
    """Layers a and b of stride 2 each, c of stride 1, and what runs between them."""

    def __init__(self, run):
        super().__init__()
        self.a, self.b, self.c, self.run = conv(8, 2), conv(16, 2, 8), conv(16, 1, 16), run

    def forward(self, x):
        return self.run(self, x)


class Block(nn.Module):
    """A residual block that adds in place, as timm's do: what comes out is the tensor that its last layer gave."""

    def __init__(self, stride=1):
        super().__init__()
        self.stride, self.conv, self.act = stride, conv(8, stride, 8), nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.conv(x)
        y += x[:, :, ::self.stride, ::self.stride]
        return self.act(y)


@pytest.mark.parametrize(('network', 'J', 'layers', 'last', 'width', 'kernel'), [
    ('resnet10t', 1, 1, 'conv1.0', 24, 1),
    ('resnet18', 2, 4, 'maxpool', 64, 1),
    ('resnet18', 3, 7, 'layer2.0', 128, 1),         # conv1 to maxpool, layer1.0, layer1.1, layer2.0
    ('regnety_002', 2, 3, 's1.b1', 24, 1),
    ('convnext_atto', 1, 1, 'stem.0', 40, 2),
    ('convnext_atto', 2, 1, 'stem.0', 40, 1),
    ('convnext_atto', 3, 7, 'stages.1.downsample.1', 80, 1),
    ('efficientnet_b0', 2, 11, 'blocks.1.0.conv_dw', 96, 1),
    ('test_vit', 2, 1, 'patch_embed', 64, 4),
    ('test_vit', 4, 1, 'patch_embed', 64, 1),
    ('swin_tiny_patch4_window7_224', 2, 1, 'patch_embed.proj', 96, 1),
    ('densenet121', 2, 3, 'features.pool0', 64, 1),
])
def test_networks_of_timm(network, J, layers, last, width, kernel):
    net = timm.create_model(network, device='meta')
    found = seam.find(net, network, net.pretrained_cfg['input_size'], J)
    assert (len(found.layers), found.layers[-1], found.width, found.kernel) == (layers, last, width, kernel)


def test_the_convolution_has_a_bias_where_the_replaced_one_had():
    for bias in (True, False):
        net = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1, bias=bias, device='meta'), nn.ReLU())
        assert find(net, 2).bias == bias
    assert find(nn.Sequential(conv(8, 2), nn.MaxPool2d(2)), 2).bias


def test_a_block_that_adds_in_place_is_replaced_as_a_whole():
    net = nn.Sequential(conv(8, 2), Block(), Block(stride=2))
    assert find(net, 2).layers == ['0', '1', '2']
    inside = find(nn.Sequential(conv(8, 2), nn.Sequential(Block(), Block()), conv(8, 2, 8)), 2)
    assert inside.layers == ['0', '1.0', '1.1', '2']
    finest = find(nn.Sequential(conv(8, 1), Block(), conv(8, 2, 8)), 1)
    assert finest.layers == ['0', '1', '2']


def test_whether_the_levels_are_a_chain_of_modules():
    def with_levels(run, *levels):
        net = Toy(run)
        net.feature_info = [{'module': level} for level in levels]
        return find(net, 1).flatten

    assert with_levels(lambda self, x: self.c(self.b(self.a(x))), 'a', 'b') is False
    assert with_levels(lambda self, x: self.c(self.b(self.a(x)).relu()), 'a', 'b') is False
    assert with_levels(lambda self, x: self.c(self.b(self.a(x)).relu()), 'a', 'c') is None
    assert with_levels(lambda self, x: self.c(self.b(self.a(x)))) is None
    net = nn.Sequential(nn.Sequential(conv(8, 2), conv(8, 2, 8)), nn.ReLU())
    net.feature_info = [{'module': '0.1'}]
    assert find(net, 1).flatten is True


@pytest.mark.parametrize(('run', 'J', 'why'), [
    (lambda self, x: self.c(self.b(self.a(x))), 3, r'none of its first layers gives a map of stride 8, but 2, 4; '
                                                   r'J=1 or J=2 would do'),
    (lambda self, x: self.b(self.a(x)) + x.mean(), 2, 'what comes before its layer b is read behind it as well'),
    (lambda self, x: self.b(self.a(x) * 2), 2, 'none of its first layers gives a map of stride 4, but 2; J=1 would do'),
    (lambda self, x: self.c(self.c(self.b(self.a(x)))), 2, None),
    (lambda self, x: self.b(self.a(x)) + self.b(self.a(x)), 1, 'its layer a runs more than once'),
    (lambda self, x: self.a(x.mean()[None, None, None, None].expand_as(x)), 1, 'gives a map of stride 2$'),
])
def test_other_networks(run, J, why):
    if why is None:
        assert find(Toy(run), J).layers == ['a', 'b']
    else:
        with pytest.raises(ValueError, match=rf'^toy cannot begin with a scattering of J={J}: .*{why}'):
            find(Toy(run), J)


def test_patches():
    assert find(nn.Sequential(conv(8, 8, kernel=8)), 2).kernel == 2
    with pytest.raises(ValueError, match=r'in patches of 6 pixels, of which 2\^J is no divisor; J=1 would do'):
        find(nn.Sequential(conv(8, 6, kernel=6)), 2)


def test_nothing_is_left_behind():
    """No hooks, and no gradient to the network."""
    net = timm.create_model('test_resnet', device='meta')
    seam.find(net, 'test_resnet', (3, 160, 160), 2)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert not net(torch.empty(1, 3, 64, 64, device='meta')).requires_grad
