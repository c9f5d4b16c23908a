"""Hybrid networks by name: scattering in place of the first layers of a ResNet, a ConvNeXt, a ViT, or of any network.

Each is what `with_scattering_stem` makes of the network, with fixed filters unless asked for others.
"""
from typing import Any, Dict, List, Optional, Tuple, Union

import torch
from timm.layers import resample_abs_pos_embed
from timm.models import VisionTransformer, checkpoint, checkpoint_seq, generate_default_cfgs
from torch import Tensor, nn

from .graft import build_hybrid, cfg_behind, network_cfg
from .upstream import feature_take_indices, register_model


class MapViT(VisionTransformer):
    """timm's ViT without class token, whose features are maps (B, C, h, w) as those of all models of the zoo."""

    def forward_features(self, x: Tensor) -> Tensor:  # type: ignore[override]
        tokens = self.tokens(x)
        if self.grad_checkpointing and not torch.jit.is_scripting():
            tokens = checkpoint_seq(self.blocks, tokens)
        else:
            tokens = self.blocks(tokens)
        return self.as_map(self.norm(tokens), x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        y = self.head_drop(self.fc_norm(self.pool(x.flatten(2).transpose(1, 2))))
        if not pre_logits:
            y = self.head(y)
        if self.global_pool == '':                              # (B, h * w, C or classes)
            y = y.transpose(1, 2).reshape(x.shape[0], -1, x.shape[2], x.shape[3])
        return y

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self.forward_head(self.forward_features(x))

    def tokens(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> what the blocks take, (B, h * w, C)."""
        x = with_positions(self.patch_embed(x), self.pos_embed, self.patch_embed.grid_size)
        return self.norm_pre(self.patch_drop(self.pos_drop(x)))

    def as_map(self, tokens: Tensor, x: Tensor) -> Tensor:
        """(B, h * w, C) -> (B, C, h, w), of images x."""
        h, w = self.patch_embed.dynamic_feat_size((x.shape[2], x.shape[3]))
        return tokens.transpose(1, 2).reshape(x.shape[0], -1, h, w)

    def forward_intermediates(  # type: ignore[override]
            self,
            x: Tensor,
            indices: Optional[Union[int, List[int]]] = None,
            norm: bool = False,
            stop_early: bool = False,
            output_fmt: str = 'NCHW',
            intermediates_only: bool = False,
    ) -> Union[List[Tensor], Tuple[Tensor, List[Tensor]]]:
        assert output_fmt == 'NCHW', 'Output format must be NCHW.'
        take, last = feature_take_indices(len(self.blocks), indices)
        tokens = self.tokens(x)
        levels: List[Tensor] = []
        for i, block in enumerate(self.blocks):
            if i <= last or not stop_early:
                if self.grad_checkpointing and not torch.jit.is_scripting():
                    tokens = checkpoint(block, tokens)
                else:
                    tokens = block(tokens)
                if i in take:
                    levels.append(self.as_map(self.norm(tokens) if norm else tokens, x))
        if intermediates_only:
            return levels
        return self.as_map(self.norm(tokens), x), levels


@torch.fx.wrap
def with_positions(x: Tensor, pos_embed: Optional[Tensor], grid: Tuple[int, int]) -> Tensor:
    """Patches (B, h, w, C), or (B, h * w, C) of the model's own grid, and their position embeddings: (B, h * w, C)."""
    if pos_embed is not None and x.dim() == 4:
        pos_embed = resample_abs_pos_embed(pos_embed, [x.shape[1], x.shape[2]], list(grid), num_prefix_tokens=0)
    x = x.flatten(1, -2)
    return x if pos_embed is None else x + pos_embed


default_cfgs = generate_default_cfgs({
    'scat_hybrid': cfg_behind(network_cfg('regnety_002')),
    'scat_resnet50': cfg_behind(network_cfg('resnet50')),
    'scat_convnext_atto': cfg_behind(network_cfg('convnext_atto')),
    'scat_vit_tiny': cfg_behind(network_cfg('vit_tiny_patch16_224'), pool_size=(14, 14), fixed_input_size=False),
})
# As `with_scattering_stem`, but for `learnable`.
STEM: Dict[str, Any] = {'parametrization': 'morlet', 'max_order': 1}


@register_model
def scat_hybrid(pretrained: bool = False, network: str = 'regnety_002', **kwargs: Any) -> nn.Module:
    """Scattering in place of the first layers of any `network` of timm; see `with_scattering_stem` for the keywords."""
    if not kwargs.get('pretrained_cfg'):
        kwargs['pretrained_cfg'] = cfg_behind(network_cfg(network))
    return build_hybrid('scat_hybrid', network, pretrained, kwargs, **STEM)


@register_model
def scat_resnet50(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Scattering in place of the first convolution and pool of timm's resnet50; see `with_scattering_stem`."""
    return build_hybrid('scat_resnet50', 'resnet50', pretrained, kwargs, **STEM)


@register_model
def scat_convnext_atto(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Scattering in place of the patch embedding of timm's convnext_atto; see `with_scattering_stem`."""
    return build_hybrid('scat_convnext_atto', 'convnext_atto', pretrained, kwargs, **STEM)


@register_model
def scat_vit_tiny(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Scattering before the patch embedding of timm's vit_tiny_patch16_224, for images of any size; see `MapViT`.
    """
    tokens = [name for name in ('class_token', 'reg_tokens') if kwargs.get(name)]
    if tokens:
        raise ValueError(f'scat_vit_tiny has no {tokens[0]}, since its features are maps: '
                         "with_scattering_stem('vit_tiny_patch16_224') makes a model that has")
    return build_hybrid('scat_vit_tiny', 'vit_tiny_patch16_224', pretrained, kwargs, MapViT, **STEM,
                        dynamic_img_size=True, class_token=False, global_pool='avg')
