"""What belongs to the key of a home, found on the chain alone: for an owner who lost everything but the key."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import trio

from escrow.core.recovery import OVER, Judged, Standing
from escrow.core.transaction import show_id
from escrow.shell.recovery import Recovered, escrows_since, recover
from peer.config import Settings
from peer.home import Home
from peer.node.money import named_instance, open_chain
from wire.keys import peer_id_of, show_peer
from wire.limits import RECOVERY_LOOK_BLOCKS
from wire.network import Network

LOOK_S: Final = 1.0
Report = dict[str, Any]

_WORDS: Final = {
    Standing.WAITING: "can be taken back by the key alone from height {refund_height} on; the seller may close it before",
    Standing.DUE: "is taken back",
    Standing.REFUNDING: "is taken back; the refund waits for its block",
    Standing.SETTLED: "was closed; what was left is a coin of the account",
    Standing.REFUNDED: "was taken back; it is a coin of the account",
    Standing.RULED: "was divided by the arbiter",
    Standing.LOCKED: "was closed; the seller's part waits for him to show the key he was paid for",
    Standing.CLAIMED: "was closed, and the seller's part was taken",
    Standing.GONE: "is not on the chain",
}


def run_recovery(settings: Settings, since: int | None, *, take: bool, watch: bool, tell: Callable[[Report], None]) -> Report:
    """Look, and with ``watch`` again until nothing is open; ``tell`` hears every report that differs. Returns the last."""
    home = Home.at(settings.home)
    key = home.load_key()

    async def look() -> Report:
        last: Report = {}
        async with open_chain(settings, home) as chain:
            await named_instance(chain)
            start = since
            if start is None:
                start = 0 if settings.network.bitcoin == "regtest" else max(0, (await chain.tip()).height - RECOVERY_LOOK_BLOCKS)
            known = await escrows_since(key, settings.network, chain, start)
            while True:
                found = await recover(key, settings.network, chain, known, take=take)
                report = _report(found, settings.network, start)
                if report != last:
                    last = report
                    tell(report)
                if not watch or all(one.standing in OVER and one.confirmed for one in found.escrows):
                    return last
                await trio.sleep(LOOK_S)

    with home.lock():
        return trio.run(partial(look))


def _report(found: Recovered, network: Network, since: int) -> Report:
    taken = {channel: show_id(txid) for channel, txid in found.sent}
    return {
        "network": network.name,
        "money": "real" if network.real_money else "play",
        "address": found.address,
        "balance_sat": sum(one.output.value_sat for one in found.coins),
        "coins": len(found.coins),
        "from_height": since,
        "height": found.height,
        "escrows": [_line(one, taken) for one in found.escrows],
        "refused": list(found.refused),
    }


def _line(judged: Judged, taken: dict[bytes, str]) -> Report:
    terms = judged.found.contract.terms
    refund = taken.get(judged.found.contract.channel)
    standing = Standing.REFUNDING if refund is not None else judged.standing
    return {
        "txid": show_id(judged.found.outpoint.txid),
        "vout": judged.found.outpoint.vout,
        "capacity_sat": terms.capacity_sat,
        "seller": show_peer(peer_id_of(terms.seller)),
        "refund_height": terms.refund_height,
        "standing": standing.value,
        "confirmed": judged.confirmed and refund is None,
        "in_words": _WORDS[standing].format(refund_height=terms.refund_height),
        "spent_by": refund or (None if judged.spender is None else show_id(judged.spender)),
        "to_buyer_sat": judged.to_buyer_sat,
        "to_seller_sat": judged.to_seller_sat,
    }
