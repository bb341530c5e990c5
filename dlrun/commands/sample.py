"""One sample for a command to look at: of the user's own, read as `dlrun predict` does, or of the run's own data."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from dlrun.data.foreign import reason
from dlrun.data.listing import Sample, Unreadable
from dlrun.data.records import Columns
from dlrun.data.samples import all_samples
from dlrun.data.tokens import Decoder
from dlrun.errors import UserError
from dlrun.loading import Checkpoint, LoadedRun, SplitName, is_int8
from dlrun.registry import Index
from dlrun.spec import PAD
from dlrun.viz.network.subject import Subject


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """The options of every command that looks at one sample; `input` and `text` may have commas in them."""

    checkpoint: Checkpoint = "best"
    input: str | None = None
    text: str | None = None
    index: Index | None = None
    split: SplitName | None = None
    text_column: str | None = None
    out: Path | None = None


def sample(run: LoadedRun, options: SampleOptions) -> tuple[Tensor, Subject]:
    """What the network takes, (1, …), and what people see; `index` counts within the input, else within the split.

    Raises UserError if it can't be read, or isn't for this run.
    """
    own = options.input is not None or options.text is not None
    if own and options.split is not None:
        raise UserError("split: is of the run's own data, and input= or text= names another sample")
    if options.input is not None and options.text is not None:
        raise UserError("text: is one sample, and input= names another; say one of them")
    text = run.spec.modality == "text"
    for key, given in (("text", options.text), ("text_column", options.text_column)):
        if given is not None and not text:
            raise UserError(f"{key}: is for text data, and the run was trained on {run.spec.modality} data")
    raw, name, truth, notes = _foreign(run, options) if own else _of_split(run, options)
    pixels = raw[0].numpy().copy() if run.spec.modality == "image" else None  # `prepare` may use it up
    inputs = run.prepare(raw)
    with torch.no_grad():
        shares = run.network(inputs).float().softmax(dim=1)[0].cpu()
    if not shares.isfinite().all():
        raise UserError(f"{name}: the network's answer isn't finite")
    if is_int8(run.config):
        notes.append("the weights in floating point that the int8 file was made of")
    guess = int(shares.argmax())
    words = _words(run, raw[0]) if text else ()
    return inputs, Subject(name, run.class_names[guess], float(shares[guess]), truth, pixels, words, notes)


def _of_split(run: LoadedRun, options: SampleOptions) -> tuple[Tensor, str, str, list[str]]:
    name, index = options.split or "test", options.index or 0
    try:
        split = run.split(name)
    except UserError as error:
        raise UserError(f"{error}; or look at a sample of your own: input=FILE") from error
    if index >= len(split):
        raise UserError(f"index: expected 0 to {len(split) - 1} in the {name} split, got {index}")
    raw = split.fetch(torch.tensor([index])).cpu()
    return raw, f"{name} sample {index}", run.class_names[int(split.targets[index])], []


def _foreign(run: LoadedRun, options: SampleOptions) -> tuple[Tensor, str, None, list[str]]:
    """One of what the input holds, if it holds several."""
    read: Any = run.reader
    column = options.text_column or run.config.dataset.options.get("text_column") or "text"
    named = [] if options.input is None else [options.input]
    texts = [] if options.text is None else [options.text]
    found = all_samples(named, texts, run.spec.modality, Columns(column, (), run.spec.shape[0]))
    index = options.index or 0
    some = list(itertools.islice(found, index, index + 2))
    if not some:
        raise UserError(f"index: {options.input or 'the text'} has no sample {index} (the first is 0)")
    one = some[0]
    if isinstance(one, Unreadable):
        raise UserError(f"input: {one.name}: {one.reason}")
    notes = ["one sample of several; index=N takes another"] if len(some) > 1 and options.index is None else []
    try:
        raw = read.collate([read.check(one.value)])
    except UserError as error:
        raise UserError(f"input: {one.name}: {reason(error)}") from error
    notes += _resized(one, run.spec.shape) if run.spec.modality == "image" else _unknown(run, raw)
    return raw, one.name, None, notes


def _resized(one: Sample, shape: tuple[int, ...]) -> list[str]:
    """What became of a picture of another size, or of its colours."""
    with Image.open(one.value) as image:
        width, height = image.size
        grey = shape[0] == 1 and image.mode in ("RGB", "RGBA", "P", "CMYK", "YCbCr")
    became = [] if (height, width) == shape[1:] else [f"{height}×{width} pixels made {shape[1]}×{shape[2]}"]
    became += ["colours made grey"] if grey else []
    return [f"{', '.join(became)}, as dlrun predict does"] if became else []


def _unknown(run: LoadedRun, raw: Tensor) -> list[str]:
    """That a text was cut off."""
    longest = run.spec.shape[0]
    return [f"cut off after {longest} words, if it was longer"] if raw.shape[1] == longest else []


def _words(run: LoadedRun, tokens: Tensor) -> tuple[str, ...]:
    """As the network gets them: what the vocabulary doesn't have is [UNK]."""
    ids = [int(number) for number in tokens if number != PAD]
    if run.spec.tokenizer is None:
        return tuple(str(number) for number in ids)
    words = Decoder(run.spec.tokenizer).words
    return tuple(words[number] for number in ids)
