from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from dlrun.eager import eager
from dlrun.registry import optimizers

KINDS = ["SGD", "Adam", "AdamW", "NAdam", "RAdam", "RMSprop", "Adagrad", "Adadelta", "Adafactor", "Muon"]
OPTIONS = {"lr": 0.05, "weight_decay": 0.01}
SCRIPT = """if True:
    import sys
    import torch
    from dlrun.registry import optimizers
    for name in optimizers.names():
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
        optimizer = optimizers.build(name, {}, model)
        for _ in range(2):
            model(torch.ones(5, 3)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        optimizer.load_state_dict(optimizer.state_dict())
        print(name, "torch._dynamo" in sys.modules)
"""


def trained(kind: type[torch.optim.Optimizer], restarts: type[torch.optim.Optimizer] | None = None):
    """Weights and state after six steps; halfway another optimizer may take over the state."""
    torch.manual_seed(0)
    weight, inputs, goal = nn.Parameter(torch.randn(4, 3)), torch.randn(8, 3), torch.randn(8, 4)
    optimizer = kind([weight], **OPTIONS)

    def closure() -> float:
        optimizer.zero_grad()
        assert weight.grad is None
        loss = (inputs @ weight.T - goal).square().mean()
        loss.backward()
        return loss.item()

    losses = []
    for number in range(6):
        if restarts is not None and number == 3:
            state = optimizer.state_dict()
            optimizer = restarts([weight], lr=1e-9)
            optimizer.load_state_dict(state)
        losses.append(optimizer.step(closure))
    return weight.detach(), losses, optimizer.state_dict()


@pytest.mark.parametrize("name", KINDS)
def test_steps_as_torch_steps(name):
    """To the bit, and either can go on from the other's state."""
    kind = getattr(torch.optim, name)
    weight, losses, state = trained(kind)
    assert losses[-1] < losses[0]
    for ours in (trained(eager(kind)), trained(eager(kind), restarts=kind), trained(kind, restarts=eager(kind))):
        assert torch.equal(ours[0], weight)
        assert ours[1] == losses
        assert ours[2]["param_groups"] == state["param_groups"]
        assert ours[2]["state"].keys() == state["state"].keys()
    assert isinstance(eager(kind)([nn.Parameter(torch.ones(2, 2))], lr=1.0), kind)
    assert eager(kind).__name__ == name


def test_hooks_and_another_group_work():
    optimizer = eager(torch.optim.SGD)([nn.Parameter(torch.ones(2))], lr=0.1)
    optimizer.add_param_group({"params": [more := nn.Parameter(torch.ones(2))], "lr": 0.5})
    seen = []
    optimizer.register_step_post_hook(lambda *_: seen.append(more.tolist()))
    more.grad = torch.tensor([1.0, 2.0])
    optimizer.step()
    assert seen == [[0.5, 0.0]]


def test_no_optimizer_imports_the_compiler():
    printed = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines() == [f"{name} False" for name in optimizers.names()]
    assert len(optimizers.names()) == 10
