"""Shipping weights, and that every tool runs as a script."""
import json
import runpy
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from scat_zoo.models import shipped
from scat_zoo.train.recipes import RECIPES
from tools import ship

TOOLS = sorted(Path(ship.__file__).parent.glob('*.py'))


def test_what_is_shipped_is_what_the_run_left(tmp_path):
    """A run made up of weights that were shipped comes to the same folder, byte by byte."""
    there = shipped.WEIGHTS / 'scat_tiny.fashion_mnist'
    recorded = json.loads((there / 'results.json').read_text())
    arm = RECIPES[recorded['recipe']].arms[recorded['arm']]
    run = tmp_path / 'run'
    shutil.copytree(there, run / 'checkpoint')
    (run / 'settings.json').write_text(json.dumps({'data': recorded['data'], **asdict(arm)}))
    of_ship = ('recipe', 'data', 'parameters', 'multiply_adds')
    of_run = {key: value for key, value in recorded.items() if key not in of_ship}
    (run / 'results.json').write_text(json.dumps({**of_run, 'history': []}))
    ship.ship(recorded['recipe'], run, there.name, tmp_path)
    shipped_now = {file.name: file.read_bytes() for file in (tmp_path / there.name).iterdir()}
    assert shipped_now == {file.name: file.read_bytes() for file in there.iterdir()}


def test_cards_are_written_anew_and_weights_stay(tmp_path):
    for folder in shipped.WEIGHTS.iterdir():
        shutil.copytree(folder, tmp_path / folder.name)
        (tmp_path / folder.name / 'README.md').write_text('an old card')
    ship.describe_all(tmp_path)
    for file in shipped.WEIGHTS.glob('*/*'):
        assert (tmp_path / file.parent.name / file.name).read_bytes() == file.read_bytes(), file


@pytest.mark.parametrize('tool', TOOLS, ids=lambda tool: tool.stem)
def test_every_tool_runs_and_tells_what_it_does(tool, monkeypatch, capsys):
    monkeypatch.setattr('sys.argv', [str(tool), '--help'])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(tool), run_name='__main__')
    assert stop.value.code == 0
    source = tool.read_text()
    assert f'    python tools/{tool.name} ' in source            # the docstring says how
    told = ''.join(capsys.readouterr().out.split())              # lines may be broken at hyphens
    assert ''.join(source[3:source.index('\n')].split()) in told
