"""scikit-learn: `scat_zoo.sklearn`, by scikit-learn's own checks, in its pipelines and searches, against kymatio's."""
import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.special
import timm
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from scat_zoo import ScatteringTorch2D
from scat_zoo.models.stem import ScatteringStem
from scat_zoo.sklearn import Scattering2D, ScatteringFeatures
from scat_zoo.train import augment, data
from scat_zoo.train.images import open_image, prepare

from .images import folders, pictures

# Features are of the order of 1; of coefficients in float32, errors are 1e-6 of the largest, and logarithms' larger.
CLOSE = {'rtol': 0, 'atol': 1e-4}


def grey(count=40, split='train'):
    """(n, 28, 28) of bytes."""
    return np.stack([np.asarray(image) for image in pictures(count, 28, 1, split)[0]])


def colour(count=20, size=(16, 24)):
    """(n, 3, H, W) of values from 0 to 1, each channel other pixels."""
    x = grey(3 * count)[:, :size[0]] / 255
    return np.ascontiguousarray(x[..., :size[1]]).reshape(count, 3, *size)


# ---- scikit-learn's own checks, which know tables only ----

class TableFeatures(ScatteringFeatures):
    """Takes rows of any length for the first pixels of an image of 16 x 16."""

    def _of_rows(self, rows, reset):
        return np.pad(rows, ((0, 0), (0, 256 - rows.shape[1]))).reshape(-1, 1, 16, 16)


class TableScattering(Scattering2D):
    """The same of the other class."""

    def __init__(self, J=1, shape=(16, 16), L=2, max_order=1, pre_pad=False, backend='numpy', out_type='array'):
        super().__init__(J, shape, L, max_order, pre_pad, backend, out_type)

    def _rows(self, X, reset):
        rows = super()._rows(X, reset)
        return np.pad(rows, ((0, 0), (0, 256 - rows.shape[1])))


@parametrize_with_checks([
    TableFeatures(J=1, L=2, img_size=16), TableFeatures(J=1, L=2, img_size=16, global_pool='avg'), TableScattering()])
def test_scikit_learn_s_checks(estimator, check):
    check(estimator)


def test_scikit_learn_leaves_what_takes_no_tables_alone():
    assert not ScatteringFeatures().__sklearn_tags__().input_tags.two_d_array
    assert ScatteringFeatures(img_size=28).__sklearn_tags__().input_tags.two_d_array


# ---- what the features are ----

@pytest.mark.parametrize('log_floor', [0.1, 0])
def test_features_are_the_formula(log_floor):
    x = colour()
    found = ScatteringFeatures(L=3, log_floor=log_floor).fit_transform(x)
    s = ScatteringTorch2D(2, (16, 24), L=3, dtype=torch.float64)(torch.from_numpy(x)).numpy()    # (n, 3, paths, 4, 6)
    s = s.swapaxes(1, 2)                                                                        # channels: path, colour
    mean, deviation = (f((0, 3, 4), keepdims=True) for f in (s.mean, s.std))
    expected = (s - mean) / deviation
    if log_floor:
        expected[:, 1:] = np.log(s[:, 1:].clip(0) / mean[:, 1:] + log_floor)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.reshape(len(x), -1), **CLOSE)


def test_features_are_those_of_the_model_before_its_batch_normalisation():
    x = colour()
    model = timm.create_model('scat_linear', num_classes=0, img_size=(16, 24), L=4, scales=(1, 2))
    with torch.no_grad():
        expected = model.train()(torch.from_numpy(x).float()).reshape(len(x), -1, 24)
    maps = ScatteringFeatures(L=4, scales=(1, 2)).fit_transform(x).reshape(expected.shape)
    normalised = (maps - maps.mean((0, 2), keepdims=True)) / np.sqrt(maps.var((0, 2), keepdims=True) + 1e-5)
    # torch adds 1e-5 to the variance, which is as low as 0.02 of order 0.
    np.testing.assert_allclose(normalised, expected.numpy(), rtol=0, atol=1e-3)


@pytest.mark.parametrize('kwargs', [{}, {'scales': (1, 2)}, {'max_order': 1, 'global_pool': 'avg'},
                                    {'channel_differences': True}])
def test_names_tell_which_coefficient_it_is(kwargs):
    x = colour()
    transformer = ScatteringFeatures(L=3, **kwargs)
    features = transformer.fit_transform(x)
    names = transformer.get_feature_names_out()
    assert names.dtype == object
    assert len(names) == len(set(names)) == features.shape[1]
    stem = ScatteringStem(L=3, img_size=(16, 24), **{k: value for k, value in kwargs.items() if k != 'global_pool'})
    maps = stem(torch.from_numpy(x).float()).numpy()
    scale = transformer.scale_[:, None, None]
    for i in range(0, len(names), 7):
        told = {key: int(value) for key, value in (part.split('=') for part in names[i].split('_'))}
        found = [c for c, channel in enumerate(stem.channels)
                 if all(getattr(channel, key) == value for key, value in told.items() if key not in ('row', 'column'))]
        channel, = [c for c in found if stem.channels[c].order == told['order']]
        logs = np.log(maps[:, channel].clip(0) / scale[channel] + 0.1)
        if told['order'] > 0:
            expected = logs[:, told['row'], told['column']] if 'row' in told else logs.mean((1, 2))
            np.testing.assert_allclose(features[:, i], expected, **CLOSE)


def test_a_pool_takes_the_mean_or_maximum_of_the_flat_features():
    x = grey()
    flat = ScatteringFeatures().fit_transform(x).reshape(len(x), 81, 49)
    for pool, expected in (('avg', flat.mean(2)), ('max', flat.max(2))):
        np.testing.assert_allclose(ScatteringFeatures(global_pool=pool).fit_transform(x), expected, **CLOSE)


# ---- what does not matter ----

def test_neither_batches_nor_threads_nor_units_matter():
    x = grey()
    expected = ScatteringFeatures(batch_size=len(x)).fit_transform(x)
    for other in (x, x / 255, (x / 255 * 1e-9).astype(np.float32), x.astype(np.int64)):
        found = ScatteringFeatures(batch_size=7).fit(other)
        assert type(found.mean_) is type(found.scale_) is np.ndarray
        np.testing.assert_allclose(found.transform(other[::-1])[::-1], expected, **CLOSE)
    torch.set_num_threads(2)
    try:
        np.testing.assert_allclose(ScatteringFeatures(batch_size=512).fit_transform(x), expected, **CLOSE)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_means_are_of_all_images_whatever_the_batches():
    x = grey()
    x[30:] = 0                                                  # the last batches are others than the first
    one, many = (ScatteringFeatures(batch_size=size).fit(x) for size in (40, 6))
    np.testing.assert_allclose(many.mean_, one.mean_, rtol=1e-5)
    np.testing.assert_allclose(many.scale_, one.scale_, rtol=1e-5)
    assert not np.allclose(one.mean_, ScatteringFeatures().fit(x[:30]).mean_, rtol=0.1)


def test_torch_stays_as_it_is():
    state = torch.random.get_rng_state()
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            ScatteringFeatures().fit_transform(grey(8))
            assert torch.is_grad_enabled() == enabled
    assert torch.equal(torch.random.get_rng_state(), state)


def test_defaults_of_torch_do_not_matter():
    x = grey(8)
    expected = ScatteringFeatures().fit_transform(x), Scattering2D(2, (28, 28)).transform(x)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device('meta')
    try:
        found = ScatteringFeatures().fit_transform(x), Scattering2D(2, (28, 28)).transform(x)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device('cpu')
    for a, b in zip(found, expected):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('blank', [0, 1e-30, 255])
def test_blank_images_have_finite_features(blank):
    x = np.full((3, 28, 28), blank, np.float32)
    assert np.abs(ScatteringFeatures().fit_transform(x)).max() < 5
    x[0] = grey(1)[0] + 1                                       # and beside one that is not
    assert np.isfinite(ScatteringFeatures().fit_transform(x)).all()


@pytest.mark.parametrize(('pool', 'times'), [('flat', 1), ('avg', 2)])
def test_fitting_and_transforming_at_once(monkeypatch, pool, times):
    x, seen = grey(), []
    transformer = ScatteringFeatures(global_pool=pool, batch_size=16)
    expected = transformer.fit(x).transform(x)
    forward = ScatteringStem.forward
    monkeypatch.setattr(ScatteringStem, 'forward', lambda self, x: seen.append(len(x)) or forward(self, x))
    np.testing.assert_array_equal(clone(transformer).fit_transform(x), expected)
    assert seen == times * [16, 16, 8]


# ---- forms of images ----

@pytest.mark.parametrize('form', [
    lambda x: x[:, None], list, torch.from_numpy, lambda x: torch.from_numpy(x).bfloat16(),
    lambda x: [Image.fromarray(image) for image in x], lambda x: x.astype(object), np.asfortranarray])
def test_forms_of_images(form):
    x = grey(8)
    expected = ScatteringFeatures().fit_transform(x)
    np.testing.assert_allclose(ScatteringFeatures().fit_transform(form(x)), expected, **CLOSE)


def test_rows_of_values():
    x = colour()
    rows = x.reshape(len(x), -1)
    expected = ScatteringFeatures().fit_transform(x)
    for transformer, fitted, given in ((ScatteringFeatures(img_size=(16, 24)), rows, rows),
                                       (ScatteringFeatures(img_size=(16, 24), in_chans=3), rows.tolist(), x),
                                       (ScatteringFeatures(), x, rows)):
        np.testing.assert_allclose(transformer.fit(fitted).transform(given), expected, **CLOSE)
        assert transformer.n_features_in_ == 3 * 16 * 24
        assert transformer.image_shape_ == (3, 16, 24)
    table = pd.DataFrame(rows).add_prefix('pixel')
    transformer = ScatteringFeatures(img_size=(16, 24)).fit(table)
    assert list(transformer.feature_names_in_) == list(table)
    with pytest.raises(ValueError, match='feature names should match'):
        transformer.transform(table.iloc[:, ::-1])
    transformer.fit(x)                                          # which has no names, and is no table
    assert not hasattr(transformer, 'feature_names_in_')


REFUSED = [
    ({}, lambda: grey().reshape(40, -1), 'rows of 784 values .* img_size=28'),
    ({'img_size': 24}, lambda: grey().reshape(40, -1), r'rows of C \* 24 \* 24 values'),
    ({'img_size': 28, 'in_chans': 3}, lambda: grey().reshape(40, -1), r'3 \* 28 \* 28'),
    ({}, lambda: colour().transpose(0, 2, 3, 1), 'channels come before'),
    ({'J': 1}, lambda: colour().transpose(0, 2, 3, 1), 'channels come before'),
    ({'img_size': (16, 24)}, lambda: colour().transpose(0, 2, 3, 1), 'channels come before'),
    ({'img_size': 32}, grey, r'\(n, C, 32, 32\)'),
    ({'in_chans': 3}, grey, r'\(n, 3, H, W\)'),
    ({}, lambda: grey()[None, None], r'\(n, C, H, W\), .* got \(1, 1, 40, 28, 28\)'),
    ({}, lambda: [np.zeros((28, 28)), np.zeros((28, 27))], r'one shape, got \(28, 28\) and \(28, 27\)'),
    ({}, lambda: np.full((2, 28, 28), np.nan), 'NaN'),
    ({}, lambda: np.zeros((0, 28, 28)), '0 sample'),
    ({}, lambda: 'images.png', 'put it into a list'),
    ({}, lambda: ['a.png', None], 'got None as number 1'),
    ({}, lambda: ['no-such-file.png'], 'cannot read the image no-such-file.png'),
    ({'J': 5}, grey, 'J=5 needs images of at least 32 pixels'),
    ({'max_order': 3}, grey, 'max_order must be 1 or 2'),
    ({'scales': (1, 3)}, grey, 'scales must be distinct integers from 1 to J=2'),
    ({'global_pool': 'average'}, grey, "unknown pool 'average'; known: "),
    ({'log_floor': -1}, grey, 'log_floor must be 0'),
    ({'batch_size': 0}, grey, 'batch_size must be at least 1'),
    ({'in_chans': 0}, grey, 'in_chans must be at least 1'),
    ({'img_size': (28, 28, 1)}, grey, 'without the channels'),
]


@pytest.mark.parametrize(('kwargs', 'images', 'message'), REFUSED, ids=[message for *_, message in REFUSED])
def test_what_does_not_fit_is_refused(kwargs, images, message):
    transformer = ScatteringFeatures(**kwargs)                  # which refuses nothing yet
    with pytest.raises(ValueError, match=message):
        transformer.fit(images())


def test_images_of_another_size_or_before_fitting_are_refused():
    transformer = ScatteringFeatures()
    with pytest.raises(NotFittedError):
        transformer.transform(grey())
    with pytest.raises(NotFittedError):
        transformer.get_feature_names_out()
    transformer.fit(grey())
    with pytest.raises(ValueError, match=r'\(C, H, W\) = \(1, 28, 28\), as `fit` saw, got \(1, 27, 28\)'):
        transformer.transform(grey()[:, 1:])
    with pytest.raises(ValueError, match='X has 783 features'):
        transformer.transform(grey().reshape(40, -1)[:, 1:])


# ---- files ----

@pytest.fixture
def files(tmp_path):
    """40 files of grey images, and the images."""
    x = grey()
    for i, image in enumerate(x):
        Image.fromarray(image).save(tmp_path / f'{i:02}.png')
    return sorted(tmp_path.glob('*.png')), x


@pytest.mark.parametrize('form', [list, lambda names: [str(name) for name in names], np.array,
                                  lambda names: np.array(list(map(str, names))), pd.Series,
                                  lambda names: pd.DataFrame({'file': list(map(str, names))})])
def test_names_of_files(files, form):
    names, x = files
    expected = ScatteringFeatures().fit(x)
    found = ScatteringFeatures(batch_size=16).fit(form(names))
    np.testing.assert_allclose(found.transform(form(names)), expected.transform(x), **CLOSE)
    np.testing.assert_allclose(expected.transform(form(names)), expected.transform(x), **CLOSE)
    assert found.n_features_in_ == 784
    assert not hasattr(found, 'feature_names_in_')


def test_files_of_any_size_become_those_that_predict_sees(tmp_path):
    images = [image.resize(size) for image, size in zip(pictures(6, 60)[0], 3 * [(60, 40), (33, 50)])]
    names = [tmp_path / f'{i}.png' for i in range(6)]
    for image, name in zip(images, names):
        image.save(name)
    with pytest.raises(ValueError, match=r'1.png has 50 x 33 pixels, others have 40 x 60'):
        ScatteringFeatures().fit(names)
    model = timm.create_model('scat_linear', img_size=32).eval()
    transform = augment.eval_transform(model)
    mean, std = (torch.tensor(model.pretrained_cfg[key])[:, None, None] for key in ('mean', 'std'))
    seen = torch.stack([transform(prepare(open_image(name), 3)) * std + mean for name in names])
    found = ScatteringFeatures(img_size=32).fit_transform(names)
    np.testing.assert_allclose(found, ScatteringFeatures().fit_transform(seen), **CLOSE)


def test_oblong_files_stay_as_they_are(tmp_path):
    x = np.round(255 * colour()[:, 0]).astype(np.uint8)
    for i, image in enumerate(x):
        Image.fromarray(image).save(tmp_path / f'{i:02}.png')
    names = sorted(tmp_path.iterdir())
    for kwargs in ({}, {'img_size': (16, 24)}):
        np.testing.assert_array_equal(ScatteringFeatures(**kwargs).fit_transform(names),
                                      ScatteringFeatures().fit_transform(x))


def test_grey_and_colour_files(files, tmp_path):
    names, x = files
    Image.fromarray(x[1]).convert('RGB').save(names[1])
    with pytest.raises(ValueError, match=r'01.png has 3 channels, the first file has 1: tell how many'):
        ScatteringFeatures().fit(names)
    for in_chans in (1, 3):
        found = ScatteringFeatures(in_chans=in_chans).fit_transform(names)
        expected = ScatteringFeatures().fit_transform(np.repeat(x[:, None], in_chans, 1))
        np.testing.assert_allclose(found, expected, **CLOSE)
    assert ScatteringFeatures().fit(names[2:]).transform(names[:2]).shape == (2, 81 * 49)


def test_files_of_more_than_8_bits_do_not_mix_with_others(tmp_path):
    x = grey(8)
    for i, image in enumerate(x):
        Image.fromarray(image.astype(np.uint16) * 257).save(tmp_path / f'{i}.png')
    deep = sorted(tmp_path.iterdir())
    transformer = ScatteringFeatures()
    np.testing.assert_allclose(transformer.fit_transform(deep), ScatteringFeatures().fit_transform(x), **CLOSE)
    Image.fromarray(x[0]).save(tmp_path / 'flat.png')
    for first, others in ((transformer, '8 bits, others have more'),
                          (ScatteringFeatures().fit([tmp_path / 'flat.png']), 'more than 8 bits, others have 8')):
        with pytest.raises(ValueError, match=others):
            first.transform([tmp_path / 'flat.png', *deep] if first is transformer else deep)
    transformer.fit(x)                                          # an array does not tell its depth
    transformer.transform(deep)


# ---- in scikit-learn's hands ----

def test_copies(tmp_path):
    x = grey(8)
    transformer = ScatteringFeatures(J=3, L=4, scales=[2, 3], batch_size=5)
    assert transformer.get_params()['scales'] == [2, 3]
    assert clone(transformer).set_params(J=2, scales=None).fit(x).transform(x).shape == (8, 25 * 49)
    expected = transformer.fit_transform(x)
    joblib.dump(transformer, tmp_path / 'transformer.joblib')
    for copy in (pickle.loads(pickle.dumps(transformer)), joblib.load(tmp_path / 'transformer.joblib')):
        np.testing.assert_array_equal(copy.transform(x), expected)
    assert len(pickle.dumps(transformer)) < 20_000              # no filters


def test_a_frame_of_features():
    x = grey(8)
    transformer = ScatteringFeatures(global_pool='avg').set_output(transform='pandas')
    for frame in (transformer.fit_transform(x), transformer.transform(x)):
        assert list(frame) == list(transformer.get_feature_names_out())
        assert (frame.dtypes == np.float32).all()


def test_beside_other_columns_and_features(files):
    names, x = files
    table = pd.DataFrame({'weight': np.arange(40.), 'file': list(map(str, names))}, index=range(5, 45))
    expected = ScatteringFeatures().fit_transform(x)
    column, frame = (ColumnTransformer([('image', ScatteringFeatures(), chosen), ('other', 'passthrough', ['weight'])])
                     for chosen in ('file', ['file']))
    np.testing.assert_allclose(column.fit_transform(table)[:, :-1], expected, **CLOSE)
    frame = frame.set_output(transform='pandas').fit_transform(table)
    np.testing.assert_allclose(frame.iloc[:, :-1], expected, **CLOSE)
    assert list(frame.index) == list(table.index)
    assert frame.columns[0] == 'image__order=0_colour=0_row=0_column=0'
    union = FeatureUnion([(f'J{J}', ScatteringFeatures(J=J, global_pool='avg')) for J in (1, 2)])
    assert union.fit_transform(x).shape == (40, 9 + 81)


def test_search_in_two_processes():
    x, y = grey(200), np.array(pictures(200, 28)[1])
    search = GridSearchCV(make_pipeline(ScatteringFeatures(), RidgeClassifier(alpha=100.)),
                          {'scatteringfeatures__J': [2, 5], 'scatteringfeatures__L': [2, 4]}, cv=2, n_jobs=2)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')                         # of the fits with J=5, which fail
        search.fit(x, y)
    scores = search.cv_results_['mean_test_score'].reshape(2, 2)
    assert np.isnan(scores[1]).all()
    # Ten classes, 100 images to learn from.
    assert (scores[0] > 0.5).all()
    alone = cross_val_score(clone(search.best_estimator_), x, y, cv=2)
    assert alone.mean() == pytest.approx(search.best_score_, abs=0.011)        # two images


def test_threads_of_joblib_get_the_same():
    x = grey(24)
    expected = ScatteringFeatures().fit_transform(x)
    found = joblib.Parallel(n_jobs=2, backend='threading')(
        joblib.delayed(ScatteringFeatures().fit_transform)(x) for _ in range(6))
    for features in found:
        np.testing.assert_allclose(features, expected, **CLOSE)


def test_accuracy():
    sample = data.load('sample', val_fraction=0)
    (x, y), (x_test, y_test) = ((np.stack(list(map(np.asarray, images))), classes) for images, classes in (
        zip(*part) for part in (sample.train, sample.test)))
    pipeline = make_pipeline(ScatteringFeatures(), RidgeClassifier(alpha=30.))
    # 84.6 % with a standard error of 0.8; examples/sklearn_grid.py chooses this pipeline by the training images.
    assert pipeline.fit(x, y).score(x_test, y_test) > 0.82


# ---- kymatio's front end ----

@pytest.fixture
def kymatio(monkeypatch):
    # scipy no longer has it; kymatio's 3-D part imports it, and its 2-D front end imports that.
    monkeypatch.setattr(scipy.special, 'sph_harm', None, raising=False)
    return pytest.importorskip('kymatio.sklearn').Scattering2D


@pytest.mark.parametrize(('args', 'kwargs'), [
    ((2, (28, 28)), {}), ((np.array(3), (28, 28), 6, 1), {}), ((2, (16, 24)), {'L': 4, 'out_type': 'array'}),
    ((1, (8, 8)), {'backend': 'numpy'})])
@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_equal_to_kymatio(kymatio, args, kwargs, dtype):
    theirs, ours = kymatio(*args, **kwargs), Scattering2D(*args, **kwargs)
    x = np.random.RandomState(0).rand(5, 2, *args[1]).astype(dtype)
    rows = x.reshape(5, -1)
    for found, expected in ((ours.fit(rows).transform(rows), theirs.fit(rows).transform(rows)),
                            (ours.predict(rows), theirs.predict(rows)), (ours(x), theirs(x)),
                            (ours.fit_transform(x), theirs.fit_transform(x)),
                            (ours.scattering(x[0, 0]), theirs.scattering(x[0, 0]))):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        # kymatio's filters are float32.
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_lists_and_padded_images_as_in_kymatio(kymatio):
    theirs, ours = (front(2, (28, 28), out_type='list') for front in (kymatio, Scattering2D))
    x = np.random.RandomState(0).rand(3, 28, 28)
    for found, expected in zip(ours.scattering(x), theirs.scattering(x)):
        assert {key: found[key] for key in ('j', 'n', 'theta')} == {key: expected[key] for key in ('j', 'n', 'theta')}
        np.testing.assert_allclose(found['coef'], expected['coef'], rtol=0, atol=1e-6)
    theirs, ours = (front(2, (28, 28), pre_pad=True) for front in (kymatio, Scattering2D))
    x = np.random.RandomState(0).rand(3, 36, 36)
    np.testing.assert_allclose(ours(x), theirs(x), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(ours.transform(x.reshape(3, -1)), ours(x).reshape(3, -1))


def test_kymatio_s_front_end_is_an_estimator():
    x = grey(8) / 255
    S = Scattering2D(3, (28, 28), L=4).set_output(transform='pandas')
    frame = S.fit_transform(np.stack([x, x[:, ::-1]], 1))
    coefficients = ScatteringTorch2D(3, (28, 28), L=4, dtype=torch.float64)
    paths, values = coefficients.paths, coefficients(torch.from_numpy(x[:, ::-1].copy())).numpy()
    i = next(i for i, path in enumerate(paths) if path == (2, 0, 3, 1, 2))
    column = frame['order=2_j1=0_theta1=3_j2=1_theta2=2_colour=1_row=2_column=0']
    np.testing.assert_allclose(column, values[:, i, 2, 0], rtol=1e-12)
    assert pickle.loads(pickle.dumps(S.fit(x))).transform(x).shape == (8, 61 * 9)
    assert clone(S).set_params(J=2, max_order=1).transform(x).shape == (8, 9 * 49)


@pytest.mark.parametrize(('kwargs', 'error', 'message'), [
    ({'J': 5}, RuntimeError, 'smallest dimension'), ({'out_type': 'table'}, RuntimeError, 'out_type'),
    ({'backend': 'torch'}, ImportError, "backend torch can not be called .* 'numpy'"),
    ({'backend': 3}, ImportError, 'backend 3'), ({'shape': (27, 28)}, ValueError, r'rows of C \* 27 \* 28 values')])
def test_kymatio_s_front_end_refuses(kwargs, error, message):
    S = Scattering2D(**{'J': 2, 'shape': (28, 28), **kwargs})
    with pytest.raises(error, match=message):
        S.transform(grey(2))


def test_pictures_in_class_folders_go_in_by_name(tmp_path):
    """As `sklearn.datasets.load_files` finds them."""
    from sklearn.datasets import load_files
    found = load_files(folders(tmp_path, 28, train=40) / 'train', load_content=False)
    pipeline = make_pipeline(ScatteringFeatures(), RidgeClassifier())
    assert pipeline.fit(found.filenames, found.target).score(found.filenames, found.target) == 1
