from __future__ import annotations

import pytest

from dlrun.passwords import masked_in


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('url = "postgresql://me:secret@host/db"', 'url = "postgresql://me:***@host/db"'),
        ("see http://host:80/page, or ask me@example.org", "see http://host:80/page, or ask me@example.org"),
        ("a://b:c@d e://f:g@h", "a://b:***@d e://f:***@h"),
        ("git+ssh://git@host:22/me", "git+ssh://git@host:22/me"),
        ("x://h/db?password=p&user=me", "x://h/db?password=***&user=me"),
        ("model.fit(x, y): a@b", "model.fit(x, y): a@b"),
    ],
)
def test_only_the_password_of_an_address_goes(text: str, said: str) -> None:
    assert masked_in(text) == said
