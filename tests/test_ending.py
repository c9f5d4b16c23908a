"""How commands end that cannot do their work."""
import os
import signal
import threading

import pytest

from scat_zoo import cli, ending


def test_a_fault_of_the_program_is_one_sentence_and_a_file(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    monkeypatch.setattr(cli.study, 'run', lambda *args: {}['nowhere'])
    assert cli.main(['train', '--recipe', 'sample', '--output', str(tmp_path / 'runs')]) == 2
    err = capsys.readouterr().err
    assert err.startswith("scat-zoo: error: a fault of scat_zoo, KeyError: 'nowhere'; please open an issue with what ")
    assert len(err.splitlines()) == 1
    file, = tmp_path.glob('scat-zoo-fault-*.txt')
    assert str(file) in err
    assert 'Traceback' in file.read_text()
    assert 'torch 2.' in file.read_text()


def test_a_fault_where_nothing_can_be_written(monkeypatch, tmp_path):
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path / 'nowhere'))
    assert ending.unforeseen(KeyError('x' * 1000)).startswith("a fault of scat_zoo, KeyError: 'xxx")


def test_sigterm_is_ctrl_c():
    with pytest.raises(KeyboardInterrupt), ending.stopped_by_sigterm():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_ctrl_c_while_options_are_read(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, '_parser', interrupted)
    assert cli.main(['list']) == 130
    assert capsys.readouterr().err == 'stopped\n'


def test_sigterm_ends_a_process_that_was_forked_off():
    with ending.stopped_by_sigterm():
        child = os.fork()
        if child == 0:
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGTERM


def test_sigterm_is_left_to_others():
    """To the handler that an application has, and where no handler can be."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with ending.stopped_by_sigterm():
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
    failed = []

    def work():
        try:
            with ending.stopped_by_sigterm():
                pass
        except ValueError as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failed


def test_sentences():
    assert ending.sentence(FileNotFoundError(2, 'No such file', 'a')) == 'No such file: a'
    assert ending.sentence(KeyError()) == 'KeyError'
    assert len(ending.sentence(ValueError('x' * 1000))) == ending.LONGEST
