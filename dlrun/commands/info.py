"""dlrun info [KEY=VALUE …]: the model that would be built, layer by layer; nothing is downloaded, nothing trained

  dlrun info model=cnn data=cifar10
  dlrun info model=torchvision model.arch=resnet50 data=fake 'data.shape=[3,224,224]' depth=2
  dlrun info run=DIR               the model of a run, as it was trained or compressed

  depth=N            as many levels of layers within layers; so many as fit on a screen if not said
  format=text|json

Each layer's line has all that is inside it. The output is that of one sample, FLOPs are those of matrix products and
convolutions for one sample (a multiply-add counts as two), activations the memory of what the layers hand on for one
sample. Blocks that repeat the one before them are one line. Of layers with several names, the first has the numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from dlrun.errors import UserError
from dlrun.options import read
from dlrun.registry import REGISTRIES, Count, check_options

if TYPE_CHECKING:  # torch is imported when the words are known to be right
    from torch import nn

    from dlrun.layers import Layer
    from dlrun.spec import DataSpec

WIDEST = 1000  # characters of a line in a file


@dataclass(frozen=True, kw_only=True)
class Options:
    run: str | None = None
    depth: Count | None = None
    format: Literal["text", "json"] = "text"


def run(words: Sequence[str]) -> int:
    """Print the model that `words` choose, or of the run that they name; returns the exit code. Raises UserError."""
    own = [word for word in words if word.partition("=")[0] in Options.__dataclass_fields__]
    options, _ = read(own, Options, "info")
    rest = [word for word in words if word not in own]
    title, model, spec = _chosen(rest) if options.run is None else _of_a_run(options.run, rest)
    from dlrun.build import example
    from dlrun.layers import count

    layers = count(model, example(spec))
    if options.format == "json":
        print(json.dumps(report(title, layers, spec), indent=2))
    else:
        _print(title, layers, spec, options.depth)
    return 0


def _chosen(words: Sequence[str]) -> tuple[dict[str, str], nn.Module, DataSpec]:
    from dlrun.compose import compose, parse_arguments, plain

    args = parse_arguments(words)
    if args.cfg or args.info or args.multirun:
        raise UserError("info takes no --cfg, --info or --multirun: only overrides and --config-dir, --config-name")
    config = plain(compose(args))
    from dlrun.build import build_model
    from dlrun.config import parse
    from dlrun.inputs import build_source
    from dlrun.machine import seed_everything
    from dlrun.plugins import load_plugins

    typed = parse(config)
    load_plugins(typed.plugins)
    for kind, named in (("optimizer", typed.optimizer), ("scheduler", typed.scheduler), ("task", typed.task)):
        check_options(REGISTRIES[kind][named.name], named.options, kind)
    seed_everything(typed.seed)
    spec = build_source(typed).spec
    return _names(typed.model.name, typed.dataset.name), build_model(typed, spec), spec


def _of_a_run(name: str, words: Sequence[str]) -> tuple[dict[str, str], nn.Module, DataSpec]:
    """Its network as it is in the best checkpoint; of int8 weights, the floats that they stand for."""
    from dlrun.loading import load_run
    from dlrun.runs import find

    find(name)  # what is most often wrong is said before torch is imported
    run = load_run(name, overrides=words, device="cpu")
    return _names(run.config.model.name, run.config.dataset.name), run.network, run.spec


def _names(model: str, data: str) -> dict[str, str]:
    return {"model": model, "data": data}


def report(title: Mapping[str, str], layers: Layer, spec: DataSpec) -> dict[str, Any]:
    """`layers` are those with numbers of their own, which sum to the totals; `tree` has all, with what is inside."""
    from dlrun.layers import Cost

    whole = layers.total
    own = [layer for layer in layers.walk() if not layer.children or layer.own != Cost()]
    return {
        **title,
        "modality": spec.modality,
        "input_shape": list(spec.shape),
        "outputs": spec.num_outputs,
        "layers": [{"name": la.path, "kind": la.kind, "output_shape": la.output_shape, **asdict(la.own)} for la in own],
        "tree": _nested(layers),
        "parameters": whole.parameters,
        "trainable_parameters": whole.trainable_parameters,
        "parameter_bytes": whole.parameter_bytes,
        "flops_per_sample": whole.flops,
        "activation_bytes_per_sample": whole.activation_bytes,
    }


def _nested(layer: Layer) -> dict[str, Any]:
    what = {"name": layer.path, "kind": layer.kind, "output_shape": layer.output_shape}
    return {**what, **asdict(layer.total), "children": [_nested(child) for child in layer.children]}


def _print(title: Mapping[str, str], layers: Layer, spec: DataSpec, depth: int | None) -> None:
    """As wide as the terminal; what goes into a file is as wide as it needs to be."""
    from rich.console import Console

    from dlrun.commands.layer_table import levels, readable_depth, rows, table

    deepest = levels(layers)
    depth = min(depth or readable_depth(layers), deepest)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDEST
    whole = layers.total
    console.print(f"{title['model']} on {title['data']}: {spec}\n", markup=False)
    console.print(table(rows(layers, depth), console.width if console.is_terminal else None))
    console.print(f"\nparameters  {whole.parameters:,} ({whole.trainable_parameters:,} trainable)", markup=False)
    console.print(f"FLOPs       {whole.flops:,} per sample (a multiply-add counts as two)", markup=False)
    if depth < deepest:
        console.print(f"{depth} of {deepest} levels of layers within layers; depth={deepest} shows all", markup=False)
