"""A refused state dict leaves a module as it was: values, parameters, and the kinds of its parts."""
import pytest
import torch
from torch import nn

from scat_zoo import ExampleLinearClassifier, ScatteringBase, ScatteringTorch2D
from scat_zoo.models.stem import ScatteringStem
from tests.models.architectures import MODELS, create

STATES = {'fixed': {}, 'pixelwise': {'learnable': True},
          'morlet': {'learnable': True, 'parametrization': 'morlet', 'nonexpansive': True},
          'frozen': {'frozen_filters': True, 'parametrization': 'equivariant'}}


def made(name, options):
    if name == 'ScatteringStem':
        return ScatteringStem(2, 4, in_chans=1, img_size=(28, 28), **options)
    if name in ('ScatteringTorch2D', 'ExampleLinearClassifier'):
        learnable = bool(options)
        return (ScatteringTorch2D(2, (28, 28), L=4, learnable=learnable) if name == 'ScatteringTorch2D'
                else ExampleLinearClassifier(2, (28, 28), 1, 10, L=4, learnable=learnable))
    return create(name, J=2, **options)


def snapshot(module):
    """Kinds and identities of all parts, and copies of all values."""
    return ([(name, type(part), id(part)) for name, part in module.named_modules()],
            [(name, id(p), p.requires_grad) for name, p in module.named_parameters()],
            {name: value.clone() for name, value in [*module.named_parameters(), *module.named_buffers()]})


def same(a, b):
    return a[:2] == b[:2] and a[2].keys() == b[2].keys() and all(torch.equal(a[2][key], b[2][key]) for key in a[2])


def refused(module, donor):
    """State dicts with other values everywhere, that a module cannot load, by what is wrong."""
    moved = {key: value + 1 if value.is_floating_point() and not key.endswith('limit') else value
             for key, value in donor.state_dict().items()}
    if not moved:                                               # of fixed filters alone
        return {'another key': {'nonsense': torch.zeros(1)}}
    last = list(moved)[-1]
    return {'another key': {**moved, 'nonsense': torch.zeros(1)},
            'a key less': {key: value for key, value in moved.items() if key != next(iter(moved))},
            'another size': {**moved, last: torch.zeros(7, 7, 7)},
            'not finite': {key: value * float('nan') if 'bank' in key else value for key, value in moved.items()
                           } if any('bank' in key for key in moved) else {'nonsense': torch.zeros(1)}}


@pytest.mark.parametrize('assign', [False, True])
@pytest.mark.parametrize('given', STATES)
@pytest.mark.parametrize('own', STATES)
@pytest.mark.parametrize('name', ['ScatteringStem', 'ScatteringTorch2D', 'ExampleLinearClassifier', *MODELS])
def test_a_refused_state_dict_changes_nothing(name, own, given, assign):
    if name == 'scat_resnet18' and (own, given) != ('fixed', 'pixelwise'):
        return                                                  # the same class as scat_resnet, many times as large
    module, donor = made(name, STATES[own]), made(name, STATES[given])
    for wrong, state in refused(module, donor).items():
        before = snapshot(module)
        with pytest.raises(RuntimeError):
            module.load_state_dict(state, assign=assign)
        assert same(snapshot(module), before), wrong


def test_the_snapshot_sees_a_change():
    module = made('scat_linear', STATES['pixelwise'])
    before = snapshot(module)
    with torch.no_grad():
        next(module.scattering.parameters()).view(-1)[3] += 1e-6
    assert not same(snapshot(module), before)
    fixed = made('ScatteringStem', {})
    before = snapshot(fixed)
    fixed.load_state_dict(made('ScatteringStem', STATES['morlet']).state_dict())
    assert not same(snapshot(fixed), before)


def test_what_is_loaded_is_loaded():
    module, donor = made('scat_linear', {}), made('scat_linear', STATES['morlet'])
    with torch.no_grad():
        donor.scattering.bank.theta.add_(0.1)
    assert not module.load_state_dict(donor.state_dict()).missing_keys
    assert module.scattering.mode == 'frozen'
    assert all(torch.equal(value, donor.state_dict()[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize('optimiser', [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize('state', ['pixelwise', 'morlet'])
@pytest.mark.parametrize('name', ['ScatteringStem', 'ScatteringTorch2D', 'scat_linear'])
def test_an_old_optimiser_moves_nothing_of_filters_that_are_frozen(name, state, optimiser):
    module = made(name, STATES[state])
    step = optimiser(module.parameters(), lr=0.1, weight_decay=0.1)
    module(torch.rand(2, 1, 28, 28)).square().sum().backward()
    step.step()                                                 # it has momentum now
    part = getattr(module, 'scattering', module) if name == 'scat_linear' else module
    part.set_learnable(False)
    before = snapshot(part)
    step.step()
    assert same(snapshot(part), before)
    part.set_learnable(True)
    before = snapshot(part)
    step.step()
    assert same(snapshot(part), before)


@pytest.mark.parametrize('half', ['scattering', 'classifier'])
@pytest.mark.parametrize('name', ['scat_linear', 'scat_tiny', 'ExampleLinearClassifier'])
def test_an_old_gradient_moves_nothing_of_the_half_that_is_frozen(name, half):
    model = made(name, STATES['pixelwise'])
    step = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    model(torch.rand(4, 1, 28, 28)).square().sum().backward()
    step.step()
    getattr(model, f'freeze_{half}')()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    step.step()
    moved = {name.startswith('scattering.') for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {half == 'classifier'}


def test_what_was_not_reached_is_not_written_to():
    """A backward pass may wait, and a buffer may be one that nobody can write to."""
    model = made('scat_linear', STATES['pixelwise'])
    loss = model(torch.rand(2, 1, 28, 28)).square().sum()
    with pytest.raises(RuntimeError, match='Missing key'):
        model.load_state_dict({f'module.{key}': value for key, value in model.state_dict().items()})
    loss.backward()
    model.register_buffer('expanded', torch.zeros(1).expand(5))
    with pytest.raises(RuntimeError, match='Missing key'):
        model.load_state_dict({})


def test_a_classifier_without_a_size_yet():
    class Lazy(ScatteringBase):
        def _build_classifier(self):
            return nn.LazyLinear(3)

    donor, model, x = Lazy(2, (8, 8), 1, 3), Lazy(2, (8, 8), 1, 3), torch.rand(1, 1, 8, 8)
    expected = donor(x)
    with pytest.raises(RuntimeError, match='Missing key'):
        model.load_state_dict({})
    model.load_state_dict(donor.state_dict())
    assert torch.equal(model(x), expected)


def test_a_module_of_torch_is_half_loaded():
    """What this is about; if torch changes, `AllOrNothing` may go."""
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    before = snapshot(module)
    with pytest.raises(RuntimeError):
        module.load_state_dict({**{key: value + 1 for key, value in module.state_dict().items()}, 'x': torch.zeros(1)})
    assert not same(snapshot(module), before)
