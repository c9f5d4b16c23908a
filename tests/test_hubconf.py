"""torch.hub, from a clone."""
from pathlib import Path

import pytest
import torch

ROOT = str(Path(__file__).parents[1])


def test_load():
    model = torch.hub.load(ROOT, 'scat_linear', source='local', learnable=True, img_size=16, in_chans=1, num_classes=3)
    assert model(torch.randn(2, 1, 16, 16)).shape == (2, 3)
    assert len(list(model.scattering.parameters())) == 18


def test_pretrained_raises_while_there_are_no_weights():
    with pytest.raises(RuntimeError, match='No pretrained weights exist for scat_linear'):
        torch.hub.load(ROOT, 'scat_linear', source='local', pretrained=True)
