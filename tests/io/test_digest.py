"""Seeds and identities that files of earlier runs hold: they never change."""

from __future__ import annotations

import pytest

from autodeco_edge.io.digest import PORTION, fingerprint, identity, seed_of


def test_values_of_earlier_runs():
    assert seed_of(0, "demo:make/7", 3) == 0x3853578D35DE80F6
    assert seed_of("42 0 1 2") == 0x1921D007F974AC70
    assert fingerprint("a problem") == "72c88b356d32fa94"
    assert seed_of(1, "1") == seed_of("1", 1) != seed_of("11")


@pytest.mark.parametrize("n_bytes", (0, 1, PORTION, 2 * PORTION + 5))
def test_an_identity_tells_name_size_and_both_ends(tmp_path, n_bytes):
    path = tmp_path / "model.gguf"
    path.write_bytes(bytes(n_bytes))
    first = identity(path)
    assert first.startswith(f"model.gguf {n_bytes} ")
    for at in {0, n_bytes - 1} if n_bytes else ():
        changed = bytearray(n_bytes)
        changed[at] = 1
        path.write_bytes(changed)
        assert identity(path) != first
    path.write_bytes(bytes(n_bytes + 1))
    assert identity(path) != first
