"""Figures of reconciliation: what it costs to find ten differences among ten thousand orders, and to begin with an empty book."""

import json
import subprocess
import sys
import time
from typing import Any, Final

from orderbook.core.book import Book
from orderbook.core.frames import FRAMES, Answer, Ask
from orderbook.core.messages import Heard, read
from orderbook.core.negentropy import Initiator, respond
from tests.bench.orders import BOOK, orders
from wire.digest import plain
from wire.keys import verify
from wire.moments import Instant
from wire.network import REGTEST

ORDERS: Final = 10_000
DIFFERENT: Final = 10
ROUNDS: Final = 3
BYTES_MOST: Final = 12_000
CPU_MOST_MS: Final = 25.0
RESTART_MOST_S: Final = 3.0


def figures() -> list[dict[str, Any]]:
    """All figures of this module."""
    now = Instant(time.time_ns() // 1_000)
    heard = [read(REGTEST, raw) for raw in orders(ORDERS, REGTEST.clock.epoch(now) + 1)]
    return [*_difference(heard, now), _restart(heard)]


def _difference(heard: list[Heard], now: Instant) -> list[dict[str, Any]]:
    """Two books that have been compared before, and then five orders come to each."""
    step = ORDERS // DIFFERENT
    best_s, said, bare_s = float("inf"), 0, float("inf")
    for _ in range(ROUNDS):
        ours, theirs = Book(REGTEST.clock), Book(REGTEST.clock)
        for number, one in enumerate(heard):
            if number % step:
                ours.admit(one, now, asked=False)
                theirs.admit(one, now, asked=False)
        _converse(ours, theirs, 0)
        for number in range(0, ORDERS, step):
            (ours if number % (2 * step) else theirs).admit(heard[number], now, asked=False)
        began = time.process_time()
        said = _converse(ours, theirs, DIFFERENT // 2)
        best_s = min(best_s, time.process_time() - began)
        began = time.process_time()
        plain(b"".join(sorted(one.id for one in heard)))
        bare_s = min(bare_s, time.process_time() - began)
    ids = 32 * ORDERS
    return [
        {
            "name": "reconcile.bytes_10k_10",
            "value": said,
            "unit": "bytes",
            "baseline": f"all ids sent once: {ids} bytes, of which this is {said / ids:.1%}",
            "higher_is_better": False,
            "bound": BYTES_MOST,
            "remark": "all frames of one comparison until both sides' five orders are known; the orders themselves come after",
        },
        {
            "name": "reconcile.cpu_ms_10k_10",
            "value": round(1_000 * best_s, 2),
            "unit": "ms",
            "baseline": f"sorting and hashing all ids once: {1_000 * bare_s:.2f} ms, {best_s / bare_s:.1f} times as much",
            "higher_is_better": False,
            "bound": CPU_MOST_MS,
            "remark": f"both sides, with the frames, best of {ROUNDS}",
        },
    ]


def _converse(ours: Book, theirs: Book, different: int) -> int:
    """Compare the two books to the end; returns the bytes of all frames."""
    initiator = Initiator(ours.vector())
    message: bytes | None = initiator.open()
    said = 0
    while message is not None:
        ask = FRAMES.pack(Ask(book=BOOK, session=1, message=message))
        answer = FRAMES.pack(Answer(book=BOOK, session=1, message=respond(theirs.vector(), FRAMES.unpack(ask).message)))
        said += len(ask) + len(answer)
        message = initiator.answer(FRAMES.unpack(answer).message)
    if len(initiator.have) != different or len(initiator.need) != different:
        raise AssertionError(f"found {len(initiator.have)} and {len(initiator.need)} differences")
    return said


def _restart(heard: list[Heard]) -> dict[str, Any]:
    """Two processes over libp2p on loopback, the second begins with nothing."""
    command = [sys.executable, "-m", "tests.bench.bookside"]
    best: dict[str, Any] = {"seconds": float("inf")}
    bare_s = float("inf")
    with subprocess.Popen([*command, "hold", str(ORDERS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        if holder.stdout is None:
            raise AssertionError("the holder says nothing")
        there = json.loads(holder.stdout.readline())
        try:
            for _ in range(ROUNDS):
                fill = [*command, "fill", there["address"], there["root"], str(ORDERS)]
                done = subprocess.run(fill, capture_output=True, check=True, text=True, timeout=120)
                best = min(best, json.loads(done.stdout), key=lambda one: one["seconds"])
                began = time.monotonic()
                for one in heard:
                    for check in read(REGTEST, one.raw).checks:
                        verify(check.public, check.digest, check.signature)
                bare_s = min(bare_s, time.monotonic() - began)
        finally:
            holder.kill()
    return {
        "name": "reconcile.restart_10k_s",
        "value": round(best["seconds"], 3),
        "unit": "s",
        "baseline": f"decoding and verifying the same orders in a bare loop: {bare_s:.2f} s, "
        f"{best['seconds'] / bare_s:.2f} times as long",
        "higher_is_better": False,
        "bound": RESTART_MOST_S,
        "remark": f"dial, compare, pull, verify, equal roots; best of {ROUNDS}; the new node was busy for "
        f"{best['cpu_seconds']:.2f} s",
    }


if __name__ == "__main__":
    print(json.dumps(figures(), indent=1))
