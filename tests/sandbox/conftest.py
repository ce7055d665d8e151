import os
import sys
from pathlib import Path

import pytest

from peer.workers.sandbox import check_sandbox, super_user
from wire.errors import LocalFault


@pytest.fixture(autouse=True, scope="session")
def sandbox() -> None:
    """Where the sandbox is demanded its absence is a failure; elsewhere there is nothing to test."""
    try:
        check_sandbox()
    except LocalFault as fault:
        if os.environ.get("BITWRK_REQUIRE_SANDBOX"):
            pytest.fail(fault.sentence)
        pytest.skip(fault.sentence)


@pytest.fixture(scope="session")
def python() -> tuple[str, tuple[Path, ...]]:
    """A Python, the system's if there is one, and what must be visible for it to run."""
    program = Path("/usr/bin/python3")
    if program.exists():
        return str(program), ()
    program = Path(sys.executable).resolve()
    return str(program), (program.parent.parent,)


@pytest.fixture(params=["own-user", "user-namespace"])
def own_user(request: pytest.FixtureRequest) -> bool:
    """Both ways into the sandbox; the super-user tries both, an ordinary user has one."""
    chosen = bool(request.param == "own-user")
    if chosen and not super_user():
        pytest.skip("only the super-user goes this way")
    return chosen
