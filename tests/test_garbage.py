from __future__ import annotations

import gc

from dlrun.garbage import look_as_usual, look_rarely


def test_what_was_imported_is_never_looked_at_again():
    usual, frozen = gc.get_threshold(), gc.get_freeze_count()
    look_as_usual()  # nobody has begun
    assert (gc.get_threshold(), gc.get_freeze_count()) == (usual, frozen)
    try:
        look_rarely()
        assert gc.get_threshold()[0] == 1_000_000
        look_as_usual()
        assert gc.get_threshold() == usual
        assert gc.get_freeze_count() > frozen + 10_000
        frozen = gc.get_freeze_count()
        look_as_usual()  # the next job of a sweep: what the first one left may be garbage
        assert gc.get_freeze_count() == frozen
    finally:
        gc.unfreeze()
        gc.set_threshold(*usual)
