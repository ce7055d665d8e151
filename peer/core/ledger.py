"""The deals and units one party holds, and the one way to move a unit: along the table, saved, with its reason told.

Shared by ``buying`` and ``selling``; each keeps its own. Nothing here decides; it only refuses steps that the table
does not have.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, Final

from peer.core.batches import BATCH_TABLE, HeldBatch
from peer.core.deal import FINAL, Deal, Phase, Step, Unit, step, unit_key
from peer.core.events import Post
from peer.core.letters import DEAL, DealLetter, Lane, address
from wire.canon import pack, unpack
from wire.effects import Save
from wire.errors import Ignore, Misbehaved, require
from wire.keys import PeerId, peer_id_of, public_of
from wire.limits import REASON_MAX_CHARS
from wire.moments import Instant

DEAL_TABLE: Final = "deal"
UNIT_TABLE: Final = "unit"
FINISHED_KEPT: Final = 1_000

NEVER: Final = Instant((1 << 63) - 1)


class Ledger:
    """Deals by id and units by key, with the rows to save since the last ``drain``."""

    def __init__(self) -> None:
        self.deals: dict[bytes, Deal] = {}
        self.units: dict[bytes, Unit] = {}
        self.batches: dict[bytes, HeldBatch] = {}
        self._dirty: dict[tuple[str, bytes], bytes | None] = {}
        self._live: set[bytes] = set()
        self._over: dict[bytes, None] = {}
        self.version = 0

    def load(self, deals: dict[bytes, bytes], units: dict[bytes, bytes], batches: dict[bytes, bytes] | None = None) -> None:
        """Take over the rows that the journal kept; ``batches`` may hold those of another ledger, which are left."""
        self.deals = {key: unpack(Deal, deals[key]) for key in sorted(deals)}
        self.units = {key: unpack(Unit, units[key]) for key in sorted(units) if key[:32] in self.deals}
        held = {ref: unpack(HeldBatch, raw) for ref, raw in sorted((batches or {}).items())}
        self.batches = {ref: one for ref, one in held.items() if all(part.unit in self.units for part in one.body.units)}
        self._live = {key for key, unit in self.units.items() if unit.phase not in FINAL}
        over = [one for one in self.deals.values() if self.is_over(one.deal)]
        self._over = {one.deal: None for one in sorted(over, key=lambda one: (one.agreed_us, one.deal))}

    def put_deal(self, deal: Deal) -> None:
        """Keep a deal."""
        self.deals[deal.deal] = deal
        self._dirty[DEAL_TABLE, deal.deal] = pack(deal)

    def put_unit(self, unit: Unit) -> None:
        """Keep a unit."""
        key = unit_key(unit.deal, unit.unit)
        self.units[key] = unit
        self._dirty[UNIT_TABLE, key] = pack(unit)
        self.version += 1
        if unit.phase not in FINAL:
            self._live.add(key)
            return
        self._live.discard(key)
        if self.is_over(unit.deal):
            self._over[unit.deal] = None

    def put_batch(self, ref: bytes, batch: HeldBatch) -> None:
        """Keep a batch."""
        self.batches[ref] = batch
        self._dirty[BATCH_TABLE, ref] = pack(batch)

    def drop_batch(self, ref: bytes) -> None:
        """Forget a batch."""
        if self.batches.pop(ref, None) is not None:
            self._dirty[BATCH_TABLE, ref] = None

    def finished(self) -> dict[bytes, int]:
        """How many units ended as they should, by the account they were traded with."""
        counts: dict[bytes, int] = {}
        for key, unit in self.units.items():
            if unit.phase is Phase.FINISHED and not self.deal_of(key).free:
                other = self.deal_of(key).other
                counts[other] = counts.get(other, 0) + 1
        return counts

    def deal_of(self, key: bytes) -> Deal:
        """The deal that a unit belongs to."""
        return self.deals[key[:32]]

    def held_with(self, peer: PeerId, deal: bytes, unit: int) -> bytes:
        """The key of a unit that ``peer`` speaks of. Raises ``Ignore`` or ``Misbehaved`` when it is not his to speak of."""
        held = self.deals.get(deal)
        if held is None or held.other != public_of(peer):
            raise Ignore("unknown-deal", "a letter about a deal that is not ours")
        key = unit_key(deal, unit)
        if key not in self.units:
            raise Misbehaved("unknown-unit", "a letter about a unit that the deal does not have")
        return key

    def units_of(self, deal: bytes) -> Iterator[tuple[bytes, Unit]]:
        """The units of one deal, in their order."""
        held = self.deals[deal]
        for number in range(held.quantity):
            key = unit_key(deal, number)
            unit = self.units.get(key)
            if unit is not None:
                yield key, unit

    def change(self, key: bytes, now: Instant, /, **facts: Any) -> Unit:
        """Keep the unit with other facts but in the same phase."""
        require("phase" not in facts, "phase-by-table", "a unit's phase moves by the table alone")
        unit = dataclasses.replace(self.units[key], changed_us=now, **facts)
        self.put_unit(unit)
        return unit

    def move(self, key: bytes, event: Step, now: Instant, code: str, sentence: str, /, **facts: Any) -> Unit | None:
        """Take one step, with its reason. None, and nothing changed, when the table has no such step from here."""
        unit = self.units[key]
        phase = step(unit.phase, event)
        if phase is None:
            return None
        if phase in FINAL:
            facts.setdefault("deadline_us", NEVER)
        unit = dataclasses.replace(
            unit, phase=phase, code=code[:40], sentence=sentence[:REASON_MAX_CHARS], changed_us=now, **facts
        )
        self.put_unit(unit)
        return unit

    def next_deadline(self) -> Instant | None:
        """The first deadline of any unit."""
        first = min((self.units[key].deadline_us for key in self._live), default=NEVER)
        return None if first == NEVER else Instant(first)

    def late(self, now: Instant) -> list[bytes]:
        """Keys of the units whose deadline has passed, in a fixed order."""
        return sorted(key for key in self._live if self.units[key].deadline_us <= now)

    def forget_old(self) -> None:
        """Drop the oldest deals that are over, beyond the number kept for people to look at."""
        while len(self._over) > FINISHED_KEPT:
            deal = next(iter(self._over))
            del self._over[deal]
            gone = {key for key, _ in self.units_of(deal)}
            for ref in [ref for ref, one in self.batches.items() if any(part.unit in gone for part in one.body.units)]:
                self.drop_batch(ref)
            for key in sorted(gone):
                del self.units[key]
                self._dirty[UNIT_TABLE, key] = None
            del self.deals[deal]
            self._dirty[DEAL_TABLE, deal] = None

    @property
    def open_deals(self) -> int:
        """How many deals are not over."""
        return len(self.deals) - len(self._over)

    def is_over(self, deal: bytes) -> bool:
        """Whether nothing more can happen in a deal."""
        return all(unit.phase in FINAL for _, unit in self.units_of(deal))

    def in_phase(self, *phases: Phase) -> list[bytes]:
        """Keys of the units in one of these phases, none of them final, in a fixed order."""
        return sorted(key for key in self._live if self.units[key].phase in phases)

    def drain(self) -> tuple[Save, ...]:
        """The rows that changed since the last call."""
        rows = tuple(Save(table=table, key=key, value=value) for (table, key), value in sorted(self._dirty.items()))
        self._dirty.clear()
        return rows


def say(deal: Deal, letter: DealLetter) -> Post:
    """A letter to the other party of a deal."""
    return Post(peer=peer_id_of(deal.other), letter=address(Lane.DEAL, DEAL.pack(letter)))
