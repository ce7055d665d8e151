"""The wallet for the owner's programs: what he has by state, what happened, and paying out of it."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from escrow.core.amounts import CLAIM_VBYTES, CLOSE_PLAIN_VBYTES, FUND_VBYTES, REFUND_VBYTES, fee_sat
from escrow.core.buyer import BuyerChannel
from escrow.core.events import Phase
from escrow.core.history import entries
from escrow.core.recovery import escrows_in
from escrow.core.script import p2wpkh
from escrow.core.seller import SellerChannel
from escrow.core.transaction import Tx, parse, show_id
from peer.core.events import RecallAsked
from peer.core.purse import Purse
from peer.node.money import Money
from wire.canon import pack
from wire.errors import Refused
from wire.keys import PeerId, SecretKey, read_peer, show_peer
from wire.limits import HISTORY_DEFAULT_BLOCKS
from wire.money import MSAT_PER_SAT
from wire.network import Network
from wire.ports import OutPoint

Json = dict[str, Any]
_OVER: Final = (Phase.CLOSED, Phase.BURIED)
_PAYMENT_VBYTES: Final = 141


class WalletDesk:
    """Implements ``peer.api.wallet.WalletService``. ``ask`` tells the brain an event, ``here`` are the connected peers."""

    def __init__(
        self,
        key: SecretKey,
        network: Network,
        cap_sat: int,
        money: Money | None,
        purse: Purse,
        ask: Callable[[Any], Any],
        here: Callable[[], Sequence[PeerId]],
    ) -> None:
        self._key = key
        self._network = network
        self._cap_sat = cap_sat
        self._money_there = money
        self._purse = purse
        self._ask = ask
        self._here = here

    @property
    def _money(self) -> Money:
        if self._money_there is None:
            raise Refused("no-chain", "this node has no chain, so it has no wallet; start it with --chain")
        return self._money_there

    def _facts(self) -> Json:
        return {"network": self._network.name, "money": "real" if self._network.real_money else "play"}

    async def holdings(self) -> Json:
        """See the port."""
        money = self._money
        held = await money.wallet.holdings()
        channels = [one for one in self._purse.channels.values() if one.funding is not None and one.phase not in _OVER]
        bought = [one for one in channels if isinstance(one, BuyerChannel)]
        sold = [one for one in channels if isinstance(one, SellerChannel)]
        return {
            **self._facts(),
            "address": money.wallet.address,
            "spendable_sat": held.spendable_sat,
            "confirmed_sat": held.confirmed_sat,
            "waiting_sat": held.waiting_sat,
            "locked_sat": held.locked_sat,
            "young_sat": held.young_sat,
            "in_channels_sat": sum(one.row.terms.capacity_sat for one in bought),
            "paid_in_channels_sat": sum(one.row.paid_msat for one in bought) // MSAT_PER_SAT,
            "earned_in_channels_sat": sum(one.row.revealed_msat for one in sold) // MSAT_PER_SAT,
        }

    async def history(self, from_height: int | None) -> Json:
        """See the port."""
        money, script = self._money, p2wpkh(self._key.public)
        tip = await money.chain.tip()
        if from_height is None:
            local = self._network.bitcoin == "regtest"
            from_height = 0 if local else max(0, tip.height - HISTORY_DEFAULT_BLOCKS)
        past = await money.wallet.history(from_height)
        read: list[tuple[Tx, int | None]] = [(parse(one.raw, len(one.raw)), one.height) for one in past]
        confirmed = {transaction.txid for transaction, _ in read}
        waiting = [parse(raw) for raw in money.wallet.pending()]
        read += [(one, None) for one in waiting if one.txid not in confirmed]
        story = entries(script, read, self._escrows([transaction for transaction, _ in read]))
        return {
            **self._facts(),
            "from_height": from_height,
            "height": tip.height,
            "entries": [
                {
                    "height": one.height,
                    "kind": one.kind.value,
                    "change_sat": one.change_sat,
                    "fee_sat": one.fee_sat,
                    "txid": show_id(one.txid),
                    "channels": list(one.channels),
                }
                for one in reversed(story)
            ],
        }

    def _escrows(self, transactions: Sequence[Tx]) -> dict[OutPoint, str]:
        found = escrows_in(self._key, self._network, self._money.instance, transactions)
        names = {one.outpoint: "" for one in found}
        for one in self._purse.channels.values():
            if one.funding is not None:
                names[one.funding] = one.channel.hex()
        return names

    async def fees(self) -> Json:
        """See the port."""
        rate = await self._money.chain.feerate()
        sizes = {"payment": _PAYMENT_VBYTES, "funding": FUND_VBYTES, "close": CLOSE_PLAIN_VBYTES}
        sizes |= {"claim": CLAIM_VBYTES, "refund": REFUND_VBYTES}
        costs = {f"{name}_sat": fee_sat(vbytes, rate) for name, vbytes in sizes.items()}
        return {**self._facts(), "feerate_sat_per_kvb": rate, **costs}

    def _rate(self, feerate: int | None) -> int | None:
        least, most = self._network.feerate_min_sat_per_kvb, self._network.feerate_max_sat_per_kvb
        if feerate is not None and not least <= feerate <= most:
            sentence = f"a fee rate on {self._network.name} is {least} to {most} sat per 1,000 virtual bytes"
            raise Refused("bad-feerate", sentence)
        return feerate

    async def quote(self, address: str, value_sat: int | None, feerate: int | None) -> Json:
        """See the port."""
        told = await self._money.wallet.quote(address, value_sat, self._rate(feerate))
        costs = {"value_sat": told.value_sat, "fee_sat": told.fee_sat, "vbytes": told.vbytes, "inputs": told.inputs}
        return {**self._facts(), "address": address, **costs}

    async def send(self, request: str, address: str, value_sat: int | None, feerate: int | None) -> Json:
        """See the port."""
        money, rate = self._money, self._rate(feerate)
        if self._network.real_money and value_sat is not None and value_sat > self._cap_sat:
            raise Refused("over-cap", f"the settings allow {self._cap_sat} sat at a time; withdraw everything, or raise the cap")
        sent = await money.wallet.send(request, address, value_sat, rate)
        return {
            **self._facts(),
            "request": request,
            "address": address,
            "txid": show_id(sent.txid),
            "value_sat": sent.value_sat,
            "fee_sat": sent.fee_sat,
            "seen": sent.seen,
        }

    async def recall(self, peers: Sequence[str]) -> list[str]:
        """See the port."""
        self._money  # noqa: B018 - without a chain there is nothing to recall
        asked = [read_peer(one) for one in peers] or list(self._here())
        await self._ask(RecallAsked(peers=tuple(asked)))
        return [show_peer(one) for one in asked]

    def escrow(self, channel: str) -> Json:
        """See the port."""
        try:
            found = self._purse.channels.get(bytes.fromhex(channel))
        except ValueError:
            found = None
        if found is None:
            raise Refused("unknown-channel", "there is no such channel; see /v1/channels")
        locks = found.past_locks if isinstance(found, BuyerChannel) else ()
        return {**self._facts(), "row": pack(found.row).hex(), "locks": [pack(one).hex() for one in locks]}
