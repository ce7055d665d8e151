"""Nothing a peer sends, and nothing a handler gets wrong, leaves the stream it happened on.

An exception that leaves a stream handler of libp2p ends the host, including the ordinary "the peer went away". So every
handler runs inside ``Guard.wrap``: ours, libp2p's own (identify, ping, kad) and the negotiation before them.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from wire.errors import BitwrkError, Misbehaved

RawHandler = Callable[[Any], Awaitable[None]]
"""A libp2p stream handler: takes a ``NetStream``."""

_RESET_S = 2.0


def leaves(error: BaseException) -> list[BaseException]:
    """The single errors inside a possibly nested group."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


async def reset_quietly(stream: Any) -> None:
    """Reset a libp2p stream in bounded time, whatever state it is in."""
    with trio.move_on_after(_RESET_S, shield=True):
        try:
            await stream.reset()
        except Exception:
            return


class Guard:
    """Wraps handlers. Counts go to ``counters``; a peer's fault goes to ``blame(peer_id_bytes, error)``."""

    def __init__(self, counters: Counter[str], blame: Callable[[bytes, Misbehaved], None]) -> None:
        self._counters = counters
        self._blame = blame
        self._open: Counter[tuple[str, bytes]] = Counter()

    def wrap(self, name: str, handler: RawHandler, *, limit_s: float | None = None, per_peer: int | None = None) -> RawHandler:
        """``handler`` behind the guard: at most ``per_peer`` at once for one peer, each at most ``limit_s`` seconds."""

        async def guarded(stream: Any) -> None:
            peer = bytes(stream.muxed_conn.peer_id.to_bytes())
            slot = (name, peer)
            if per_peer is not None and self._open[slot] >= per_peer:
                self._counters[f"{name}/over-bound"] += 1
                await reset_quietly(stream)
                return
            self._open[slot] += 1
            try:
                with trio.CancelScope() as scope:
                    if limit_s is not None:
                        scope.deadline = trio.current_time() + limit_s
                    await handler(stream)
                if scope.cancelled_caught:
                    self._counters[f"{name}/too-long"] += 1
                    await reset_quietly(stream)
            except* Exception as group:
                self._note(name, peer, group)
                await reset_quietly(stream)
            finally:
                self._open[slot] -= 1
                if not self._open[slot]:
                    del self._open[slot]

        return guarded

    def _note(self, name: str, peer: bytes, group: BaseException) -> None:
        for error in leaves(group):
            code = error.code if isinstance(error, BitwrkError) else type(error).__name__
            self._counters[f"{name}/{code}"] += 1
            if isinstance(error, Misbehaved):
                self._blame(peer, error)
