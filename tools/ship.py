"""Put the model of a recipe's run among the weights that come with the package, with its model card.

    python tools/ship.py RECIPE RUN_FOLDER ARCHITECTURE.TAG
    python tools/ship.py --cards

RUN_FOLDER is the folder of one run, such as runs/fashion-linear/fixed-seed0. The card is written from what the run
recorded; nothing in it is typed by hand. --cards writes the cards of all shipped weights anew, and counts their
multiply-adds; the weights stay.
"""
import argparse
import dataclasses
import shutil
from pathlib import Path
from typing import Any, Dict

import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from scat_zoo.models import shipped
from scat_zoo.models.shipped import WEIGHTS
from scat_zoo.train import checkpoint
from scat_zoo.train.loop import Training
from scat_zoo.train.recipes import RECIPES
from scat_zoo.train.run_folder import read_json, write_json
from scat_zoo.wording import brief

CARD = '''---
library_name: timm
license: bsd-3-clause
pipeline_tag: image-classification
tags:
- image-classification
- timm
- scattering
datasets:
- zalando-datasets/fashion_mnist
metrics:
- accuracy
model-index:
- name: {name}
  results:
  - task:
      type: image-classification
      name: Image Classification
    dataset:
      type: zalando-datasets/fashion_mnist
      name: Fashion-MNIST
      split: test
    metrics:
    - type: accuracy
      value: {fraction:.4f}
---
# {name}

{kind} of scat_zoo{kwargs}, trained on {data}.

| | |
|---|---|
| test accuracy, last epoch | {accuracy:.2f} % of {tested:,} images |
| parameters, of these learned | {parameters:,}, {learned_numbers:,} |
| multiply-adds of one image | {multiply_adds:,}, the scattering as a CPU computes it |
| input | {channels} x {height} x {width}, mean {mean}, standard deviation {std} |
| filters | {filters} |
| frame bounds of the filters | A = {A:.4g}, B = {B:.6g} |
| recipe | `{recipe}`, arm `{arm}`, seed {seed}, on all {images:,} training images |
| training | {training} |
| reproduced by | `scat-zoo train --recipe {recipe} --arms {arm}` |

How the recipe was chosen: {selection}

## Use

timm knows models of other packages once these are imported, so `import scat_zoo` comes first; without it timm says
`Unknown model`. The weights come with the package.

```python
import scat_zoo                     # registers the models
import timm
from PIL import Image

model = timm.create_model('{name}', pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))
image = Image.new('L', (28, 28))    # yours: bright on black, as the images of Fashion-MNIST are
probabilities = model(transform(image).unsqueeze(0)).softmax(1)[0]
print(model.pretrained_cfg['label_names'][int(probabilities.argmax())])
```

For other classes and channels, and as features:

```python
model = timm.create_model('{name}', pretrained=True, num_classes=4, in_chans=3)
features = timm.create_model('{name}', pretrained=True, num_classes=0)
```

## Licence

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
    describe(folder, model, settings, results)


def describe(folder: Path, model: nn.Module, settings: Dict[str, Any], results: Dict[str, Any]) -> None:
    """Write the card, and the results with the number of multiply-adds."""
    results['multiply_adds'] = multiply_adds(model)
    (folder / 'README.md').write_text(card(folder.name, model, settings, results))
    write_json(folder / 'results.json', results)


def describe_all(weights: Path = WEIGHTS) -> None:
    """Write the cards of all shipped weights anew."""
    for name in shipped.names():
        recorded = read_json(weights / name / 'results.json')
        settings = dataclasses.asdict(RECIPES[recorded['recipe']].arms[recorded['arm']])
        describe(weights / name, timm.create_model(name, pretrained=True).eval(), settings, recorded)


@torch.no_grad()
def multiply_adds(model: nn.Module) -> int:
    """Of convolutions and matrix products in a forward pass of one image, as torchvision counts them.

    On a CPU the scattering is such products, which are counted as they run; on a GPU it is Fourier transforms.
    """
    image = torch.rand(1, *model.pretrained_cfg['input_size'])
    model(image)                        # what the engine computes of the filters once and then keeps is no part of it
    with FlopCounterMode(display=False) as counter:
        model(image)
    return counter.get_total_flops() // 2


def card(name: str, model: nn.Module, settings: Dict[str, Any], results: Dict[str, Any]) -> str:
    """The model card, in Markdown."""
    stem, cfg, kwargs = model.scattering, model.pretrained_cfg, settings['kwargs']
    (channels, height, width), (A, B) = cfg['input_size'], stem.frame_bounds()
    changed = {field.name: settings['training'][field.name] for field in dataclasses.fields(Training)
               if field.name != 'seed' and settings['training'][field.name] != field.default}
    return CARD.format(
        name=name, kind=type(model).__name__, kwargs=f' ({_list(kwargs)})' if kwargs else '', training=_list(changed),
        A=A, B=B, filters=f'learned, {stem.parametrization}' if stem.state_dict() else 'fixed', channels=channels,
        height=height, width=width, mean=cfg['mean'], std=cfg['std'], fraction=results['accuracy'] / 100,
        selection=RECIPES[results['recipe']].selection, **results)


def _list(settings: Dict[str, Any]) -> str:
    # A run's settings come from JSON, which knows no tuples.
    return ', '.join(f'{key} {list(value) if isinstance(value, tuple) else value}' for key, value in settings.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('recipe', choices=RECIPES, nargs='?')
    parser.add_argument('run', type=Path, nargs='?')
    parser.add_argument('name', nargs='?')
    parser.add_argument('--cards', action='store_true', help='only write the cards of all shipped weights anew')
    args = parser.parse_args()
    if args.cards:
        describe_all()
    elif args.name is None:
        parser.error('RECIPE, RUN_FOLDER and ARCHITECTURE.TAG are needed, or --cards')
    else:
        try:
            ship(args.recipe, args.run, args.name)
        except (OSError, ValueError) as error:
            parser.error(f'expected the folder of one run of {args.recipe}, got {brief(args.run)}: {brief(error)}')


if __name__ == '__main__':
    main()
