"""Grafting: how a network of timm gets scattering in the place of its first layers, and the hybrid is made again."""
import dataclasses
import functools
import inspect
import re
import sys
from typing import Any, Dict, List, Optional, Tuple, Type

import timm
import torch
from timm.layers import HybridEmbed
from timm.models import build_model_with_cfg, load_checkpoint
from torch import nn

from ..scattering import geometry
from ..wording import brief, nearest
from . import seam
from .build import PrunedFeatures, short_errors, statistics
from .hybrid import Hybrid, PassThrough, ScatteringEmbed, blank, checkpoint_filter_fn
from .stem import ScatteringStem

# Keywords that the stem and the network share.
SHARED = ('in_chans', 'img_size', 'device', 'dtype')
# Keywords that say where the weights of a network come from.
SOURCE = ('pretrained', 'pretrained_cfg', 'pretrained_cfg_overlay', 'cache_dir')


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a hybrid is made of, and made again.

    Args:
        network: a name of timm's.
        cut: where the network is cut.
        stem: keywords of `ScatteringStem`.
        log_floor: as for `OrderNorm`.
        of_network: keywords of `timm.create_model`.
        network_class: whose methods the hybrid has; None for the network's own.
    """

    network: str
    cut: seam.Seam
    stem: Dict[str, Any]
    log_floor: float
    of_network: Dict[str, Any]
    network_class: Optional[Type[nn.Module]]

    def make(self, img_size: Tuple[int, int], source: Optional[Dict[str, Any]] = None, **placed: Any) -> Hybrid:
        """A hybrid for images (H, W) on this device, of this dtype.

        Args:
            source: where the weights of the network's own layers come from: `SOURCE`.
        """
        of_network = {**self.of_network, **({'img_size': img_size} if 'img_size' in self.of_network else {})}
        net: Any = timm.create_model(self.network, **of_network, **placed, **(source or {})).train()
        embed_name = self._replace(net, {**self.stem, 'img_size': img_size, **placed})
        levels: List[Dict[str, Any]] = list(getattr(net, 'feature_info', []))
        gone = [level for level in levels if level['reduction'] < 1 << self.stem['J']]
        model = blank(self.network_class or type(net), bool(gone))
        model.__dict__.update(net.__dict__)
        model._recipe, model._embed_name, model._gone = self, embed_name, gone
        model.feature_info = levels[len(gone):]
        model._level_names = [level['module'] for level in model.feature_info]
        model._traits = {**getattr(net, '_traits', {}), 'first_conv': ()}
        return model

    def _replace(self, net: Any, stem: Dict[str, Any]) -> str:
        """Put the scattering in the place of the network's first layers; the name of its `ScatteringEmbed`."""
        first, replaced = self.cut.layers[0], net.get_submodule(self.cut.layers[0])
        if seam.is_patches(replaced):
            fixed = replaced.strict_img_size and not net.__dict__.get('dynamic_img_size')
            embed = ScatteringEmbed(stem, self.log_floor, only_size=stem['img_size'] if fixed else None)
            net.set_submodule(first, self._of_patches(replaced, embed, stem))
            return f'{first}.backbone'
        net.set_submodule(first, ScatteringEmbed(stem, self.log_floor, self.cut.width, self.cut.kernel, self.cut.bias))
        for name in self.cut.layers[1:]:
            net.set_submodule(name, PassThrough(self.cut.width))
        return first

    def _of_patches(self, patches: Any, embed: ScatteringEmbed, stem: Dict[str, Any]) -> HybridEmbed:
        """timm's embedding of patches of feature maps, in the place of one of patches of images."""
        J, (height, width) = stem['J'], stem['img_size']
        placed: Dict[str, Any] = {name: stem.get(name) for name in ('device', 'dtype')}
        return HybridEmbed(
            embed, img_size=(height, width), patch_size=self.cut.kernel, feature_size=(height >> J, width >> J),
            feature_ratio=1 << J, in_chans=embed.in_channels, embed_dim=self.cut.width, bias=self.cut.bias,
            flatten=patches.flatten, output_fmt=None if patches.flatten else patches.output_fmt,
            strict_img_size=patches.strict_img_size, dynamic_img_pad=patches.dynamic_img_pad, **placed)


def build_hybrid(variant: str, network: str, pretrained: bool, kwargs: Dict[str, Any],
                 network_class: Optional[Type[nn.Module]] = None, source: Optional[Dict[str, Any]] = None,
                 **defaults: Any) -> nn.Module:
    """`timm.models.build_model_with_cfg` for a hybrid.

    Args:
        variant: the registered name, whose cfg it has.
        network: a name of timm's.
        pretrained: whether to load weights of the whole hybrid.
        kwargs: what the caller asks for: keywords of the stem, of the network, and timm's own.
        network_class, source: as for `Recipe`.
        defaults: keywords unless the caller has others.

    Raises:
        ValueError: in one sentence, if the network has no place for it.
        TypeError: on a keyword that there is not.
    """
    asked = [name for name, value in kwargs.items() if value is not None and name not in SOURCE]
    kwargs = {**defaults, **kwargs}
    if kwargs.get('img_size') is not None:
        kwargs['img_size'] = geometry.sides('img_size', kwargs['img_size'])
    feature_cfg: Dict[str, Any] = {'out_indices': (), 'feature_cls': None}
    made: List[Hybrid] = []

    def make(**arguments: Any) -> Hybrid:
        placed = {name: arguments.pop(name, None) for name in ('device', 'dtype')}
        recipe, size = _recipe(network, arguments, network_class)
        made.append(recipe.make(size, source, **placed))
        _choose_levels(feature_cfg, made[0], recipe.cut.flatten)
        return made[0]

    with short_errors(variant, asked):
        model = build_model_with_cfg(make, variant, pretrained, pretrained_filter_fn=checkpoint_filter_fn,
                                     feature_cfg=feature_cfg, **kwargs)
    stem, cfg = made[0].scattering, model.pretrained_cfg
    cfg.update({**made[0].input_cfg(stem.img_size), **statistics(cfg, stem)})
    return model


def _choose_levels(feature_cfg: Dict[str, Any], model: Hybrid, flatten: Optional[bool]) -> None:
    """Tell timm how to get feature levels, unless the caller did; it wants to know before there is a model."""
    feature_cfg['out_indices'] = feature_cfg['out_indices'] or tuple(range(len(model.feature_info)))
    model.level_indices(feature_cfg['out_indices'])
    feature_cfg['feature_cls'] = feature_cfg['feature_cls'] or (PrunedFeatures if flatten is None else 'list')
    feature_cfg['flatten_sequential'] = bool(flatten)


def _recipe(network: str, arguments: Dict[str, Any],
            network_class: Optional[Type[nn.Module]]) -> Tuple[Recipe, Tuple[int, int]]:
    """What timm asks for, keywords of all kinds, as a recipe and an image size (H, W)."""
    of_stem = [name for name in ScatteringStem.keywords() if name not in SHARED]
    stem = {'J': 2, **{name: arguments.pop(name) for name in of_stem if name in arguments}}
    stem['J'], *_ = geometry.check(stem['J'], stem.get('L', 8), stem.get('max_order', 2))
    log_floor = geometry.number('log_floor', arguments.pop('log_floor', 0.1), 0, sys.float_info.max,
                                '0, for no logarithm, or positive')
    cfg = network_cfg(network)
    stem['in_chans'] = geometry.integer('in_chans', arguments.get('in_chans', cfg['input_size'][0]), least=1)
    arguments['in_chans'] = stem['in_chans']
    if 'num_classes' in arguments:
        arguments['num_classes'] = geometry.integer('num_classes', arguments['num_classes'], least=0)
    own_size: Tuple[int, int] = tuple(cfg['input_size'][1:])
    size = arguments.pop('img_size', None) or own_size
    if cfg['fixed_input_size']:
        arguments['img_size'] = own_size = size
    found = _seam(network, stem['J'], (stem['in_chans'], *own_size), tuple(sorted(arguments.items())))
    return Recipe(network, found, stem, log_floor, arguments, network_class), size


def _seam(network: str, J: int, input_size: Tuple[int, int, int], arguments: Tuple[Tuple[str, Any], ...]) -> seam.Seam:
    """Where the network of these keywords is cut: looked for once, since that takes longer than to make it."""
    known = timm.model_entrypoint(network) if timm.is_model(network) else None
    try:
        hash(arguments)
    except TypeError:
        return _seam_of.__wrapped__(known, network, J, input_size, arguments)
    return _seam_of(known, network, J, input_size, arguments)


@functools.lru_cache(maxsize=256)
def _seam_of(entrypoint: Any, network: str, J: int, input_size: Tuple[int, int, int],
             arguments: Tuple[Tuple[str, Any], ...]) -> seam.Seam:
    plain = on_meta(network, **dict(arguments))
    if any(isinstance(module, ScatteringStem) for module in plain.modules()):
        raise ValueError(f'{brief(network, 60)} begins with a scattering as it is')
    return seam.find(plain, network, input_size, J)


def network_cfg(network: str, /, **source: Any) -> Dict[str, Any]:
    """timm's cfg of a network.

    Raises:
        ValueError: if there is no such network, or no such tag of it.
        TypeError: if it is no name.
    """
    if not isinstance(network, str):
        raise TypeError(f'network must be a name of timm, got {brief(repr(network), 60)}')
    if ':' not in network and not timm.is_model(network):
        raise ValueError(f'timm has no network {brief(network, 60)}; {nearest(network, timm.list_models())}')
    tags = [] if ':' in network else timm.list_pretrained(f'{network.split(".")[0]}.*')
    if '.' in network and ':' not in network and network not in tags:
        raise ValueError(f'timm has no weights {brief(network, 60)}; {nearest(network, tags)}')
    cfg = None if source or ':' in network else timm.get_pretrained_cfg(network)
    return on_meta(network, **source).pretrained_cfg if cfg is None else cfg.to_dict()


def on_meta(network: str, /, **kwargs: Any) -> Any:
    """The network, without memory.

    Raises:
        TypeError: on a keyword that it has not.
    """
    try:
        with torch.random.fork_rng(devices=[]):                 # the initial values of the hybrid go by the seed alone
            return timm.create_model(network, device='meta', **kwargs)
    except TypeError as error:
        unknown = re.search("unexpected keyword argument '(.+?)'", str(error))
        if unknown is None:
            raise
        known = [*ScatteringStem.keywords(), 'log_floor', *inspect.signature(timm.create_model).parameters]
        raise TypeError(f'{brief(network, 60)} behind a scattering has no keyword {brief(unknown[1], 60)}; '
                        f'{nearest(unknown[1], known)}') from error


def cfg_behind(cfg: Dict[str, Any], **kwargs: Any) -> Dict[str, Any]:
    """The cfg of a hybrid, from that of the network; keywords replace entries."""
    kept = ('num_classes', 'input_size', 'min_input_size', 'fixed_input_size', 'interpolation', 'crop_pct', 'crop_mode',
            'mean', 'std', 'pool_size', 'classifier')
    return {**{name: cfg[name] for name in kept if cfg.get(name) is not None}, 'first_conv': [], **kwargs}


def with_scattering_stem(network: str, J: int = 2, learnable: bool = True, parametrization: str = 'morlet',
                         max_order: int = 1, **kwargs: Any) -> nn.Module:
    """A network of timm with scattering in the place of its first layers, up to the first of stride 2^J.

    Behind the scattering come its norm and a 1x1 convolution to the width of the layers that are left; of a network
    that cuts images into patches, it takes what is left of a patch. The result is the timm model otherwise, with its
    methods, names of layers and keywords, and `scattering` as all models of the zoo have it. Feature levels of strides
    below 2^J are gone.

    Args:
        network: a name of timm's, with or without a tag.
        J, learnable, parametrization, max_order: of the scattering, see `ScatteringStem`.
        kwargs: other keywords of `ScatteringStem`; `log_floor`, as for all models of the zoo; and those of
            `timm.create_model`, of which `pretrained` loads timm's weights into the layers that are left, and
            `checkpoint_path` those of a hybrid.

    Raises:
        ValueError: in one sentence, if there is no such network, or it cannot be cut there.
        TypeError: on a keyword that there is not.
    """
    kwargs = {name: value for name, value in kwargs.items() if value is not None}
    source = {name: kwargs.pop(name) for name in SOURCE if name in kwargs}
    checkpoint_path = kwargs.pop('checkpoint_path', None)
    kwargs.update(J=J, learnable=learnable, parametrization=parametrization, max_order=max_order)
    cfg = network_cfg(network, **{name: value for name, value in source.items() if name != 'pretrained'})
    model: Any = build_hybrid('scat_hybrid', network, False, {**kwargs, 'pretrained_cfg': cfg_behind(cfg)},
                              source=source)
    # As timm.create_model notes it, so that a saved model is made again as `scat_hybrid`.
    model._model_args = {'network': network, **{k: v for k, v in kwargs.items() if k not in ('device', 'dtype')}}
    if checkpoint_path:
        load_checkpoint(model, checkpoint_path)
    return model
