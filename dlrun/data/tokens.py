"""From texts to token ids: a vocabulary learned on the train split with the `tokenizers` library.

N texts, L the longest that one may be, T tokens of all texts together.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dlrun.spec import PAD, UNKNOWN

if TYPE_CHECKING:  # it isn't needed where the tokens are in the cache
    from tokenizers import Tokenizer

AT_ONCE = 10_000  # texts: the library's own record of one takes kilobytes


def learn(texts: Sequence[str], vocab_size: int, max_length: int) -> Tokenizer:
    """A tokenizer that knows the `vocab_size` commonest words of `texts`, and cuts a text to `max_length` of them."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # words, numbers, and runs of punctuation
    trainer = trainers.WordLevelTrainer(vocab_size=vocab_size, special_tokens=["[PAD]", "[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.enable_truncation(max_length)
    return tokenizer


def learned(tokenizer: str) -> Tokenizer:
    """The tokenizer that was learned before, from what a `DataSpec` has of it."""
    from tokenizers import Tokenizer

    return Tokenizer.from_str(tokenizer)


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Token ids of all texts, one after the other (T,) int32, and how many each has (N,) int32: at least one.

    A text without a word (emoji only, say) still needs a step for a model to stand on: an unknown word.
    """
    tokenizer.encode_special_tokens = True  # or a text that says "[PAD]" would have padding in its middle
    ids, lengths = [np.empty(0, np.int32)], [np.empty(0, np.int32)]
    for start in range(0, len(texts), AT_ONCE):
        encodings = tokenizer.encode_batch_fast(texts[start : start + AT_ONCE])
        words = [encoding.ids or [UNKNOWN] for encoding in encodings]
        lengths.append(np.fromiter(map(len, words), np.int32, len(words)))
        ids.append(np.fromiter(itertools.chain.from_iterable(words), np.int32, lengths[-1].sum()))
    return torch.from_numpy(np.concatenate(ids)), torch.from_numpy(np.concatenate(lengths))


def padded(ids: Tensor, lengths: Tensor, longest: int) -> Tensor:
    """What `encode` gave, a row for each text: (N, longest) int32, padded with PAD."""
    tokens = torch.full((len(lengths), longest), PAD, dtype=torch.int32)
    tokens[torch.arange(longest) < lengths.unsqueeze(1)] = ids
    return tokens


@dataclass(frozen=True)
class Decoder:
    """Token ids back to words (a class, because loader processes have to be handed it)."""

    tokenizer: str  # as the library writes it

    @cached_property
    def words(self) -> dict[int, str]:
        return {number: word for word, number in json.loads(self.tokenizer)["model"]["vocab"].items()}

    def __call__(self, ids: list[int]) -> str:
        return " ".join(self.words[number] for number in ids if number != PAD)
