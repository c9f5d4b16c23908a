"""The class for Ray Data by itself, which needs no Ray; tests/clients has it on a cluster."""
import numpy as np
import pytest
import torch

from scat_zoo.extract import FeatureExtractor
from scat_zoo.ray import Extractor

from .extract.pictures import MODEL, picture, png, write

CONTENTS = [png(i) for i in range(5)]


def column(values):
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found


@pytest.fixture(scope='module')
def expected():
    extractor = FeatureExtractor(MODEL)
    return extractor(torch.stack([extractor.reader.open('x', content) for content in CONTENTS])).numpy()


def test_contents_names_and_arrays_give_the_same(expected, tmp_path):
    write(tmp_path, 5)
    names = column([f'{tmp_path}/{i:03}.png' for i in range(5)])
    arrays = np.stack([np.asarray(picture(i)) for i in range(5)])
    for images in (column(CONTENTS), names, arrays, arrays[..., None], column(list(arrays))):
        found = Extractor(MODEL, column='x')({'x': images, 'label': np.arange(5)})
        assert np.array_equal(found['features'], expected)
        assert found['label'].tolist() == [0, 1, 2, 3, 4]
        assert ('x' in found) == (images is names)              # names stay, for what else would tell rows apart?


def test_options_are_those_of_the_extractor():
    extractor = Extractor(MODEL, level=0, pool='max', dtype='float16')
    found = extractor({'bytes': column(CONTENTS)})['features']
    assert (found.shape, found.dtype) == ((5, 81), np.float16)
    assert extractor.extractor.pool == 'max'


def test_broken_images_are_named_or_left_out(expected):
    batch = {'bytes': column([*CONTENTS[:2], b'no image', *CONTENTS[3:]]),
             'path': column([f's3/{i}.png' for i in range(5)])}
    with pytest.raises(ValueError, match=r'cannot read the image s3/2.png: it is no image'):
        Extractor(MODEL)(batch)
    found = Extractor(MODEL, skip_broken=True)(batch)
    assert np.array_equal(found['features'], expected[[0, 1, 3, 4]])
    assert found['path'].tolist() == ['s3/0.png', 's3/1.png', 's3/3.png', 's3/4.png']
    found = Extractor(MODEL, skip_broken=True)({'bytes': column([b'', b''])})
    assert found['features'].shape == (0, *expected.shape[1:])
    with pytest.raises(ValueError, match=r'cannot read the image in row 1 of a batch: it is no image'):
        Extractor(MODEL)({'bytes': column([CONTENTS[0], b''])})


def test_features_that_are_not_finite(expected):
    extractor = Extractor(MODEL, level=0, dtype='float16')
    extractor.extractor.mean -= 1e6
    with pytest.raises(ValueError, match=r'the features of in row 0 of a batch are not finite'):
        extractor({'bytes': column(CONTENTS)})
    extractor.skip_broken = True
    assert len(extractor({'bytes': column(CONTENTS)})['features']) == 0


def test_a_column_that_is_not_there():
    with pytest.raises(ValueError, match=r'no column bytes: tell by `column` which of these holds .*: image, label'):
        Extractor(MODEL)({'image': np.zeros((1, 28, 28), np.uint8), 'label': np.zeros(1)})
