"""scat_resnet: scattering in place of a ResNet's first layers.

The hybrid networks of Oyallon, Belilovsky and Zagoruyko (Scaling the Scattering Transform, ICCV 2017): scattering,
normalisation, a convolution that reduces the channels, residual stages, average pool, linear classifier.
"""
from typing import Any, Dict, List, Tuple, Union

import torch
from timm.layers import ConvNormAct, DropPath, calculate_drop_path_rates, get_device_dtype
from timm.models import checkpoint, generate_default_cfgs
from timm.models.resnet import BasicBlock, downsample_conv
from torch import Tensor, nn

from ..scattering import geometry
from ..wording import brief, nearest
from . import shipped
from .build import build, checkpoint_filter_fn, generic_cfg  # noqa: F401  (timm looks for checkpoint_filter_fn here)
from .model import ScatteringModel
from .norms import BatchNorm, batch_norm_act
from .upstream import DepthwiseSeparableConv, register_model

__all__ = ['ScatResNet']


class ScatResNet(ScatteringModel):
    """Scattering, norm of each order, a convolution, residual stages, pooled linear classifier.

    Feature level 0 is the normalised scattering at stride 2^J, level i the output of the i-th stage.

    Args:
        num_classes: number of classes, 0 for features.
        channels: width of each stage; the convolution before them has the width of the first.
        depths: number of residual blocks of each stage.
        strides: stride of each stage.
        block: 'basic', of two 3x3 convolutions, or 'separable', a depthwise 3x3 and a 1x1 convolution.
        reduce_size: side of the kernel of the convolution before the stages.
        output_stride: the largest stride of a feature map: stages beyond it are dilated instead.
        global_pool: one of timm's pool types, '' for none, 'flat' (average pooling to `pool_grid`, then flatten),
            or 'avgstd' (mean and standard deviation).
        pool_grid: (rows, columns).
        drop_path_rate: stochastic depth of the last block; the first has none.
        kwargs: of `ScatteringModel` and `ScatteringStem`.
    """

    def __init__(
            self,
            num_classes: int = 1000,
            channels: Tuple[int, ...] = (64, 128),
            depths: Tuple[int, ...] = (2, 3),
            strides: Tuple[int, ...] = (1, 2),
            block: str = 'basic',
            reduce_size: int = 3,
            output_stride: int = 32,
            global_pool: str = 'avg',
            pool_grid: Union[int, Tuple[int, int]] = (3, 3),
            drop_path_rate: float = 0.,
            **kwargs: Any,
    ) -> None:
        if output_stride not in (8, 16, 32):
            raise ValueError(f'output_stride must be 8, 16 or 32, got {brief(repr(output_stride), 60)}')
        of_stages = channels, depths, strides
        if not all(isinstance(v, (tuple, list)) and len(v) == len(channels) > 0 for v in of_stages):
            raise ValueError('channels, depths and strides must be tuples of one length, the number of stages, got '
                             f'{brief(channels, 40)}, {brief(depths, 40)} and {brief(strides, 40)}')
        channels, depths, strides = (
            tuple(geometry.integer(f'each of {name}', number, least=1) for number in numbers)
            for name, numbers in zip(('channels', 'depths', 'strides'), of_stages))
        reduce_size = geometry.integer('reduce_size', reduce_size, least=1)
        if block not in tuple(BLOCKS):                  # which has no use for a hash
            raise ValueError(f'unknown block {brief(repr(block), 60)}; {nearest(block, BLOCKS)}')
        drop_path_rate = geometry.number('drop_path_rate', drop_path_rate, 0, 0.999, 'a share from 0 to below 1')
        super().__init__(num_classes, pool_grid=pool_grid, **kwargs)
        dd = get_device_dtype(self.norm)
        in_width, width = sum(self.scattering.order_channels()), channels[0]
        stride, dilation = 2 ** self.scattering.J, 1
        feature_info = [dict(num_chs=in_width, reduction=stride, module='norm')]
        self.conv_reduce: nn.Module = ConvNormAct(in_width, width, reduce_size, norm_layer=batch_norm_act, **dd)

        drop_paths: Any = calculate_drop_path_rates(drop_path_rate, list(depths), stagewise=True)
        stages = []
        for i, (out_width, stage_stride, rates) in enumerate(zip(channels, strides, drop_paths)):
            before = dilation
            if stride * stage_stride > output_stride:
                dilation, stage_stride = dilation * stage_stride, 1
            stride *= stage_stride
            stages.append(BLOCKS[block](width, out_width, stage_stride, before, dilation, rates, **dd))
            feature_info.append(dict(num_chs=out_width, reduction=stride, module=f'stages.{i}'))
            width = out_width
        self.stages = nn.Sequential(*stages)
        self.add_head(feature_info, global_pool)
        self.init_weights(needs_reset=False)

    @torch.jit.ignore
    def init_weights(self, needs_reset: bool = True) -> None:
        super().init_weights(needs_reset)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
            elif isinstance(module, BasicBlock):
                module.zero_init_last()

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> Dict[str, Any]:
        blocks = r'^stages\.(\d+)' if coarse else [(r'^stages\.(\d+)\.(\d+)', None)]
        return dict(stem=r'^scattering|norm|conv_reduce', blocks=blocks)

    def forward_levels(self, x: Tensor, last: int) -> List[Tensor]:
        x = self.norm(self.scatter(x))                          # (B, in_chans * paths, H / 2^J, W / 2^J)
        levels = [x]
        if last > 0:
            x = self.conv_reduce(x)                             # (B, channels[0], H / 2^J, W / 2^J)
        for i, stage in enumerate(self.stages):
            if i < last:
                if self.grad_checkpointing and not torch.jit.is_scripting():
                    x = checkpoint(stage, x)
                else:
                    x = stage(x)
                levels.append(x)                                # (B, channels[i], h, w)
        return levels

    def keep_levels(self, last: int) -> None:
        self.stages = self.stages[:last]
        if last == 0:
            self.conv_reduce = nn.Identity()


def _basic_stage(in_width: int, width: int, stride: int, first_dilation: int, dilation: int, drop_paths: List[float],
                 **dd: Any) -> nn.Sequential:
    """Blocks of two 3x3 convolutions, the first of which changes width and stride."""
    blocks = []
    for i, rate in enumerate(drop_paths):
        downsample = None
        if i == 0 and (stride > 1 or in_width != width):
            downsample = downsample_conv(
                in_width, width, kernel_size=1, stride=stride, norm_layer=BatchNorm, **dd)
        blocks.append(BasicBlock(
            in_width if i == 0 else width, width, stride if i == 0 else 1, downsample, dilation=dilation,
            first_dilation=first_dilation if i == 0 else dilation, norm_layer=BatchNorm,
            drop_path=DropPath(rate) if rate > 0 else None, **dd))
    return nn.Sequential(*blocks)


def _separable_stage(in_width: int, width: int, stride: int, first_dilation: int, dilation: int,
                     drop_paths: List[float], **dd: Any) -> nn.Sequential:
    """Blocks of a depthwise 3x3 and a 1x1 convolution, the first of which changes width and stride."""
    return nn.Sequential(*(DepthwiseSeparableConv(
        in_width if i == 0 else width, width, stride=stride if i == 0 else 1,
        dilation=first_dilation if i == 0 else dilation, norm_layer=batch_norm_act, drop_path_rate=rate, **dd)
        for i, rate in enumerate(drop_paths)))


BLOCKS = {'basic': _basic_stage, 'separable': _separable_stage}
FEATURES = {'flatten_sequential': True}                         # features_only takes the stages as modules of their own


default_cfgs = generate_default_cfgs({
    **shipped.cfgs('scat_resnet'),
    'scat_resnet.*': generic_cfg(pool_size=(4, 4)),
    **shipped.cfgs('scat_tiny'),
    'scat_tiny.*': generic_cfg(),
    'scat_resnet18': generic_cfg(input_size=(3, 224, 224), pool_size=(7, 7), crop_pct=0.95),
})


@register_model
def scat_resnet(pretrained: bool = False, **kwargs: Any) -> ScatResNet:
    """For images of 28 to 64 pixels: two stages, 1.1 million parameters; see `ScatResNet` for the keywords."""
    return build(ScatResNet, 'scat_resnet', pretrained, kwargs, FEATURES, channels=(64, 128), depths=(2, 3),
                 strides=(1, 2))


@register_model
def scat_tiny(pretrained: bool = False, **kwargs: Any) -> ScatResNet:
    """For images of 28 to 64 pixels and little memory: two separable blocks of 16 channels; see `ScatResNet`."""
    return build(ScatResNet, 'scat_tiny', pretrained, kwargs, FEATURES, channels=(16, 16), depths=(1, 1),
                 strides=(1, 1), block='separable', reduce_size=1, global_pool='flat')


@register_model
def scat_resnet18(pretrained: bool = False, **kwargs: Any) -> ScatResNet:
    """For images of 224 pixels: 18 layers after the scattering, strides 4, 8, 16, 32; see `ScatResNet`."""
    return build(ScatResNet, 'scat_resnet18', pretrained, kwargs, FEATURES, img_size=224, channels=(128, 256, 512),
                 depths=(3, 3, 2), strides=(2, 2, 2))
