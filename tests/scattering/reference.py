"""What to compare with: kymatio 0.3.0's transform, whose filters take seconds and are built once, and the plain way."""
import copy
import functools
import types

import torch
from kymatio.scattering2d.frontend.torch_frontend import ScatteringTorch2D as Kymatio
from torch import nn

from scat_zoo.scattering import engine, geometry, transform
from scat_zoo.scattering.banks import PixelwiseBank


@functools.cache
def _built(J, shape, L):
    return Kymatio(J, shape, L)


def kymatio(J, shape, L=8, max_order=2, pre_pad=False, out_type='array'):
    """A kymatio transform of one's own, as its constructor would give it."""
    S = copy.deepcopy(_built(J, tuple(shape), L))
    S.max_order, S.out_type = max_order, out_type
    if pre_pad:
        S.pre_pad, S.pad = True, lambda x: x.reshape(x.shape + (1,))
    return S


def perturb(S, seed=0):
    """Multiply every stored value of every filter by 1 + 0.3 randn, in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in S.state_dict().values():
            tensor.mul_(1 + 0.3 * torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.dtype))
    return S


def as_parameters(S):
    """Make kymatio's buffers parameters."""
    for name, buffer in list(S.named_buffers()):
        delattr(S, name)
        S.register_parameter(name, nn.Parameter(buffer))
    # It looks its filters up among the buffers.
    S.load_filters = functools.partial(_load_from_parameters, S)
    return S


def _load_from_parameters(S):
    tensors = iter(dict(S.named_parameters()).values())
    phi = {'levels': [next(tensors) for _ in S.phi['levels']]}
    psi = [{'j': p['j'], 'theta': p['theta'], 'levels': [next(tensors) for _ in p['levels']]} for p in S.psi]
    return phi, psi


def error_by_order(actual, expected, J, L, max_order):
    """(largest error, largest coefficient) of each order; actual and expected are (..., paths, h, w)."""
    orders = [path.order for path in geometry.paths(J, L, max_order)]
    result = []
    for order in sorted(set(orders)):
        channels = [i for i, o in enumerate(orders) if o == order]
        a, e = actual[..., channels, :, :].double(), expected[..., channels, :, :].double()
        result.append(((a - e).abs().max().item(), e.abs().max().item()))
    return result


def bank(size, J, L, perturbed, max_order=2):
    filters = PixelwiseBank(J, L, size, dtype=torch.float64)
    filters.set_max_order(max_order)
    return perturb(filters) if perturbed else filters


def flat(filters):
    """All of them in a list."""
    return [hat for bank in filters for levels in bank for hat in levels]


def images(size, count=5, seed=0):
    return torch.randn(count, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def both_ways(x, filters, J, max_order, gradients_to):
    """(coefficients, gradients) the fast way and the plain one."""
    results = []
    for way in (engine.scattering2d, transform.reference):
        s, = way(x, filters(x), [J], max_order)
        generator = torch.Generator().manual_seed(1)
        loss = (s * torch.randn(s.shape, generator=generator, dtype=s.dtype)).sum()
        results.append((s, torch.autograd.grad(loss, gradients_to) if gradients_to else ()))
    return results


def counted(way, calls, serves=None):
    """A device's way, or as much of it as `serves` says, that appends to `calls` what of it is called."""
    def forward(*args):
        calls.append('forward')
        return way.forward(*args)

    def backward(*args):
        calls.append('backward')
        return way.backward(*args)

    return types.SimpleNamespace(serves=serves or way.serves, forward=forward, backward=backward)
