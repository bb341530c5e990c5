"""Any image classifier of torchvision or timm; the first layer and the head fit the data."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn

from dlrun.errors import OptionError, UserError, choices
from dlrun.models.refusal import refuse
from dlrun.registry import models
from dlrun.spec import DataSpec

# Set while a model is built whose weights come from a run's checkpoint: `pretrained` then downloads nothing.
FROM_CHECKPOINT: ContextVar[bool] = ContextVar("FROM_CHECKPOINT", default=False)


@contextmanager
def weights_from_checkpoint() -> Iterator[None]:
    """While this lasts, `pretrained` models are built without their weights."""
    token = FROM_CHECKPOINT.set(True)
    try:
        yield
    finally:
        FROM_CHECKPOINT.reset(token)


@models.register("torchvision")
def torchvision(spec: DataSpec, *, arch: str = "resnet18", pretrained: bool = False) -> nn.Module:
    """Any of torchvision's image classifiers by model.arch=resnet18; images (B, C, H, W) to logits (B, outputs)."""
    _images_only(spec, "torchvision")
    import torchvision.models as zoo

    known = list(zoo.list_models(module=zoo))
    if arch not in known:
        raise OptionError("arch", f"unknown architecture '{arch}'{choices(arch, known)}")
    # A vision transformer's positions are made for one size; the other nets take any.
    sized = {"image_size": spec.shape[1]} if arch.startswith("vit_") else {}
    # These two would return auxiliary logits too in training, a help that batch norm has made needless.
    pair = arch in ("googlenet", "inception_v3")
    fresh = not pretrained or FROM_CHECKPOINT.get()
    sized |= {"aux_logits": False, "init_weights": True} if pair and fresh else {}
    if fresh:
        model = zoo.get_model(arch, weights=None, num_classes=spec.num_outputs, **sized)
        if pair and pretrained:
            model.transform_input = spec.shape[0] == 3  # as below
    else:
        try:
            model = zoo.get_model(arch, weights="DEFAULT", **sized)
        except (OSError, ValueError) as error:  # URLError is an OSError; ViT refuses other image sizes
            raise UserError(f"model.pretrained: can't load the weights of '{arch}' ({error})") from error
        if pair:
            model.aux_logits = False
            model.transform_input = model.transform_input and spec.shape[0] == 3  # it names red, green and blue
        _fit_head(model, spec.num_outputs)
    _fit_first_layer(model, spec.shape[0])
    return _checked(model, spec, "torchvision", arch)


@models.register("timm")
def timm(spec: DataSpec, *, arch: str = "resnet18", pretrained: bool = False) -> nn.Module:
    """Any of timm's image classifiers by model.arch=resnet18 (pip install 'dlrun[timm]')."""
    _images_only(spec, "timm")
    try:
        import timm as zoo
    except ImportError as error:
        raise UserError("model 'timm' needs the timm library: pip install 'dlrun[timm]'") from error
    name = arch.partition(".")[0]  # a tag after the dot names the weights
    if name not in zoo.list_models():
        near = choices(name, zoo.list_models()).partition(" (choose")[0]
        raise OptionError("arch", f"unknown architecture '{arch}'{near} (any of timm's {len(zoo.list_models())})")
    download = pretrained and not FROM_CHECKPOINT.get()
    options: dict[str, Any] = {"in_chans": spec.shape[0], "num_classes": spec.num_outputs}
    try:
        try:
            model = zoo.create_model(arch, pretrained=download, img_size=spec.shape[1:], **options)
        except TypeError:  # most convolutional nets have no img_size, and need none
            model = zoo.create_model(arch, pretrained=download, **options)
    except (OSError, RuntimeError) as error:
        raise UserError(f"model.arch: can't make timm's '{arch}' ({error})") from error
    return _checked(model, spec, "timm", arch)


def _images_only(spec: DataSpec, name: str) -> None:
    if spec.modality != "image":
        instead = (
            "perceptron or mlp" if spec.modality == "tabular" else "perceptron, mlp, cnn, rnn, lstm or transformer"
        )
        raise refuse(spec, name, "images", instead)


def _fit_head(model: nn.Module, outputs: int) -> None:
    """Replace the last linear (or 1×1 convolution) layer, which gives ImageNet's 1,000 logits, by a fresh one."""
    name, last = [(n, m) for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))][-1]
    if isinstance(last, nn.Linear):
        fresh: nn.Module = nn.Linear(last.in_features, outputs, bias=last.bias is not None)
    else:  # SqueezeNet
        fresh = nn.Conv2d(last.in_channels, outputs, last.kernel_size)  # type: ignore[arg-type]
    _replace(model, name, fresh)


def _fit_first_layer(model: nn.Module, channels: int) -> None:
    """Let the first convolution take `channels`; its weights are the mean over the old ones, scaled to the same sum."""
    name, first = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d))
    if first.in_channels == channels:
        return
    fresh = copy.deepcopy(first)
    fresh.in_channels = channels
    mean = first.weight.detach().mean(dim=1, keepdim=True)
    fresh.weight = nn.Parameter(mean.repeat(1, channels, 1, 1) * (first.in_channels / channels))
    _replace(model, name, fresh)


def _replace(model: nn.Module, name: str, fresh: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, fresh)


def _checked(model: nn.Module, spec: DataSpec, library: str, arch: str) -> nn.Module:
    """Run the shapes through on the meta device, which computes nothing: some nets need larger images."""
    try:
        with torch.no_grad():
            probe = copy.deepcopy(model).to("meta").eval()
            probe(torch.empty(2, *spec.shape, device="meta"))
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        size = "×".join(map(str, spec.shape))
        raise UserError(
            f"model.arch: {library}'s '{arch}' can't take {size} images ({reason}); set a larger data.image_size"
        ) from error
    return model
