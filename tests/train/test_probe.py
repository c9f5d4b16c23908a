"""The fitted classifier: against scikit-learn's on the plain features, and the choice of features."""
import warnings

import numpy as np
import pytest
import timm
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from torch.utils.data import TensorDataset

import scat_zoo  # noqa: F401  (registers the models)
from scat_zoo.train import choices, data, linear, probe
from scat_zoo.train.model import create, prepared
from scat_zoo.train.run_folder import write_json

CPU = torch.device('cpu')


def model(classes, **kwargs):
    kwargs = {'img_size': 16, 'in_chans': 1, 'num_classes': classes, 'L': 2, 'J': 2, **kwargs}
    return timm.create_model('scat_linear', **kwargs)


def of(kind, strength, mirrored=False):
    return probe.Choice({}, kind, strength, mirrored, None, None)


def pictures(classes, each, noise=3.):
    """A picture of each class, in noise."""
    y = torch.arange(classes).repeat(each)
    return torch.randn(classes, 1, 16, 16)[y] + noise * torch.randn(len(y), 1, 16, 16), y


@pytest.mark.parametrize('balanced', [False, True])
@pytest.mark.parametrize('classes', [2, 10])
@pytest.mark.parametrize(('pool', 'each'), [('flat', 4), ('avg', 30)])      # fewer images than features, and more
def test_it_is_the_regression_on_the_plain_features(classes, pool, each, balanced, monkeypatch):
    # Both go on to the optimum: where scikit-learn stops by itself, probabilities are off by up to a hundredth.
    exact = {'tol': 1e-8, 'max_iter': 10_000}
    regression = linear.regression
    monkeypatch.setattr(linear, 'regression', lambda *args: regression(*args).set_params(**exact))
    x, y = pictures(classes, each, noise=2.)
    x, y = x[:-classes // 2], y[:-classes // 2]                 # classes of two sizes
    fitted = model(classes, global_pool=pool)
    probe.fit(fitted, x, y, of(linear.LOGISTIC, 0.1), balanced, CPU)
    features = probe.features(fitted, x, CPU)
    assert (len(x) < features.shape[1]) == (pool == 'flat')
    expected = LogisticRegression(C=0.1, class_weight='balanced' if balanced else None, **exact)
    expected.fit(features.double().numpy(), y.numpy())
    for images in (x, x + torch.randn_like(x)):                 # what is unseen is not in the span of the others
        expected_p = expected.predict_proba(probe.features(fitted, images, CPU).double().numpy())
        with torch.inference_mode():
            found = fitted(images).double().softmax(1).numpy()
        assert np.abs(found - expected_p).max() < 1e-4
        assert np.ptp(expected_p) > 0.15                        # there is something to tell


@pytest.mark.parametrize(('classes', 'pool', 'each'), [(2, 'flat', 4), (10, 'avg', 30)])
def test_it_is_the_discriminant_analysis(classes, pool, each):
    """Of few images, in coordinates of the span of their features; scores as certain as the strength says."""
    x, y = pictures(classes, each, noise=2.)
    x, y = x[:-classes // 2], y[:-classes // 2]
    fitted = model(classes, global_pool=pool)
    probe.fit(fitted, x, y, of(linear.DISCRIMINANT, 0.25), False, CPU)
    unseen = x + torch.randn_like(x)
    seen, new = (probe.features(fitted, images, CPU).double() for images in (x, unseen))
    basis, coordinates = linear.span(seen - seen.mean(0))
    assert (basis is None) == (pool == 'avg')
    new = (new - seen.mean(0)) if basis is None else (new - seen.mean(0)) @ basis
    expected = LinearDiscriminantAnalysis('lsqr', shrinkage=0.1)
    scores = torch.from_numpy(expected.fit(coordinates.numpy(), y.numpy()).decision_function(new.numpy()))
    with torch.inference_mode():
        found = fitted(unseen).double()
    if classes == 2:
        found = found[:, 1] - found[:, 0]
    torch.testing.assert_close(found, 0.25 * scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('kind', [linear.LOGISTIC, linear.DISCRIMINANT])
def test_a_class_without_an_image_is_never_the_answer(kind):
    for present in ([0, 2, 3], [1, 4]):
        x, y = pictures(5, 12)
        some = torch.isin(y, torch.tensor(present))
        fitted = model(5)
        probe.fit(fitted, x[some], y[some], of(kind, 1.), False, CPU)
        with torch.inference_mode():
            p = fitted(torch.cat([x, 100 * torch.randn(200, 1, 16, 16), torch.zeros(1, 1, 16, 16)])).softmax(1)
        assert sorted(p.argmax(1).unique().tolist()) == present
        absent = [c for c in range(5) if c not in present]
        assert p[:, absent].max() < 1e-12
        assert (fitted(x[some]).argmax(1) == y[some]).float().mean() > 0.9


def things(n):
    """Two marks side by side, or one above the other: parts and directions are the same, their places are not."""
    x, y = 0.3 * torch.randn(n, 1, 16, 16), torch.arange(n) % 2
    for image, c in zip(x, y):
        for i in range(2):
            row, column = (4 + 7 * i, 4) if c else (4, 4 + 7 * i)
            image[0, row:row + 3, column:column + 3] += torch.eye(3) * 2
    return x, y


def textures(n):
    """Stripes in one of two directions, of any phase, that lie anywhere."""
    x, y = torch.randn(n, 1, 16, 16), torch.arange(n) % 2
    for image, c in zip(x, y):
        stripes = torch.sin(torch.arange(16.) * 1.5 + 6.3 * torch.rand(())).expand(6, 16)[:, :6]
        row, column = torch.randint(10, (2,)).tolist()
        image[0, row:row + 6, column:column + 6] += 1.2 * (stripes if c else stripes.T)
    return x, y


def turned_and_lit(n):
    """Stripes of one of two widths, turned by any angle, in any light: values from 0 to 1."""
    y = torch.arange(n) % 2
    turn, phase, light = 6.3 * torch.rand(n, 1, 1), 6.3 * torch.rand(n, 1, 1), 0.1 + 0.9 * torch.rand(n, 1, 1)
    rows, columns = torch.meshgrid(torch.arange(48.), torch.arange(48.), indexing='ij')
    stripes = torch.sin((0.9 - 0.3 * y.reshape(-1, 1, 1)) * (rows * turn.cos() + columns * turn.sin()) + phase)
    noise = 0.1 * torch.randn(3, n, 48, 48)
    return (light * (0.5 + 0.15 * stripes + noise)).clamp(0, 1).transpose(0, 1), y


def seen_in_mirrors(n):
    """A line or a blot in noise, in either half; the line leans to the middle."""
    x, y = 0.6 * torch.randn(n, 1, 16, 16), torch.arange(n) % 2
    for image, c in zip(x, y):
        image[0, 5:10, 3:8] += 2 * torch.eye(5) if c else torch.ones(5, 5) / 1.1
        if torch.rand(()) < 0.5:
            image[:] = image.flip(2)
    return x, y


def choose(x, y, candidates=None, balanced=False, goes_on=False):
    classes = int(y.max()) + 1
    if candidates is None:
        candidates = choices.features((16, 16), 1, {'L': 4, 'J': 2})
    return probe.choose(candidates, lambda kwargs: model(classes, **kwargs), x, y, balanced, goes_on, CPU)


@pytest.mark.parametrize(('make', 'pool'), [(things, 'flat'), (textures, 'avgstd')])
@pytest.mark.parametrize('n', [60, 200])
def test_features_with_places_for_things_and_without_for_textures(make, pool, n):
    choice = choose(*make(n))
    assert choice.kwargs['global_pool'] == pool
    assert choice.strength in linear.STRENGTHS[choice.classifier]
    assert choice.accuracy > 75
    assert choice.loss < np.log(2)


def test_mirror_images_where_they_are_of_the_same_class_and_not_where_they_are_of_another():
    torch.manual_seed(0)
    choice = choose(*seen_in_mirrors(40))
    assert choice.mirrored
    assert choice.accuracy > 75
    assert choice.told().endswith(', of images and their mirror images')
    x, y = things(40)
    x[y == 1] = x[y == 0].flip(3)                               # all that tells the classes apart
    choice = choose(x, y)
    assert not choice.mirrored
    assert choice.accuracy > 90
    assert 'mirror' not in choice.told()


@pytest.mark.parametrize('kind', [linear.LOGISTIC, linear.DISCRIMINANT])
def test_a_mirror_image_gets_the_same_answer(kind):
    """The classifier is that of the mean features of both, and what it says of one it says of the other, but for the
    part of a window by which the grid of the maps moves."""
    sample = data.load('sample', val_fraction=0.)
    fitted = create('scat_linear', {'J': 2, 'L': 4}, sample, 0)
    (x, y), (new, _) = (probe.stacked(prepared(data.few(sample.train, 10, seed), fitted, sample)) for seed in (1, 2))
    apart = []
    for mirrored in (False, True):
        probe.fit(fitted, x, y, of(kind, 1., mirrored), False, CPU)
        with torch.inference_mode():
            found, other = fitted(new), fitted(new.flip(3))
        apart.append(((found - other).std() / found.std()).item())
    assert apart[0] > 0.4
    assert apart[1] < 0.25
    common = (probe.features(fitted, x, CPU) + probe.features(fitted, x.flip(3), CPU)) / 2
    seen, unseen = linear.reduced(common, probe.features(fitted, new, CPU))
    expected = linear.discriminant() if kind == linear.DISCRIMINANT else linear.regression(1., False)
    scores = torch.from_numpy(expected.fit(seen, y.numpy()).decision_function(unseen))
    torch.testing.assert_close((found - found.mean(1, True)).double(), scores - scores.mean(1, True), rtol=1e-3,
                               atol=1e-2)


def test_real_pictures_of_things_keep_their_places():
    """From thousands of features the analysis is so certain that only a small strength lets the log-loss see them."""
    sample = data.load('sample', val_fraction=0.)
    few = data.few(sample.train, 10, seed=1)
    first, *_ = candidates = choices.features((28, 28), 1, {})
    x, y = probe.stacked(prepared(few, create('scat_linear', first, sample, 0), sample))
    choice = probe.choose(candidates, lambda kwargs: create('scat_linear', kwargs, sample, 0), x, y, False, False, CPU)
    assert (choice.classifier, choice.kwargs['global_pool']) == (linear.DISCRIMINANT, 'flat')
    assert min(linear.STRENGTHS[linear.DISCRIMINANT]) < choice.strength < max(linear.STRENGTHS[linear.DISCRIMINANT])


@pytest.mark.parametrize('kind', [linear.LOGISTIC, linear.DISCRIMINANT])
def test_a_fold_is_fitted_to_one_set_of_features_and_answers_for_the_other(kind):
    y = np.arange(40) % 2
    x = np.random.RandomState(0).randn(40, 3) + 9 * y[:, None]
    for unseen, right in ((x, 1), (9 - x, 0)):
        assert (linear.figures(kind, x, unseen, y, np.arange(30), np.arange(30, 40), False)[1] == right).all()


@pytest.mark.parametrize(('goes_on', 'expected'), [(False, [False, False, True, True]), (True, [False, False, True])])
def test_mirror_images_are_tried_with_all_features_or_of_the_regression_with_the_best(goes_on, expected, monkeypatch):
    tried, validated = [], probe._cross_validated
    monkeypatch.setattr(probe, '_cross_validated', lambda *args: tried.append(validated(*args)) or tried[-1])
    torch.manual_seed(0)
    choose(*things(40), goes_on=goes_on)
    assert [choice.mirrored for choice in tried] == expected
    best = min(tried[:2], key=lambda choice: choice.loss)
    assert best.kwargs in [choice.kwargs for choice in tried[2:]]


def test_images_that_are_all_told_apart_leave_doubts_of_others():
    """The surest answers would be the best in cross-validation, and cost 0.9 nats an image of those that come later."""
    sample = data.load('sample', val_fraction=0.)
    first = {'J': 3, 'L': 2, 'global_pool': 'avgstd'}

    def of_two(images, n, seed):
        x, y = probe.stacked(prepared(data.few(images, n, seed), create('scat_linear', first, sample, 0), sample))
        some = torch.isin(y, torch.tensor([1, 8]))              # trousers and bags
        return x[some], y[some]

    x, y = of_two(sample.train, 20, 0)
    choice = probe.choose([first], lambda kwargs: create('scat_linear', kwargs, sample, 0), x, y, False, False, CPU)
    fitted = create('scat_linear', first, sample, 0)
    probe.fit(fitted, x, y, choice, False, CPU)
    assert choice.accuracy > 97
    assert min(linear.STRENGTHS[linear.DISCRIMINANT]) < choice.strength < 0.5
    new, classes = of_two(sample.test, 100, 0)
    with torch.inference_mode():
        assert torch.nn.functional.cross_entropy(fitted(new), classes) < 0.2


def test_what_takes_the_regression(monkeypatch):
    torch.manual_seed(0)
    x, y = textures(300)
    assert choose(x, y).classifier == linear.DISCRIMINANT
    assert choose(x, y, goes_on=True).classifier == linear.LOGISTIC
    assert choose(x, y, balanced=True).classifier == linear.LOGISTIC
    monkeypatch.setattr(probe, 'ENOUGH', 299)
    assert choose(x, y).classifier == linear.LOGISTIC


def test_features_without_turns_and_light_for_textures_that_have_both():
    x, y = turned_and_lit(80)
    plain = choices.features((48, 48), 3, {'J': 2})
    first = model(2, img_size=48, in_chans=3, **plain[0])
    mean, std = (torch.tensor(first.pretrained_cfg[name]).reshape(3, 1, 1) for name in ('mean', 'std'))
    of_colour = {'img_size': 48, 'in_chans': 3}
    choice = probe.choose(plain, lambda kwargs: model(2, **{**of_colour, **kwargs}), (x - mean) / std, y, False,
                          False, CPU)
    assert (choice.kwargs.get('rotation'), choice.kwargs.get('log_input')) == ('average', 0.03)
    invariant = model(2, **{**of_colour, **choice.kwargs})
    torch.testing.assert_close(probe.as_of((x - mean) / std, first, invariant), x, rtol=0, atol=1e-6)
    probe.fit(invariant, x, y, choice, False, CPU)
    unseen, classes = turned_and_lit(80)
    with torch.inference_mode():
        assert (invariant(unseen).argmax(1) == classes).float().mean() > 0.9


def test_noise_is_told_from_what_there_is_to_learn():
    torch.manual_seed(1)
    choice = choose(torch.randn(60, 1, 16, 16), torch.arange(60) % 2)
    assert choice.loss > np.log(2) - 0.1 > choose(*things(60)).loss
    assert abs(choice.accuracy - 50) < 20


def test_classes_of_one_and_two_images():
    x, y = pictures(4, 2, noise=0.3)
    with warnings.catch_warnings():
        warnings.simplefilter('error')                          # none of scikit-learn's reaches the user
        assert choose(x, y).accuracy > 50
        # A class of one image has no say, and no part in the folds.
        assert choose(x[:-1], y[:-1]).accuracy > 50
        x, y = torch.cat([x, *[x[:3]] * 4]), torch.cat([y, *[y[:3]] * 4])       # and two among many
        assert choose(x, y).accuracy > 50
        alone = choose(*pictures(4, 1))
    assert (alone.strength, alone.loss, alone.accuracy) == (1., None, None)
    two_and_one = choose(x[:5], torch.tensor([0, 0, 1, 2, 3]))
    assert two_and_one.accuracy is None                         # one class is nothing to choose by


def test_copies_of_one_image_a_class():
    """They have no covariance that an analysis could go by."""
    x, y = pictures(3, 4, noise=0.)
    choice = choose(x, y)
    assert (choice.classifier, choice.accuracy) == (linear.LOGISTIC, 100)
    fitted = model(3, **choice.kwargs)
    probe.fit(fitted, x, y, choice, False, CPU)
    with torch.inference_mode():
        assert torch.equal(fitted(x).argmax(1), y)


def test_the_choice_is_the_same_each_time():
    x, y = things(60)
    assert choose(x, y) == choose(x, y)


def test_balanced_weights_answer_the_rare_class_more_often():
    x, y = pictures(2, 200)
    x = x + 3 * torch.randn_like(x)
    some = torch.cat([torch.where(y == 0)[0], torch.where(y == 1)[0][:10]])
    recalls = []
    for balanced in (False, True):
        fitted = model(2, global_pool='avg')
        probe.fit(fitted, x[some], y[some], of(linear.LOGISTIC, 0.1), balanced, CPU)
        with torch.inference_mode():
            recalls.append((fitted(x[y == 1]).argmax(1) == 1).double().mean().item())
    assert recalls[1] > recalls[0] + 0.2
    # The figure of the choice weighs classes alike, too: always answering the commonest is right for half of them.
    plain, balanced = (choose(x[some], y[some], [{'global_pool': 'avg'}], b).accuracy for b in (False, True))
    assert plain > 90 > balanced


def test_evenly():
    y = torch.tensor([0] * 900 + [1] * 90 + [2] * 5 + [3])
    some = probe.evenly(y, 100)
    assert torch.bincount(y[some]).tolist() == [90, 9, 2, 1]
    assert torch.equal(some, some.unique())                     # in order, none twice
    assert torch.equal(some, probe.evenly(y, 100))
    assert torch.equal(probe.evenly(y, 10_000), torch.arange(len(y)))


def test_stacked_takes_images_of_every_class(monkeypatch):
    """Even where memory is short: rare classes are there."""
    x, y = torch.randn(60, 1, 16, 16), torch.tensor([0] * 30 + [1] * 29 + [2])
    dataset = TensorDataset(x, y)
    dataset.targets = y.tolist()
    images, targets = probe.stacked(dataset)
    assert torch.equal(images, x)
    assert torch.equal(targets, y)
    monkeypatch.setattr(probe, 'MOST_BYTES', 8 * 4 * 16 * 16)
    images, targets = probe.stacked(dataset)
    assert len(images) < 12
    assert targets.unique().tolist() == [0, 1, 2]


def test_norms_get_the_statistics_of_training():
    """One batch in training mode is what they stand for; and what they saw before is forgotten."""
    x, _ = pictures(2, 50)
    x = 3 + x
    fitted = model(2)
    fitted.train()(torch.randn(8, 1, 16, 16))
    probe.fit_norms(fitted, x, CPU)
    assert not fitted.training
    with torch.inference_mode():
        found = fitted.forward_features(x)
        expected = fitted.train().forward_features(x)
    assert (found - expected).norm() < 1e-3 * expected.norm()


def test_norms_of_many_images_that_come_by_class():
    x = torch.cat([torch.randn(300, 1, 16, 16), 5 * torch.randn(300, 1, 16, 16)])
    fitted = model(2)
    probe.fit_norms(fitted, x, CPU)
    found = probe.features(fitted, x, CPU)
    assert found.mean().abs() < 0.05                            # not those of the last batch alone
    assert abs(found.var(0).mean() - 1) < 0.1


def test_more_features_than_memory(monkeypatch):
    """The classifier is fitted to some of the images, of each class."""
    x, y = pictures(3, 40, noise=0.5)
    fitted = model(3)
    monkeypatch.setattr(probe, 'MOST_BYTES', 4 * fitted.get_classifier().in_features * 30)
    seen = []
    features = probe.features
    monkeypatch.setattr(probe, 'features', lambda m, images, d: seen.append(len(images)) or features(m, images, d))
    probe.fit(fitted, x, y, of(linear.LOGISTIC, 1.), False, CPU)
    assert seen == [30]
    assert (fitted(x).argmax(1) == y).float().mean() > 0.9


@pytest.mark.parametrize('changed', [
    {'kwargs': None}, {'classifier': []}, {'classifier': 'perceptron'}, {'strength': 0.3}, {'mirrored': 1},
    {'loss': 'x'}, {'accuracy': [1]}, None])
def test_a_choice_that_is_none(changed, tmp_path):
    choice = probe.Choice({'J': 2}, linear.DISCRIMINANT, 0.5, True, 0.25, None)
    write_json(tmp_path / 'probe.json', choice._asdict())
    assert probe.read(tmp_path / 'probe.json') == choice
    write_json(tmp_path / 'probe.json', changed and {**choice._asdict(), **changed})
    with pytest.raises(ValueError, match=r'probe\.json is broken: expected'):
        probe.read(tmp_path / 'probe.json')
