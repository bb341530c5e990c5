"""Parameters that aren't trained, from some epoch on: a pretrained net's first layers, or what has learned enough."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from dlrun.errors import UserError, choices


class Freezing:
    """Parameters by name, or by the name of what they are in, and the epochs that each is trained for.

    Raises UserError for a name that the model has nothing of, and where nothing would be left to train. Batch norm's
    statistics aren't parameters, and go on following the data.
    """

    def __init__(self, model: nn.Module, epochs: Mapping[str | int, int]):
        trained = [name for name, p in model.named_parameters() if p.requires_grad]
        self.model = model
        self.until: dict[str, int] = {}  # by name, since precision=bf16_weights gives the model other parameters
        for given, last in ((str(name), last) for name, last in epochs.items()):
            found = [name for name in trained if f"{name}.".startswith(f"{given}.")]
            if not found:
                parts = [name for name, part in model.named_modules() if name and any(True for _ in part.parameters())]
                raise UserError(
                    f"trainer.freeze: nothing that is trained is called '{given}'{choices(given, [*parts, *trained])}"
                )
            self.until |= {name: min(last, self.until.get(name, last)) for name in found}
        if len(self.until) == len(trained):
            raise UserError("trainer.freeze: these are all parameters; nothing would be left to train")

    def begin_epoch(self, epoch: int) -> None:
        """Let go what is trained in `epoch`, counted from 0, and hold what isn't. A gradient of it is there no more."""
        for name, last in self.until.items():
            self.model.get_parameter(name).requires_grad_(epoch < last)
