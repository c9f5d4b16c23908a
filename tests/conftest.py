"""One thread for torch: many small tests run several times faster than with a thread pool."""
import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
