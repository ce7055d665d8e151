"""What every measured process does: JSON lines in and out, orders published when they are due, a report of what came when."""

import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import msgpack
import trio

_LEAST_S: Final = 0.004  # orders that become due so soon after each other are published together
Publish = Callable[[list[bytes]], Awaitable[None]]


def say(**answer: Any) -> None:
    """One line to the measuring process."""
    print(json.dumps(answer), flush=True)


async def ask() -> dict[str, Any]:
    """One line from the measuring process. It ends this process by closing the pipe."""
    line = await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
    if not line:
        os._exit(0)
    asked: dict[str, Any] = json.loads(line)
    return asked


async def open_loop(mine: list[bytes], go: float, rate: float, publish: Publish) -> None:
    """Order k is due at ``go + k / rate``, whatever became of those before it."""
    done = 0
    while done < len(mine):
        due = min(len(mine), int((time.monotonic() - go) * rate) + 1)
        if due > done:
            await publish(mine[done:due])
            done = due
        await trio.sleep(max(_LEAST_S, go + done / rate - time.monotonic()))


async def measured(asked: dict[str, Any], mine: list[bytes], publish: Publish, came: dict[bytes, float]) -> None:
    """One run: publish, wait for the end, write down when each order came."""
    await trio.sleep(max(0.0, asked["go"] - time.monotonic()))
    began = time.process_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(open_loop, mine, asked["go"], asked["rate"], publish)
        await trio.sleep(max(0.0, asked["end"] - time.monotonic()))
        nursery.cancel_scope.cancel()
    Path(asked["report"]).write_bytes(msgpack.packb(came))
    say(cpu_s=time.process_time() - began)
