"""Put the model of a recipe's run among the weights that come with the package, with its model card.

    python tools/ship.py RECIPE RUN_FOLDER ARCHITECTURE.TAG

RUN_FOLDER is the folder of one run, such as runs/fashion-linear/fixed-seed0. The card is written from what the run
recorded; nothing in it is typed by hand.
"""
import argparse
import dataclasses
import shutil
from pathlib import Path
from typing import Any, Dict

from torch import nn

from scat_zoo.models.shipped import WEIGHTS
from scat_zoo.train import checkpoint
from scat_zoo.train.loop import Training
from scat_zoo.train.recipes import RECIPES
from scat_zoo.train.run_folder import read_json, write_json

CARD = '''# {name}

{kind} of scat_zoo ({kwargs}), trained on {data}.

| | |
|---|---|
| test accuracy, last epoch | {accuracy:.2f} % of {tested:,} images |
| parameters, of these learned | {parameters:,}, {learned_numbers:,} |
| input | {channels} x {height} x {width}, mean {mean}, standard deviation {std} |
| filters | {filters} |
| frame bounds of the filters | A = {A:.4g}, B = {B:.6g} |
| recipe | `{recipe}`, arm `{arm}`, seed {seed}, on all {images:,} training images |
| training | {training} |
| reproduced by | `scat-zoo train --recipe {recipe} --arms {arm}` |

How the recipe was chosen: {selection}

Weights: BSD-3-Clause, as scat_zoo. The images of Fashion-MNIST, by Zalando SE, are under the MIT licence.
'''


def ship(recipe: str, run: Path, name: str, weights: Path = WEIGHTS) -> None:
    """Copy the checkpoint, and write its card and what the run recorded."""
    settings, recorded = read_json(run / 'settings.json'), read_json(run / 'results.json')
    model = checkpoint.load(run / 'checkpoint')
    del recorded['history']
    results = {'recipe': recipe, 'data': settings['data'],
               'parameters': sum(p.numel() for p in model.parameters()), **recorded}
    folder = weights / name
    folder.mkdir(parents=True, exist_ok=True)
    for file in ('model.safetensors', 'config.json'):
        shutil.copy(run / 'checkpoint' / file, folder)
    (folder / 'README.md').write_text(card(name, model, settings, results))
    write_json(folder / 'results.json', results)


def card(name: str, model: nn.Module, settings: Dict[str, Any], results: Dict[str, Any]) -> str:
    """The model card, in Markdown."""
    stem, cfg = model.scattering, model.pretrained_cfg
    (channels, height, width), (A, B) = cfg['input_size'], stem.frame_bounds()
    changed = {field.name: settings['training'][field.name] for field in dataclasses.fields(Training)
               if field.name != 'seed' and settings['training'][field.name] != field.default}
    return CARD.format(
        name=name, kind=type(model).__name__, kwargs=_list(settings['kwargs']), training=_list(changed), A=A, B=B,
        filters=f'learned, {stem.parametrization}' if stem.state_dict() else 'fixed', channels=channels, height=height,
        width=width, mean=cfg['mean'], std=cfg['std'], selection=RECIPES[results['recipe']].selection, **results)


def _list(settings: Dict[str, Any]) -> str:
    return ', '.join(f'{key} {value}' for key, value in settings.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('recipe', choices=RECIPES)
    parser.add_argument('run', type=Path)
    parser.add_argument('name')
    args = parser.parse_args()
    ship(args.recipe, args.run, args.name)


if __name__ == '__main__':
    main()
