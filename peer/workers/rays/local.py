"""The same works computed on this machine, to compare with what strangers sent."""

from collections.abc import Sequence

import trio

from peer.workers.pool import WorkerPool, open_pool
from peer.workers.spec import built_in


async def render_locally(works: Sequence[bytes], processes: int) -> tuple[bytes, ...]:
    """The result of each work, in order, computed by ``processes`` workers of our own. Raises ``WorkFailed``."""
    results: list[bytes | Exception | None] = [None] * len(works)

    async def one(pool: WorkerPool, place: int, stop: trio.CancelScope) -> None:
        try:
            results[place] = await pool.run(works[place])
        except Exception as failed:  # carried out by hand: a nursery would wrap it in a group
            results[place] = failed
            stop.cancel()

    async with open_pool(built_in("rays"), processes) as pool, trio.open_nursery() as nursery:
        for place in range(len(works)):
            nursery.start_soon(one, pool, place, nursery.cancel_scope)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return tuple(result for result in results if isinstance(result, bytes))
