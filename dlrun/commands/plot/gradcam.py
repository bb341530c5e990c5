"""dlrun plot gradcam run=DIR|last [input=FILE|text=…|index=N]: what spoke for the answer, and where

  dlrun plot gradcam run=last                           of the first test sample
  dlrun plot gradcam run=last input=cat.jpg target=dog  for another class than the answer
  dlrun plot gradcam run=last layer=0.6                 an earlier layer, whose map is finer
  dlrun plot gradcam run=last text="what to do"         over the words of a text; or input=reviews.csv index=3

  target=CLASS              by its name (the network's answer)
  layer=NAME                a module with maps (the last with maps as large as the last convolution's)
  split=test|val|train (test)  text_column=text  checkpoint=best|last (best)  out=FILE.png
  data.root= data.file=  device=  plugins=[…]

Grad-CAM (Selvaraju et al. 2017): the layer's channels, each weighted by the mean gradient of the class's logit, are
added up, and what is below zero speaks against the class and isn't shown. Leaves DIR/plots/gradcam.png, and .json with
the map before that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlrun.commands.opening import opened
from dlrun.commands.picture import leave, model_name, place, plain
from dlrun.commands.sample import SampleOptions, sample
from dlrun.errors import UserError, choices
from dlrun.loading import LoadedRun
from dlrun.viz.network.convolutions import require
from dlrun.viz.network.gradcam import GradCam, gradcam
from dlrun.viz.network.pictures import words as marked
from dlrun.viz.network.pictures.gradcam import QUANTITY, UNIT, on_picture
from dlrun.viz.network.pictures.parts import title
from dlrun.viz.style import named

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Options(SampleOptions):
    target: str | None = None
    layer: str | None = None


def run(words: Sequence[str]) -> int:
    """Draw and write; returns the exit code. Raises UserError."""
    loaded, options, _ = opened(words, Options, "plot gradcam")
    path, model = place(options.out, loaded.folder.path / "plots" / "gradcam.png"), model_name(loaded)
    require(loaded.network, model, "gradcam")
    goal = _class(options.target, loaded)
    inputs, subject = sample(loaded, options)
    found = gradcam(loaded.network, inputs, goal, options.layer, model)
    name = loaded.class_names[found.target]
    notes = [*subject.notes, *([] if found.laid.any() else ["nothing at this layer speaks for that class"])]
    heading = title(subject, f"{model}: what speaks for {named(name)}, at layer {found.layer}", *notes)
    content = {
        "model": model,
        **subject.content(),
        "target": name,
        "layer": found.layer,
        "map": plain(found.signed),
        "over_the_input": plain(found.laid),
        "layers": {layer: list(shape) for layer, shape in found.layers},
    }

    def draw() -> Figure:
        if loaded.spec.modality == "text":
            return marked.figure(heading, subject.words, found.laid.tolist(), QUANTITY, UNIT)
        return on_picture(heading, subject, found.laid, found.signed.clip(min=0), found.layer)

    code = leave(path, draw, content, loaded)
    _hint(found)
    return code


def _class(name: str | None, loaded: LoadedRun) -> int | None:
    if name is None:
        return None
    if name not in loaded.class_names:
        raise UserError(f"target: '{name}' is no class of the run{choices(name, loaded.class_names)}")
    return loaded.class_names.index(name)


def _hint(found: GradCam) -> None:
    """Other layers, where this one's map is coarse."""
    finer = [f"{layer} ({'×'.join(map(str, shape))})" for layer, shape in found.layers if layer != found.layer]
    if finer:
        more = f" and {len(finer) - 6} more" if len(finer) > 6 else ""
        print(f"other layers for layer=…: {', '.join(finer[-6:])}{more}")
