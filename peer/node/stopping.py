"""How a node ends: first it drains, then it stops. Nothing that was begun is lost, and it never takes longer than its bound.

The first signal asks for it: nothing more is sold, what no worker has begun is handed back, so that its buyer can place it again
at once, and what is computed, offered or paid is finished. What is still computed when the time is over is handed back as well.
Offered results that a buyer has not paid stay in the journal and are offered again by the next run. A second signal
ends it all at once, as a power cut would; that is safe too, only less polite.
"""

import logging
from typing import Final

import trio

from peer.core.events import DrainAsked
from peer.node.assembly import Assembly
from peer.node.notify import Notifier
from wire.limits import BATCH_WINDOW_MAX_MS, DRAIN_MAX_S

_LOG: Final = logging.getLogger("bitwrk.node")
_LOOK_S: Final = 0.1
_LETTERS_S: Final = 2.0
_STATUS_S: Final = 5.0


async def drain(node: Assembly, notifier: Notifier) -> None:
    """Finish what was begun and hand the rest back. Takes at most ``DRAIN_MAX_S`` and a moment."""
    notifier.say("STOPPING=1", "STATUS=draining")
    node.feed.publish("node", what="draining")
    node.service.stopping = True
    sold = bool(node.brain.selling.stalls.all())
    await node.driver.ask(DrainAsked())
    with trio.move_on_after(DRAIN_MAX_S) as patience:
        told = -1
        while left := _left(node):
            if left != told:
                told = left
                _LOG.info("draining: %d units are still under way; a second signal ends at once", left)
                notifier.status(f"draining: {left} units under way")
            await trio.sleep(_LOOK_S)
    if patience.cancelled_caught:
        _LOG.warning("draining took too long: what is still computed is handed back")
        await node.driver.ask(DrainAsked(all_of_it=True))
    with trio.move_on_after(_LETTERS_S):
        if sold:
            await trio.sleep(2 * BATCH_WINDOW_MAX_MS / 1_000)  # so that the neighbours hear that our orders are withdrawn
        while node.courier.statistics()["letters-waiting"]:  # noqa: ASYNC110 - nobody tells us, and it is soon over
            await trio.sleep(_LOOK_S)


def _left(node: Assembly) -> int:
    here = {view.peer for view in node.net.peers()}
    return node.brain.selling.unfinished(here, node.driver.now())


async def tell_status(node: Assembly, notifier: Notifier) -> None:
    """Keep the service manager's status true, for people who look at it."""
    while not node.brain.selling.draining:
        workers = [worker.statistics() for worker in node.workers.values()]
        busy, done = sum(one.busy for one in workers), sum(one.done for one in workers)
        notifier.status(f"{len(node.net.peers())} peers, {busy} units in work, {done} done")
        await trio.sleep(_STATUS_S)
