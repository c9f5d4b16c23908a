"""One thread for torch: many small tests run several times faster than with a thread pool. And a look at messages."""
import os
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    os.environ['TRITON_INTERPRET'] = '1'            # read where Triton is imported: kernels for a GPU run on the CPU

import scat_zoo
from scat_zoo import cli, ending

torch.set_num_threads(1)
# Their tests need the extra `clients` and run when they are named: pytest tests/clients.
collect_ignore = ['clients']
PACKAGE = Path(scat_zoo.__file__).parent
RAISES = type(pytest.raises(KeyError))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _messages(monkeypatch):
    """Whatever a test provokes, with `pytest.raises` or on the command line, the package says it in one short line."""
    leave, tell = RAISES.__exit__, cli.sentence

    def checked_leave(self, kind, error, traceback):
        expected = leave(self, kind, error, traceback)
        if expected:
            check_message(error)
        return expected

    def checked_tell(error):
        check_message(error, longest=ending.LONGEST)               # what is longer would be cut
        return tell(error)

    monkeypatch.setattr(RAISES, '__exit__', checked_leave)
    monkeypatch.setattr(cli, 'sentence', checked_tell)


def check_message(error, longest=300):
    """Nothing is asked of what other packages raise, the last line of whose traceback is not ours."""
    traceback = error.__traceback__
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    if isinstance(error, Exception) and PACKAGE in Path(traceback.tb_frame.f_code.co_filename).parents:
        message = str(error)
        assert 0 < len(message) <= longest, f'a message of {len(message)} characters: {message}'
        assert message.isprintable(), f'not on one line: {message}'
