"""What a restart finds left over from before, and lets go: coins locked for nobody, content kept for nobody."""

import logging
from typing import Final

from cafs.shell.store import Store
from peer.core.brain import Brain
from peer.core.deal import FINAL, Role
from peer.node.money import Money

_LOG: Final = logging.getLogger("bitwrk.node")


async def tidy(brain: Brain, store: Store, money: Money | None) -> None:
    """Run once, before the node takes anything on. Requests of programs do not outlive the node, unfinished units do."""
    if money is not None:
        released = await money.wallet.release_unsent([*brain.purse.unsent(), *brain.justice.bonds.unsent()])
        if released:
            _LOG.info("%d transactions that nobody needs any more were given up; their coins are free again", released)
    live = {
        f"{role}:{key.hex()}"
        for role, ledger in ((Role.BUYER, brain.buying.ledger), (Role.SELLER, brain.selling.ledger))
        for key, unit in ledger.units.items()
        if unit.phase not in FINAL
    }
    for owner in await store.owners():
        if owner not in live:
            await store.unpin(owner)
