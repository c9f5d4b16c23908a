"""Training on two processes, by torchrun and gloo."""
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

import scat_zoo  # noqa: F401  (registers the models)

WORKER = Path(__file__).parent / 'distributed_worker.py'
ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']


def run(*command):
    result = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300, cwd=ROOT,
                            env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'})
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    one, two = tmp_path_factory.mktemp('one'), tmp_path_factory.mktemp('two')
    run(sys.executable, WORKER, 40, one)                # 800 images: 20 updates of 40, or of 2 x 20
    run(*TORCHRUN, WORKER, 20, two)
    return load_file(one / 'rank0.safetensors'), [load_file(two / f'rank{r}.safetensors') for r in (0, 1)]


def test_both_processes_hold_the_same_weights(trained):
    _, (first, second) = trained
    assert sum('psi' in key for key in first) == 4
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_two_processes_equal_one_with_the_doubled_batch(trained):
    alone, (first, _) = trained
    for key in alone:
        # The same sums in another order: float32 rounding, over 20 updates.
        assert torch.allclose(first[key].double(), alone[key].double(), rtol=1e-5, atol=1e-5), key
    start = timm.create_model('scat_linear', L=2, in_chans=1, img_size=28, learnable=True).state_dict()
    moved = [(alone[key] - start[key]).abs().max() for key in alone if key.startswith('scattering.')]
    assert min(moved) > 1e-4                            # and that is not for want of training


def test_the_command_under_torchrun(tmp_path):
    output = tmp_path / 'run'
    stdout = run(*TORCHRUN, '-m', 'scat_zoo', 'train', '--model-kwargs', 'L=2', '--epochs', 2, '--output', output)
    assert len(re.findall(r'^test accuracy', stdout, re.MULTILINE)) == 1            # said by one process
    assert (output / 'checkpoint' / 'model.safetensors').exists()
    results = json.loads((output / 'results.json').read_text())
    assert (results['kept'], list(results['ways'])) == ('learned', ['probe', 'fixed', 'learned'])
    assert len(results['ways']['learned']['history']) == 2
    assert results['test']['images'] == 2000
    states = torch.load(output / 'learned.state', weights_only=True)['random']
    assert len(states) == 2
    assert states[0] != states[1]                       # each process augments on its own


def test_the_probe_is_that_of_one_process(tmp_path):
    """The first process fits it, all test it; going on takes as many processes as before."""
    options = ['-m', 'scat_zoo', 'train', '--model-kwargs', 'L=2', 'global_pool=avg', '--no-learnable']
    stdout = [run(*start, *options, '--output', tmp_path / name)
              for name, start in (('one', [sys.executable]), ('two', TORCHRUN))]
    one, two = (json.loads((tmp_path / name / 'results.json').read_text()) for name in ('one', 'two'))
    assert one == two
    assert all(len(re.findall(r'^  classifier ', out, re.MULTILINE)) == 1 for out in stdout)
    a, b = (load_file(tmp_path / name / 'checkpoint' / 'model.safetensors') for name in ('one', 'two'))
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize('options', [('--lda', 1, '--lda-epochs', 1), ('--model', 'scat_mlp', '--whiten', 1)],
                         ids=['discriminant analysis', 'whitening'])
def test_what_is_computed_of_all_images_is_that_of_all_processes(options, tmp_path):
    output = tmp_path / 'run'
    stdout = run(*TORCHRUN, '-m', 'scat_zoo', 'train', '--model-kwargs', 'L=2', 'global_pool=avg', '--epochs', 1,
                 '--augment', 'flip', *options, '--output', output)
    tested = re.search(r'^test accuracy ([\d.]+) %', stdout, re.MULTILINE).group(1)
    # Each process tests a part of the images, with a model that must be the one that is saved.
    alone = run(sys.executable, '-m', 'scat_zoo', 'test', output / 'checkpoint')
    assert re.search(r'([\d.]+) %', alone).group(1) == tested
