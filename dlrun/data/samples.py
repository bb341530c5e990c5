"""All that was named as input, as samples one by one: nothing is read before it is needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from dlrun.data.image_folder import SUFFIXES as PICTURES
from dlrun.data.listing import STDIN, Sample, Unreadable, files, listed_on_stdin, shown
from dlrun.data.records import SUFFIXES, Columns, records
from dlrun.spec import Modality


def all_samples(
    named: Sequence[str], texts: Sequence[str], modality: Modality, columns: Columns
) -> Iterator[Sample | Unreadable]:
    """The `texts` themselves, then what is in the files, folders and patterns that are `named`; "-" is stdin.

    On stdin there are names of pictures, texts, or rows of numbers, one on each line.
    """
    yield from (Sample(f"text {number}", text) for number, text in enumerate(texts, 1))
    for name in named:
        if modality == "image":
            found = files(listed_on_stdin(), PICTURES, literal=True) if name == STDIN else files([name], PICTURES)
            yield from map(_picture, found)
        elif name == STDIN:
            yield from records(None, modality, columns)
        else:
            for file in files([name], SUFFIXES[modality]):
                yield from [file] if isinstance(file, Unreadable) else records(file, modality, columns)


def _picture(file: Path | Unreadable) -> Sample | Unreadable:
    if isinstance(file, Path) and file.suffix.lower() in SUFFIXES["text"]:
        return Unreadable(shown(file), "holds no picture, and the run was trained on pictures")
    return Sample(shown(file), file) if isinstance(file, Path) else file
