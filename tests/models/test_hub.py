"""The Hugging Face Hub as docs/hub.md tells of it: the clients are timm and huggingface_hub, the server is ours."""
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import ModelCard

from scat_zoo.train import checkpoint

from .hub_server import Hub

PAGE = (Path(__file__).parents[2] / 'docs' / 'hub.md').read_text()
PUSH, UPLOAD, LOAD = re.findall(r'^```py\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL)
TRAIN = '# ... train it ...\n'
JOLT = """
import torch
with torch.no_grad():
    for p in model.parameters():
        p.add_(0.1 * torch.randn_like(p))
torch.save(model.eval()(torch.linspace(0, 1, 1568).view(2, 1, 28, 28)), 'logits.pt')
"""
COMPARE = """
import torch
expected, images = torch.load('logits.pt'), torch.linspace(0, 1, 1568).view(2, 1, 28, 28)
print(torch.equal(model.eval()(images), expected), torch.allclose(frozen.eval()(images), expected, atol=1e-4))
print([bool(list(m.scattering.parameters())) for m in (model, frozen)], features(images).ndim)
"""


@pytest.fixture(scope='module')
def hub():
    with Hub() as hub:
        yield hub


@pytest.fixture
def run(hub, tmp_path):
    """Runs a script in a fresh process, whose Hub and cache are its own, and returns it."""
    env = {**os.environ, 'HF_ENDPOINT': hub.url, 'HF_HOME': str(tmp_path / 'cache'), 'HF_TOKEN': 'hf_secret',
           'HF_HUB_DISABLE_TELEMETRY': '1', 'OMP_NUM_THREADS': '1', 'NO_PROXY': '127.0.0.1'}
    env.pop('HF_HUB_OFFLINE', None)

    def run(script):
        return subprocess.run([sys.executable, '-W', 'ignore', '-c', script], cwd=tmp_path, env=env, check=False,
                              capture_output=True, text=True)
    return run


def test_a_pushed_model_loads_in_a_fresh_process(hub, run):
    assert TRAIN in PUSH
    done = run(PUSH.replace(TRAIN, JOLT))
    assert done.returncode == 0, done.stderr
    files = hub.repositories['OWNER/NAME']
    assert set(files) == {'README.md', 'config.json', 'model.safetensors'}
    done = run(LOAD + COMPARE)
    assert done.returncode == 0, done.stderr
    assert done.stdout == 'True True\n[True, False] 2\n'
    card = ModelCard(files['README.md'].decode())
    assert (card.data.library_name, card.data.license) == ('timm', 'bsd-3-clause')
    assert re.search(r'^    import scat_zoo .*\n    import timm\n    model = timm\.create_model', card.text, re.M)
    # What the page says of doing without: timm's name for the model is unknown.
    done = run(LOAD.replace('import scat_zoo\n', ''))
    assert 'Unknown model (scat_linear)' in done.stderr


def test_what_timm_writes_without_a_card(hub, run):
    """As the page says; should timm come to do better, the page may become shorter."""
    done = run("import scat_zoo, timm\ntimm.models.push_to_hf_hub(timm.create_model('scat_tiny'), 'OWNER/PLAIN')")
    assert done.returncode == 0, done.stderr
    files = hub.repositories['OWNER/PLAIN']
    assert set(files) == {'README.md', 'config.json', 'model.safetensors', 'pytorch_model.bin'}
    card = ModelCard(files['README.md'].decode())
    assert card.data.tags == ['image-classification', 'timm', 'transformers']
    assert (card.data.library_name, card.data.license) == ('timm', 'apache-2.0')
    assert 'import' not in card.text


def test_a_checkpoint_uploads_as_it_is(hub, run, tmp_path):
    model = timm.create_model('scat_linear', learnable=True, num_classes=3, in_chans=1, img_size=28).eval()
    checkpoint.save(model, tmp_path / 'runs/scat_linear/checkpoint', label_names=['a', 'b', 'c'])
    done = run(UPLOAD)
    assert done.returncode == 0, done.stderr
    torch.save(model(torch.linspace(0, 1, 1568).view(2, 1, 28, 28)), tmp_path / 'logits.pt')
    names = "print(model.pretrained_cfg['label_names'])"
    done = run(LOAD.replace('OWNER/NAME', 'OWNER/TRAINED') + COMPARE + names)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True True\n[True, False] 2\n['a', 'b', 'c']\n"
