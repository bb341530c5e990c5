from __future__ import annotations

from dlrun.data import tokens

PAD, UNKNOWN = 0, 1


def test_many_texts_are_encoded_as_one_by_one(monkeypatch):
    texts = [" ".join(f"w{i % 7}" for i in range(number % 12)) for number in range(50)]
    tokenizer = tokens.learn(texts, 6, 8)
    monkeypatch.setattr(tokens, "AT_ONCE", 7)
    rows_of_ids = tokens.padded(*tokens.encode(tokenizer, texts), 8)
    for text, row in zip(texts, rows_of_ids.tolist(), strict=True):
        expected = tokenizer.encode(text).ids or [UNKNOWN]
        assert row == expected + [PAD] * (8 - len(expected))
