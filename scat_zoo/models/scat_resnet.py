"""scat_resnet: scattering in place of a ResNet's first layers.

The hybrid networks of Oyallon, Belilovsky and Zagoruyko (Scaling the Scattering Transform, ICCV 2017): scattering,
normalisation, a convolution that reduces the channels, residual stages, average pool, linear classifier.
"""
from typing import Any, Dict, List, Optional, Set, Tuple, Union

import torch
from timm.layers import ConvNormAct, DropPath, calculate_drop_path_rates, get_device_dtype, to_2tuple
from timm.models import checkpoint, checkpoint_seq, generate_default_cfgs
from timm.models.resnet import BasicBlock, downsample_conv
from torch import Tensor, nn

from . import shipped
from .build import build, checkpoint_filter_fn, generic_cfg
from .freezing import Freezing
from .heads import ScatteringHead, ScatteringNorm
from .norms import BatchNorm, batch_norm_act
from .stem import ScatteringStem
from .upstream import DepthwiseSeparableConv, feature_take_indices, register_model

__all__ = ['ScatResNet']


class ScatResNet(Freezing):
    """Scattering, norm of each order, a convolution, residual stages, pooled linear classifier.

    Feature level 0 is the normalised scattering at stride 2^J, level i the output of the i-th stage.

    Args:
        num_classes: number of classes, 0 for features.
        in_chans: number of image channels.
        img_size: side, or (H, W), that pixelwise filters are tied to; with others any size will do.
        J: log-2 of the scattering scale.
        L: number of orientations.
        max_order: highest order of scattering, 1 or 2.
        learnable: whether the filters are parameters.
        frozen_filters: without `learnable`, whether the filters are learned values, frozen, and not the analytic ones.
        parametrization: what is learned of the filters: 'pixelwise', 'morlet' or 'equivariant'; see `ScatteringStem`.
        init: 'tight_frame', the fixed filters, or 'random'.
        nonexpansive: 'morlet' and 'equivariant' only: keep the scattering 1-Lipschitz in the padded images.
        scales: log-2 of the scales at which paths are low-passed, J among them; J alone unless given.
        channels: width of each stage; the convolution before them has the width of the first.
        depths: number of residual blocks of each stage.
        strides: stride of each stage.
        block: 'basic', of two 3x3 convolutions, or 'separable', a depthwise 3x3 and a 1x1 convolution.
        reduce_size: side of the kernel of the convolution before the stages.
        output_stride: the largest stride of a feature map: stages beyond it are dilated instead.
        log_floor: orders 1 and 2 enter the norm as log(S / mean + log_floor); 0 for no logarithm.
        global_pool: one of timm's pool types, '' for none, or 'flat' (average pooling to `pool_grid`, then flatten).
        pool_grid: (rows, columns).
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block; the first has none.
    """

    def __init__(
            self,
            num_classes: int = 1000,
            in_chans: int = 3,
            img_size: Union[int, Tuple[int, int]] = 32,
            J: int = 2,
            L: int = 8,
            max_order: int = 2,
            learnable: bool = False,
            frozen_filters: bool = False,
            parametrization: str = 'pixelwise',
            init: str = 'tight_frame',
            nonexpansive: bool = False,
            scales: Optional[Tuple[int, ...]] = None,
            channels: Tuple[int, ...] = (64, 128),
            depths: Tuple[int, ...] = (2, 3),
            strides: Tuple[int, ...] = (1, 2),
            block: str = 'basic',
            reduce_size: int = 3,
            output_stride: int = 32,
            log_floor: float = 0.1,
            global_pool: str = 'avg',
            pool_grid: Tuple[int, int] = (3, 3),
            drop_rate: float = 0.,
            drop_path_rate: float = 0.,
            device: Optional[torch.device] = None,
            dtype: Optional[torch.dtype] = None,
    ) -> None:
        super().__init__()
        dd = {'device': device, 'dtype': dtype}
        if output_stride not in (8, 16, 32):
            raise ValueError(f'output_stride must be 8, 16 or 32, got {output_stride}')
        if not len(channels) == len(depths) == len(strides):
            raise ValueError('channels, depths and strides must be of one length, the number of stages, got '
                             f'{channels}, {depths} and {strides}')
        if block not in BLOCKS:
            raise ValueError(f'unknown block {block!r}; known: {", ".join(BLOCKS)}')
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.grad_checkpointing = False

        self.scattering = ScatteringStem(
            J, L, max_order, in_chans, to_2tuple(img_size), learnable, frozen_filters, parametrization, init,
            nonexpansive, scales, **dd)
        orders = self.scattering.order_channels()
        self.norm = ScatteringNorm(orders, log_floor, **dd)
        width, stride, dilation = channels[0], 2 ** J, 1
        self.feature_info = [dict(num_chs=sum(orders), reduction=stride, module='norm')]
        self.conv_reduce = ConvNormAct(
            sum(orders), width, kernel_size=reduce_size, norm_layer=batch_norm_act, **dd)

        drop_paths = calculate_drop_path_rates(drop_path_rate, list(depths), stagewise=True)
        stages = []
        for i, (out_width, stage_stride, rates) in enumerate(zip(channels, strides, drop_paths)):
            before = dilation
            if stride * stage_stride > output_stride:
                dilation, stage_stride = dilation * stage_stride, 1
            stride *= stage_stride
            stages.append(BLOCKS[block](width, out_width, stage_stride, before, dilation, rates, **dd))
            self.feature_info.append(dict(num_chs=out_width, reduction=stride, module=f'stages.{i}'))
            width = out_width
        self.stages = nn.Sequential(*stages)
        self.num_features = width

        self.head = ScatteringHead(width, num_classes, global_pool, tuple(pool_grid), drop_rate=drop_rate, **dd)
        self.head_hidden_size = self.head.num_features
        self.init_weights(needs_reset=False)

    @torch.jit.ignore
    def init_weights(self, needs_reset: bool = True) -> None:
        """Initial values; with `needs_reset` of all parameters and buffers, filters included."""
        for module in self.modules():
            if needs_reset and module is not self and hasattr(module, 'reset_parameters'):
                module.reset_parameters()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
            elif isinstance(module, BasicBlock):
                module.zero_init_last()

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> Dict[str, Any]:
        blocks = r'^stages\.(\d+)' if coarse else [(r'^stages\.(\d+)\.(\d+)', None)]
        return dict(stem=r'^scattering|norm|conv_reduce', blocks=blocks)

    @torch.jit.ignore
    def no_weight_decay(self) -> Set[str]:
        # Decay would pull the filters to zero and away from wavelets.
        return {name for name, _ in self.named_parameters() if name.startswith('scattering.')}

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute scattering and residual blocks in the backward pass."""
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: Optional[str] = None) -> None:
        self.num_classes = num_classes
        self.head.reset(self.num_features, num_classes, global_pool, **get_device_dtype(self))
        self.head_hidden_size = self.head.num_features

    def forward_intermediates(
            self,
            x: Tensor,
            indices: Optional[Union[int, List[int]]] = None,
            norm: bool = False,
            stop_early: bool = False,
            output_fmt: str = 'NCHW',
            intermediates_only: bool = False,
    ) -> Union[List[Tensor], Tuple[Tensor, List[Tensor]]]:
        """Feature maps (B, C, h, w) of the levels `indices`, and the final one before them.

        Args:
            x: images (B, in_chans, H, W).
            indices: the last n levels if an integer, all if None.
            norm: without effect, there is no final norm.
            stop_early: end at the highest level asked for.
            output_fmt: 'NCHW', the only one.
            intermediates_only: return the list of feature maps alone.
        """
        assert output_fmt == 'NCHW', 'Output format must be NCHW.'
        take_indices, max_index = feature_take_indices(len(self.stages) + 1, indices)
        intermediates: List[Tensor] = []
        x = self.norm(self._scatter(x))
        if 0 in take_indices:
            intermediates.append(x)
        if not stop_early or max_index > 0:
            x = self.conv_reduce(x)
        for i, stage in enumerate(self.stages):
            if not stop_early or i < max_index:
                if self.grad_checkpointing and not torch.jit.is_scripting():
                    x = checkpoint_seq(stage, x)
                else:
                    x = stage(x)
                if i + 1 in take_indices:
                    intermediates.append(x)
        if intermediates_only:
            return intermediates
        return x, intermediates

    def prune_intermediate_layers(
            self,
            indices: Union[int, List[int]] = 1,
            prune_norm: bool = False,
            prune_head: bool = True,
    ) -> List[int]:
        """Remove the stages and head that the levels `indices` do not need; return these levels."""
        take_indices, max_index = feature_take_indices(len(self.stages) + 1, indices)
        prune_end = max_index < len(self.stages)
        if prune_end:
            self.stages = self.stages[:max_index]
            if max_index == 0:
                self.conv_reduce = nn.Identity()
            self.num_features = self.feature_info[max_index]['num_chs']
        if prune_head or prune_end:
            self.reset_classifier(0, '')
        return take_indices

    def _scatter(self, x: Tensor) -> Tensor:
        if self.grad_checkpointing and not torch.jit.is_scripting():
            return checkpoint(self.scattering, x)
        return self.scattering(x)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, num_features, h, w)."""
        x = self.norm(self._scatter(x))                         # (B, in_chans * paths, H / 2^J, W / 2^J)
        x = self.conv_reduce(x)                                 # (B, channels[0], H / 2^J, W / 2^J)
        if self.grad_checkpointing and not torch.jit.is_scripting():
            return checkpoint_seq(self.stages, x)
        return self.stages(x)                                   # (B, channels[-1], h, w)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return self.head(x, pre_logits=pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def _basic_stage(in_width: int, width: int, stride: int, first_dilation: int, dilation: int, drop_paths: List[float],
                 device: Optional[torch.device] = None, dtype: Optional[torch.dtype] = None) -> nn.Sequential:
    """Blocks of two 3x3 convolutions, the first of which changes width and stride."""
    dd = {'device': device, 'dtype': dtype}
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
                     drop_paths: List[float], device: Optional[torch.device] = None,
                     dtype: Optional[torch.dtype] = None) -> nn.Sequential:
    """Blocks of a depthwise 3x3 and a 1x1 convolution, the first of which changes width and stride."""
    return nn.Sequential(*(DepthwiseSeparableConv(
        in_width if i == 0 else width, width, stride=stride if i == 0 else 1,
        dilation=first_dilation if i == 0 else dilation, norm_layer=batch_norm_act, drop_path_rate=rate,
        device=device, dtype=dtype)
        for i, rate in enumerate(drop_paths)))


BLOCKS = {'basic': _basic_stage, 'separable': _separable_stage}


default_cfgs = generate_default_cfgs({
    **shipped.cfgs('scat_resnet'),
    'scat_resnet.*': generic_cfg(pool_size=(4, 4)),
    **shipped.cfgs('scat_tiny'),
    'scat_tiny.*': generic_cfg(),
    'scat_resnet18': generic_cfg(input_size=(3, 224, 224), pool_size=(7, 7), crop_pct=0.95),
})


def _create(variant: str, pretrained: bool, **kwargs: Any) -> ScatResNet:
    return build(ScatResNet, variant, pretrained, checkpoint_filter_fn, levels=1 + len(kwargs['channels']),
                 feature_cfg={'flatten_sequential': True}, **kwargs)


@register_model
def scat_resnet(pretrained: bool = False, **kwargs: Any) -> ScatResNet:
    """For images of 28 to 64 pixels: two stages, 1.1 million parameters; see `ScatResNet` for the keywords."""
    model_args = {'channels': (64, 128), 'depths': (2, 3), 'strides': (1, 2)}
    return _create('scat_resnet', pretrained, **{**model_args, **shipped.model_args('scat_resnet', kwargs), **kwargs})


@register_model
def scat_tiny(pretrained: bool = False, **kwargs: Any) -> ScatResNet:
    """For images of 28 to 64 pixels and little memory: two separable blocks of 16 channels; see `ScatResNet`."""
    model_args = {'channels': (16, 16), 'depths': (1, 1), 'strides': (1, 1), 'block': 'separable', 'reduce_size': 1,
                  'global_pool': 'flat'}
    return _create('scat_tiny', pretrained, **{**model_args, **shipped.model_args('scat_tiny', kwargs), **kwargs})


@register_model
def scat_resnet18(pretrained: bool = False, **kwargs: Any) -> ScatResNet:
    """For images of 224 pixels: 18 layers after the scattering, strides 4, 8, 16, 32; see `ScatResNet`."""
    model_args = {'img_size': 224, 'channels': (128, 256, 512), 'depths': (3, 3, 2), 'strides': (2, 2, 2)}
    return _create('scat_resnet18', pretrained, **{**model_args, **kwargs})
