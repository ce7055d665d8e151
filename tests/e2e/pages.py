"""Pages that are run as they stand: the commands between their marks, in a folder in which the program is installed already."""

import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from peer.demo.cluster import free_port

ROOT = Path(__file__).parents[2]
_ENDS_S = 240


def blocks_of(page: Path, mark: str) -> list[str]:
    """The commands of ``page`` between the marks, block by block."""
    part = page.read_text().split(f"<!-- {mark}:begin -->")[1].split(f"<!-- {mark}:end -->", maxsplit=1)[0]
    return re.findall(r"```sh\n(.*?)```", part, re.DOTALL)


@asynccontextmanager
async def followed(commands: str, home: Path, folder: str) -> AsyncIterator[str]:
    """What was said when somebody did this in ``home``, with a chain port of our own; what he has started lives until the end."""
    (home / ".venv/bin").mkdir(parents=True)
    (home / ".venv/bin/bitwrk").symlink_to(ROOT / ".venv/bin/bitwrk")
    (home / folder).mkdir()
    with (home / "said").open("wb") as words:
        process = await trio.lowlevel.open_process(
            ["bash", "-c", "set -eu\n" + commands.replace("18443", str(free_port()))],
            cwd=home,
            stdout=words,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "HOME": str(home)},
        )
    try:
        with trio.fail_after(_ENDS_S):
            assert await process.wait() == 0, (home / "said").read_text()
        yield (home / "said").read_text()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
