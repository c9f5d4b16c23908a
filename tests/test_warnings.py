"""The package warns of nothing by itself: imported, trained, saved and loaded where every warning is an error."""
import subprocess
import sys

SCRIPT = '''
import warnings
import timm, torch, torchvision.models                          # their own warnings are theirs
from sklearn.linear_model import LogisticRegression
warnings.simplefilter('error')
import scat_zoo, scat_zoo.cli
from scat_zoo.train import checkpoint
for name in timm.list_models('scat_*'):
    for options in ({}, {'learnable': True}, {'learnable': True, 'parametrization': 'equivariant'}):
        model = timm.create_model(name, num_classes=3, in_chans=1, img_size=32, L=2, **options).train()
        torch.nn.functional.cross_entropy(model(torch.rand(4, 1, 32, 32)), torch.arange(4) % 3).backward()
        checkpoint.save(model.eval(), 'checkpoint')
        checkpoint.load('checkpoint')(torch.rand(2, 1, 40, 32))
print(torchvision.models.get_model('scat_tiny', weights='DEFAULT')(torch.rand(1, 1, 28, 28)).shape)
'''


def test_no_warning(tmp_path):
    done = subprocess.run([sys.executable, '-c', SCRIPT], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == 'torch.Size([1, 10])\n'
