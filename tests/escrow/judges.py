"""Who decides whether a transaction is good: one interface over the chains before which the escrow's paths are walked.

A judge is asked twice about everything, because the two answers come from different code: may it wait (the mempool's rules on top
of consensus), and may a block hold it (consensus alone). Nothing here knows which chain it is.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from escrow.core.amounts import fee_sat
from escrow.core.transaction import Tx, TxIn, parse
from escrow.shell.regtest import ANYONE, FAUCET_SCRIPT, Regtest
from tests.escrow.pair import build_funding
from wire.ports import OutPoint, Rejected, TxOut


class Refusal(enum.Enum):
    """Why a transaction is not taken; the value is the word for it in our own waiting room."""

    SCRIPT = "mandatory-script-verify-flag-failed"
    NOT_FINAL = "non-final"
    TOO_YOUNG = "non-BIP68-final"
    SPENT = "bad-txns-inputs-missingorspent"
    PAYS_TOO_MUCH = "bad-txns-in-belowout"
    DUST = "dust"
    CHEAP = "insufficient fee"

    @property
    def policy(self) -> bool:
        """Whether only the waiting room minds; a block may hold it."""
        return self in (Refusal.DUST, Refusal.CHEAP)


class Judge(Protocol):
    """A regtest chain with coins to give away."""

    replaces: bool
    """Whether its waiting room lets a dearer transaction take the place of another (BIP125)."""

    @property
    def height(self) -> int:
        """Of the best block."""
        ...

    def mine(self, count: int = 1) -> None:
        """Make blocks of what waits."""
        ...

    def pay(self, outputs: Sequence[TxOut]) -> Tx:
        """A transaction with these outputs first, good but not broadcast; its first input anyone can spend."""
        ...

    def offer(self, transaction: Tx) -> str:
        """Ask the waiting room; its word of refusal, empty when it waits now."""
        ...

    def offer_block(self, transaction: Tx) -> str:
        """Ask for a block of exactly this transaction; the word of refusal, empty when it became the tip."""
        ...

    def means(self, word: str, refusal: Refusal, *, block: bool) -> bool:
        """Whether the judge's word stands for this refusal, as far as he tells."""
        ...

    def waits(self, txid: bytes) -> bool:
        """Whether the transaction is in the waiting room."""
        ...

    def confirmed(self, txid: bytes) -> Tx | None:
        """The transaction as a block of the best chain holds it."""
        ...


class KernelJudge:
    """Bitcoin Core's consensus code in this process, and our own waiting room before it."""

    replaces = True

    def __init__(self, chain: Regtest) -> None:
        self.chain = chain

    @property
    def height(self) -> int:
        return self.chain.height

    def mine(self, count: int = 1) -> None:
        if count > 0:
            self.chain.mine(count)

    def pay(self, outputs: Sequence[TxOut]) -> Tx:
        return parse(build_funding(self.chain, list(outputs)))

    def offer(self, transaction: Tx) -> str:
        try:
            self.chain.submit(transaction.serialise())
        except Rejected as refused:
            return refused.code
        return ""

    def offer_block(self, transaction: Tx) -> str:
        height = self.chain.height
        try:
            self.chain.mine_exactly([transaction], 0)
        except Rejected as refused:
            assert self.chain.height == height
            return refused.sentence
        assert self.chain.height == height + 1
        return ""

    def means(self, word: str, refusal: Refusal, *, block: bool) -> bool:
        # The kernel says of a block only that it is invalid, not why.
        return "invalid" in word or "malformed" in word if block else word == refusal.value

    def waits(self, txid: bytes) -> bool:
        return txid in self.chain.mempool_ids()

    def confirmed(self, txid: bytes) -> Tx | None:
        found = self.chain.transaction(txid)
        if found is None or found.height is None:
            return None
        return parse(found.raw)


@dataclass
class Stage:
    """One walk before a judge, and what he said."""

    judge: Judge
    verdicts: list[tuple[str, str]] = field(default_factory=list)

    def accepts(self, what: str, *transactions: Tx) -> None:
        """The transactions may wait together, in this order, and the next block holds them."""
        for one in transactions:
            assert (word := self.judge.offer(one)) == "", f"{what}: refused with {word!r}"
            assert self.judge.waits(one.txid), what
        self.judge.mine()
        for one in transactions:
            assert self.judge.confirmed(one.txid) == one, what
        self.verdicts.append((what, "accepted"))

    def accepts_in_a_block(self, what: str, transaction: Tx) -> None:
        """Consensus takes it, whatever the waiting room thinks."""
        assert (word := self.judge.offer_block(transaction)) == "", f"{what}: refused with {word!r}"
        assert self.judge.confirmed(transaction.txid) == transaction, what
        self.verdicts.append((what, "accepted"))

    def refuses(self, what: str, transaction: Tx, refusal: Refusal) -> None:
        """The waiting room names why, and where consensus minds no block may hold it either."""
        word = self.judge.offer(transaction)
        assert word, f"{what}: was let in"
        assert self.judge.means(word, refusal, block=False), f"{what}: refused with {word!r}"
        assert not self.judge.waits(transaction.txid), what
        if not refusal.policy:
            height = self.judge.height
            word = self.judge.offer_block(transaction)
            assert word, f"{what}: a block held it"
            assert self.judge.means(word, refusal, block=True), f"{what}: refused with {word!r}"
            assert self.judge.height == height, what
            assert self.judge.confirmed(transaction.txid) is None, what
        self.verdicts.append((what, f"refused: {refusal.value}"))

    def replaces(self, what: str, first: Tx, second: Tx) -> None:
        """While ``first`` waits ``second`` takes its place; where the room knows no replacement, a block does it."""
        assert self.judge.offer(first) == "", what
        if self.judge.replaces:
            assert (word := self.judge.offer(second)) == "", f"{what}: refused with {word!r}"
            assert not self.judge.waits(first.txid), what
            self.judge.mine()
        else:
            assert (word := self.judge.offer_block(second)) == "", f"{what}: refused with {word!r}"
        assert self.judge.confirmed(second.txid) == second, what
        assert not self.judge.waits(first.txid), what
        self.verdicts.append((what, "replaced"))


def spend_of_anyone(paying: Tx, fee_rate: int) -> Tx:
    """Another transaction over the first input of one that ``Judge.pay`` made, so that only one of the two can be."""
    value = sum(one.value_sat for one in paying.outputs) - fee_sat(400, fee_rate)
    spending = TxIn(outpoint=paying.inputs[0].outpoint, witness=(ANYONE,))
    return Tx(inputs=(spending,), outputs=(TxOut(value, FAUCET_SCRIPT),))


def output(transaction: Tx, vout: int = 0) -> OutPoint:
    """An output of a transaction as something to spend."""
    return OutPoint(transaction.txid, vout)
