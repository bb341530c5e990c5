"""dlrun compress: a smaller run of a trained one, pruned or quantised, fine-tuned, tested; a run folder like any other.

  dlrun compress run=DIR method=prune_structured [amount=0.3] [finetune_epochs=3] [KEY=VALUE …]

  dlrun compress run=DIR method=quantize_static [calibration=minmax] [reduce_range=true]
  dlrun compress run=DIR method=quantize_dynamic [reduce_range=true]
  dlrun compress run=DIR method=qat [finetune_epochs=3] [KEY=VALUE …]

  run=DIR|last            the run to begin with; it stays as it is. A pruned one can be pruned again
  method=…                prune_structured: the least important channels, neurons, hidden units and heads go, and the
                            layers get smaller: fewer parameters, less time
                          prune_unstructured: the smallest weights of the whole net become zeros, and stay zero: no
                            smaller and no faster by itself
                          quantize_static: int8 for ONNX Runtime on the CPU: weights, and what convolutions and linear
                            layers take, in ranges that training samples show; recurrent layers stay as they are
                          quantize_dynamic: the same for linear layers and LSTMs, in each call's own ranges;
                            convolutions stay as they are
                          qat: trained on with numbers rounded as int8 will have them, then as quantize_static, in the
                            ranges that the training has found
  calibration=minmax|entropy|percentile
  calibration_samples=512 which ranges, and of how many training samples
  reduce_range=true|false weights of 7 bits, that no processor's sums overflow with; false is 8, for those with VNNI
                            (or AMX, or ARM's dotprod) alone
  amount=0.3              the share that goes: of every width that can be cut (of 32 and more, a multiple of 8 is
                            left, which runs faster), or of all weights
  finetune_epochs=3       trained on for so long, as the run was: its schedule over these epochs; 0 is not at all
  checkpoint=best|last    the weights to begin with
  bench=true|false        at the end, a first look at the run and all that became of it, as dlrun bench takes it
  optimizer.lr=… trainer.*= scheduler.*= augment.*= task.*= precision.*= data.batch_size= seed=
                          of the config, for the fine-tuning
  data.root= data.num_workers= device= tracking=none plugins=[…] …
                          where things are, as for dlrun resume

The new run is in DIR/compress/METHOD-ID: eval, predict, export, bench, resume and compress take it as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from dlrun.build import example
from dlrun.commands.opening import opened
from dlrun.compressing import METHODS, Compressed, compress, tunable
from dlrun.compression.int8 import Calibration
from dlrun.errors import UserError, choices
from dlrun.layers import count
from dlrun.loading import Checkpoint, LoadedRun, load_run
from dlrun.quantizing import Quantization
from dlrun.registry import Count, Index, Share

AMOUNT, EPOCHS = 0.3, 3
QUANTIZATION = {  # option → the methods that take it
    "calibration": ["quantize_static"],
    "calibration_samples": ["quantize_static"],
    "reduce_range": ["quantize_static", "quantize_dynamic"],
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Of the command itself; `amount` and `finetune_epochs` are null where the method has none."""

    method: str
    amount: Share | None = None
    finetune_epochs: Index | None = None
    calibration: Calibration | None = None
    calibration_samples: Count | None = None
    reduce_range: bool | None = None
    checkpoint: Checkpoint = "best"
    bench: bool = True

    @property
    def quantization(self) -> Quantization:
        return Quantization(**{name: value for name, value in self._quantization().items() if value is not None})

    def _quantization(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(Quantization)}

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UserError(f"method: unknown method '{self.method}'{choices(self.method, METHODS)}")
        how = METHODS[self.method]
        if self.amount is not None and not how.takes_amount:
            raise UserError(f"amount: {self.amount} does nothing with method={self.method}; leave it out")
        if self.finetune_epochs and not how.trains:
            raise UserError(f"finetune_epochs: method={self.method} trains nothing; expected 0, or method=qat")
        for name, value in self._quantization().items():
            takers = QUANTIZATION[name]
            if value is not None and self.method not in takers:
                raise UserError(
                    f"{name}: {value} does nothing with method={self.method}; {' and '.join(takers)} take it"
                )


def run(words: Sequence[str]) -> int:
    """`dlrun compress`; returns the exit code. Raises UserError, RunFailed."""
    parent, options, rest = opened(words, Options, "compress", tunable)
    epochs = EPOCHS if options.finetune_epochs is None else options.finetune_epochs
    amount = AMOUNT if options.amount is None else options.amount
    trains = METHODS[options.method].trains
    made = compress(parent, options.method, amount, epochs if trains else 0, rest, options.quantization)
    print(table(parent, made, rest))
    if options.bench:
        from dlrun.commands.bench import report

        places = ("data.root=", "data.file=", "data.num_workers=", "plugins=", "tracking=")
        report(parent.folder.path, overrides=[word for word in rest if word.startswith(places)])
    return 0


def table(parent: LoadedRun, made: Compressed, words: Sequence[str]) -> str:
    """Both runs side by side, and the change."""
    child = load_run(made.folder.path, overrides=[word for word in words if word.startswith("plugins=")], device="cpu")
    flops = [count(run.network.cpu(), example(run.spec)).total.flops for run in (parent, child)]
    before, after = made.before, made.after
    rows = [("", "before", "after", "change")]
    for name, pair in (
        ("parameters", (before.parameters, after.parameters)),
        ("bytes of weights", (before.bytes, after.bytes)),
        ("FLOPs per sample", flops),
    ):
        rows.append((name, f"{pair[0]:,}", f"{pair[1]:,}", f"× {pair[1] / max(pair[0], 1):.3f}"))
    shares = [("zeros among weights", before.sparsity, after.sparsity)]
    shares += [(name, before.test[name], after.test[name]) for name in before.test if name.endswith("/acc")]
    rows += [(name, f"{a:.2%}", f"{b:.2%}", f"{100 * (b - a):+.2f} points") for name, a, b in shares]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    first, *others = widths
    return "\n".join(
        "  ".join([row[0].ljust(first), *(v.rjust(w) for v, w in zip(row[1:], others, strict=True))]) for row in rows
    )
