"""Sizes and paths."""
import pytest

from scat_zoo.scattering import geometry


@pytest.mark.parametrize(('J', 'L', 'max_order', 'count'), [
    (2, 8, 2, 81), (3, 8, 2, 217), (4, 8, 2, 417), (3, 6, 1, 19)])
def test_number_of_paths(J, L, max_order, count):
    paths = geometry.paths(J, L, max_order)
    assert len(paths) == len(set(paths)) == count
    assert all(path.j2 > path.j1 for path in paths if path.order == 2)
    assert [path.order for path in paths] == sorted(path.order for path in paths)


@pytest.mark.parametrize('J', [1, 2, 3, 5])
@pytest.mark.parametrize('n', [32, 33, 47, 224])
def test_padding_leaves_one_sample_each_side(n, J):
    (padded, _), (out, _) = geometry.padded_size(n, n, J), geometry.output_size(n, n, J)
    assert padded % 2 ** J == 0
    assert padded // 2 ** J == out + 2
    assert padded - n >= 2 ** J


@pytest.mark.parametrize(('J', 'L', 'max_order', 'error'), [
    (0, 8, 2, ValueError), (2, 0, 2, ValueError), (2, 8, 3, ValueError), (2.0, 8, 2, TypeError),
    (10 ** 30, 8, 2, ValueError), (2, 10 ** 30, 1, ValueError)])
def test_check_refuses(J, L, max_order, error):
    with pytest.raises(error):
        geometry.check(J, L, max_order)


def test_more_paths_than_a_table_holds():
    with pytest.raises(ValueError, match='J=2 and L=3000 make 9,006,001 scattering paths, more than 131,072'):
        geometry.check(2, 3000, 2)
    assert geometry.check(2, 3000, 1) == (2, 3000, 1)
    with pytest.raises(ValueError, match='J=32 needs images of at least 2\\^J pixels a side, which are too large'):
        geometry.check(32, 1, 1)
    assert geometry.check(31, 1, 1) == (31, 1, 1)
