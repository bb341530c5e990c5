"""Which font is lacking, where one is: a box in place of a letter is said, not left to be wondered at."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

EAST_ASIAN = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "FULLWIDTH", "HALFWIDTH", "IDEOGRAPHIC", "BOPOMOFO")
SHOWN = 12  # characters


def advice(characters: Iterable[str]) -> str:
    """What to install so that `characters`, which no font here has, are more than boxes."""
    from matplotlib import get_cachedir

    found = sorted(set(characters))
    fonts = dict.fromkeys(_font(character) for character in found)
    some = "".join(found[:SHOWN]) + (" …" if len(found) > SHOWN else "")
    return (
        f"no font on this machine has {some}: boxes stand in their place; install {' and '.join(fonts)}, "
        f"then remove {get_cachedir()}/fontlist*.json, where matplotlib keeps which fonts there are"
    )


def _font(character: str) -> str:
    """One that has it, of those that `style.FONTS` looks for, and the Debian package."""
    script = unicodedata.name(character, "?").partition(" ")[0]
    if script in EAST_ASIAN:
        return "Noto Sans CJK (Debian, Ubuntu: fonts-noto-cjk)"
    if unicodedata.category(character) in ("So", "Sk", "Cn", "Co"):
        return "Noto Emoji, not the coloured one (fonts.google.com/noto)"
    name = {"DEVANAGARI": "Devanagari", "THAI": "Thai", "ARABIC": "Arabic", "HEBREW": "Hebrew"}.get(script)
    return f"Noto Sans {name} (Debian, Ubuntu: fonts-noto-core)" if name else "Unifont (Debian, Ubuntu: fonts-unifont)"
