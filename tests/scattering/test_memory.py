"""What is kept between calls, and that it can be given back."""
import threading

import torch

import scat_zoo
from scat_zoo.scattering import banks
from scat_zoo.scattering.engine import matrices, run


def kept():
    """Bytes of tensors that were found to be kept, and how many results are."""
    of_threads = [t for mine in run.everyone for arrays in mine.arrays for t in arrays]
    return (sum(t.nbytes for t in of_threads) + sum(entry[3] for entry in run.memory.entries),
            sum(function.cache_info().currsize for function in matrices.CACHED)
            + banks.cached_filter_bank.cache_info().currsize + sum(len(mine.forward) for mine in run.everyone))


def test_memory_is_given_back_and_nothing_else_changes():
    S, x = scat_zoo.Scattering2D(2, (32, 32)), torch.rand(1, 32, 32)
    expected = S(x)
    inside, leave = threading.Event(), threading.Event()

    def other():
        S(x)
        inside.set()
        leave.wait()
        assert torch.equal(S(x), expected)

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait()
    assert len(run.everyone) >= 2
    assert min(kept()) > 0
    scat_zoo.empty_cache()
    assert kept() == (0, 0)
    leave.set()
    thread.join()
    assert torch.equal(S(x), expected)
    assert min(kept()) > 0


def test_threads_may_begin_meanwhile():
    S, x = scat_zoo.Scattering2D(1, (8, 8), L=1), torch.rand(1, 8, 8)

    def begin():
        for _ in range(60):
            thread = threading.Thread(target=S, args=(x,))
            thread.start()
            thread.join()

    threads = [threading.Thread(target=begin) for _ in range(2)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        scat_zoo.empty_cache()
