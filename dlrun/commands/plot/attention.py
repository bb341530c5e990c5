"""dlrun plot attention run=DIR|last [input=FILE|text=…|index=N]: where a network looks

  dlrun plot attention run=last                         of the first test sample
  dlrun plot attention run=last layer=2 head=1          one layer, one head (from 1)
  dlrun plot attention run=last input=cat.jpg           a picture, read as dlrun predict reads it
  dlrun plot attention run=last text="what to do"       a text; or input=reviews.csv index=3

  layer=N  head=N           (all; of many the first 6 layers' and 8 heads' that are evenly chosen)
  split=test|val|train (test)  text_column=text  checkpoint=best|last (best)  out=FILE.png
  data.root= data.file=  device=  plugins=[…]

A transformer on pictures: of each head, how much the patches are looked at where the answer is read from (the class
token, or the mean over all), and attention rollout (Abnar & Zuidema 2020) through all layers, over the picture. On
texts: of each head, which word looks at which. An LSTM (or rnn) with attention: how much each word, or row of pixels,
counts. Vision transformers of torchvision and timm, too. Leaves DIR/plots/attention.png, and .json with the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlrun.commands.opening import opened
from dlrun.commands.picture import leave, model_name, place, plain
from dlrun.commands.sample import SampleOptions, sample
from dlrun.errors import UserError
from dlrun.loading import LoadedRun
from dlrun.models.recurrent import Recurrent
from dlrun.registry import Count
from dlrun.viz.network.attention import Attention, attention, pooling, rollout
from dlrun.viz.network.pictures import words as marked
from dlrun.viz.network.pictures.attention import between_words, on_patches, on_rows
from dlrun.viz.network.pictures.parts import title
from dlrun.viz.network.subject import Subject

LAYERS, HEADS = 6, 8  # in one picture


@dataclass(frozen=True, kw_only=True)
class Options(SampleOptions):
    layer: Count | None = None
    head: Count | None = None


def run(words: Sequence[str]) -> int:
    """Draw and write; returns the exit code. Raises UserError."""
    loaded, options, _ = opened(words, Options, "plot attention")
    path, model = place(options.out, loaded.folder.path / "plots" / "attention.png"), model_name(loaded)
    if loaded.spec.modality == "tabular":
        raise UserError("plot attention: the columns of a table aren't looked at one by one by any model here")
    inputs, subject = sample(loaded, options)
    if isinstance(loaded.network, Recurrent):
        for key, given in (("layer", options.layer), ("head", options.head)):
            if given is not None:
                raise UserError(f"{key}: '{model}' has one attention, which pools its steps; leave {key} out")
        return _pooled(loaded, subject, pooling(loaded.network, inputs).numpy(), path)
    return _looked(loaded, subject, attention(loaded.network, inputs, model), options, path)


def _pooled(loaded: LoadedRun, subject: Subject, weights: np.ndarray, path: Path) -> int:
    model = model_name(loaded)
    text = loaded.spec.modality == "text"
    heading = title(subject, f"{model}: how much each {'word' if text else 'row'} counts", *subject.notes)
    content = {"model": model, **subject.content(), "weights": plain(weights)}

    def draw() -> Any:
        if text:
            return marked.figure(heading, subject.words, weights.tolist(), "share of attention")
        return on_rows(heading, subject, weights)

    return leave(path, draw, content, loaded)


def _looked(loaded: LoadedRun, subject: Subject, found: Attention, options: Options, path: Path) -> int:
    layers = _chosen(options.layer, len(found.layers), "layer", LAYERS)
    fewest = min(len(found.layers[layer - 1]) for layer in layers)  # pruning leaves layers with different numbers
    heads = _chosen(options.head, fewest, "head", HEADS)
    model, every = model_name(loaded), [len(weights) for weights in found.layers]
    shown = torch.stack([torch.stack([found.layers[layer - 1][head - 1] for head in heads]) for layer in layers])
    total = found.read(rollout(found.layers)).float()
    span = f"{min(every)} to {max(every)}" if max(every) > min(every) else f"{min(every)}"
    counted = f"{len(every)} layer{'s' * (len(every) > 1)} of {span} heads"
    content = {
        "model": model,
        **subject.content(),
        "layers": len(every),
        "heads": every,
        "read_from": found.reader,
        "shown": {"layers": layers, "heads": heads},
        "rollout": plain(total.numpy()),
    }
    if found.grid is None:
        names = ["[class]"] * found.prefix + list(subject.words)
        heading = title(subject, f"{model}: which word looks at which; {counted}", *subject.notes)
        content |= {"tokens": names, "attention": plain(shown.numpy())}
        return leave(path, lambda: between_words(heading, names, shown.numpy(), layers, heads), content, loaded)
    maps = _on_grid(found.read(shown), found.grid)
    heading = title(subject, f"{model}: {counted}; of each head {found.reader}", *subject.notes)
    content |= {"grid": list(found.grid), "maps": plain(maps)}
    over = _on_grid(total, found.grid)
    return leave(path, lambda: on_patches(heading, subject, over, maps, layers, heads), content, loaded)


def _on_grid(values: Tensor, grid: tuple[int, int]) -> np.ndarray:
    return values.unflatten(-1, grid).numpy()


def _chosen(given: int | None, there: int, key: str, most: int) -> list[int]:
    """Numbers from 1: the one that is given, or all, or as many as there is room for."""
    if given is None:
        return sorted({round(place) for place in np.linspace(1, there, min(most, there))})
    if given > there:
        raise UserError(f"{key}: expected 1 to {there}, got {given}")
    return [given]
