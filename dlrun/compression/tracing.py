"""Groups of a net that nobody has described: torch-pruning follows its graph.

Fang et al. 2023, "DepGraph: Towards Any Structural Pruning". What is taken from it is only which places belong
together, not how it cuts.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from dlrun.compression.groups import Group, Member
from dlrun.errors import UserError

LONGEST = 20_000  # steps through a graph, for one group
Found = dict[tuple[Any, bool], dict[int, int]]  # node, and whether it reads the units → place → unit


def traced(model: nn.Module, sample: Tensor) -> list[Group]:
    """The groups that torch-pruning finds when `sample` goes through `model`, without those that have to stay.

    What stays: the outputs; whatever a layer or group norm goes over, since its statistics are of all units together;
    the insides of attention; grouped convolutions that aren't depthwise. Raises UserError where the library isn't
    there, or can't follow.
    """
    try:
        import torch_pruning
    except ImportError:
        raise UserError(
            "method=prune_structured needs torch-pruning for this model: pip install 'dlrun[compress]'"
        ) from None
    probe = copy.deepcopy(model).cpu().eval().requires_grad_(True)
    try:
        with warnings.catch_warnings(action="ignore"), torch.enable_grad():
            graph = torch_pruning.DependencyGraph().build_dependency(probe, example_inputs=sample.cpu(), verbose=False)
    except Exception as error:  # of any kind: it walks through autograd's nodes
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"method=prune_structured: torch-pruning can't follow this model ({reason})") from error
    names, groups, seen = Names(probe), [], set[Any]()
    for module in probe.modules():
        if isinstance(module, _ConvNd | nn.Linear) and module in graph.module2node and module not in seen:
            found = _walk(graph, module, names, seen)
            if found is not None and any(reads for _, reads in found):  # nothing reads the outputs
                groups.append(_group(module, found, names))
    shapes = {name: tensor.shape for name, tensor in probe.state_dict().items()}
    return [group for group in groups if group is not None and _fits(group, shapes)]


class Names:
    """What the parts of a model are called, and what they are in."""

    def __init__(self, model: nn.Module):
        self.modules = {module: name for name, module in model.named_modules()}
        self.parents = {child: module for module in model.modules() for child in module.children()}
        self.parameters = {id(parameter): name for name, parameter in model.named_parameters()}


def _walk(graph: Any, root: nn.Module, names: Names, seen: set[Any]) -> Found | None:
    """From the units that `root` makes along the graph's dependencies; None as soon as they meet what stays.

    torch-pruning's own walk goes on behind a layer norm, and in a Swin transformer takes ten minutes for it. `seen`
    gets the layers whose units are known by now.
    """
    from torch_pruning._helpers import _HybridIndex

    found: Found = {}
    makes = graph.get_pruner_of_module(root).prune_out_channels
    waiting = [(graph.module2node[root], makes, [_HybridIndex(i, i) for i in range(len(root.weight))])]  # type: ignore[arg-type]
    for _ in range(LONGEST):
        if not waiting:
            return found
        node, handler, indices = waiting.pop()
        reads = handler.__name__ == "prune_in_channels"
        if _tensors(node, reads, names) is None:
            return None
        places = found.setdefault((node, reads), {})
        fresh = [i for i in indices if places.setdefault(i.idx, i.root_idx) == i.root_idx]
        if not reads:
            seen.add(node.module)
        for dependency in node.dependencies:
            if dependency.is_triggered_by(handler):
                reached = fresh
                for mapping in dependency.index_mapping:
                    reached = reached if mapping is None else mapping(reached)
                known = found.get((dependency.target, dependency.handler.__name__ == "prune_in_channels"), {})
                if any(i.idx not in known for i in reached):
                    waiting.append((dependency.target, dependency.handler, reached))
    return None


def _group(root: nn.Module, found: Found, names: Names) -> Group | None:
    group = Group(names.modules[root], len(root.weight))  # type: ignore[arg-type]
    for (node, reads), places in found.items():
        tensors = _tensors(node, reads, names) or []
        rows: list[list[int]] = [[] for _ in range(group.units)]
        for place, unit in places.items():
            rows[unit].append(place)
        if tensors and len({len(row) for row in rows}) != 1:  # not the same of each unit
            return None
        group.members += [Member(name, dim, torch.tensor(rows)) for name, dim in tensors]
    return group


def _fits(group: Group, shapes: Mapping[str, torch.Size]) -> bool:
    """Where units are mixed over places (ResMLP, LeViT), torch-pruning may name some that aren't there."""
    return all(
        member.places.numel() and int(member.places.max()) < shapes[member.name][member.dim] for member in group.members
    )


def _tensors(node: Any, reads: bool, names: Names) -> list[tuple[str, int]] | None:
    """The tensors of a layer that its units are in, with the dimension; None if they can't go."""
    module = node.module
    if isinstance(module, nn.Parameter):
        return [(names.parameters[id(module)], node.pruning_dim)]
    if module not in names.modules:  # an operation of torch-pruning's own graph
        return []
    name = names.modules[module]
    if isinstance(module, _ConvNd | nn.Linear):
        depthwise = isinstance(module, _ConvNd) and module.groups == module.in_channels == module.out_channels
        grouped = isinstance(module, _ConvNd) and module.groups > 1 and not depthwise
        inside = not reads and hasattr(names.parents[module], "num_heads")
        if grouped or inside or isinstance(module, _ConvTransposeNd):
            return None
        if reads and not depthwise:
            return [(f"{name}.weight", 1)]
        return [(f"{name}.weight", 0)] + ([] if module.bias is None else [(f"{name}.bias", 0)])
    if isinstance(module, _BatchNorm | nn.PReLU):
        there = ("weight", "bias", "running_mean", "running_var")
        return [(f"{name}.{tensor}", 0) for tensor in there if getattr(module, tensor, None) is not None]
    return None
