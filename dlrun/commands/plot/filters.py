"""dlrun plot filters run=DIR|last: a run's first layer

  dlrun plot filters run=last                           DIR/plots/filters.png, and .json with the numbers
  dlrun plot filters run=last most=128 checkpoint=last

  most=N                    (64; of texts 15; up to 512) filters; of more, the largest by norm (texts: activation)
  checkpoint=best|last      (best)     out=FILE.png
  split=test|val|train      (test) and samples=N (2000): the texts whose n-grams are looked at
  data.root= data.file=  device=  plugins=[…]

Of a network on pictures: the kernels of its first convolution, what a transformer makes of a patch and an LSTM of a row
of pixels, or an MLP's weights laid over the picture. All are on one scale; three channels are red, green and blue.
Of the CNN on texts: the n-grams that each filter of the first layer answers to most, after norm and ReLU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

from dlrun.commands.opening import opened
from dlrun.commands.picture import leave, model_name, place, plain
from dlrun.data.tokens import Decoder
from dlrun.errors import UserError
from dlrun.loading import Checkpoint, LoadedRun, SplitName
from dlrun.registry import Count
from dlrun.viz.network import filters
from dlrun.viz.network.pictures import filters as pictures

ON_PICTURES, ON_TEXTS = 64, 15


@dataclass(frozen=True, kw_only=True)
class Options:
    checkpoint: Checkpoint = "best"
    most: Annotated[int, Ge(1), Le(512)] | None = None
    split: SplitName | None = None
    samples: Count | None = None
    out: Path | None = None


def run(words: Sequence[str]) -> int:
    """Draw and write; returns the exit code. Raises UserError."""
    loaded, options, _ = opened(words, Options, "plot filters")
    path = place(options.out, loaded.folder.path / "plots" / "filters.png")
    model = model_name(loaded)
    if loaded.spec.modality == "text":
        return _of_texts(loaded, options, model, path)
    for key, given in (("split", options.split), ("samples", options.samples)):
        if given is not None:
            raise UserError(f"{key}: is for texts, and the run was trained on {loaded.spec.modality} data")
    if loaded.spec.modality == "tabular":
        raise UserError("plot filters: a table's columns have no places, so there is nothing to lay filters over")
    found = filters.first_filters(loaded.network, loaded.spec, model, options.most or ON_PICTURES)
    shape = "×".join(map(str, found.weights.shape[1:]))
    which = f"{found.count} filters"
    if len(found.shown) < found.count:
        which = f"{len(found.shown)} of {found.count} filters, those with the largest norm"
    title = f"{model}: the first layer, {found.layer}, over {found.kind} ({shape})\n{which}"
    content = {
        "model": model,
        "layer": found.layer,
        "over": found.kind,
        "filters": found.count,
        "shown": found.shown,
        "shape": list(found.weights.shape[1:]),
        "weights": plain(found.weights),
    }
    return leave(path, lambda: pictures.filters(title, found.weights, found.shown), content, loaded)


def _of_texts(loaded: LoadedRun, options: Options, model: str, path: Path) -> int:
    network = filters.text_convolution(loaded.network, model)
    if loaded.spec.tokenizer is None:
        words = [str(number) for number in range(loaded.spec.vocab_size)]
    else:
        by_id = Decoder(loaded.spec.tokenizer).words
        words = [by_id.get(number, "?") for number in range(loaded.spec.vocab_size)]
    split = options.split or "test"
    found = filters.most_activating(network, list(_tokens(loaded, options, split)), words, options.most or ON_TEXTS)
    which = f"{found.count} filters"
    if len(found.shown) < found.count:
        which = f"{len(found.shown)} of {found.count} filters, those with the largest activation"
    title = (
        f"{model}: {found.layer}, {which}\n"
        f"the runs of {found.width} words that each answers to most, of {found.texts:,} texts of the {split} split "
        "(· is before or after a text)"
    )
    content = {
        "model": model,
        "layer": found.layer,
        "filters": found.count,
        "shown": found.shown,
        "width": found.width,
        "split": split,
        "texts": found.texts,
        "ngrams": [
            {"filter": number, "most": [{"words": gram, "activation": value} for gram, value in grams]}
            for number, grams in zip(found.shown, found.found, strict=True)
        ],
    }
    return leave(path, lambda: pictures.ngrams(title, found.found, found.shown), content, loaded)


def _tokens(loaded: LoadedRun, options: Options, name: SplitName) -> Iterator[Tensor]:
    split = loaded.split(name)
    for part in torch.arange(min(options.samples or 2000, len(split))).split(filters.AT_ONCE):
        yield loaded.prepare(split.fetch(part).cpu())
