"""Which images there are, in which order, and which make up a part."""
import gzip
import tarfile

import pytest

from scat_zoo.extract import sources

from .pictures import png, write, write_tar


def rows(source):
    return [[sample.name for sample in source.samples(part)] for part in range(len(source))]


def test_a_folder_by_its_paths(tmp_path):
    write(tmp_path / 'b' / 'inner', 3)
    write(tmp_path / 'a', 2)
    (tmp_path / 'a' / 'notes.txt').write_text('none')
    source = sources.find([str(tmp_path)], 2)
    assert rows(source) == [['a/000.png', 'a/001.png'], ['b/inner/000.png', 'b/inner/001.png'], ['b/inner/002.png']]
    assert [source.count(part) for part in range(3)] == [2, 2, 1]
    assert source.inputs(2) == [str(tmp_path / 'b/inner/002.png')]
    moved = tmp_path.rename(tmp_path.with_name('moved'))
    assert sources.find([str(moved)], 2).settings() == source.settings()
    (moved / 'a' / '000.png').rename(moved / 'a' / '0.png')
    assert sources.find([str(moved)], 2).settings() != source.settings()


def test_a_list_in_its_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / 'a', 3)
    (tmp_path / 'list.txt').write_bytes(b'a/002.png\r\na/000.png\n\na/absent \xff.png\n')
    source = sources.find(['list.txt'], 10)
    assert rows(source) == [['a/002.png', 'a/000.png', 'a/absent \udcff.png']]
    assert [sources.size(file) > 0 for file in source.inputs(0)] == [True, True, False]


@pytest.fixture
def tars(tmp_path):
    """Three tar files of two, one and no samples."""
    write_tar(tmp_path / 'x-0.tar', [('n/0001.json', b'{}'), ('n/0001.png', png(1)), ('n/0001.cls', b'3'),
                                     ('n/0000.PNG', png(0)), ('n/0000.mask.png', png(7))])
    write_tar(tmp_path / 'x-1.tar', [('n/0002.png', png(2))])
    write_tar(tmp_path / 'x-2.tar', [])
    (tmp_path / 'x-1.tar.gz').write_bytes(gzip.compress((tmp_path / 'x-1.tar').read_bytes()))
    return tmp_path


def test_tar_files_by_braces_folder_list_and_name(tars):
    (tars / 'list.txt').write_text(f'{tars}/x-0.tar\n{tars}/x-1.tar\n{tars}/x-2.tar\n')
    (tars / 'x-1.tar.gz').rename(tars / 'list.tgz.old')
    wanted = [['n/0001', 'n/0000'], ['n/0002'], []]
    found = [sources.find(data, 1) for data in (
        [f'{tars}/x-{{0..2}}.tar'], [str(tars)], [str(tars / 'list.txt')], [f'{tars}/x-{i}.tar' for i in range(3)])]
    assert [rows(source) for source in found] == [wanted] * 4
    assert len({source.settings()['names'] for source in found}) == 1
    first, second = found[0].samples(0)
    assert (first.content, second.content) == (png(1), png(0))
    assert first.file.endswith('x-0.tar: n/0001.png')           # for messages


def test_compressed_ones_and_what_a_command_prints(tars):
    assert rows(sources.find([f'{tars}/x-1.tar.gz', f'pipe:cat {tars}/x-1.tar'], 1)) == [['n/0002']] * 2


def test_what_lies_beside_the_samples(tmp_path):
    """Folders, links, and what macOS adds."""
    write(tmp_path / 'n', 1)
    (tmp_path / 'n' / '001.png').symlink_to('000.png')
    (tmp_path / 'n' / '._000.png').write_bytes(b'of the Finder')
    with tarfile.open(tmp_path / 'x.tar', 'w') as archive:
        archive.add(tmp_path / 'n', 'n')
    assert rows(sources.find([str(tmp_path / 'x.tar')], 1)) == [['n/000']]


def test_a_sample_without_an_image_is_no_image(tmp_path):
    write_tar(tmp_path / 'x.tar', [('a.cls', b'3'), ('b.png', png(0))])
    first, second = sources.find([str(tmp_path / 'x.tar')], 1).samples(0)
    assert (first.name, first.content, second.name) == ('a', b'', 'b')


@pytest.mark.parametrize('at', range(0, 4608, 256))
def test_a_tar_file_that_is_cut_off_is_noticed(at, tmp_path):
    """Wherever: tarfile itself takes half of these for whole."""
    whole = write_tar(tmp_path / 'whole.tar', [(f'{i}.cls', bytes([i]) * 600) for i in range(3)]).read_bytes()
    assert len(whole) > 4608 + 1024                             # 3 x (512 + 1024), and what marks the end
    (tmp_path / 'x.tar').write_bytes(whole[:at])
    with pytest.raises(ValueError, match=r'cannot read .*x.tar: '):
        list(sources.find([str(tmp_path / 'x.tar')], 1).samples(0))


@pytest.mark.parametrize(('tar', 'phrase'), [
    ('AT/text.tar', 'cannot read .*text.tar: invalid header'), ('pipe:head -c 1024 AT/x-0.tar', 'it is cut off after '),
    ('pipe:cat AT/absent.tar', 'cannot read pipe:cat .*absent.tar: .*exit 1'),
    ('s3://bucket/x.tar', 'cannot read s3://bucket/x.tar: .*no gopen handler')])
def test_what_is_no_tar_file(tar, phrase, tars):
    (tars / 'text.tar').write_text('This is text. ' * 100)
    with pytest.raises(ValueError, match=phrase):
        list(sources.find([tar.replace('AT', str(tars))], 1).samples(0))


def test_without_webdataset(tars, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'webdataset.shardlists', None)
    with pytest.raises(ValueError, match=r'x-0.tar needs webdataset: install it, or scat_zoo with the extra web'):
        sources.find([f'{tars}/x-0.tar'], 1)


def test_what_is_not_there(tars):
    write(tars / 'images', 1)
    (tars / 'empty').mkdir()
    (tars / 'empty.txt').write_text('\n')
    (tars / 'wrong.txt').write_text('path,class\na.png,3\n')
    for data, phrase in (
            (['absent'], 'no file or folder .*absent'),
            (['empty'], 'no images in the folder .*: expected tar files, or files that end in .jpg, '),
            (['images/000.png'], 'expected a folder, a list of images or tar files, got the image'),
            (['empty.txt'], 'no line in .*expected the path of an image a line'),
            (['wrong.txt'], 'the first line of .*wrong.txt is no file: .* a line, got path,class'),
            (['images', 'images'], 'expected one folder or list of images, or tar files, got '),
            (['x-0.tar', 'images'], 'expected one folder or list of images, or tar files, got '),
            (['x-{0..5}.tar'], r'no file .*x-3.tar: 3 of 6 tar files are missing'),
            (['.'], r'holds both images and tar files: name those to take, such as .*x-0.tar')):
        with pytest.raises(ValueError, match=phrase):
            sources.find([str(tars / name) for name in data], 1)
    with pytest.raises(ValueError, match='shard_rows must be at least 1, got 0'):
        sources.find([str(tars / 'images')], 0)
