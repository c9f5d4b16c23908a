"""State dicts of earlier releases load, and their models answer as they did. tests/data/record.py made them."""
import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

import scat_zoo

CASES = sorted((Path(__file__).parents[1] / 'data').glob('*/*.json'))
# What says how filters are learned. Without it a model has fixed filters until it is given others.
OF_FILTERS = ('learnable', 'frozen_filters', 'parametrization', 'init', 'nonexpansive')
TOLERANCE = 1e-4                # of the largest output, in float32, whatever the processor


def case_id(path):
    return f'{path.parent.name}-{path.stem}'


def record(path):
    return json.loads(path.read_text())


def each(paths):
    return pytest.mark.parametrize('path', list(paths), ids=case_id)


LEARNED = each(path for path in CASES if any(option in record(path)['kwargs'] for option in OF_FILTERS))


def state_dict(path):
    return load_file(path.with_suffix('.safetensors'))


def build(path, without=(), **more):
    """The model of the record, but for some of its keywords."""
    name = record(path)['name']
    kwargs = {key: value for key, value in {**record(path)['kwargs'], **more}.items() if key not in without}
    return timm.create_model(name, **kwargs) if timm.is_model(name) else getattr(scat_zoo, name)(**kwargs)


@torch.no_grad()
def difference(model, path):
    """The largest, of the model's outputs from those recorded, over the largest of these."""
    seen = record(path)
    x = torch.rand(seen['input']['shape'], generator=torch.Generator().manual_seed(seen['input']['seed']))
    expected = torch.tensor(seen['output'])
    return ((model.eval()(x).flatten()[::seen['step']] - expected).abs().max() / expected.abs().max()).item()


def test_there_are_records_of_every_mode():
    kwargs = [record(path)['kwargs'] for path in CASES]
    assert {options.get('parametrization') for options in kwargs} == {None, 'morlet', 'equivariant'}
    assert all(any(option in options for options in kwargs) for option in (*OF_FILTERS, 'scales', 'max_order'))
    assert sum(file.stat().st_size for path in CASES for file in (path, path.with_suffix('.safetensors'))) < 1_000_000


@each(CASES)
def test_loads_into_the_same_model(path):
    model = build(path)
    model.load_state_dict(state_dict(path))
    assert difference(model, path) < TOLERANCE


@LEARNED
@pytest.mark.parametrize('without', [('learnable',), OF_FILTERS], ids=['told', 'untold'])
def test_learned_filters_load_as_frozen_ones(path, without):
    model = build(path, without)
    model.load_state_dict(state_dict(path))
    assert not [name for name, _ in model.named_parameters() if 'bank.' in name]
    assert difference(model, path) < TOLERANCE


@each(path for path in CASES if timm.is_model(record(path)['name']))
def test_loads_by_timm(path):
    model = build(path, checkpoint_path=str(path.with_suffix('.safetensors')))
    assert difference(model, path) < TOLERANCE


@LEARNED
def test_the_tests_see_lost_filters(path):
    model = build(path, OF_FILTERS)
    model.load_state_dict(
        {key: value for key, value in state_dict(path).items() if not key.startswith(('scattering.', 'bank.'))},
        strict=False)
    assert difference(model, path) > 10 * TOLERANCE
