"""The README's way from nothing to a trade, run word for word but for the ports."""

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


def script_of(readme: str) -> str:
    """The commands between the marks, with a chain port of our own and without the set-up that has been done already."""
    block = readme.split("<!-- newcomer:begin -->")[1].split("<!-- newcomer:end -->", maxsplit=1)[0]
    commands = re.search(r"```sh\n(.*?)```", block, re.DOTALL)
    assert commands is not None
    lines = [line for line in commands.group(1).splitlines() if line != "make install"]
    return "set -eu\n" + "\n".join(lines).replace("18443", str(free_port()))


async def test_the_readmes_way_from_nothing_to_a_trade(tmp_path: Path) -> None:
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/bitwrk").symlink_to(ROOT / ".venv/bin/bitwrk")
    (tmp_path / "trying").mkdir()
    with (tmp_path / "said").open("wb") as words:
        process = await trio.lowlevel.open_process(
            ["bash", "-c", script_of((ROOT / "README.md").read_text())],
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
        assert "finished" in said
        assert "net.bitwrk/rays/1" in said
        assert (tmp_path / "trying/picture.png").read_bytes()[:4] == b"\x89PNG"
        assert "finished" in (tmp_path / "trying/dashboard.svg").read_text()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
