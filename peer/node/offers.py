"""From what the owner puts up to workers that run: built-in ones, commands and Blender, the latter two in sandboxes."""

import trio

from peer.offer import Offer
from peer.workers.blender.spec import blender_worker
from peer.workers.command import command_worker
from peer.workers.spec import WorkerSpec, built_in
from wire.errors import Refused


def _spec(offer: Offer) -> WorkerSpec:
    if offer.command is not None:
        if offer.article is None:
            raise Refused("bad-offer", "a command needs the article that it serves; give --article")
        return command_worker(offer.command, offer.article, shared=offer.share)
    if offer.worker == "blender":
        return blender_worker(offer.blender or "blender", article=offer.article)
    return built_in(offer.worker or "", offer.article)


async def spec_of(offer: Offer) -> WorkerSpec:
    """The worker of an offer; looks whether it can run here. Raises ``LocalFault`` or ``Refused`` with what is missing."""
    return await trio.to_thread.run_sync(_spec, offer)
