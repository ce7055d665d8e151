"""What every test of the dashboard shares."""

import asyncio
import time

import pytest

STEP_S = 0.004
IDLE_CPU_S = 0.001
MOST_S = 0.3


async def wait_for_idle(min_sleep: float = 0, max_sleep: float = MOST_S) -> None:
    """Textual's own wait for the process to have nothing left to do, in finer steps: hundreds of keys are pressed here."""
    until = time.monotonic() + min(max_sleep, MOST_S)
    del min_sleep
    while time.monotonic() < until:
        spent = time.process_time()
        await asyncio.sleep(STEP_S)
        if time.process_time() - spent < IDLE_CPU_S:
            return


@pytest.fixture(autouse=True)
def quick_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Press keys as fast as they are obeyed."""
    monkeypatch.setattr("textual.app.wait_for_idle", wait_for_idle)
    monkeypatch.setattr("textual.pilot.wait_for_idle", wait_for_idle)
