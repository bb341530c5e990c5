"""dlrun plot features run=DIR|last [input=FILE|text=…|index=N]: feature maps, layer by layer

  dlrun plot features run=last                          of the first test sample
  dlrun plot features run=last index=7 split=val        of another
  dlrun plot features run=last input=cat.jpg            a picture, read as dlrun predict reads it
  dlrun plot features run=last text="what to do"        a text; or input=reviews.csv index=3

  layers=N                  (8; up to 24) at most, evenly chosen: a convolution, its norm and activation
  channels=N                (8; of texts 16; up to 32) of each layer, the strongest first (mean of the absolute values)
  text_column=text  checkpoint=best|last (best)  out=FILE.png  data.root= data.file=  device=  plugins=[…]

Leaves DIR/plots/features.png, and .json with the numbers. Of a text, channels over its words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from dlrun.commands.opening import opened
from dlrun.commands.picture import leave, model_name, place, plain
from dlrun.commands.sample import SampleOptions, sample
from dlrun.viz.network.convolutions import require
from dlrun.viz.network.features import features
from dlrun.viz.network.pictures.features import on_picture, on_words
from dlrun.viz.network.pictures.parts import title


@dataclass(frozen=True, kw_only=True)
class Options(SampleOptions):
    layers: Annotated[int, Ge(1), Le(24)] = 8
    channels: Annotated[int, Ge(1), Le(32)] | None = None


def run(words: Sequence[str]) -> int:
    """Draw and write; returns the exit code. Raises UserError."""
    loaded, options, _ = opened(words, Options, "plot features")
    path, model = place(options.out, loaded.folder.path / "plots" / "features.png"), model_name(loaded)
    require(loaded.network, model, "features")
    inputs, subject = sample(loaded, options)
    text = loaded.spec.modality == "text"
    found, count = features(loaded.network, inputs, options.layers, options.channels or (16 if text else 8))
    which = (
        f"{count} layer{'s' * (count > 1)}" if len(found) == count else f"{len(found)} of {count} layers, evenly chosen"
    )
    words_of = title(subject, f"{model}: {which}, the strongest channels of each, by number", *subject.notes)
    content = {
        "model": model,
        **subject.content(),
        "layers": count,
        "shown": [
            {
                "layer": layer.layer,
                "modules": layer.title.partition(": ")[2],
                "channels": layer.count,
                "shown": layer.shown,
                "maps": plain(layer.maps),
            }
            for layer in found
        ],
    }
    draw = on_words if text else on_picture
    return leave(path, lambda: draw(words_of, subject, found), content, loaded)
