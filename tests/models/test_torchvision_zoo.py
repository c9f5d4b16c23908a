"""torchvision's registry: builders, enums of weights, and what torchvision's own tests ask of both."""
import copy
import importlib
import pickle
import warnings

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import get_model, get_model_builder, get_model_weights, get_weight, list_models

from scat_zoo.models import shipped, torchvision_zoo, upstream
from scat_zoo.scattering.engine import program

from .architectures import NAMES

MEMBERS = [member for name in NAMES for member in get_model_weights(name)]
WITH_WEIGHTS = [name for name in NAMES if len(get_model_weights(name))]
# Fields that torchvision's test of its own meta-data permits and, the second, demands, but for the two accuracies on
# ImageNet-1K.
PERMITTED = {
    'backend', 'categories', 'keypoint_names', 'license', '_metrics', 'min_size', 'min_temporal_size', 'num_params',
    'recipe', 'unquantized', '_docs', '_ops', '_file_size'}
DEMANDED = {'categories', '_metrics', 'min_size', 'num_params', 'recipe', '_docs', '_file_size', '_ops'}


@pytest.mark.parametrize('name', NAMES)
def test_get_model(name):
    model = get_model(name, weights=None, num_classes=3, in_chans=1, img_size=32, L=2, learnable=True)
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 3)
    builder = get_model_builder(name)
    assert builder(num_classes=4).num_classes == 4
    assert builder is getattr(torchvision_zoo, name) is pickle.loads(pickle.dumps(builder))
    assert name in list_models()
    assert name not in list_models(module=torchvision.models)        # which lists torchvision's own


@pytest.mark.parametrize('name', NAMES)
def test_weights(name):
    weights = get_model_weights(name)
    assert weights.__name__.lower() == f'{name.replace("_", "")}_weights'
    assert [f'{name}.{member.name.lower()}' for member in weights] == [f'{name}.{tag}' for tag in shipped.tags(name)]
    assert (list(weights)[:1] or [None])[0] is weights.__members__.get('DEFAULT')
    known = f'known: {", ".join(weights.__members__)}' if list(weights) else 'no weights come with this model'
    for unknown in ('NOTHING', 'Other_Weights.FASHION_MNIST', *([] if list(weights) else ['DEFAULT', 'FASHION_MNIST'])):
        with pytest.raises(ValueError, match=f"^unknown weights '{unknown}' for {weights.__name__}; {known}$"):
            get_model(name, weights=unknown)
    with pytest.raises(ValueError, match='unknown weights') as refused:
        get_model(name, weights=1000 * 'unknown')
    assert len(str(refused.value)) < 300
    with pytest.raises(TypeError, match=f'expected {weights.__name__} but received ResNet18_Weights'):
        get_model(name, weights=torchvision.models.ResNet18_Weights.DEFAULT)


@pytest.mark.parametrize('member', MEMBERS, ids=str)
def test_a_member(member):
    """As in torchvision's tests: found by its name, copied and pickled as itself, with transforms that script."""
    assert get_weight(str(member)) is member
    assert get_weight(f'{type(member).__name__}.DEFAULT') is next(iter(type(member)))
    assert copy.copy(member) is copy.deepcopy(member) is pickle.loads(pickle.dumps(member)) is member
    assert member.name.isupper()
    image = torch.randint(256, (1, 1, 40, 40), dtype=torch.uint8)
    assert torch.equal(torch.jit.script(member.transforms())(image), member.transforms()(image))


@pytest.mark.parametrize('member', MEMBERS, ids=str)
def test_meta(member):
    assert DEMANDED <= set(member.meta) <= PERMITTED
    builder = {get_model_weights(name): get_model_builder(name) for name in NAMES}[type(member)]
    model = builder(weights=member)
    assert member.meta['num_params'] == sum(p.numel() for p in model.parameters())
    assert (1, *member.meta['min_size']) == model.pretrained_cfg['input_size']
    assert len(member.meta['categories']) == model.num_classes
    file = shipped.WEIGHTS / member.in_timm / 'model.safetensors'
    assert member.meta['_file_size'] == round(file.stat().st_size / 1024 / 1024, 3)
    assert (shipped.WEIGHTS / member.meta['_docs'].split()[1]).is_file()
    recorded = shipped.results(member.in_timm)
    assert member.meta['_metrics'] == {recorded['data']: {'acc@1': recorded['accuracy']}}


class Products:
    """Multiplications and additions of one forward pass, by the shapes of what layers and the engine compute."""

    def __init__(self, model, monkeypatch):
        self.count, execute, names = 0, program.execute, list(program.OPERATIONS)

        def counting(codes, outs, lefts, rights):
            self.count += sum(out.numel() * left.shape[-1] for code, out, left in zip(codes, outs, lefts)
                              if names[code].endswith('mm'))
            execute(codes, outs, lefts, rights)

        monkeypatch.setattr(program, 'execute', counting)
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.register_forward_hook(self.layer)

    def layer(self, module, inputs, output):
        self.count += output.numel() * module.weight[0].numel()


@pytest.mark.parametrize('member', MEMBERS, ids=str)
def test_ops(member, monkeypatch):
    recorded = shipped.results(member.in_timm)['multiply_adds']
    assert member.meta['_ops'] == round(recorded / 1e9, 3)
    model = get_model_builder(member.in_timm.partition('.')[0])(weights=member).eval()
    products = Products(model, monkeypatch)
    with torch.no_grad():
        model(torch.rand(1, 1, *member.meta['min_size']))
    # The engine leaves weights out that are too small to matter, and another processor may round some the other way.
    assert recorded == pytest.approx(products.count, rel=1e-3)


@pytest.mark.parametrize('name', WITH_WEIGHTS)
def test_pretrained_is_what_torchvision_makes_of_it(name):
    builder, weights = get_model_builder(name), get_model_weights(name)
    x = torch.randn(2, 1, 28, 28)
    expected = builder(weights=weights.DEFAULT).eval()(x)
    for args, kwargs in (((True,), {}), ((), {'pretrained': True}), ((weights.DEFAULT,), {})):
        with pytest.warns(UserWarning, match='deprecated since 0.13'):
            model = builder(*args, **kwargs)
        assert torch.equal(model.eval()(x), expected)
    with pytest.warns(UserWarning, match=rf'equivalent to passing `weights={weights.__name__}\.FASHION_MNIST`'):
        assert get_model(name, pretrained=True, num_classes=3).num_classes == 3


@pytest.mark.parametrize('name', NAMES)
def test_not_pretrained(name):
    builder = get_model_builder(name)
    for args, kwargs in (((False,), {}), ((), {'pretrained': False})):
        with pytest.warns(UserWarning, match='equivalent to passing `weights=None`'):
            assert builder(*args, device='meta', **kwargs).num_classes == 1000
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        builder(weights=None, device='meta')
        builder(device='meta')


@pytest.mark.parametrize('name', [name for name in NAMES if name not in WITH_WEIGHTS])
def test_pretrained_of_a_model_without_weights(name):
    for args, kwargs in (((True,), {}), ((), {'pretrained': True})):
        with pytest.raises(ValueError, match=f'^No weights available for model {name}$'):
            get_model_builder(name)(*args, **kwargs)


@pytest.mark.parametrize('name', WITH_WEIGHTS)
@pytest.mark.parametrize('keyword', [{'L': 6}, {'log_floor': 0}, {'L': 6, 'pool_grid': 50, 'img_size': 64}])
def test_weights_refuse_other_keywords_in_one_sentence(name, keyword):
    with pytest.raises(RuntimeError) as refused:
        get_model(name, weights='DEFAULT', **keyword)
    message = str(refused.value)
    assert message.startswith(f'these weights do not fit {name} with the {", ".join(keyword)} asked for: ')
    assert '\n' not in message
    assert len(message) < 300


def test_a_reload_registers_again():
    importlib.reload(torchvision_zoo)
    assert get_model_builder('scat_linear') is torchvision_zoo.scat_linear
    assert get_weight('ScatLinear_Weights.DEFAULT') is torchvision_zoo.ScatLinear_Weights.DEFAULT


@pytest.mark.parametrize(('register', 'zoo'), [
    (upstream.register_model, 'timm'), (upstream.register_torchvision, 'torchvision')])
def test_a_model_of_another_is_never_replaced(register, zoo):
    def resnet18():
        raise AssertionError
    with pytest.raises(RuntimeError, match=rf"{zoo} has a model 'resnet18' already, from {zoo}\.models\.resnet"):
        register(resnet18)
    model = get_model('resnet18')
    assert isinstance(model, torchvision.models.ResNet)


def test_weights_of_another_are_never_replaced():
    ours = torchvision_zoo.ScatteringWeights('ResNet18_Weights', {}, module=__name__)

    def scat_other(*, weights: ours = None):
        raise AssertionError
    with pytest.raises(RuntimeError, match=r"torchvision has weights 'ResNet18_Weights' already, from torchvision\."):
        upstream.register_torchvision(scat_other)
    assert torchvision.models.ResNet18_Weights is get_model_weights('resnet18')
    assert 'scat_other' not in list_models()
