import os

import pytest

from escrow.shell import bdk, electrum, lines
from escrow.shell.bdk import present

# Calls that a stalling server keeps waiting end soon, so that their threads are gone when the next test begins.
os.environ["MINREQ_TIMEOUT"] = "1"


@pytest.fixture(autouse=True, scope="session")
def library() -> None:
    """Where the extra is demanded its absence is a failure; elsewhere there is nothing to test."""
    if not present():
        sentence = "bdkpython is not installed; `make test-bdk` brings it"
        if os.environ.get("BITWRK_REQUIRE_BDK"):
            pytest.fail(sentence)
        pytest.skip(sentence)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A moment for an answer."""
    for name in ("FAR_TIMEOUT_S", "FAR_READ_TIMEOUT_S"):
        for module in (bdk, lines, electrum):
            monkeypatch.setattr(module, name, 2, raising=False)
