"""What is kept between calls, and that it can be given back."""
import threading
import time
import weakref

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


def test_a_thread_may_begin_meanwhile(monkeypatch):
    iterating = threading.Event()

    class Slow(weakref.WeakSet):
        def __iter__(self):
            for entry in super().__iter__():
                iterating.set()
                time.sleep(0.2)                 # in which another thread joins, if it may
                yield entry

    def other():
        iterating.wait(10)
        S(x)

    S, x = scat_zoo.Scattering2D(1, (8, 8), L=1), torch.rand(1, 8, 8)
    S(x)
    monkeypatch.setattr(run, 'everyone', Slow(run.everyone))
    thread = threading.Thread(target=other)
    thread.start()
    scat_zoo.empty_cache()
    thread.join()
    assert iterating.is_set()
