"""`dlrun info`: the model that would be built, with nothing downloaded and nothing trained."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dlrun.build import build_model, example
from dlrun.config import parse
from dlrun.errors import UserError
from dlrun.inputs import build_source
from dlrun.machine import seed_everything
from dlrun.plugins import load_plugins
from dlrun.registry import REGISTRIES, check_options
from dlrun.spec import DataSpec


@dataclass
class Layer:
    """One leaf of the model, in the order in which a sample passes through."""

    name: str
    kind: str
    output_shape: list[int]  # of one sample
    parameters: int


def run(config: Mapping[str, Any], form: str) -> int:
    """Print the model as a table, or as JSON with form="json"."""
    if form not in ("text", "json"):
        raise UserError(f"format: expected 'text' or 'json', got '{form}'")
    typed = parse(config)
    load_plugins(typed.plugins)
    for kind, named in (("optimizer", typed.optimizer), ("scheduler", typed.scheduler), ("task", typed.task)):
        check_options(REGISTRIES[kind][named.name], named.options, kind)
    seed_everything(typed.seed)
    spec = build_source(typed).spec
    model = build_model(typed, spec)
    layers, flops = trace(model, spec)
    report: dict[str, Any] = {
        "model": typed.model.name,
        "data": typed.dataset.name,
        "modality": spec.modality,
        "input_shape": list(spec.shape),
        "outputs": spec.num_outputs,
        "layers": [asdict(layer) for layer in layers],
        "parameters": sum(p.numel() for p in model.parameters()),
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "flops_per_sample": flops,
    }
    print(json.dumps(report, indent=2) if form == "json" else _table(report, layers, spec))
    return 0


@torch.no_grad()
def trace(model: nn.Module, spec: DataSpec) -> tuple[list[Layer], int]:
    """Send one sample through: its layers, and floating-point operations (a multiply-add counts as two)."""
    layers: list[Layer] = []
    seen: dict[int, int] = {}

    def record(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            tensor = output[0] if isinstance(output, tuple) else output
            if hasattr(tensor, "data") and not isinstance(tensor, Tensor):  # a packed sequence
                tensor = tensor.data.unsqueeze(0)
            own = sum(p.numel() for p in module.parameters() if id(p) not in seen)
            seen.update({id(p): 1 for p in module.parameters()})
            layers.append(Layer(name, type(module).__name__, list(tensor.shape[1:]), own))

        return hook

    hooks = [
        module.register_forward_hook(record(name))
        for name, module in model.named_modules()
        if not list(module.children())
    ]
    model.eval()
    sample = example(spec)
    try:
        with warnings.catch_warnings():  # of a setting for Intel's GPUs that the next line touches
            warnings.simplefilter("ignore")
            # oneDNN's recurrent layer and, in older torch, fused attention are single operators that torch counts
            # nothing for; without them they are matrix products.
            without_onednn = torch.backends.mkldnn.flags(enabled=False)  # type: ignore[attr-defined]
            with without_onednn, sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
                model(sample)
    finally:
        for hook in hooks:
            hook.remove()
    rest = [(name, p.numel()) for name, p in model.named_parameters() if id(p) not in seen]
    layers += [Layer(name, "Parameter", [], size) for name, size in rest]
    return layers, int(counter.get_total_flops())


def _table(report: Mapping[str, Any], layers: list[Layer], spec: DataSpec) -> str:
    rows = [("layer", "kind", "output of one sample", "parameters")]
    rows += [(la.name, la.kind, "×".join(map(str, la.output_shape)) or "–", f"{la.parameters:,}") for la in layers]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [f"{report['model']} on {report['data']}: {spec}", ""]
    for *words, count in rows:
        left = "  ".join(word.ljust(width) for word, width in zip(words, widths, strict=False))
        lines += [f"{left}  {count.rjust(widths[3])}"]
    lines += ["", f"parameters  {report['parameters']:,} ({report['trainable_parameters']:,} trainable)"]
    lines += [f"FLOPs       {report['flops_per_sample']:,} per sample (a multiply-add counts as two)"]
    return "\n".join(lines)
