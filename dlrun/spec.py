"""What a model has to know of the data, and all that it knows."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from dlrun.errors import UserError, shortened

Modality = Literal["image", "text", "tabular"]
PAD, UNKNOWN = 0, 1  # the two token ids that every vocabulary begins with


@dataclass(frozen=True)
class DataSpec:
    """The shape and meaning of one sample and of its label.

    `shape` is (channels, height, width) of an image, (longest length,) of a text, (features,) of a table row.
    `mean` and `std` are what the inputs are normalised with: per channel of pixels in [0, 1], or per feature of the
    table. `tokenizer` is the text's vocabulary as the `tokenizers` library writes it (JSON).
    """

    modality: Modality
    shape: tuple[int, ...]
    class_names: tuple[str, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    vocab_size: int = 0
    tokenizer: str | None = None

    @property
    def num_outputs(self) -> int:
        return len(self.class_names)

    def check_same(self, data: DataSpec, name: str) -> None:
        """Raise UserError if the data set `name`, as it is now, means anything else than what was trained on."""
        for field in fields(self):
            trained, now = getattr(self, field.name), getattr(data, field.name)
            if trained != now:
                what = field.name.replace("_", " ")
                values = "" if field.name == "tokenizer" else f": {shortened(str(now))}, not {shortened(str(trained))}"
                raise UserError(f"data: {name} has another {what} than the run was trained with{values}")

    def plain(self) -> dict[str, Any]:
        """As plain values, for a checkpoint."""
        return asdict(self)

    def __str__(self) -> str:
        shape = {"image": "×".join(map(str, self.shape)), "text": f"≤ {self.shape[0]} tokens of {self.vocab_size}"}
        size = shape.get(self.modality, f"{self.shape[0]} features")
        return f"{self.modality} ({size}), {self.num_outputs} classes"
