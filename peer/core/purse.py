"""Our channels, and which of them pays for which deal.

The purse translates: deals speak of units and prices, the escrow of references, locks and amounts. A channel with free capacity
and time left is used again; else one is opened that holds more than the deal at hand, for the next deals with the same seller.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

from escrow.core.amounts import capacity_sat, enforced_from_sat, usable_msat
from escrow.core.buyer import BuyerChannel
from escrow.core.events import CloseAsked as CloseChannel
from escrow.core.events import (
    Closed,
    FundingBuilt,
    FundingFailed,
    LetterIn,
    OutpointSeen,
    Pay,
    Phase,
    Reveal,
    Tick,
    TipSeen,
)
from escrow.core.messages import read_letter
from escrow.core.opening import AnyChannel, SellerPolicy, answer_open, open_channel, propose_terms, restore
from escrow.core.seller import SellerChannel
from escrow.core.state import CHANNEL_TABLE, LOCK_TABLE
from peer.core import events as node
from wire.effects import Count
from wire.errors import Refused
from wire.keys import PeerId, SecretKey, public_of
from wire.limits import CHANNELS_MAX, FIRST_EXPOSURE_MAX_SAT
from wire.moments import Instant
from wire.money import MSAT_PER_SAT
from wire.network import Network

HEADROOM: Final = 4
_LIVE: Final = (Phase.OFFERED, Phase.FUNDING, Phase.FUNDED, Phase.OPEN)


class Purse:
    """All our channels by id, as buyer and as seller."""

    TABLES: ClassVar[tuple[str, ...]] = (CHANNEL_TABLE, LOCK_TABLE)

    def __init__(self, key: SecretKey, network: Network, instance: bytes | None) -> None:
        self._key = key
        self._network = network
        self._instance = instance
        self._tip: TipSeen | None = None
        self.channels: dict[bytes, AnyChannel] = {}
        self._bound: dict[bytes, set[bytes]] = {}

    def load(self, rows: Mapping[str, Mapping[bytes, bytes]]) -> None:
        """Take over the rows that the journal kept."""
        self.channels = restore(self._key, self._network, rows[CHANNEL_TABLE], list(rows[LOCK_TABLE].values()))

    # --- deals --------------------------------------------------------------------------------------------------------
    def want(self, event: node.ChannelWanted, reserved_msat: Callable[[bytes], int], now: Instant) -> list[Any]:
        """Find or open a channel that can pay ``amount_msat`` to the deal's seller."""
        for name in sorted(self.channels):
            channel = self.channels[name]
            if not isinstance(channel, BuyerChannel) or channel.peer != event.peer or not channel.usable:
                continue
            if channel.free_msat - reserved_msat(name) >= event.amount_msat:
                return [self._bind(event.deal, channel)]
        try:
            channel, effects = self._open(event, now)
        except Refused as refusal:
            return [node.ChannelFailed(deal=event.deal, code=refusal.code, sentence=refusal.sentence)]
        return [*effects, self._bind(event.deal, channel)]

    def _bind(self, deal: bytes, channel: BuyerChannel) -> node.ChannelBound:
        self._bound.setdefault(channel.channel, set()).add(deal)
        return node.ChannelBound(deal=deal, channel=channel.channel, ready=channel.phase is Phase.OPEN)

    def _open(self, event: node.ChannelWanted, now: Instant) -> tuple[BuyerChannel, list[Any]]:
        if self._instance is None or self._tip is None:
            raise Refused("no-chain", "the chain has not been seen yet; nothing can be paid")
        if len(self.channels) >= CHANNELS_MAX:
            raise Refused("channels-full", f"there are {CHANNELS_MAX} channels already; close some first")
        feerate = self._tip.feerate_sat_per_kvb or self._network.feerate_min_sat_per_kvb
        needed = capacity_sat(event.amount_msat, feerate)
        if needed > FIRST_EXPOSURE_MAX_SAT:
            raise Refused("exposure", f"{needed} sat in one channel are more than the {FIRST_EXPOSURE_MAX_SAT} allowed")
        roomy = min(FIRST_EXPOSURE_MAX_SAT, capacity_sat(HEADROOM * event.amount_msat, feerate))
        # Payments too small for the chain to enforce start as credit, which the terms have to name.
        enforced = enforced_from_sat(feerate)
        seller = public_of(event.peer)
        known = sum(1 for one in self.channels.values() if isinstance(one, BuyerChannel) and one.row.terms.seller == seller)
        terms = propose_terms(
            self._key,
            seller,
            self._network,
            self._instance,
            height=self._tip.height,
            feerate_sat_per_kvb=feerate,
            capacity_sat=roomy,
            counter=known,
            credit_sat=enforced if event.unit_msat < enforced * MSAT_PER_SAT else 0,
        )
        channel, effects = open_channel(self._key, self._network, terms, now)
        self.channels[channel.channel] = channel
        return channel, [*effects, *channel.handle(self._tip, now)]

    def pay(self, event: node.PayWanted, now: Instant) -> list[Any]:
        """Pay for a unit."""
        pay = Pay(ref=event.unit, lock=event.lock, amount_msat=event.amount_msat)
        return self._tell(event.channel, pay, now)

    def reveal(self, event: node.RevealWanted, now: Instant) -> list[Any]:
        """Give the key of a locked payment."""
        return self._tell(event.channel, Reveal(ref=event.unit, key=event.key), now)

    def closed(self, event: Closed) -> list[Any]:
        """A channel ended."""
        self._bound.pop(event.channel, None)
        return []

    # --- from the driver ----------------------------------------------------------------------------------------------
    def letter(self, peer: PeerId, payload: bytes, now: Instant) -> list[Any]:
        """A letter of the channel lane."""
        letter = LetterIn(peer=peer, payload=payload)
        name = read_letter(payload).channel
        if name in self.channels:
            return self._tell(name, letter, now)
        if self._instance is None or self._tip is None or len(self.channels) >= CHANNELS_MAX:
            return [Count(code="channel-not-taken")]
        policy = SellerPolicy(instance=self._instance)
        channel, effects = answer_open(self._key, self._network, policy, letter, height=self._tip.height, now=now)
        if channel is None:
            return list(effects)
        self.channels[channel.channel] = channel
        return [*effects, *channel.handle(self._tip, now)]

    def funding_built(self, event: node.FundingBuilt, now: Instant) -> list[Any]:
        """The wallet's transaction for a channel."""
        return self._tell(event.channel, FundingBuilt(raw=event.raw, vout=event.vout), now)

    def funding_failed(self, event: node.FundingFailed, now: Instant) -> list[Any]:
        """The wallet cannot fund a channel: its deals are refused with the wallet's words."""
        waiting = sorted(self._bound.pop(event.channel, set()))
        failed = [node.ChannelFailed(deal=deal, code=event.code, sentence=event.sentence) for deal in waiting]
        return [*failed, *self._tell(event.channel, FundingFailed(code=event.code, sentence=event.sentence), now)]

    def outpoint_seen(self, event: OutpointSeen, now: Instant) -> list[Any]:
        """News of an output, for the channels that watch it."""
        effects: list[Any] = []
        for name in sorted(self.channels):
            if event.outpoint in self.channels[name].watched:
                effects += self._tell(name, event, now)
        return effects

    def tip_seen(self, event: TipSeen, now: Instant) -> list[Any]:
        """A new best block, for every channel."""
        self._tip = event
        effects: list[Any] = []
        for name in sorted(self.channels):
            effects += self._tell(name, event, now)
        return effects

    def peer_up(self, peer: PeerId, now: Instant) -> list[Any]:
        """The peer can be reached again: say what is owed."""
        effects: list[Any] = []
        for name in sorted(self.channels):
            if self.channels[name].peer == peer:
                effects += self.channels[name].resume(now)
        return effects

    def close_all(self, reason: str, now: Instant) -> list[Any]:
        """Ask every channel that is not closing yet to close."""
        effects: list[Any] = []
        for name in sorted(self.channels):
            if self.channels[name].phase in _LIVE:
                effects += self._tell(name, CloseChannel(reason=reason), now)
        return effects

    def tick(self, now: Instant) -> list[Any]:
        """Wake the channels whose deadline has come."""
        effects: list[Any] = []
        for name in sorted(self.channels):
            deadline = self.channels[name].next_deadline()
            if deadline is not None and deadline <= now:
                effects += self._tell(name, Tick(), now)
        return effects

    def next_deadline(self) -> Instant | None:
        """When ``tick`` has something to do."""
        return min(
            (one for one in (channel.next_deadline() for channel in self.channels.values()) if one is not None), default=None
        )

    def resume(self, now: Instant) -> list[Any]:
        """After a restart."""
        effects: list[Any] = []
        for name in sorted(self.channels):
            effects += self.channels[name].resume(now)
        return effects

    def _tell(self, name: bytes, event: Any, now: Instant) -> list[Any]:
        channel = self.channels.get(name)
        if channel is None:
            return [Count(code="unknown-channel")]
        return list(channel.handle(event, now))

    def unsent(self) -> list[bytes]:
        """Funding transactions that our channels still count on, for the wallet to keep its coins locked after a restart."""
        return [one.row.funding_raw for one in self.channels.values() if one.row.funding_raw]

    # --- for people ---------------------------------------------------------------------------------------------------
    def exposure_sat(self) -> int:
        """Our satoshi that are in escrow at the moment."""
        return sum(
            one.row.terms.capacity_sat
            for one in self.channels.values()
            if isinstance(one, BuyerChannel) and one.phase in (*_LIVE, Phase.CLOSING, Phase.CLAIMING, Phase.REFUNDING)
        )

    def statement(self) -> list[dict[str, Any]]:
        """Every channel as plain values."""
        return [self._line(self.channels[name]) for name in sorted(self.channels)]

    @staticmethod
    def _line(channel: AnyChannel) -> dict[str, Any]:
        row = channel.row
        funding = channel.funding
        return {
            "channel": channel.channel.hex(),
            "role": "seller" if isinstance(channel, SellerChannel) else "buyer",
            "phase": row.phase.value,
            "capacity_sat": row.terms.capacity_sat,
            "usable_msat": usable_msat(
                row.terms.capacity_sat, row.terms.feerate_sat_per_kvb, arbiter=row.terms.arbiter is not None
            ),
            "paid_msat": row.paid_msat,
            "revealed_msat": row.revealed_msat,
            "refund_height": row.terms.refund_height,
            "funding_txid": None if funding is None else funding.txid[::-1].hex(),
            "funding_vout": None if funding is None else funding.vout,
            "ending": None if row.ending is None else row.ending.how.value,
            "close_txid": None if row.ending is None or row.ending.txid is None else row.ending.txid[::-1].hex(),
            "to_seller_sat": None if row.ending is None else row.ending.to_seller_sat,
            "to_buyer_sat": None if row.ending is None else row.ending.to_buyer_sat,
            "fees_sat": None if row.ending is None else row.ending.fees_sat,
        }
