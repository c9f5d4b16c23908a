"""Where a network can be cut: behind the first of its layers with a given stride, if nothing else leads past there.

The network runs once, on tensors without memory, and tells by hooks which layers run one after the other, each on what
the last one gave. No family of networks needs a rule of its own.
"""
from collections import Counter
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import torch
from timm.layers import PatchEmbed
from torch import Tensor, nn

from ..wording import brief, some


class Seam(NamedTuple):
    """The layers that a scattering of stride 2^J can take the place of, and how to go on behind them."""

    layers: List[str]           # names of modules, in the order in which they run
    width: int                  # channels of what the last of them gives
    kernel: int                 # side and stride of the convolution to that width: what is left of a patch, mostly 1
    bias: bool                  # whether the replaced convolution has one
    flatten: Optional[bool]     # timm's `flatten_sequential`, if the feature levels are a chain of modules; else None


class Call:
    """One run of a module: its input and output, how often each had been written to, and the calls within."""

    def __init__(self, name: str, module: nn.Module, x: Any) -> None:
        self.name, self.module = name, module
        self.x, self.out = _state(x), _state(None)
        self.node: Any = None                                   # of autograd's graph, for the output
        self.calls: List[Call] = []

    def leave(self, out: Any) -> None:
        self.out, self.node = _state(out), getattr(out, 'grad_fn', None)

    def in_turn(self) -> List['Call']:
        """The calls within that run in turn, each on what the last gave, as long as that goes."""
        state, found = self.x, []
        for call in self.calls:
            if not _same(call.x, state):
                break
            found.append(call)
            state = call.out
        return found

    def is_sequence(self) -> bool:
        """Whether the calls within, in turn, are all that it does."""
        found = self.in_turn()
        return bool(found) and len(found) == len(self.calls) and _same(found[-1].out, self.out)

    def layers(self) -> List['Call']:
        """The smallest parts that run in turn: layers, and blocks that do more than run theirs in turn."""
        return [layer for call in self.in_turn() for layer in (call.layers() if call.is_sequence() else [call])]

    def stride(self, size: Sequence[int]) -> int:
        """Of the map (B, C, h, w) that comes out, for images (H, W); 0 if it is none."""
        out = self.out[0]
        if not isinstance(out, Tensor) or out.dim() != 4:
            return 0
        vertical, horizontal = (round(a / b) for a, b in zip(size, out.shape[2:]))
        return vertical if vertical == horizontal else 0


def find(net: nn.Module, name: str, input_size: Tuple[int, int, int], J: int) -> Seam:
    """The seam of a network on the meta device, for images (C, H, W).

    Args:
        name: what messages call it.

    Raises:
        ValueError: in one sentence, if there is none.
    """
    root = _record(net.eval().requires_grad_(False), input_size)
    found = _up_to(root, input_size[1:], J)
    if isinstance(found, str):
        others = [(j, _up_to(root, input_size[1:], j)) for j in range(1, 6)]
        fit = [f'J={j}' for j, o in others if not isinstance(o, str) and not _leads_past(root, o[0][-1])]
        raise _refusal(name, J, found + (f'; {" or ".join(fit)} would do' if fit else ''))
    layers, kernel = found
    last = layers[-1]
    runs = Counter(id(call.module) for call in _all(root))
    again = [layer.name for layer in layers if runs[id(layer.module)] > 1]
    if again:
        raise _refusal(name, J, f'its layer {brief(again[0], 60)} runs more than once')
    if _leads_past(root, last):
        raise _refusal(name, J, f'what comes before its layer {brief(last.name, 60)} is read behind it as well')
    patch = _patch_convolution(last.module)
    width = last.out[0].shape[1] if patch is None else patch.out_channels
    return Seam([layer.name for layer in layers], width, kernel, patch is None or patch.bias is not None,
                _flatten(net, root))


def is_patches(module: nn.Module) -> bool:
    """Whether it is timm's patch embedding, and nothing but."""
    return type(module) is PatchEmbed and isinstance(module.norm, nn.Identity)


def _up_to(root: Call, size: Sequence[int], J: int) -> Union[str, Tuple[List[Call], int]]:
    """The layers up to the first of stride 2^J, and the side of the convolution that is to follow; or why not."""
    wanted, before, strides = 1 << J, [], set()
    for layer in _opened(root.layers(), size, wanted):
        before.append(layer)
        stride, side = layer.stride(size), _patch_side(layer, root)
        if stride == wanted or (side and side % wanted == 0):
            return before, max(1, side // wanted)
        if side > wanted:
            return f'it takes its images in patches of {side} pixels, of which 2^J is no divisor'
        strides |= {stride} if 1 < stride < min(size) else set()
    coarser = f', but {some(sorted(strides), 60)}' if strides else ''
    return f'none of its first layers gives a map of stride {wanted}{coarser}'


def _opened(layers: List[Call], size: Sequence[int], wanted: int) -> Iterator[Call]:
    """The layers, and in place of the first that is no map, or too coarse, what it begins with."""
    for layer in layers:
        if layer.calls and not is_patches(layer.module) and not 0 < layer.stride(size) <= wanted:
            yield from layer.layers()
            return
        yield layer


def _patch_convolution(module: nn.Module) -> Optional[nn.Conv2d]:
    module = module.proj if is_patches(module) else module          # type: ignore[assignment]
    return module if isinstance(module, nn.Conv2d) else None


def _patch_side(layer: Call, root: Call) -> int:
    """The side of the square patches that the layer cuts images into, 0 if it does not."""
    conv = _patch_convolution(layer.module)
    if conv is None or not _same(layer.x, root.x) or conv.kernel_size != conv.stride or conv.padding != (0, 0):
        return 0
    return conv.stride[0] if conv.stride[0] == conv.stride[1] else 0


def _record(net: nn.Module, input_size: Sequence[int]) -> Call:
    """All calls of one forward pass, as a tree, and autograd's graph of it, for images (C, H, W)."""
    names = {module: name for name, module in net.named_modules()}
    root = Call('', net, torch.empty(1, *input_size, device='meta', requires_grad=True).clone())
    open_calls = [root]

    def enter(module: nn.Module, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> None:
        call = Call(names[module], module, args[0] if args else None)
        open_calls[-1].calls.append(call)
        open_calls.append(call)

    def leave(module: nn.Module, args: Tuple[Any, ...], kwargs: Dict[str, Any], out: Any) -> None:
        open_calls.pop().leave(out)

    handles = [handle for module in names if module is not net for handle in (
        module.register_forward_pre_hook(enter, with_kwargs=True),
        module.register_forward_hook(leave, with_kwargs=True))]
    try:
        with torch.enable_grad():
            root.leave(net(root.x[0]))
    finally:
        for handle in handles:
            handle.remove()
    return root


def _state(x: Any) -> Tuple[Any, int]:
    # A block may add to a tensor in place, which is then no longer what the last layer gave.
    return x, x._version if isinstance(x, Tensor) else -1


def _same(a: Tuple[Any, int], b: Tuple[Any, int]) -> bool:
    return a[0] is b[0] and a[1] == b[1] and isinstance(a[0], Tensor)


def _all(call: Call) -> Iterator[Call]:
    for inner in call.calls:
        yield inner
        yield from _all(inner)


def _leads_past(root: Call, layer: Call) -> bool:
    """Whether the image reaches what the network gives by another way than through this layer."""
    out = root.out[0]
    nodes = [t.grad_fn for t in (out if isinstance(out, (tuple, list)) else [out])]
    seen = {layer.node, None}
    while nodes:
        node: Any = nodes.pop()
        if node not in seen:
            seen.add(node)
            if not node.next_functions:                         # the image: no parameter has a gradient
                return True
            nodes += [before for before, _ in node.next_functions]
    return False


def _flatten(net: nn.Module, root: Call) -> Optional[bool]:
    """How timm's `FeatureListNet` gets the feature levels by calling modules in turn, if it does."""
    taps = {level['module'] for level in getattr(net, 'feature_info', [])}
    flatten = any('.' in tap for tap in taps)
    there, turns = [], []
    for name, module in net.named_children():
        inner = [f'{name}.{k}' for k, _ in module.named_children()]
        there += inner if flatten and isinstance(module, nn.Sequential) else [name]
    for call in root.in_turn():
        turns += [inner.name for inner in call.calls] if flatten and isinstance(call.module, nn.Sequential) else [
            call.name]
    if not taps or not taps <= set(there):
        return None
    end = 1 + max(there.index(tap) for tap in taps)
    return flatten if turns[:end] == there[:end] else None


def _refusal(name: str, J: int, why: str) -> ValueError:
    return ValueError(f'{brief(name, 60)} cannot begin with a scattering of J={J}: {why}')
