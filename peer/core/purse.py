"""Our channels, and which of them pays for which deal.

The purse translates: deals speak of units and prices, the escrow of references, locks and amounts. A channel with free capacity
and time left is used again; else one is opened that holds more than the deal at hand, for the next deals with the same seller,
but no more than we put into channels with him as yet. What there is no money for is left out of the deal.

All new channels of one epoch are funded by one transaction: a funding that is wanted waits while we still agree with sellers, or
wait for the answer of one, but not longer than the epoch.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final

from escrow.core.amounts import capacity_sat, enforced_from_sat, usable_msat
from escrow.core.buyer import BuyerChannel
from escrow.core.events import CloseAsked as CloseChannel
from escrow.core.events import (
    Closed,
    FundingBuilt,
    FundingFailed,
    FundingWanted,
    Letter,
    LetterIn,
    OutpointSeen,
    Pay,
    Phase,
    Reveal,
    Tick,
    TipSeen,
)
from escrow.core.memo import counter_of
from escrow.core.messages import ALL_CHANNELS, Held, Letters, Recall, read_letter
from escrow.core.opening import AnyChannel, SellerPolicy, answer_open, open_channel, propose_terms, restore
from escrow.core.recall import held, take_back
from escrow.core.seller import SellerChannel
from escrow.core.state import CHANNEL_TABLE, LOCK_TABLE
from peer.core import events as node
from peer.core.exposure import Exposure
from wire.effects import Count
from wire.errors import Refused
from wire.keys import PeerId, SecretKey, peer_id_of, public_of, show_peer
from wire.limits import CHANNEL_CAPACITY_MAX_SAT, CHANNELS_MAX
from wire.moments import SECOND, Instant
from wire.money import MSAT_PER_SAT
from wire.network import Network

HEADROOM: Final = 4
HEADROOM_MOST: Final = 8  # while so much more waits to be bought
_LIVE: Final = (Phase.OFFERED, Phase.FUNDING, Phase.FUNDED, Phase.OPEN)


class Purse:
    """All our channels by id, as buyer and as seller."""

    TABLES: ClassVar[tuple[str, ...]] = (CHANNEL_TABLE, LOCK_TABLE)

    def __init__(
        self,
        key: SecretKey,
        network: Network,
        instance: bytes | None,
        exposure: Exposure | None = None,
        arbiters: tuple[bytes, ...] = (),
        limit_sat: Callable[[bytes], int] = lambda _: CHANNEL_CAPACITY_MAX_SAT,
    ) -> None:
        self._key = key
        self._network = network
        self._instance = instance
        self._arbiters = arbiters
        self._limit_sat = limit_sat
        self._tip: TipSeen | None = None
        self.channels: dict[bytes, AnyChannel] = {}
        self._bound: dict[bytes, set[bytes]] = {}
        self._asked: set[PeerId] = set()
        self._exposure = exposure or Exposure()
        self._gathered: dict[bytes, FundingWanted] = {}
        self._alone: list[FundingWanted] = []
        self._fund_by: Instant | None = None

    @property
    def _arbiter(self) -> bytes | None:
        """The arbiter of the channels that we open: the one that our books name."""
        return self._arbiters[0] if self._arbiters else None

    def load(self, rows: Mapping[str, Mapping[bytes, bytes]]) -> None:
        """Take over the rows that the journal kept."""
        self.channels = restore(self._key, self._network, rows[CHANNEL_TABLE], list(rows[LOCK_TABLE].values()))

    # --- deals --------------------------------------------------------------------------------------------------------
    def want(self, event: node.ChannelWanted, reserved_msat: Callable[[bytes], int], now: Instant) -> list[Any]:
        """Find or open a channel that can pay ``amount_msat`` to the deal's seller, or as much of it as we risk with him."""
        usable = [one for one in self._with(event.peer) if one.usable and one.row.terms.arbiter == self._arbiter]
        ours = [one for one in usable if self._pays(one, event.unit_msat)]
        free = {one.channel: one.free_msat - reserved_msat(one.channel) for one in ours}
        for channel in ours:
            if free[channel.channel] >= event.amount_msat:
                return [self._bind(event, channel, event.amount_msat)]
        try:
            channel, effects, amount_msat = self._open(event, now)
        except Refused as refusal:
            roomiest = max(ours, key=lambda one: (free[one.channel], one.channel), default=None)
            if refusal.code == "exposure" and roomiest is not None and free[roomiest.channel] >= event.unit_msat:
                return [self._bind(event, roomiest, free[roomiest.channel])]
            return [node.ChannelFailed(deal=event.deal, code=refusal.code, sentence=refusal.sentence)]
        return [*effects, self._bind(event, channel, amount_msat)]

    def _with(self, peer: PeerId) -> list[BuyerChannel]:
        """Our channels with one seller that are not over, in a fixed order."""
        held = [self.channels[name] for name in sorted(self.channels)]
        return [
            one
            for one in held
            if isinstance(one, BuyerChannel) and one.peer == peer and one.phase not in (Phase.CLOSED, Phase.BURIED)
        ]

    @staticmethod
    def _pays(channel: BuyerChannel, unit_msat: int) -> bool:
        """Whether the next payment of this size makes a balance that the chain enforces, or is within the agreed credit."""
        terms = channel.row.terms
        enforced = enforced_from_sat(terms.feerate_sat_per_kvb)
        return terms.credit_sat >= enforced or (channel.row.paid_msat + unit_msat) // MSAT_PER_SAT >= enforced

    def _bind(self, event: node.ChannelWanted, channel: BuyerChannel, amount_msat: int) -> node.ChannelBound:
        self._bound.setdefault(channel.channel, set()).add(event.deal)
        units = None if amount_msat >= event.amount_msat else amount_msat // event.unit_msat
        return node.ChannelBound(deal=event.deal, channel=channel.channel, ready=channel.phase is Phase.OPEN, units=units)

    def _open(self, event: node.ChannelWanted, now: Instant) -> tuple[BuyerChannel, list[Any], int]:
        """A new channel, and how much of the amount it is for."""
        if self._instance is None or self._tip is None:
            raise Refused("no-chain", "the chain has not been seen yet; nothing can be paid")
        if len(self.channels) >= CHANNELS_MAX:
            raise Refused("channels-full", f"there are {CHANNELS_MAX} channels already; close some first")
        feerate = self._tip.feerate_sat_per_kvb or self._network.feerate_min_sat_per_kvb
        ruled = self._arbiter is not None
        seller = public_of(event.peer)
        most_sat = self._exposure.capacity_sat(seller, self._limit_sat(seller))
        room_sat = most_sat - sum(one.row.terms.capacity_sat for one in self._with(event.peer))
        amount_msat = event.amount_msat
        if capacity_sat(amount_msat, feerate, arbiter=ruled) > room_sat:
            whole = usable_msat(room_sat, feerate, arbiter=ruled) // max(1, event.unit_msat)
            amount_msat = whole * event.unit_msat
            if whole <= 0 or capacity_sat(amount_msat, feerate, arbiter=ruled) > room_sat:
                sentence = f"{most_sat} sat are put into channels with this seller as yet, and {room_sat} of them are left"
                raise Refused("exposure", sentence)
        ahead_msat = min(HEADROOM_MOST * amount_msat, max(HEADROOM * amount_msat, amount_msat + event.more_msat))
        roomy = min(room_sat, capacity_sat(ahead_msat, feerate, arbiter=ruled))
        # Payments too small for the chain to enforce start as credit, which the terms have to name.
        enforced = enforced_from_sat(feerate)
        terms = propose_terms(
            self._key,
            seller,
            self._network,
            self._instance,
            height=self._tip.height,
            feerate_sat_per_kvb=feerate,
            capacity_sat=roomy,
            counter=self._fresh_counter(now),
            arbiter=self._arbiter,
            credit_sat=enforced if event.unit_msat < enforced * MSAT_PER_SAT else 0,
        )
        channel, effects = open_channel(self._key, self._network, terms, now)
        self.channels[channel.channel] = channel
        return channel, [*effects, *channel.handle(self._tip, now)], amount_msat

    # --- funding ------------------------------------------------------------------------------------------------------
    def gather(self, effect: FundingWanted, now: Instant) -> list[Any]:
        """A channel wants its funding: keep it for the others of this epoch. What is no channel waits for nobody."""
        if effect.channel not in self.channels:
            self._alone.append(effect)
            return []
        clock = self._network.clock
        if self._fund_by is None:
            self._fund_by = clock.start(clock.epoch(now) + 1)
        self._gathered[effect.channel] = effect
        return []

    def fundings(self, now: Instant, *, talking: bool) -> list[FundingWanted]:
        """The fundings to build together now, or none yet. ``talking``: there are sellers with whom we are still agreeing."""
        alone, self._alone = self._alone, []
        if self._fund_by is None:
            return alone
        asked = any(isinstance(one, BuyerChannel) and one.phase is Phase.OFFERED for one in self.channels.values())
        if (talking or asked) and now < self._fund_by:
            return alone
        ready = [self._gathered[name] for name in sorted(self._gathered) if self.channels[name].phase is Phase.FUNDING]
        self._gathered, self._fund_by = {}, None
        return [*alone, *ready]

    def _fresh_counter(self, now: Instant) -> int:
        """A counter never used before: the second it is, or the next free one. A lost disk cannot bring an old one back."""
        used = {counter_of(one.row.terms.nonce) for one in self.channels.values() if isinstance(one, BuyerChannel)}
        return next(one for one in itertools.count(now // SECOND) if one not in used)

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
        letter, said = LetterIn(peer=peer, payload=payload), read_letter(payload)
        if isinstance(said, Recall | Held):
            return self._recalled(peer, said, now)
        name = said.channel
        if name in self.channels:
            return self._tell(name, letter, now)
        if self._instance is None or self._tip is None or len(self.channels) >= CHANNELS_MAX:
            return [Count(code="channel-not-taken")]
        policy = SellerPolicy(
            instance=self._instance,
            capacity_max_sat=self._limit_sat(self._key.public),
            arbiters=frozenset(self._arbiters),
            arbiter_required=self._arbiter is not None,
        )
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
        return [*effects, *self.recall([peer] if peer in self._asked else [], now)]

    # --- a lost disk ----------------------------------------------------------------------------------------------------
    def recall(self, peers: Iterable[PeerId], _: Instant) -> list[Any]:
        """Ask sellers for what they hold of channels that we do not know any more; asked again when they come back."""
        self._asked |= set(peers)
        payload = Letters.pack(Recall(channel=ALL_CHANNELS))
        return [Letter(peer=peer, payload=payload) for peer in peers]

    def _recalled(self, peer: PeerId, letter: Recall | Held, now: Instant) -> list[Any]:
        if isinstance(letter, Recall):
            mine = [one for one in self.channels.values() if isinstance(one, SellerChannel) and one.peer == peer]
            told = [held(one) for one in mine if letter.channel in (ALL_CHANNELS, one.channel)]
            return [Letter(peer=peer, payload=Letters.pack(one)) for one in told if one is not None]
        if peer not in self._asked or letter.channel in self.channels or self._instance is None:
            return [Count(code="held-not-asked")]
        if self._tip is None or len(self.channels) >= CHANNELS_MAX:
            return [Count(code="channel-not-taken")]
        channel, effects = take_back(self._key, self._network, self._instance, letter, peer, now)
        self.channels[channel.channel] = channel
        return [*effects, *channel.handle(self._tip, now)]

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
        moments = [self._fund_by, *(channel.next_deadline() for channel in self.channels.values())]
        return min((one for one in moments if one is not None), default=None)

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
            "arbiter": None if row.terms.arbiter is None else show_peer(peer_id_of(row.terms.arbiter)),
            "ruling_height": row.terms.ruling_height or None,
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
