import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bcoin.judge import BcoinJudge

HERE = Path(__file__).parent
VERDICTS: list[tuple[str, str]] = []


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="session")
def bcoin() -> Iterator[BcoinJudge]:
    """A fresh bcoin node. Where it is demanded its absence is a failure; elsewhere there is nothing to test."""
    program = shutil.which("node") or shutil.which("nodejs")
    if program is None or not (HERE / "node_modules" / "bcoin").exists():
        sentence = "bcoin is not installed here; `make test-bcoin` brings it"
        if os.environ.get("BITWRK_REQUIRE_BCOIN"):
            pytest.fail(sentence)
        pytest.skip(sentence)
    port, key = free_port(), secrets.token_hex(16)
    command = [program, str(HERE / "node.js"), str(port)]
    # All of it in JavaScript: nothing has to be compiled, and not even libsecp256k1 is shared with the kernel.
    environment = {**os.environ, "BITWRK_BCOIN_KEY": key, "NODE_BACKEND": "js"}
    node = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert node.stdin is not None
        assert node.stdout is not None
        assert node.stdout.readline() == "ready\n"
        judge = BcoinJudge(f"http://127.0.0.1:{port}", key)
        judge.begin()
        yield judge
        judge.close()
    finally:
        node.kill()
        node.communicate()


@pytest.fixture(scope="session")
def verdicts() -> list[tuple[str, str]]:
    """What was asked and answered, for the summary."""
    return VERDICTS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if VERDICTS:
        kinds = [answer.partition(":")[0] for _, answer in VERDICTS]
        counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("accepted", "refused", "replaced"))
        terminalreporter.write_line(f"bcoin's verdicts in the walks that passed: {counts}")
