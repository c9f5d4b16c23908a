"""Which features there are of an image, and that they do not depend on the images beside it."""
import numpy as np
import pytest
import timm
import torch
from PIL import Image

from scat_zoo.extract import FeatureExtractor
from scat_zoo.extract.features import finite, stacked
from scat_zoo.train import augment, checkpoint

from .pictures import MODEL, picture, write


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    folder = write(tmp_path_factory.mktemp('images'), 10)
    picture(99, (40, 56)).save(folder / 'larger.png')           # to be scaled
    Image.fromarray(np.random.RandomState(7).randint(0, 256, (28, 28, 3), np.uint8)).save(folder / 'colour.jpg')
    return sorted(folder.iterdir())


def pictures(extractor, files):
    return stacked([extractor.reader.open(file) for file in files])


@pytest.fixture(scope='module')
def model_and_images(files):
    """What other code would do: timm's model, and its transform of each image."""
    model = timm.create_model(MODEL, pretrained=True).eval()
    transform = augment.eval_transform(model)
    with torch.inference_mode():
        # The extractor's batch, of 64, since float32 rounds otherwise in another.
        images = torch.stack([transform(Image.open(file).convert('L')) for file in files])
        return model, torch.cat([images, torch.zeros(64 - len(images), 1, 28, 28)])


@pytest.mark.parametrize(('level', 'pool'), [
    ('logits', None), ('pre_logits', None), (0, None), (-1, 'avg'), (1, 'max'), (2, 'none')])
def test_features_are_the_models_to_the_bit(level, pool, files, model_and_images):
    model, images = model_and_images
    extractor = FeatureExtractor(MODEL, level, pool)
    with torch.inference_mode():
        if level == 'logits':
            expected = model(images)
        elif level == 'pre_logits':
            expected = model.forward_head(model.forward_features(images), pre_logits=True)
        else:
            maps = model.forward_intermediates(images, intermediates_only=True)[level]
            expected = maps if pool == 'none' else maps.amax((2, 3)) if pool == 'max' else maps.mean((2, 3))
    found = extractor(pictures(extractor, files))
    assert torch.equal(found, expected[:len(files)])
    assert found.shape == (len(files), *extractor.shape)
    assert found.std(0).min() > 0                               # each image has its own


@pytest.mark.parametrize('model', [MODEL, 'scat_linear.fashion_mnist', 'scat_resnet.fashion_mnist'])
def test_a_row_does_not_depend_on_those_beside_it(model, files):
    extractor = FeatureExtractor(model, batch_size=8)
    images = pictures(extractor, files)
    together = extractor(images)
    assert torch.equal(together, torch.cat([extractor(part) for part in images.split(5)]))
    assert torch.equal(together.flip(0), extractor(images.flip(0)))


def test_gradients_flow_through_what_is_learned_from_features(files):
    extractor = FeatureExtractor(MODEL)
    weight = torch.zeros(extractor.shape[0], requires_grad=True)
    (extractor(pictures(extractor, files)) @ weight).sum().backward()       # which tensors of inference mode refuse
    assert weight.grad.abs().min() > 0


def test_float16_is_float32_rounded(files):
    whole, half = (FeatureExtractor(MODEL, dtype=dtype) for dtype in ('float32', 'float16'))
    images = pictures(whole, files)
    assert half(images).dtype == torch.float16
    assert torch.equal(half(images), whole(images).half())


def test_8_bits_beside_16_are_what_they_are_alone(tmp_path):
    checkpoint.save(timm.create_model('scat_linear', num_classes=3, in_chans=1, img_size=28), tmp_path / 'run',
                    value_range=(0, 65535))
    write(tmp_path / 'images', 2)
    deep = np.asarray(picture(1)).astype(np.uint16) * 257       # the second image, so deep
    Image.fromarray(deep).save(tmp_path / 'deep.png')
    extractor = FeatureExtractor(str(tmp_path / 'run'))
    files = [*sorted((tmp_path / 'images').iterdir()), tmp_path / 'deep.png']
    found = extractor(pictures(extractor, files))
    assert torch.equal(found[:2], extractor(pictures(extractor, files[:2])))
    assert torch.allclose(found[2], found[1], atol=1e-5)


def test_a_model_without_weights_is_the_same_each_time(files):
    state = torch.random.get_rng_state()
    first, second = (FeatureExtractor('scat_resnet', model_kwargs={'in_chans': 1, 'img_size': 28, 'J': 1})
                     for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)     # whoever makes one goes on with his own numbers
    images = pictures(first, files)
    assert torch.equal(first(images), second(images))
    assert 'random' in first.notes[0]
    assert not FeatureExtractor('scat_linear').notes            # nothing in it is
    assert not FeatureExtractor(MODEL).notes


def test_rows_that_are_not_finite():
    rows = torch.tensor([[1., 2.], [torch.nan, 1.], [7e4, 1.]])
    assert finite(rows).tolist() == [True, False, True]
    assert finite(rows.half()).tolist() == [True, False, False]
    assert finite(torch.empty(0, 2)).tolist() == []


@pytest.mark.parametrize(('arguments', 'phrase'), [
    ({'model': 'scat_lnear'}, 'scat_lnear is not there: .* did you mean scat_linear'),
    ({'model': 'scat_linear', 'level': 'logits'}, 'scat_linear has no weights, or no classifier, so there are '),
    ({'model': MODEL, 'level': 'prelogits'}, "expected a level from 0 to 2, pre_logits or logits, got 'prelogits'"),
    ({'model': MODEL, 'level': 3}, 'expected a level from 0 to 2, pre_logits or logits, got 3'),
    ({'model': MODEL, 'level': -4}, 'pre_logits or logits, got -4'),
    ({'model': MODEL, 'pool': 'avg'}, 'pool avg is for a feature map, a level from 0 to 2: pre_logits come from'),
    ({'model': MODEL, 'level': 0, 'pool': 'average'}, "unknown pool 'average'; known: avg, max, none"),
    ({'model': MODEL, 'dtype': 'float61'}, "unknown dtype 'float61'; did you mean float16"),
    ({'model': MODEL, 'batch_size': 0}, 'batch_size must be at least 1, got 0'),
    ({'model': 'scat_linear', 'model_kwargs': {'K': 3}}, 'ScatLinear has no keyword K')])
def test_what_there_is_not(arguments, phrase):
    with pytest.raises((ValueError, TypeError), match=phrase):
        FeatureExtractor(**arguments)


def test_an_image_that_does_not_fit_is_named(tmp_path):
    np.save(tmp_path / 'five.npy', np.zeros((28, 28, 5), np.float32))
    with pytest.raises(ValueError, match=r'cannot use the image .*five.npy: the images have 5 channels, the '):
        FeatureExtractor(MODEL).reader.open(tmp_path / 'five.npy')
