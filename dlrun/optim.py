"""Optimizers as torch has them, by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Lt
from torch import nn
from torch.optim import Optimizer

from dlrun.eager import eager
from dlrun.errors import OptionError
from dlrun.fused import FusedAdam, FusedSGD
from dlrun.groups import Groups, parameter_groups, shared_out
from dlrun.muon import Muon
from dlrun.registry import NonNegative, Positive, optimizers
from dlrun.together import Together

Beta = Annotated[float, Ge(0), Lt(1)]


@optimizers.register("sgd")
def sgd(
    model: nn.Module,
    *,
    lr: Positive = 0.1,
    weight_decay: NonNegative = 5e-4,
    momentum: Beta = 0.9,
    nesterov: bool = True,
) -> Optimizer:
    """Stochastic gradient descent with (Nesterov) momentum."""
    if nesterov and momentum == 0:
        raise OptionError("nesterov", "needs optimizer.momentum > 0")
    return _sgd(model, parameter_groups(model, weight_decay), lr=lr, momentum=momentum, nesterov=nesterov)


@optimizers.register("adam")
def adam(
    model: nn.Module,
    *,
    lr: Positive = 1e-3,
    weight_decay: NonNegative = 0.0,
    betas: list[Beta] = [0.9, 0.999],
    eps: Positive = 1e-8,
    amsgrad: bool = False,
) -> Optimizer:
    """Adam (Kingma & Ba 2015); its weight decay is added to the gradient."""
    groups = parameter_groups(model, weight_decay)
    cls = FusedAdam if (fused := _fused(model)) else eager(torch.optim.Adam)
    return cls(groups, lr=lr, betas=_pair(betas), eps=eps, amsgrad=amsgrad, fused=fused)


@optimizers.register("adamw")
def adamw(
    model: nn.Module,
    *,
    lr: Positive = 3e-3,
    weight_decay: NonNegative = 0.05,
    betas: list[Beta] = [0.9, 0.999],
    eps: Positive = 1e-8,
    amsgrad: bool = False,
) -> Optimizer:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019): the default."""
    groups = parameter_groups(model, weight_decay)
    return _adamw(model, groups, lr=lr, betas=_pair(betas), eps=eps, amsgrad=amsgrad)


@optimizers.register("nadam")
def nadam(
    model: nn.Module,
    *,
    lr: Positive = 2e-3,
    weight_decay: NonNegative = 0.0,
    betas: list[Beta] = [0.9, 0.999],
    eps: Positive = 1e-8,
    momentum_decay: Positive = 4e-3,
    decoupled_weight_decay: bool = False,
) -> Optimizer:
    """Adam with Nesterov momentum (Dozat 2016)."""
    groups = parameter_groups(model, weight_decay)
    return eager(torch.optim.NAdam)(
        groups,
        lr=lr,
        betas=_pair(betas),
        eps=eps,
        momentum_decay=momentum_decay,
        decoupled_weight_decay=decoupled_weight_decay,
        foreach=_foreach(model),
    )


@optimizers.register("radam")
def radam(
    model: nn.Module,
    *,
    lr: Positive = 1e-3,
    weight_decay: NonNegative = 0.0,
    betas: list[Beta] = [0.9, 0.999],
    eps: Positive = 1e-8,
    decoupled_weight_decay: bool = False,
) -> Optimizer:
    """Rectified Adam, which warms itself up (Liu et al. 2020)."""
    groups = parameter_groups(model, weight_decay)
    return eager(torch.optim.RAdam)(
        groups,
        lr=lr,
        betas=_pair(betas),
        eps=eps,
        decoupled_weight_decay=decoupled_weight_decay,
        foreach=_foreach(model),
    )


@optimizers.register("rmsprop")
def rmsprop(
    model: nn.Module,
    *,
    lr: Positive = 1e-3,
    weight_decay: NonNegative = 0.0,
    alpha: Beta = 0.99,
    eps: Positive = 1e-8,
    momentum: Beta = 0.0,
    centered: bool = False,
) -> Optimizer:
    """RMSprop (Hinton 2012): gradients over the root of their running mean square."""
    groups = parameter_groups(model, weight_decay)
    return eager(torch.optim.RMSprop)(
        groups, lr=lr, alpha=alpha, eps=eps, momentum=momentum, centered=centered, foreach=_foreach(model)
    )


@optimizers.register("adagrad")
def adagrad(
    model: nn.Module,
    *,
    lr: Positive = 1e-2,
    weight_decay: NonNegative = 0.0,
    lr_decay: NonNegative = 0.0,
    initial_accumulator_value: NonNegative = 0.0,
    eps: Positive = 1e-10,
) -> Optimizer:
    """Adagrad (Duchi et al. 2011), made for sparse features."""
    groups = parameter_groups(model, weight_decay)
    return eager(torch.optim.Adagrad)(
        groups,
        lr=lr,
        lr_decay=lr_decay,
        initial_accumulator_value=initial_accumulator_value,
        eps=eps,
        fused=_on_cpu(model) or None,  # its kernel: 2.4 to 3 times as fast as a loop
    )


@optimizers.register("adadelta")
def adadelta(
    model: nn.Module, *, lr: Positive = 1.0, weight_decay: NonNegative = 0.0, rho: Beta = 0.9, eps: Positive = 1e-6
) -> Optimizer:
    """Adadelta (Zeiler 2012), which needs no tuned learning rate."""
    groups = parameter_groups(model, weight_decay)
    return eager(torch.optim.Adadelta)(groups, lr=lr, rho=rho, eps=eps, foreach=_foreach(model))


@optimizers.register("adafactor")
def adafactor(
    model: nn.Module,
    *,
    lr: Positive = 1e-2,
    weight_decay: NonNegative = 0.0,
    beta2_decay: Annotated[float, Lt(0)] = -0.8,
    d: Annotated[float, Ge(1)] = 1.0,
) -> Optimizer:
    """Adafactor (Shazeer & Stern 2018): second moments as rows and columns, little memory."""
    groups = parameter_groups(model, weight_decay)
    return eager(torch.optim.Adafactor)(groups, lr=lr, beta2_decay=beta2_decay, d=d)


@optimizers.register("muon")
def muon(
    model: nn.Module,
    *,
    lr: Positive = 2e-2,
    weight_decay: NonNegative = 0.05,
    momentum: Beta = 0.95,
    nesterov: bool = True,
    ns_steps: Annotated[int, Ge(1), Lt(100)] = 5,
    normalize: bool = False,
    others: Literal["adamw", "sgd"] = "adamw",
    others_lr: Positive = 3e-3,
    others_momentum: Beta = 0.9,
) -> Optimizer:
    """Muon (Jordan et al. 2024) for matrices and kernels, AdamW or SGD with `others_lr` for everything else.

    "Everything else" is biases, norms, embeddings and the last layer, which Muon's author leaves to another one, too.
    `normalize` keeps the weights that Muon has at a norm of √outputs in place of their decay. `others_momentum` is that
    of SGD (with Nesterov's), or AdamW's first beta.
    """
    decay, rest = shared_out(model)
    if len(decay) < 2:
        raise OptionError("name", "muon trains hidden layers that are matrices, and this model has none; take adamw")
    first = Muon(
        decay[:-1],
        lr,
        weight_decay=weight_decay,
        momentum=momentum,
        nesterov=nesterov,
        ns_steps=ns_steps,
        normalize=normalize,
    )
    groups = [{"params": decay[-1:], "weight_decay": weight_decay}]
    groups += [{"params": rest, "weight_decay": 0.0}] if rest else []
    if others == "adamw":
        return Together(first, _adamw(model, groups, lr=others_lr, betas=(others_momentum, 0.999)))
    return Together(first, _sgd(model, groups, lr=others_lr, momentum=others_momentum, nesterov=others_momentum > 0))


def _adamw(model: nn.Module, groups: Groups, **options: Any) -> Optimizer:
    if _fused(model):
        return FusedAdam(groups, **options, decoupled_weight_decay=True, fused=True)
    return eager(torch.optim.AdamW)(groups, **options)


def _sgd(model: nn.Module, groups: Groups, **options: Any) -> Optimizer:
    cls = FusedSGD if (fused := _fused(model)) else eager(torch.optim.SGD)
    return cls(groups, **options, fused=fused)


def _fused(model: nn.Module) -> bool:
    """One kernel for all parameters, where torch has it: up to 1.7 times faster for a small net on a CPU."""
    return all(p.device.type in ("cpu", "cuda", "mps") and p.is_floating_point() for p in model.parameters())


def _foreach(model: nn.Module) -> bool | None:
    """One operation for all parameters where there is no fused kernel; torch itself loops over them on a CPU.

    A step of 120 small tensors is 1.3 to 1.7 times as fast, of a small MLP's as fast or (RAdam) 3 times as fast.
    """
    return _on_cpu(model) or None  # elsewhere torch knows


def _on_cpu(model: nn.Module) -> bool:
    return all(p.device.type == "cpu" and p.is_floating_point() for p in model.parameters())


def _pair(betas: list[float]) -> tuple[float, float]:
    if len(betas) != 2:
        raise OptionError("betas", f"expected two numbers, got {betas}")
    return float(betas[0]), float(betas[1])  # torch refuses a whole number here
