"""Bonds: our own, and those of the accounts that we trade with.

Theory of operation. A bond is coins that an account has locked until a height (``escrow.core.bond``). Whoever has one tells the
accounts that he meets: a signed announcement names the output, the chain shows whether it is there, unspent, with this value
and script. What a bond does is one thing only: it raises the most that we put into one channel with its account, and that a
seller with a bond accepts. It gives an order no place in any queue, so newcomers without one lose nothing but large first
trades. A bond counts while it is locked and for less as its end comes near; a proof of fraud against its account ends that
until the bond is over.

    own bond      funding -> locked -> releasing -> released, or failed
    theirs        announced, watched, and worth what the chain shows
"""

import dataclasses
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final

from escrow.core.bond import BadBond, bond_descriptor, bond_output, release
from escrow.core.contract import HEIGHT_MAX
from escrow.core.events import FundingWanted, OutpointSeen, Submit, TipSeen, Unwatch, Watch
from escrow.core.state import Raw
from escrow.core.transaction import outpoint_bytes, parse, read_outpoint
from peer.core.events import BondAsked, BondReleaseAsked, FundingBuilt, FundingFailed, Notice, Post, Reply
from peer.core.letters import Lane, address
from wire.account import account_of
from wire.canon import Choice, Hash32, Public33, Range, Signature64, Size, pack, record, unpack
from wire.effects import Save
from wire.envelope import id_of
from wire.errors import Ignore, Misbehaved, Refused
from wire.keys import PeerId, SecretKey, public_of, verify
from wire.limits import (
    BOND_BLOCKS_MAX,
    BOND_LEAST_SAT,
    BONDED_EXPOSURE_MAX_SAT,
    BONDS_KNOWN_MAX,
    BONDS_OWN_MAX,
    CHANNEL_CAPACITY_MAX_SAT,
    SUPPLY_MAX_SAT,
)
from wire.network import Network
from wire.ports import OutInfo, OutPoint

BOND_TABLE: Final = "bond"
BOND_PURPOSE: Final = "bond"
BOND_LETTER_MAX_BYTES: Final = 1_024


@record
class Bond:
    """Coins that ``account`` has locked until ``until_height``: the output is txid and little-endian index."""

    instance: Hash32
    account: Public33
    value_sat: Annotated[int, Range(1, SUPPLY_MAX_SAT)]
    until_height: Annotated[int, Range(1, HEIGHT_MAX)]
    outpoint: Annotated[bytes, Size(36, 36)]


@record
class Announced:
    """The account says: this bond is mine."""

    bond: Bond
    signature: Signature64


BONDS: Final = Choice("bonds", {1: Announced})


class BondPhase(StrEnum):
    """Where a bond of ours stands."""

    FUNDING = "funding"
    LOCKED = "locked"
    RELEASING = "releasing"
    RELEASED = "released"
    FAILED = "failed"


class BondStep(StrEnum):
    """What can happen to it."""

    BUILD = "build"
    FAIL = "fail"
    RELEASE = "release"
    SPEND = "spend"
    RETURN = "return"


BOND_STEPS: Final[dict[BondPhase, dict[BondStep, BondPhase]]] = {
    BondPhase.FUNDING: {BondStep.BUILD: BondPhase.LOCKED, BondStep.FAIL: BondPhase.FAILED},
    BondPhase.LOCKED: {BondStep.RELEASE: BondPhase.RELEASING, BondStep.SPEND: BondPhase.RELEASED},
    BondPhase.RELEASING: {BondStep.SPEND: BondPhase.RELEASED},
    BondPhase.RELEASED: {BondStep.RETURN: BondPhase.RELEASING},
    BondPhase.FAILED: {},
}


@record
class OwnBond:
    """A bond of ours (table ``bond``, key: its name)."""

    phase: BondPhase
    value_sat: Annotated[int, Range(1, SUPPLY_MAX_SAT)]
    until_height: Annotated[int, Range(1, HEIGHT_MAX)]
    outpoint: Annotated[bytes, Size(36, 36)] | None
    raw: Raw
    release_raw: Raw
    sentence: Annotated[str, Size(0, 480)]


def announcement_digest(network: Network, bond: Bond) -> bytes:
    """What the account signs."""
    return id_of(network.name, BOND_PURPOSE, pack(bond))


def extra_sat(value_sat: int, remaining_blocks: int) -> int:
    """By how much a bond raises what is put into one channel: all of it a year from its end, and in proportion nearer to it."""
    return value_sat * max(0, min(remaining_blocks, BOND_BLOCKS_MAX)) // BOND_BLOCKS_MAX


class Bonds:
    """Bonds of ours by name, and of others by output. ``accused`` says what is proven against an account."""

    TABLES: ClassVar[tuple[str, ...]] = (BOND_TABLE,)

    def __init__(self, key: SecretKey, network: Network, instance: bytes | None, accused: Callable[[bytes], str | None]) -> None:
        self._key = key
        self._network = network
        self._instance = instance
        self._accused = accused
        self._tip: TipSeen | None = None
        self.own: dict[bytes, OwnBond] = {}
        self._known: dict[OutPoint, Bond] = {}
        self._seen: dict[OutPoint, OutInfo | None] = {}
        self._dirty: dict[bytes, bytes | None] = {}

    def load(self, rows: Mapping[bytes, bytes]) -> None:
        """Take over the rows that the journal kept."""
        self.own = {key: unpack(OwnBond, raw) for key, raw in sorted(rows.items())}

    def resume(self) -> list[Any]:
        """After a restart: ask for funding again, look at every output again."""
        effects: list[Any] = []
        for name, row in self.own.items():
            if row.phase is BondPhase.FUNDING:
                effects.append(FundingWanted(channel=name, output=self._output(row)))
            elif row.outpoint is not None:
                effects.append(Watch(outpoint=read_outpoint(row.outpoint)))
        return effects

    def unsent(self) -> list[bytes]:
        """Transactions that our bonds count on."""
        return [row.raw for row in self.own.values() if row.raw and row.phase is BondPhase.LOCKED]

    # --- what a bond does ---------------------------------------------------------------------------------------------
    def limit_sat(self, account: bytes) -> int:
        """The most that we put into one channel with this account, or take from a buyer when it is our own."""
        return min(BONDED_EXPOSURE_MAX_SAT, CHANNEL_CAPACITY_MAX_SAT + self._extra_sat(account))

    def _extra_sat(self, account: bytes) -> int:
        if self._tip is None or self._accused(account) is not None:
            return 0
        bonds = self._ours() if account == self._key.public else list(self._known.values())
        return sum(
            extra_sat(one.value_sat, one.until_height - self._tip.height)
            for one in bonds
            if one.account == account and self._good(one)
        )

    def _good(self, bond: Bond) -> bool:
        """Whether the chain shows the bond: confirmed, unspent, as announced."""
        info = self._seen.get(read_outpoint(bond.outpoint))
        if info is None or info.height is None or info.spent_by is not None:
            return False
        output = bond_output(self._network.name, bond.account, bond.value_sat, bond.until_height)
        return (info.value_sat, info.script) == (output.value_sat, output.script)

    def _ours(self) -> list[Bond]:
        return [self._bond(row) for row in self.own.values() if row.phase is BondPhase.LOCKED and row.outpoint is not None]

    def _bond(self, row: OwnBond) -> Bond:
        return Bond(
            instance=self._instance or bytes(32),
            account=self._key.public,
            value_sat=row.value_sat,
            until_height=row.until_height,
            outpoint=row.outpoint or bytes(36),
        )

    # --- our own ------------------------------------------------------------------------------------------------------
    def lock(self, event: BondAsked) -> list[Any]:
        """The owner locks coins."""
        try:
            row = self._new(event)
        except Refused as refusal:
            return [Reply(request=event.request, result=None, code=refusal.code, sentence=refusal.sentence)]
        name = id_of(self._network.name, "bond/name", event.request.to_bytes(8, "big") + self._key.public)
        self._keep(name, row)
        return [
            FundingWanted(channel=name, output=self._output(row)),
            Reply(request=event.request, result=name, code="", sentence=""),
        ]

    def _new(self, event: BondAsked) -> OwnBond:
        if self._instance is None or self._tip is None:
            raise Refused("no-chain", "the chain has not been seen yet; nothing can be locked")
        if not BOND_LEAST_SAT <= event.value_sat <= SUPPLY_MAX_SAT:
            raise Refused("bad-amount", f"a bond has at least {BOND_LEAST_SAT} sat")
        if not 0 < event.blocks <= BOND_BLOCKS_MAX:
            raise Refused("bad-blocks", f"a bond is locked for 1 to {BOND_BLOCKS_MAX} blocks")
        self._make_room()
        return OwnBond(
            phase=BondPhase.FUNDING,
            value_sat=event.value_sat,
            until_height=self._tip.height + event.blocks,
            outpoint=None,
            raw=b"",
            release_raw=b"",
            sentence="the wallet builds the transaction",
        )

    def _make_room(self) -> None:
        if len(self.own) < BONDS_OWN_MAX:
            return
        for name, row in self.own.items():
            if row.phase in (BondPhase.RELEASED, BondPhase.FAILED):
                del self.own[name]
                self._dirty[name] = None
                return
        raise Refused("bonds-full", f"there are {BONDS_OWN_MAX} bonds already; release some first")

    def _output(self, row: OwnBond) -> Any:
        return bond_output(self._network.name, self._key.public, row.value_sat, row.until_height)

    def built(self, event: FundingBuilt) -> list[Any]:
        """The wallet's transaction."""
        row = self.own[event.channel]
        if row.outpoint is not None:
            return []
        outpoint = OutPoint(parse(event.raw).txid, event.vout)
        row = dataclasses.replace(row, outpoint=outpoint_bytes(outpoint), raw=event.raw)
        self._keep(event.channel, row)
        told = self._move(event.channel, BondStep.BUILD, f"locked until block {row.until_height}")
        return [*told, Submit(raw=event.raw, purpose="bond"), Watch(outpoint=outpoint)]

    def failed(self, event: FundingFailed) -> list[Any]:
        """The wallet cannot fund it."""
        return self._move(event.channel, BondStep.FAIL, event.sentence[:120])

    def free(self, event: BondReleaseAsked) -> list[Any]:
        """The owner takes a bond back."""
        try:
            row = self.own.get(event.bond)
            if row is None:
                raise Refused("unknown-bond", "there is no such bond")
            if row.phase is not BondPhase.LOCKED or row.outpoint is None or self._tip is None:
                raise Refused("not-locked", f"there is nothing to release: {row.sentence}")
            if self._tip.height < row.until_height:
                raise Refused("too-early", f"this bond is locked until block {row.until_height}; now is {self._tip.height}")
            rate = max(self._tip.feerate_sat_per_kvb or 0, self._network.feerate_min_sat_per_kvb)
            taking = release(self._network.name, self._key, read_outpoint(row.outpoint), row.value_sat, row.until_height, rate)
        except (Refused, BadBond) as refusal:
            return [Reply(request=event.request, result=None, code=refusal.code, sentence=refusal.sentence)]
        self._keep(event.bond, dataclasses.replace(row, release_raw=taking.serialise()))
        told = self._move(event.bond, BondStep.RELEASE, "on its way back to the account")
        reply = Reply(request=event.request, result=event.bond, code="", sentence="")
        return [*told, Submit(raw=taking.serialise(), purpose="bond release"), reply]

    # --- letters ------------------------------------------------------------------------------------------------------
    def peer_up(self, peer: PeerId) -> list[Any]:
        """An account that we deal with: tell it of our bonds."""
        letters = [
            Announced(bond=one, signature=self._key.sign(announcement_digest(self._network, one)))
            for one in self._ours()
            if self._good(one)
        ]
        return [Post(peer=peer, letter=address(Lane.BOND, BONDS.pack(letter))) for letter in letters]

    def hear(self, peer: PeerId, letter: Announced) -> list[Any]:
        """An account announces a bond. Raises ``Ignore`` or ``Misbehaved``."""
        bond = letter.bond
        if bond.account != public_of(peer):
            raise Misbehaved("not-his-bond", "a bond announced by somebody else than its account", penalty=20)
        if not verify(bond.account, announcement_digest(self._network, bond), letter.signature):
            raise Misbehaved("wrong-signature", "a bond that its account did not sign", penalty=50)
        if bond.instance != self._instance:
            raise Ignore("other-chain", "a bond on another chain than ours")
        outpoint = read_outpoint(bond.outpoint)
        if outpoint in self._known or sum(one.account == bond.account for one in self._known.values()) >= BONDS_OWN_MAX:
            raise Ignore("bond-again", "a bond that is known, or one too many of its account")
        effects: list[Any] = [Watch(outpoint=outpoint)]
        if len(self._known) >= BONDS_KNOWN_MAX:
            oldest = next(iter(self._known))
            del self._known[oldest]
            self._seen.pop(oldest, None)
            effects.append(Unwatch(outpoint=oldest))
        self._known[outpoint] = bond
        return effects

    # --- the chain ----------------------------------------------------------------------------------------------------
    def tip_seen(self, event: TipSeen) -> list[Any]:
        """A new best block: broadcast again what is not seen; let go of bonds that are over."""
        self._tip = event
        effects: list[Any] = []
        for row in self.own.values():
            info = None if row.outpoint is None else self._seen.get(read_outpoint(row.outpoint))
            if row.phase is BondPhase.LOCKED and info is None:
                effects.append(Submit(raw=row.raw, purpose="bond"))
            elif row.phase is BondPhase.RELEASING and info is not None and info.spent_by is None:
                effects.append(Submit(raw=row.release_raw, purpose="bond release"))
        for outpoint in [one for one, bond in self._known.items() if bond.until_height <= event.height]:
            del self._known[outpoint]
            self._seen.pop(outpoint, None)
            effects.append(Unwatch(outpoint=outpoint))
        return effects

    def outpoint_seen(self, event: OutpointSeen) -> list[Any]:
        """What the chain says about a bond."""
        mine = [
            name for name, row in self.own.items() if row.outpoint is not None and read_outpoint(row.outpoint) == event.outpoint
        ]
        if not mine and event.outpoint not in self._known:
            return []
        self._seen[event.outpoint] = event.info
        effects: list[Any] = []
        for name in mine:
            if event.info is None:
                continue
            if event.info.spent_by is not None:
                effects += self._move(name, BondStep.SPEND, "released")
            else:
                effects += self._move(name, BondStep.RETURN, "its release is not on the chain any more")
        return effects

    def watches(self, outpoint: OutPoint) -> bool:
        """Whether a bond, ours or somebody else's, is this output."""
        own = any(row.outpoint == outpoint_bytes(outpoint) for row in self.own.values() if row.phase is not BondPhase.FAILED)
        return own or outpoint in self._known

    # --- rows ---------------------------------------------------------------------------------------------------------
    def _move(self, name: bytes, step: BondStep, sentence: str) -> list[Any]:
        row = self.own.get(name)
        phase = None if row is None else BOND_STEPS[row.phase].get(step)
        if row is None or phase is None:
            return []
        self._keep(name, dataclasses.replace(row, phase=phase, sentence=sentence))
        return [Notice(kind="bond", facts={"bond": name.hex(), "phase": phase.value, "reason": sentence})]

    def _keep(self, name: bytes, row: OwnBond) -> None:
        self.own[name] = row
        self._dirty[name] = pack(row)

    def drain(self) -> tuple[Save, ...]:
        """The rows that changed since the last call."""
        rows = tuple(Save(table=BOND_TABLE, key=key, value=value) for key, value in sorted(self._dirty.items()))
        self._dirty.clear()
        return rows

    # --- for people ---------------------------------------------------------------------------------------------------
    def statement(self) -> list[dict[str, Any]]:
        """Our bonds, and those that others have announced."""
        height = 0 if self._tip is None else self._tip.height
        lines = []
        for name, row in self.own.items():
            bond = self._bond(row)
            lines.append(self._line(bond, row.phase.value, row.sentence, height, name.hex()))
            lines[-1]["descriptor"] = bond_descriptor(self._network.name, bond.account, bond.until_height)
        for bond in self._known.values():
            good = self._good(bond)
            accused = self._accused(bond.account)
            lines.append(self._line(bond, "seen" if good else "announced", accused or "", height, None))
        return lines

    def _line(self, bond: Bond, phase: str, reason: str, height: int, name: str | None) -> dict[str, Any]:
        counts = self._good(bond) and self._accused(bond.account) is None and phase in ("locked", "seen")
        outpoint = read_outpoint(bond.outpoint)
        return {
            "bond": name,
            "account": account_of(bond.account),
            "phase": phase,
            "value_sat": bond.value_sat,
            "until_height": bond.until_height,
            "extra_sat": extra_sat(bond.value_sat, bond.until_height - height) if counts else 0,
            "txid": outpoint.txid[::-1].hex() if any(outpoint.txid) else None,
            "vout": outpoint.vout if any(outpoint.txid) else None,
            "reason": reason,
        }
