"""What follows from the data: image size, validation, features, training, and what is better."""
import numpy as np
import pytest
import timm

import scat_zoo  # noqa: F401  (registers the models)
from scat_zoo.train import choices


@pytest.mark.parametrize(('own', 'asked', 'size', 'why'), [
    ((28, 28), None, (28, 28), 'their own'),
    ((64, 64), None, (64, 64), 'their own'),
    ((32, 100), None, (32, 100), 'their own'),                  # no more pixels than 64 x 64
    ((200, 200), None, (64, 64), 'as many pixels as 64 x 64'),
    ((480, 640), None, (55, 74), 'in the proportions of 480 x 640'),
    ((1, 100_000), None, (1, 20_239), 'as many pixels'),        # at least a pixel high
    ((200, 200), 48, (48, 48), 'as asked for'),
    ((28, 28), (24, 32), (24, 32), 'as asked for'),
])
def test_image_size(own, asked, size, why):
    found, reason = choices.image_size(own, asked, 64)
    assert found == size
    assert why in reason
    assert '\n' not in reason


def test_how_much_is_held_out():
    assert choices.held_out([0, 1] * 499)[0] == 0
    assert 'too few to tell by' in choices.held_out([0, 1] * 499)[1]
    assert choices.held_out([0, 1] * 500)[0] == choices.HELD_OUT
    fraction, why = choices.held_out([0] * 5000 + [1])
    assert fraction == 0
    assert 'a class has only one image' in why


@pytest.mark.parametrize('in_chans', [1, 3])
@pytest.mark.parametrize('size', [(4, 4), (5, 40), (8, 8), (16, 24), (28, 28), (33, 33), (40, 40), (41, 64), (64, 64),
                                  (224, 224), (300, 512), (512, 512)])
def test_every_set_of_features_has_a_model(size, in_chans):
    found = choices.features(size, in_chans, {})
    third = in_chans > 1 and min(size) > choices.SMALL
    assert [kwargs['global_pool'] for kwargs in found] == ['flat', 'avgstd', 'avg'][:2 + third]
    assert [kwargs.get('rotation') for kwargs in found[2:]] == ['average'] * len(found[2:])
    for kwargs in found:
        assert 1 <= kwargs['J'] <= choices.LARGEST_J
        assert kwargs['J'] in kwargs.get('scales', [kwargs['J']])
        # Without memory, where that would be much.
        device = 'meta' if max(size) > 64 else None
        model = timm.create_model('scat_linear', num_classes=10, in_chans=in_chans, img_size=size, device=device,
                                  **kwargs)
        assert model.get_classifier().out_features == 10


def test_features_keep_what_is_given():
    assert choices.features((28, 28), 1, {'J': 1, 'L': 4})[0] == {
        'J': 1, 'L': 4, 'scales': (1,), 'global_pool': 'flat'}
    assert [kwargs['global_pool'] for kwargs in choices.features((28, 28), 1, {'global_pool': 'max'})] == ['max']
    for kwargs in choices.features((28, 28), 1, {'scales': (1, 2)}):   # the largest scale is J
        assert (kwargs['J'], kwargs['scales']) == (2, (1, 2))
    # Of a large image all scales in all places would be too many.
    flat, avg, invariant = choices.features((64, 64), 3, {})
    assert (flat['scales'], avg['scales'], 'scales' in invariant) == ((4,), (3, 4), False)
    assert choices.features((64, 64), 3, {'L': 6, 'rotation': None})[2] == {
        **invariant, 'L': 6, 'rotation': None}
    assert len(choices.features((64, 64), 3, {'global_pool': 'flat'})) == 1
    assert len(choices.features((64, 64), 3, {'nonexpansive': True, 'parametrization': 'morlet'})) == 2


def test_training_follows_from_the_number_of_images():
    counts = (60, 300, 1000, 3000, 20_000, 60_000, 1_000_000)
    found = [choices.training({}, count, linear=True) for count in counts]
    sizes, epochs = [t.batch_size for t in found], [t.epochs for t in found]
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (16, 128)
    steps = [t.epochs * (count // t.batch_size) for t, count in zip(found, counts, strict=True)]
    assert steps == sorted(steps)
    assert (max(epochs), epochs[-1]) == (epochs[0], 5)
    assert {t.augment for t in found} == {'none'}
    other = choices.training({}, 60, linear=False)
    assert (other.augment, other.epochs > epochs[0]) == ('shift', True)
    assert choices.training({}, 3, linear=True).epochs >= 5     # fewer than a batch


def test_training_keeps_what_is_asked_for():
    asked = {'epochs': 7, 'batch_size': 5, 'lr': 0.5, 'weight_decay': 0., 'label_smoothing': 0., 'augment': 'flip',
             'opt': 'sgd', 'seed': 3}
    for count in (60, 1_000_000):
        found = choices.training(asked, count, linear=True)
        assert {key: getattr(found, key) for key in asked} == asked
        told = choices.told(found, count)
        assert told.startswith('7 epochs of sgd at 0.5, batches of 5, label smoothing 0, augmentation flip')
        assert f'{count:,} images' in told
    # Smaller batches take fewer epochs for as many steps.
    assert choices.training({'batch_size': 4}, 60, True).epochs < choices.training({}, 60, True).epochs


def test_rates_by_where_training_begins():
    fresh, started, few, many = (choices.rate(*args) for args in ((False, None), (True, None), (False, 100),
                                                                  (False, 30_000)))
    assert many < started < fresh == few
    assert choices.rate(True, 30_000) == many


def test_better_is_beyond_chance():
    def right(*indices):
        found = np.zeros(200, bool)
        found[list(indices)] = True
        return found

    base = right(*range(100))
    assert not choices.better(base, base)
    assert not choices.better(right(*range(104)), base)         # four more: as likely by chance, or nearly so
    assert choices.better(right(*range(105)), base)
    # Eight more are little if they are the difference of many.
    assert not choices.better(right(*range(80), *range(100, 128)), base)
    assert not choices.better(base, right(*range(104)))
    assert not choices.better(None, base)
    assert not choices.better(base, None)
