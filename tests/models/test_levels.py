"""What timm asks of a model's levels: recomputing them, taking them, and cutting what stands above them."""
import pytest
import torch

from .architectures import HYBRIDS, MODELS, create

SMALL = {'scat_vit_tiny': {'depth': 3, 'embed_dim': 48, 'num_heads': 3}}
# One of each way to be a model; in the others, blocks are timm's and have timm's tests.
KINDS = [*MODELS, *(name for name in HYBRIDS if name in SMALL)]


def small(name, **kwargs):
    size = 64 if name in HYBRIDS else 28
    return create(name, **{'img_size': size, **SMALL.get(name, {}), **kwargs}), torch.rand(2, 1, size, size)


def gradients(model, x):
    model.zero_grad()
    model(x).square().sum().backward()
    return [p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize('name', KINDS)
def test_checkpointed_blocks_are_computed_again_and_give_the_same_gradients(name):
    model, x = small(name, learnable=True)
    model.eval()
    expected, calls = gradients(model, x), []
    blocks = getattr(model, 'blocks', getattr(model, 'stages', [])) or [model.scattering]
    blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    model.set_grad_checkpointing()
    for found, grad in zip(gradients(model, x), expected, strict=True):
        torch.testing.assert_close(found, grad, rtol=1e-4, atol=1e-6)
    assert len(calls) == 2
    model.set_grad_checkpointing(False)
    gradients(model, x)
    assert len(calls) == 3


@pytest.mark.parametrize('name', KINDS)
def test_intermediate_levels_are_what_the_features_are_made_of(name):
    model, x = small(name)
    with torch.no_grad():
        final, levels = model.eval().forward_intermediates(x)
        torch.testing.assert_close(final, model.forward_features(x))
        assert len(levels) >= 2
        alone = model.forward_intermediates(x, indices=[0, len(levels) - 1], intermediates_only=True)
        for found, level in zip(alone, (levels[0], levels[-1]), strict=True):
            torch.testing.assert_close(found, level)
        first = model.forward_intermediates(x, indices=[0], stop_early=True, intermediates_only=True)
        torch.testing.assert_close(first, [levels[0]])
    with pytest.raises(AssertionError):
        model.forward_intermediates(x, output_fmt='NLC')


@pytest.mark.parametrize('name', KINDS)
def test_a_pruned_model_gives_the_same_level_with_fewer_numbers(name):
    model, x = small(name)
    size = sum(p.numel() for p in model.parameters())
    with torch.no_grad():
        level = model.eval().forward_intermediates(x, indices=[0], intermediates_only=True)
        assert model.prune_intermediate_layers([0]) == [0]
        torch.testing.assert_close(model.forward_intermediates(x, indices=[0], intermediates_only=True), level)
    assert sum(p.numel() for p in model.parameters()) < size


@pytest.mark.parametrize('block', ['basic', 'separable'])
def test_only_the_first_block_of_a_stage_changes_the_stride(block):
    model = create('scat_resnet', block=block, J=1, channels=(8, 16), depths=(3, 2), strides=(2, 1), img_size=32)
    with torch.no_grad():
        levels = model.eval().forward_intermediates(torch.rand(1, 1, 32, 32), intermediates_only=True)
    assert [level.shape[-1] for level in levels] == [16, 8, 8]
    assert [info['reduction'] for info in model.feature_info] == [2, 4, 4]
