"""The checker of money and units: every row about deals, units, channels and payments that a host keeps.

- a unit is paid at most once, at its deal's price, through one channel, alone or in a batch that costs what its units cost
  together; a finished one exactly once, with its key or its batch's;
- a channel's balance is the sum of its payments, never above its capacity, and never falls;
- an ended channel has paid out what it held, no more and no less, and both ends say the same;
- a unit's phase moves along the table of ``peer.core.deal`` alone.
"""

import hashlib
from collections.abc import Callable
from typing import Final

from escrow.core.state import CHANNEL_TABLE, LOCK_TABLE, ChannelRow, Ending, PastLock, Role
from peer.core.batches import BATCH_TABLE, HeldBatch
from peer.core.deal import FINAL, TRANSITIONS, Deal, Phase, Unit
from peer.core.deal import Role as DealRole
from peer.core.ledger import DEAL_TABLE, UNIT_TABLE
from simulations.world.checkers import broken
from simulations.world.host import Host
from wire.canon import unpack
from wire.effects import Save
from wire.money import MSAT_PER_SAT


def _reachable() -> dict[Phase, frozenset[Phase]]:
    """Every phase that some steps lead to from each: one handle may take several."""
    after: dict[Phase, set[Phase]] = {phase: {phase} for phase in Phase}
    for _ in Phase:
        for phase in Phase:
            for following in TRANSITIONS[phase].values():
                after[phase] |= after[following]
    return {phase: frozenset(found) for phase, found in after.items()}


_LATER: Final = _reachable()


class Ledgers:
    """What all honest hosts have kept so far. ``honest`` says of an account whether it is an honest host's."""

    def __init__(self, honest: Callable[[bytes], bool]) -> None:
        self._honest = honest
        self._deals: dict[tuple[int, bytes], Deal] = {}
        self._units: dict[tuple[int, bytes], Unit] = {}
        self._paid: dict[bytes, tuple[bytes, int]] = {}
        self._opened: dict[bytes, bytes | None] = {}
        self._batches: dict[bytes, HeldBatch] = {}
        self._batch_of: dict[bytes, bytes] = {}
        self._amounts: dict[bytes, dict[int, int]] = {}
        self._channels: dict[tuple[int, bytes], ChannelRow] = {}
        self._endings: dict[bytes, Ending] = {}

    def row(self, host: Host, row: Save) -> None:
        """A row was kept."""
        if row.value is None or not host.honest:
            return
        if row.table == UNIT_TABLE:
            self._unit(host, row.key, unpack(Unit, row.value))
        elif row.table == DEAL_TABLE:
            self._deals[host.number, row.key] = unpack(Deal, row.value)
        elif row.table == BATCH_TABLE:
            self._batch(host, row.key, unpack(HeldBatch, row.value))
        elif row.table == CHANNEL_TABLE:
            self._channel(host, row.key, unpack(ChannelRow, row.value))
        elif row.table == LOCK_TABLE:
            self._lock(host, unpack(PastLock, row.value))

    def _unit(self, host: Host, key: bytes, unit: Unit) -> None:
        before = self._units.get((host.number, key))
        if before is not None and unit.phase not in _LATER[before.phase]:
            raise broken("phase", f"node {host.number}: a unit went from {before.phase} to {unit.phase}")
        self._units[host.number, key] = unit

    def _batch(self, host: Host, ref: bytes, batch: HeldBatch) -> None:
        """A batch that a seller offers, or that a buyer pays for: its payment's row may come before it or after it."""
        self._batches[ref] = batch
        prices = [self._deals[host.number, one.unit[:32]].price_msat for one in batch.body.units]
        if batch.body.amount_msat != sum(prices):
            raise broken("price", f"node {host.number}: a batch costs {batch.body.amount_msat}, its units {sum(prices)}")
        if ref in self._paid:
            self._pay_units(host, ref, self._paid[ref])

    def _pay_units(self, host: Host, ref: bytes, place: tuple[bytes, int]) -> None:
        for one in self._batches[ref].body.units:
            self._pay(host, one.unit, place)
            self._batch_of[one.unit] = ref

    def _pay(self, host: Host, ref: bytes, place: tuple[bytes, int]) -> None:
        if self._paid.setdefault(ref, place) != place:
            raise broken("paid-twice", f"node {host.number} pays for one unit a second time")

    def _lock(self, host: Host, lock: PastLock) -> None:
        place = (lock.channel, lock.sequence)
        self._pay(host, lock.ref, place)
        if lock.ref in self._batches:
            self._pay_units(host, lock.ref, place)
        if lock.key is not None and hashlib.sha256(lock.key).digest() != lock.lock:
            raise broken("wrong-key", f"node {host.number} took a key that does not open the lock")
        self._opened[lock.ref] = lock.key or self._opened.get(lock.ref)

    def _channel(self, host: Host, name: bytes, row: ChannelRow) -> None:
        before = self._channels.get((host.number, name))
        self._channels[host.number, name] = row
        if row.paid_msat > row.terms.capacity_sat * MSAT_PER_SAT or row.revealed_msat > row.paid_msat:
            raise broken("overpaid", f"node {host.number}: a channel has paid more than it holds, or shown more than it paid")
        if before is not None and (row.paid_msat < before.paid_msat or row.revealed_msat < before.revealed_msat):
            raise broken("balance-fell", f"node {host.number}: a channel's balance has fallen")
        if row.role is Role.BUYER and row.last is not None:
            amounts = self._amounts.setdefault(name, {})
            amounts[row.last.sequence] = row.last.amount_msat
            if row.paid_msat != sum(amounts.values()):
                raise broken("balance", f"node {host.number}: a channel's balance is not the sum of its payments")
            due_msat = self._due_msat(host, row.last.ref)
            if due_msat is not None and row.last.amount_msat != due_msat:
                raise broken("price", f"node {host.number} pays {row.last.amount_msat} where {due_msat} was agreed")
        if row.ending is not None:
            self._ending(host, name, row, row.ending)

    def _due_msat(self, host: Host, ref: bytes) -> int | None:
        """What was agreed for a unit or a batch; None while it is not known."""
        batch, deal = self._batches.get(ref), self._deals.get((host.number, ref[:32]))
        if batch is not None:
            return batch.body.amount_msat
        return None if deal is None else deal.price_msat

    def _ending(self, host: Host, name: bytes, row: ChannelRow, ending: Ending) -> None:
        total = ending.to_seller_sat + ending.to_buyer_sat + ending.fees_sat
        if total not in (0, row.terms.capacity_sat):
            raise broken("money-lost", f"node {host.number}: a channel of {row.terms.capacity_sat} sat ended with {total}")
        if ending.txid is not None:
            self._endings[name] = ending

    # --- the end ----------------------------------------------------------------------------------------------------

    def check_end(self, alive: frozenset[int]) -> None:
        """Every deal is over, every finished unit was paid, every channel closed, and both ends agree how."""
        for (number, key), unit in sorted(self._units.items()):
            if number not in alive:
                continue
            deal = self._deals[number, key[:32]]
            if unit.phase not in FINAL:
                raise broken(
                    "deal-open", f"node {number}, {deal.role}: a unit is {unit.phase} ({unit.sentence}) after the quiet time"
                )
            if unit.phase is Phase.FINISHED and deal.role is DealRole.BUYER and not deal.free:
                if key not in self._paid:
                    raise broken("unpaid", f"node {number} has a result that it never paid for")
                if self._opened.get(self._batch_of.get(key, key)) is None:
                    raise broken("keyless", f"node {number} finished a unit without its key")
        for (number, name), row in sorted(self._channels.items()):
            if number not in alive:
                continue
            if row.ending is None:
                if self._at_stake(row):
                    raise broken("channel-open", f"node {number}: a channel is {row.phase.value} after the quiet time")
                continue
            if row.ending.txid is not None and row.ending != self._endings[name]:
                raise broken("endings-differ", f"node {number}: the two ends of a channel saw different ends")

    def open_channels(self, alive: frozenset[int]) -> int:
        """Channels of hosts that are up, without an end, in which something of theirs is at stake."""
        rows = ((number, row) for (number, _), row in self._channels.items())
        return sum(1 for number, row in rows if number in alive and row.ending is None and self._at_stake(row))

    def _at_stake(self, row: ChannelRow) -> bool:
        """Everything but a seller's channel that nothing was ever paid through, with a buyer who need not be honest: he alone
        can end it.
        """
        return row.role is Role.BUYER or row.paid_msat > 0 or self._honest(row.terms.buyer)

    def endings(self) -> list[Ending]:
        """How channels ended on the chain, by channel."""
        return [self._endings[name] for name in sorted(self._endings)]

    def measures(self) -> dict[str, float]:
        """Sums for the report; buyers' rows alone, so that nothing counts twice."""
        phases = dict.fromkeys(FINAL, 0)
        for (number, key), unit in self._units.items():
            deal = self._deals.get((number, key[:32]))
            if deal is not None and deal.role is DealRole.BUYER and unit.phase in phases:
                phases[unit.phase] += 1
        return {
            **{f"units_{phase.value.replace('-', '_')}": count for phase, count in sorted(phases.items()) if count},
            "units_in_batches": len(self._batch_of),
            "deals": len({name for _, name in self._deals}),
            "channels": len({name for _, name in self._channels}),
            "paid_msat": sum(sum(amounts.values()) for amounts in self._amounts.values()),
            "escrow_fees_sat": sum(one.fees_sat for one in self._endings.values()),
            "escrow_to_sellers_sat": sum(one.to_seller_sat for one in self._endings.values()),
        }
