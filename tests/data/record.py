"""Record state dicts, and what their models answer, by the scat_zoo that is imported, in a folder of its version.

    PYTHONPATH=CHECKOUT python tests/data/record.py

Run it when a release adds something to state dicts, and never change old records: all later releases load them.
tests/models/test_old_checkpoints.py sees to it.
"""
import json
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

import scat_zoo

SMALL = {'num_classes': 3, 'in_chans': 1, 'img_size': 16, 'L': 2}
RESNET = {**SMALL, 'channels': (4, 8), 'depths': (1, 1)}
PIXELWISE, FROZEN = {'learnable': True}, {'frozen_filters': True}
MORLET, EQUIVARIANT = ({'learnable': True, 'parametrization': name} for name in ('morlet', 'equivariant'))
CERTIFIED, SCALES = {'nonexpansive': True}, {'scales': (1, 2)}

CASES = {
    'transform': ('ScatteringTorch2D', {'J': 2, 'shape': (16, 16), 'L': 2}),
    'transform-learnable': ('ScatteringTorch2D', {'J': 2, 'shape': (16, 13), 'L': 3, 'learnable': True}),
    'transform-order-1': ('ScatteringTorch2D', {'J': 3, 'shape': (8, 16), 'L': 4, 'max_order': 1, 'learnable': True}),
    'raw': ('ExampleLinearClassifier', {'J': 2, 'shape': (16, 16), 'L': 2, 'in_channels': 2, 'num_classes': 3,
                                        'learnable': True}),
    'linear-fixed': ('scat_linear', {**SMALL, 'in_chans': 3, 'L': 4}),
    'linear-pixelwise': ('scat_linear', {**SMALL, **PIXELWISE, 'in_chans': 3}),
    'linear-frozen': ('scat_linear', {**SMALL, **FROZEN, 'L': 3}),
    'linear-random': ('scat_linear', {**SMALL, 'init': 'random'}),
    'linear-order-1': ('scat_linear', {**SMALL, **PIXELWISE, 'max_order': 1, 'L': 4}),
    'linear-morlet': ('scat_linear', {**SMALL, **MORLET, 'L': 4}),
    'linear-morlet-frozen': ('scat_linear', {**SMALL, **FROZEN, 'parametrization': 'morlet'}),
    'linear-morlet-nonexpansive': ('scat_linear', {**SMALL, **MORLET, **CERTIFIED, 'L': 3}),
    'linear-equivariant': ('scat_linear', {**SMALL, **EQUIVARIANT, 'L': 4}),
    'linear-pixelwise-scales': ('scat_linear', {**SMALL, **PIXELWISE, **SCALES}),
    'linear-nonexpansive-scales': ('scat_linear', {**SMALL, **MORLET, **CERTIFIED, **SCALES}),
    'mlp-fixed-scales': ('scat_mlp', {**SMALL, **SCALES, 'head_hidden_size': 4}),
    'mlp-pixelwise': ('scat_mlp', {**SMALL, **PIXELWISE, 'head_hidden_size': 4}),
    'mlp-equivariant-nonexpansive': ('scat_mlp', {**SMALL, **EQUIVARIANT, **CERTIFIED, 'head_hidden_size': 4}),
    'tiny-fixed': ('scat_tiny', {**SMALL, 'channels': (4, 4)}),
    'tiny-frozen': ('scat_tiny', {**SMALL, **FROZEN, 'channels': (4, 4)}),
    'tiny-morlet-scales': ('scat_tiny', {**SMALL, **MORLET, **SCALES, 'channels': (4, 4)}),
    'resnet-fixed': ('scat_resnet', RESNET),
    'resnet-pixelwise': ('scat_resnet', {**RESNET, **PIXELWISE}),
    'resnet-morlet': ('scat_resnet', {**RESNET, **MORLET}),
    'resnet-equivariant-nonexpansive': ('scat_resnet', {**RESNET, **EQUIVARIANT, **CERTIFIED, 'J': 3}),
}


def record(case: str, name: str, kwargs: dict, folder: Path) -> None:
    zoo = timm.is_model(name)
    model = timm.create_model(name, **kwargs) if zoo else getattr(scat_zoo, name)(**kwargs)
    size = (kwargs['img_size'],) * 2 if zoo else kwargs['shape']
    shape = [2, kwargs['in_chans'] if zoo else kwargs.get('in_channels', 1), *size]
    with torch.no_grad():
        for key, value in model.state_dict().items():               # stands for training, filters included
            if value.is_floating_point() and not key.endswith(('limit', 'running_var')):
                few = key.endswith(('.theta', '.xi', '.sigma', '.slant'))
                value += torch.randn_like(value) * (0.2 if few else 0.1 * value.abs() + 0.01)
        if zoo:
            model.train()(torch.rand(8, *shape[1:]))                # statistics of the norms
        seed = len(case)
        output = model.eval()(torch.rand(shape, generator=torch.Generator().manual_seed(seed))).flatten()
    step = -(-len(output) // 20)
    save_file(model.state_dict(), folder / f'{case}.safetensors')
    (folder / f'{case}.json').write_text(json.dumps({
        'name': name, 'kwargs': kwargs, 'input': {'shape': shape, 'seed': seed}, 'step': step,
        'output': [float(f'{value:.8g}') for value in output[::step]]}) + '\n')


if __name__ == '__main__':
    torch.manual_seed(0)
    destination = Path(__file__).parent / scat_zoo.__version__
    destination.mkdir()
    for case, (name, kwargs) in CASES.items():
        record(case, name, kwargs, destination)
