"""The page that a run ends with: that it says what was found, holds whatever comes in, and opens in a browser."""
import base64
import dataclasses
import importlib.util
import io
import json
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import timm
from PIL import Image
from scipy.stats import binomtest

from scat_zoo import __version__, cli
from scat_zoo.scattering import geometry
from scat_zoo.train import data, metrics, report
from scat_zoo.train.data import name_of

from . import chromium

NAMES = {'Trouser': 'T<b>&"\'', 'Sandal': 'n' * 120, 'Bag': 'Bag'}          # of a built-in class, as a folder is called
ORDER = sorted(NAMES.values())


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """60 images to train and 60 to test, of three classes with names that are hard on a page."""
    root = tmp_path_factory.mktemp('images')
    sample = data.load('sample', val_fraction=0.)
    for part, images in (('train', sample.train), ('test', sample.test)):
        for known, name in NAMES.items():
            (root / part / name).mkdir(parents=True)
            for i in np.flatnonzero(np.asarray(images.targets) == data.CLASSES.index(known))[:20]:
                images[i][0].save(root / part / name / f'{i}.png')
    return root


def train(output, *args, code=0):
    """Run the command; the run that it reports on, as the report got it, and the page's file."""
    found = []
    write = report.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, 'write', lambda run, file: (found.append(run), write(run, file)))
        assert cli.main(['train', '--output', str(output), *map(str, args)]) == code
    return found[0], output / 'report.html'


@pytest.fixture(scope='module')
def learned(folder, tmp_path_factory):
    return train(tmp_path_factory.mktemp('runs') / 'learned', '--data', folder, '--model-kwargs', 'L=4', '--learnable',
                 '--epochs', '2', '--val-fraction', '0.2')


class Page(HTMLParser):
    """A page's source, its tags with their attributes, its text by section, and its tables' cells by row."""

    def __init__(self, file):
        super().__init__()
        self.tags, self.sections, self.rows, self.within = [], {'': ''}, [], []
        self.source = file.read_text(encoding='utf-8').replace('\N{NO-BREAK SPACE}', ' ')
        self.feed(self.source)
        self.images = [attributes for tag, attributes in self.tags if tag == 'img']

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ('meta', 'img', 'br'):
            self.within.append(tag)
        if tag == 'tr':
            self.rows.append([])
        if tag in ('td', 'th'):
            self.rows[-1].append('')

    def handle_endtag(self, tag):
        assert self.within.pop() == tag                         # every tag is closed, in order

    def handle_data(self, text):
        if 'h2' in self.within:
            self.sections[text] = ''
        elif 'main' in self.within:
            self.sections[list(self.sections)[-1]] += text
        if {'td', 'th'} & set(self.within):
            self.rows[-1][-1] += text


def pixels(image):
    kind, content = image['src'].split(',')
    assert kind == 'data:image/png;base64'
    with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
        return np.asarray(picture.convert('RGBA').convert('RGB'))


def test_the_figures_are_those_of_the_results(learned):
    _, file = learned
    page = Page(file)
    results = json.loads((file.parent / 'results.json').read_text())
    test, ways = results['test'], results['ways']
    right = sum(test['confusion'][c][c] for c in range(3))
    assert f'{test["accuracy"]:.2f} % test accuracy' in page.sections['']
    low, high = binomtest(right, 60).proportion_ci(method='wilson')
    assert f'{right} of 60 images that were kept apart from training got the right class. With so many images, the ' \
           f'true accuracy lies between {100 * low:.1f} and {100 * high:.1f} % (95 % interval)' in page.sections['']
    assert 'always answering the commonest class would give 33.33 %' in page.sections[''].lower()
    for name, row in (('probe', 'fitted classifier, fixed filters'), ('fixed', 'trained, fixed filters'),
                      ('learned', 'trained, learned filters (kept)')):
        (cells,) = [cells for cells in page.rows if cells[0] == row]
        assert cells[1:] == [f'{ways[name]["val_accuracy"]:.2f} %', f'{ways[name]["test_accuracy"]:.2f} %']
    for c, name in enumerate(ORDER):
        (cells,) = [cells for cells in page.rows if cells[0] == f'{c + 1} {name}']
        assert cells[1:] == [*map(str, test['confusion'][c]), f'{test["classes"][c]["recall"]:.2f} %']
    assert f'by {100 * ways["learned"]["filter_change"]:.1f} %' in page.sections['Filters that moved most']
    assert 'asked for, which does not mean that it is better' in page.sections['Ways that were tried']
    # What one way alone got right of 60 images: 5 are chance, 6 are not.
    assert binomtest(5, 5).pvalue > 0.05 > binomtest(6, 6).pvalue
    assert f'less than {max(50 * (high - low), 10):.1f} points may be' in page.sections['Ways that were tried']
    assert 'not kept' not in page.sections['Filters that moved most']


def test_the_filters_of_a_way_that_was_not_kept(learned, tmp_path):
    run, _ = learned
    report.write(dataclasses.replace(run, results={**run.results, 'kept': 'probe'}), tmp_path / 'report.html')
    assert 'belong to the way that was not kept' in Page(tmp_path / 'report.html').sections['Filters that moved most']


def test_every_line_that_the_command_prints_on_a_choice(folder, tmp_path, capsys):
    _, file = train(tmp_path / 'run', '--data', folder, '--model-kwargs', 'L=2')
    out = capsys.readouterr().out
    lines = re.findall(r'^  (\S.{10}) (.*)$', out, re.MULTILINE)
    assert {what.strip() for what, _ in lines} >= {'images', 'image size', 'validation', 'filters', 'features'}
    text = Page(file).sections['Settings']
    assert all(line in text for _, line in lines)
    assert out.splitlines()[-2:] == [f'report     {file}', f'checkpoint {tmp_path}/run/checkpoint']
    assert not (tmp_path / 'run' / 'report.html.partial').exists()


def test_one_file_that_needs_no_network(learned):
    page = Page(learned[1])
    assert 'http:' not in page.source
    assert 'https:' not in page.source
    assert not {'script', 'link', 'iframe', 'base', 'object'} & {tag for tag, _ in page.tags}
    assert not [attrs for _, attrs in page.tags if set(attrs) & {'href', 'srcset', 'background'}]
    assert 'url(' not in page.source
    assert '@import' not in page.source
    assert all(image['src'].startswith('data:image/png;base64,') for image in page.images)
    assert "default-src 'none'" in page.source                  # what a browser keeps to


def test_names_of_folders_are_text(learned):
    page = Page(learned[1])
    assert NAMES['Trouser'] in page.sections['What it confuses']
    assert NAMES['Trouser'] in [attributes.get('title') for tag, attributes in page.tags if tag == 'th']
    assert 'T&lt;b&gt;&amp;&quot;&#x27;' in page.source
    assert 'T<b' not in page.source


def test_what_can_be_read_without_seeing(learned):
    page = Page(learned[1])
    assert ('html', {'lang': 'en'}) in page.tags
    assert re.search(r'<title>\d+\.\d\d %: scat_linear on .+</title>', page.source)
    assert all(image['alt'] for image in page.images)
    heads = [attrs for tag, attrs in page.tags if tag == 'th']
    assert len(heads) > 10
    assert all(attrs.get('scope') in ('row', 'col') for attrs in heads)
    assert [tag for tag, _ in page.tags if tag in ('h1', 'h2')] == ['h1'] + ['h2'] * 7


def with_answers(run, answers, file):
    """The page of a run whose model gave these answers."""
    figures = metrics.summary(run.targets, answers, run.data.classes)
    results = {**run.results, 'test': figures}
    report.write(dataclasses.replace(run, answers=answers, results=results), file)
    return Page(file)


def test_the_most_wrong_images_are_shown_the_surest_first(learned, tmp_path):
    run, _ = learned
    answers = np.eye(3, dtype=np.float32)[run.targets]
    wrong = {7: 0.9, 20: 0.6, 33: 0.97, 59: 0.75}
    for i, sure in wrong.items():
        answers[i] = (1 - sure) / 2
        answers[i, (run.targets[i] + 1) % 3] = sure
    page = with_answers(run, answers, tmp_path / 'report.html')
    order = [33, 7, 59, 20]
    text = page.sections['Most wrong']
    cards = re.findall(r'taken for\s+(.+?) with ([\d.]+) %(.+?png)', text, re.DOTALL)
    assert [(name, sure, path) for name, sure, path in cards] == [
        (ORDER[(run.targets[i] + 1) % 3], f'{100 * wrong[i]:.1f}', name_of(run.data.test, i)) for i in order]
    images = [image for image in page.images if image['alt'] in {name_of(run.data.test, i) for i in order}]
    for image, i in zip(images, order):
        assert np.array_equal(pixels(image)[..., 0], np.asarray(run.data.test[i][0]))


def test_no_more_than_a_dozen_are_shown(learned, tmp_path):
    run, _ = learned
    answers = np.eye(3, dtype=np.float32)[(run.targets + 1) % 3]
    page = with_answers(run, answers, tmp_path / 'report.html')
    assert page.sections['Most wrong'].count('taken for') == 12
    assert '0.00 % test accuracy' in page.sections['']
    assert '0 of 60' in page.sections['']


def test_all_right(learned, tmp_path):
    page = with_answers(learned[0], np.eye(3, dtype=np.float32)[learned[0].targets], tmp_path / 'report.html')
    assert page.sections['Most wrong'].strip() == 'It got all 60 test images right: there are none to show.'
    assert '60 of 60' in page.sections['']


@pytest.fixture
def many(learned, tmp_path):
    """The page of a run with 200 classes, most without a test image, and its file."""
    run, _ = learned
    classes = (*ORDER, *(f'class {c}' for c in range(3, 200)))
    run = dataclasses.replace(run, data=run.data._replace(classes=classes))
    answers = np.eye(200, dtype=np.float32)[run.targets]
    answers[np.flatnonzero(run.targets == 2)[:5]] = np.eye(200)[150]
    answers[np.flatnonzero(run.targets == 0)[:3]] = np.eye(200)[2]
    return with_answers(run, answers, tmp_path / 'report.html'), tmp_path / 'report.html'


def test_many_classes_show_the_pairs_most_confused(many):
    page, _ = many
    pairs = [cells for cells in page.rows if len(cells) == 3 and ' of ' in cells[2]]
    assert pairs == [[ORDER[2], 'class 150', '5 of 20'], [ORDER[0], ORDER[2], '3 of 20']]
    assert [cells[0] for cells in page.rows if len(cells) == 4][1:] == [ORDER[2], ORDER[0], ORDER[1]]
    assert 'One image of 3 of 200 classes' in page.sections['Scattering coefficients']


def test_discs_are_of_the_image_beside_them(learned, monkeypatch, tmp_path):
    """The spatial means at the largest scale of the kept model, for one test image of each class."""
    run, _ = learned
    seen = []
    disc = report.report_pictures.disc
    monkeypatch.setattr(report.report_pictures, 'disc', lambda *args: seen.append(args) or disc(*args))
    report.write(run, tmp_path / 'report.html')
    assert len(seen) == 6                                       # of two orders
    stem = run.model.scattering
    assert len(stem.scales) > 1
    for c in range(3):
        i = list(run.targets).index(c)
        x = report.prepared(run.data.test, run.model, run.data)[i][0][None]
        maps = stem(x)[0].detach().mean((1, 2))
        for values, paths, order in seen[2 * c:2 * c + 2]:
            assert paths == geometry.paths(stem.J, 4, 2)
            found = {path: value for path, value in zip(paths, values) if path.order == order}
            expected = {tuple(channel[:5]): maps[n].item() for n, channel in enumerate(stem.channels)
                        if channel.scale == stem.J and channel.order == order}
            assert found.keys() == expected.keys()
            assert np.allclose([found[path] for path in found], [expected[path] for path in found])


def test_discs_of_averages_over_rotations(learned, monkeypatch, tmp_path):
    run, _ = learned
    model = timm.create_model('scat_linear', rotation='average', channel_differences=True, L=4, num_classes=3,
                              img_size=run.data.input_size[1:], in_chans=run.data.input_size[0]).eval()
    seen = []
    disc = report.report_pictures.disc
    monkeypatch.setattr(report.report_pictures, 'disc', lambda *args: seen.append(args) or disc(*args))
    report.write(dataclasses.replace(run, model=model), tmp_path / 'report.html')
    assert seen
    for values, paths, _ in seen:
        assert paths == geometry.paths(2, 4, 2, 'average')
        assert values.shape == (len(paths),)
    assert 'All directions are averaged' in (tmp_path / 'report.html').read_text()


def test_without_matplotlib_it_says_what_to_install(folder, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *args: None if name == 'matplotlib' else find(name))
    for name in [name for name in sys.modules if name.split('.')[0] == 'matplotlib']:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    _, file = train(tmp_path / 'run', '--data', folder, '--model-kwargs', 'L=2', '--no-learnable', '--epochs', '1')
    page = Page(file)
    for section in ('Curves', 'Scattering coefficients'):
        assert 'need matplotlib: install scat_zoo with the extra train' in page.sections[section]
    assert '% test accuracy' in page.sections['']


def test_resumed_it_is_written_anew(folder, tmp_path):
    options = ['--data', folder, '--model-kwargs', 'L=2', '--no-learnable', '--epochs']
    _, file = train(tmp_path / 'run', *options, '1')
    before = file.read_text(encoding='utf-8')
    train(tmp_path / 'run', *options, '2', '--resume')
    assert '1 epochs of' in before
    assert '2 epochs of' in file.read_text(encoding='utf-8')


def test_oblong_float_images_of_many_channels(tmp_path):
    """Values beyond 8 bits, of which the mean over the channels is shown, in the range that was trained on."""
    rng = np.random.RandomState(0)
    for name, level in (('dim', 100), ('bright', 900)):
        (tmp_path / 'images' / name).mkdir(parents=True)
        for i in range(10):
            np.save(tmp_path / 'images' / name / f'{i}.npy', level + rng.rand(16, 40, 5).astype(np.float32))
    _, file = train(tmp_path / 'run', '--data', tmp_path / 'images', '--model-kwargs', 'L=2')
    page = Page(file)
    shown = {image['alt']: pixels(image) for image in page.images}
    (bright,) = [image for name, image in shown.items() if '/bright/' in name]
    (dim,) = [image for name, image in shown.items() if '/dim/' in name]
    assert bright.shape == (16, 40, 3)
    assert bright.min() > 250
    assert dim.max() < 5


def test_large_colour_pictures_become_small_ones(tmp_path):
    for name, colour in (('red', (200, 0, 0)), ('blue', (0, 0, 200))):
        (tmp_path / 'images' / name).mkdir(parents=True)
        for i in range(4):
            noise = np.random.RandomState(i).randint(0, 40, (400, 600, 3))
            Image.fromarray((noise + colour).astype(np.uint8)).save(tmp_path / 'images' / name / f'{i}.png')
    _, file = train(tmp_path / 'run', '--data', tmp_path / 'images', '--model-kwargs', 'L=2')
    (red,) = [pixels(image) for image in Page(file).images if '/red/' in image['alt']]
    assert red.shape == (107, 160, 3)
    assert red[..., 0].min() > 190 > 60 > red[..., 2].max()
    assert file.stat().st_size < 1_000_000


def test_a_class_of_one_image_and_weights_to_start_from(folder, tmp_path):
    sample = data.load('sample', val_fraction=0.)
    for part, images in (('train', sample.train), ('test', sample.test)):
        for name in NAMES:
            (tmp_path / 'images' / part / name).mkdir(parents=True)
            for i in np.flatnonzero(np.asarray(images.targets) == data.CLASSES.index(name))[:1 + 3 * (name == 'Bag')]:
                images[i][0].save(tmp_path / 'images' / part / name / f'{i}.png')
    _, file = train(tmp_path / 'run', '--data', tmp_path / 'images', '--from', 'scat_tiny.fashion_mnist')
    page = Page(file)
    assert 'scat_tiny.fashion_mnist on' in page.sections['']
    assert 'One image of each class' in page.sections['Scattering coefficients']
    assert 'Only one way was tried' in page.sections['Ways that were tried']
    assert 'there are no curves' in page.sections['Curves']
    assert 'Filters that moved most' not in page.sections


@pytest.mark.parametrize(('right', 'count'), [(0, 1), (1, 1), (0, 20), (19, 20), (1692, 2000)])
def test_the_interval_is_wilsons(right, count):
    expected = binomtest(right, count).proportion_ci(method='wilson')
    assert np.allclose(report.interval(right, count), 100 * np.array(expected), atol=0.01)


@pytest.fixture(scope='module')
def browser():
    if chromium.FOUND is None:
        pytest.skip(f'no Chromium on this machine: none of {", ".join(chromium.NAMES)} is on the path')
    with chromium.started() as found:
        yield found


@pytest.mark.parametrize('dark', [False, True])
@pytest.mark.parametrize(('width', 'height'), [(360, 740), (1400, 900)])
def test_in_chromium(learned, browser, width, height, dark, tmp_path):
    """Nothing on the console, nothing beyond the window's edge, every picture decoded, nothing asked of a network."""
    _, file = learned
    browser.open(file.as_uri(), width, height, dark)
    decoded = 'Promise.all([...document.images].map(i => i.decode())).then(() => document.images.length)'
    assert browser.evaluate(decoded) == len(Page(file).images) > 9
    assert browser.evaluate('document.documentElement.scrollWidth <= innerWidth')
    assert browser.evaluate('innerWidth') == width
    assert browser.of_method('Runtime.consoleAPICalled', 'Runtime.exceptionThrown', 'Log.entryAdded') == []
    asked = [event['request']['url'] for event in browser.of_method('Network.requestWillBeSent')]
    assert {url.split(':')[0] for url in asked} <= {'file', 'data'}
    # What does not fit scrolls within itself, and can be reached with keys.
    assert browser.evaluate('[...document.querySelectorAll("main *")].every(e => e.scrollWidth <= e.clientWidth + 1 || '
                            'e.closest(".wide[tabindex]") || getComputedStyle(e).display == "inline")')
    paper = browser.evaluate('getComputedStyle(document.body).backgroundColor')
    assert (sum(map(int, re.findall(r'\d+', paper))) < 200) is dark
    browser.screenshot(tmp_path / 'page.png')
    with Image.open(tmp_path / 'page.png') as picture:
        assert picture.width == width
        assert picture.height > height


def test_long_names_of_many_classes_on_a_phone(many, browser):
    browser.open(many[1].as_uri(), 360, 740)
    assert browser.evaluate('document.documentElement.scrollWidth <= innerWidth')
    widths = browser.evaluate(
        '[...document.querySelectorAll("tbody th, tbody td:not(.number)")].map(cell => cell.clientWidth)')
    assert len(widths) > 10
    assert min(widths) > 80                                     # not a letter a line


def test_the_browser_would_tell_of_an_error(browser, tmp_path):
    """So that the test above can fail."""
    file = tmp_path / 'page.html'
    file.write_text('<p style="width: 2000px">wide</p><img src="data:image/png;base64,00" alt=""><script>'
                    'console.warn("careful"); nothing.at.all</script>')
    browser.open(file.as_uri(), 360, 740)
    assert browser.evaluate('document.documentElement.scrollWidth <= innerWidth') is False
    assert browser.evaluate('document.images[0].decode().then(() => 1, () => 0)') == 0
    assert len(browser.of_method('Runtime.consoleAPICalled', 'Runtime.exceptionThrown')) == 2


def test_the_version_is_told(learned):
    assert f'Written by scat_zoo {__version__}.' in Page(learned[1]).source
