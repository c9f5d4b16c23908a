"""timm's own train.py and validate.py, as `python -m scat_zoo run` starts them.

They are in none of timm's packages: TIMM_SCRIPTS names the folder of a clone that has them.
"""
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .images import folders

SCRIPTS = os.environ.get('TIMM_SCRIPTS')
pytestmark = pytest.mark.skipif(
    not SCRIPTS, reason="TIMM_SCRIPTS does not name the folder of timm's train.py and validate.py")
COMMON = ['--model', 'scat_resnet', '--num-classes', '10', '--device', 'cpu', '--workers', '1', '-b', '20']


def run(script, *args):
    command = [sys.executable, '-m', 'scat_zoo', 'run', str(Path(SCRIPTS) / script), *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize('model_kwargs', [['J=2'], ['learnable=True', 'img_size=32']], ids=['fixed', 'learnable'])
def test_train_and_validate(model_kwargs, tmp_path):
    data = folders(tmp_path / 'data', 32, train=100, validation=40)
    kwargs = ['--model-kwargs', *model_kwargs]
    run('train.py', '--data-dir', data, *COMMON, *kwargs, '--epochs', 2, '--warmup-epochs', 0, '--opt', 'adamw',
        '--lr', 1e-3, '--output', tmp_path, '--experiment', 'run')
    with open(tmp_path / 'run' / 'summary.csv') as file:
        epochs = list(csv.DictReader(file))
    assert len(epochs) == 2
    best = max(float(epoch['eval_top1']) for epoch in epochs)
    output = run('validate.py', '--data-dir', data / 'validation', *COMMON, *kwargs, '--checkpoint',
                 tmp_path / 'run' / 'model_best.pth.tar')
    result = json.loads(output.split('--result')[1])
    assert result['top1'] == best
