"""The page on recovery, run word for word but for the port: everything but the key is lost, and every satoshi comes back."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
import trio

from peer.demo.cluster import free_port

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
GIVEN_SAT = 1_000_000


def script_of(page: str) -> str:
    """All commands between the marks, in order, with a chain port of our own."""
    part = page.split("<!-- recovery:begin -->")[1].split("<!-- recovery:end -->", maxsplit=1)[0]
    blocks = re.findall(r"```sh\n(.*?)```", part, re.DOTALL)
    assert len(blocks) == 4
    return "set -eu\n" + "".join(blocks).replace("18443", str(free_port()))


async def test_a_reader_loses_everything_but_the_key_and_gets_every_satoshi_back(tmp_path: Path) -> None:
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/bitwrk").symlink_to(ROOT / ".venv/bin/bitwrk")
    (tmp_path / "losing").mkdir()
    script = script_of((ROOT / "docs/tutorials/recovery.md").read_text())
    with (tmp_path / "said").open("wb") as words:
        process = await trio.lowlevel.open_process(
            ["bash", "-c", script],
            cwd=tmp_path,
            stdout=words,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "HOME": str(tmp_path)},
        )
    try:
        with trio.fail_after(240):
            assert await process.wait() == 0, (tmp_path / "said").read_text()
        said = (tmp_path / "said").read_text()
        assert "can be taken back by the key alone from height" in said
        assert "was taken back; it is a coin of the account" in said
        report = json.loads((tmp_path / "losing/report.json").read_text())
        (escrow,) = report["escrows"]
        assert (escrow["standing"], escrow["confirmed"], escrow["to_seller_sat"]) == ("refunded", True, 0)
        lost = GIVEN_SAT - report["balance_sat"]
        # A funding with a memo, of one input and change, and the refund, at one satoshi for each virtual byte.
        assert 204 + 160 - 6 <= lost <= 204 + 160
        assert (report["network"], report["money"]) == ("regtest", "play")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
