"""segmentation_models_pytorch: scat_resnet18, or a hybrid, as the encoder, trained to tell garment from background."""
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from .images import garments
from .training import check_filters_learn, step

SIZE = 64


def create(decoder, **kwargs):
    import segmentation_models_pytorch as smp
    return getattr(smp, decoder)('tu-scat_resnet18', encoder_weights=None, classes=1, **kwargs).train()


def loss_of(model, count=4):
    x, masks, _ = garments(count, SIZE)

    def loss():
        logits = model(x)
        assert logits.shape == masks.shape
        return binary_cross_entropy_with_logits(logits, masks.float())
    return loss


# PSPNet takes the first two levels alone, and the DeepLabs want a small output stride.
@pytest.mark.parametrize('decoder', ['Unet', 'FPN', 'UPerNet', 'PSPNet', 'DeepLabV3', 'DeepLabV3Plus'])
def test_train(decoder):
    model = create(decoder)
    channels = [3, 0, 243, 128] if decoder == 'PSPNet' else [3, 0, 243, 128, 256, 512]
    assert model.encoder.out_channels == channels
    step(model, loss_of(model))
    assert model.eval()(torch.zeros(1, 3, 96, 64)).shape == (1, 1, 96, 64)      # fixed filters follow the image size


@pytest.mark.parametrize(('decoder', 'reduction'), [('DeepLabV3', [4, 8, 8, 8]), ('DeepLabV3Plus', [4, 8, 16, 16])])
def test_deeplab_gets_the_output_stride_it_asks_for(decoder, reduction):
    encoder = create(decoder).encoder
    assert encoder.model.feature_info.reduction() == reduction
    features = encoder(torch.zeros(1, 3, SIZE, SIZE))
    assert [SIZE // f.shape[-1] for f in features[2:]] == reduction


def test_train_a_unet_on_a_hybrid():
    """scat_resnet50, whose levels have the strides 4 to 32 that smp wants of such an encoder."""
    import segmentation_models_pytorch as smp
    model = smp.Unet('tu-scat_resnet50', encoder_weights=None, classes=1, learnable=True).train()
    assert model.encoder.out_channels == [3, 0, 256, 512, 1024, 2048]
    assert [SIZE // f.shape[-1] for f in model.encoder(torch.zeros(2, 3, SIZE, SIZE))[2:]] == [4, 8, 16, 32]
    check_filters_learn(model, loss_of(model))


def test_train_learnable_and_save(tmp_path):
    import segmentation_models_pytorch as smp
    model = create('Unet', learnable=True, img_size=SIZE)
    check_filters_learn(model, loss_of(model))
    model.eval().save_pretrained(tmp_path)
    x, _, _ = garments(2, SIZE)
    with torch.no_grad():
        assert torch.equal(smp.from_pretrained(tmp_path).eval()(x), model(x))
