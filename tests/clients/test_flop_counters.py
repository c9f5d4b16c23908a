"""What fvcore and torchinfo count of a model: multiply-adds, by rules of their own."""
import math

import pytest
import timm
import torch
import torchinfo
from fvcore.nn import FlopCountAnalysis
from torch.utils.flop_counter import FlopCounterMode

import scat_zoo  # noqa: F401  (registers the models)


def create(name, **kwargs):
    return timm.create_model(name, in_chans=1, img_size=28, num_classes=10, **kwargs).eval()


def matrix_product(inputs, outputs):
    """Of all matrices of a batch: fvcore's own rule takes the first operand's batch alone, and here that has none."""
    return math.prod(outputs[0].type().sizes()) * inputs[0].type().sizes()[-1]


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('learnable', [False, True])
@pytest.mark.parametrize('name', ['scat_linear', 'scat_resnet'])
def test_fvcore(name, learnable):
    """It traces a model, whose scattering is matrix products then: as many as torch counts in the same trace."""
    model, x = create(name, learnable=learnable), torch.rand(2, 1, 28, 28)
    analysis = FlopCountAnalysis(model, x).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    seen = analysis.by_module()['scattering']
    analysis = analysis.set_op_handle('aten::matmul', matrix_product)
    products = sum(count for kind, count in analysis.by_operator().items()
                   if kind not in ('batch_norm', 'adaptive_avg_pool2d'))
    traced = torch.jit.trace(model, x)
    with FlopCounterMode(display=False) as counter:
        traced(x)
    assert products == counter.get_total_flops() // 2
    assert 4e6 < analysis.by_module()['scattering'] / len(x) < 6e6
    assert 2e6 < seen / len(x) < 3e6                            # by its own rule


@pytest.mark.filterwarnings('ignore')
def test_torchinfo_counts_weights_alone():
    """Parameters that are called weight and bias, times what they are used for: nothing of what has no such weights."""
    summary = torchinfo.summary(create('scat_linear', learnable=True), input_size=(1, 1, 28, 28), verbose=0)
    classifier, norms = 81 * 49 * 10 + 10, 2 * 81
    assert summary.total_mult_adds == classifier + norms
    assert summary.trainable_params > classifier + norms        # the filters are among the parameters
