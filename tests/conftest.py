"""One thread for torch: many small tests run several times faster than with a thread pool."""
import pytest
import torch

torch.set_num_threads(1)
# Their tests need the extra `clients` and run when they are named: pytest tests/clients.
collect_ignore = ['clients']


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
