import importlib.util
import os

import pytest


@pytest.fixture(autouse=True, scope="session")
def wallets() -> None:
    """Where the two libraries are demanded their absence is a failure; elsewhere there is nothing to test."""
    missing = [name for name in ("bdkpython", "embit") if importlib.util.find_spec(name) is None]
    if missing:
        sentence = f"{' and '.join(missing)} not installed; `make test-descriptors` brings them"
        if os.environ.get("BITWRK_REQUIRE_WALLETS"):
            pytest.fail(sentence)
        pytest.skip(sentence)
