"""The filters that a bank's stored values stand for, computed afresh; and ways in which others change those values."""
import torch
from torch import nn

from scat_zoo.scattering import banks, filters, geometry, morlet, parametric


def filters_of(bank, size):
    """What the bank has to give for images (H, W), by nothing that it or the package keeps."""
    scales, J, L, order = bank.scales, bank.J, bank.L, bank.max_order
    x = torch.empty(0, *size, device='meta')
    if bank.kind == 'fixed':
        hat = analytic(bank, size, bank.hat.dtype)
        return filters.from_finest(hat[:len(scales)], hat[len(scales):], scales, L, order)
    if bank.kind == 'pixelwise':
        hats = {key: value.detach() for key, value in bank.state_dict().items()}
        counts = geometry.levels(scales, order)
        phi = [[hats[f'phi.{"" if s == J else f"scale{s}_"}level{level}.hat'] for level in range(count)]
               for s, count in zip(scales, counts[0])]
        psi = [[torch.stack([hats[f'psi.j{j}_theta{t}_level{level}.hat'] for t in range(L)]) for level in range(count)]
               for j, count in enumerate(counts[1])]
        return banks.resized(filters.Filters(phi, psi), x, bank.border)
    with torch.no_grad():
        stored = {key: value.detach().clone() for key, value in bank.state_dict().items()}
        offsets = morlet.Numbers(*(stored[name].reshape(J, -1).expand(J, L) for name in morlet.Numbers._fields))
        return parametric.morlet_filters(x, offsets, stored.get('lowpass'), stored.get('limit'), scales, L, order)


def analytic(bank, size, dtype):
    """The finest filters of the tight frame."""
    size = geometry.padded_size(*size, bank.J, getattr(bank, 'border', 1))
    return morlet.filter_bank(size, bank.scales, bank.L, dtype, torch.device('cpu'))


def is_analytic(bank):
    """Whether a pixelwise bank holds the tight frame's values, to the precision of its type, or float32's."""
    dtype = next(iter(bank.state_dict().values())).dtype
    hat, low = analytic(bank, bank.image_size, dtype), len(bank.scales)
    right = flat(filters.from_finest(hat[:low], hat[low:], bank.scales, bank.L, bank.max_order))
    found, error = flat(filters_of(bank, bank.image_size)), 4 * max(torch.finfo(t).eps for t in (dtype, torch.float32))
    return all((a - b).abs().max() <= error for a, b in zip(found, right, strict=True))


def flat(found):
    """Filters in a list, in float64."""
    return [hat.double() for hats in found for levels in hats for hat in levels]


def stored(bank):
    """(module, name) of each value that a bank stores and others may change."""
    return [(module, name) for module in bank.modules() if getattr(module, 'kind', '') != 'fixed'
            for store in (module._parameters, module._buffers) for name, value in store.items()
            if value is not None and value.numel() and name != 'limit']


def number(bank, kind, options):
    """How many numbers a bank of a kind has to learn."""
    if kind == 'pixelwise':
        M, N = geometry.padded_size(*bank.image_size, bank.J)
        phi, psi = geometry.levels(bank.scales, bank.max_order)
        return sum(times * (M >> level) * (N >> level) for times, counts in ((1, phi), (bank.L, psi))
                   for count in counts for level in range(count))
    wavelets = 4 * bank.J * (bank.L if kind == 'morlet' else 1)
    return wavelets * (bank.max_order > 0) + options.get('learn_lowpass', False)


def _in_place(module, name, factor):
    with torch.no_grad():
        getattr(module, name).mul_(factor).add_(0.01 * factor)


def _without_a_version(module, name, factor):
    """Of which autograd counts nothing."""
    with torch.inference_mode():
        getattr(module, name).detach().mul_(factor).add_(0.01 * factor)


def _in_data(module, name, factor):
    getattr(module, name).data[..., 0] += 0.1 * factor


def _data_replaced(module, name, factor):
    value = getattr(module, name)
    value.data = value.data * factor + 0.01 * factor


def _in_numpy(module, name, factor):
    getattr(module, name).detach().numpy()[...] *= factor


def _object_replaced(module, name, factor):
    value = getattr(module, name)
    new = value.detach() * factor + 0.01 * factor
    setattr(module, name, nn.Parameter(new, value.requires_grad) if isinstance(value, nn.Parameter) else new)


EDITS = [_in_place, _without_a_version, _in_data, _data_replaced, _in_numpy, _object_replaced]
