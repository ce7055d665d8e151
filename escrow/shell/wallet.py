"""The owner's coins: witness outputs to his account key, in a wallet that keeps only what the chain cannot tell it.

Confirmed coins come from a scan of the chain at every new block. Beside them stands one journal row for each transaction of
ours that is not confirmed yet: its inputs are not spent twice, and its change is spendable once the chain has seen it. A
transaction that was built and never broadcast keeps its coins locked until ``release``.

A payment has a name that its asker chose. Name and transaction are committed together before anything is broadcast, so the same
request again is the same payment, whatever happened in between; a payment that the chain has not seen is broadcast until it
has, or until the chain refuses it.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Protocol

import trio

from escrow.core.building import payment, sweep
from escrow.core.script import Op, address_of, p2wpkh, script_of
from escrow.core.transaction import Tx, parse
from escrow.shell.ledger import COINBASE_MATURITY, Coin
from wire.canon import U63, Hash32, Size, pack, record, unpack
from wire.effects import Save
from wire.errors import Refused
from wire.keys import SecretKey
from wire.limits import PAYMENTS_REMEMBERED_MAX, REQUEST_NAME_MAX_CHARS, TX_MAX_BYTES
from wire.network import Network
from wire.ports import NOT_SEEN, Chain, ChainFault, Journal, OutPoint, Rejected, TxInfo, TxOut

WALLET_TABLE = "wallet"
PAYMENT_TABLE = "payment"
_DATA = bytes([Op.RETURN])


class CoinChain(Chain, Protocol):
    """A chain that can list coins."""

    async def coins_of(self, script: bytes) -> Sequence[Coin]:
        """Confirmed unspent outputs with this script."""
        ...

    async def history_of(self, script: bytes, since: int) -> Sequence[TxInfo]:
        """Transactions in blocks from height ``since`` on that pay to this witness script or spend from it, oldest first."""
        ...


@record
class Payment:
    """A payment out of the wallet, by the name its asker gave it. ``asked_sat`` is None where everything was to be paid."""

    request: Annotated[str, Size(1, REQUEST_NAME_MAX_CHARS)]
    number: U63
    script: Annotated[bytes, Size(4, 42)]
    asked_sat: U63 | None
    value_sat: U63
    fee_sat: U63
    txid: Hash32
    raw: Annotated[bytes, Size(1, TX_MAX_BYTES)]


@dataclass(frozen=True, slots=True)
class Quote:
    """What a payment pays and costs."""

    value_sat: int
    fee_sat: int
    vbytes: int
    inputs: int


@dataclass(frozen=True, slots=True)
class Sent:
    """A payment; ``seen`` when the chain has it, else it is broadcast again."""

    txid: bytes
    value_sat: int
    fee_sat: int
    seen: bool


@dataclass(frozen=True, slots=True)
class Holdings:
    """The account's satoshi. ``locked_sat`` are confirmed coins that transactions of ours are to spend, ``waiting_sat`` the
    change of those that the chain has seen (spendable already), ``young_sat`` block rewards that may not be spent yet.
    """

    confirmed_sat: int
    waiting_sat: int
    locked_sat: int
    young_sat: int
    spendable_sat: int


@dataclass(frozen=True, slots=True)
class WalletStatistics:
    """How the wallet stands."""

    coins: int
    pending: int
    spendable_sat: int


class KeyWallet:
    """``wire.ports.Wallet`` for one account key; open it with ``KeyWallet.open``."""

    def __init__(
        self,
        key: SecretKey,
        chain: CoinChain,
        journal: Journal,
        network: Network,
        rows: Mapping[bytes, bytes],
        payments: Mapping[bytes, bytes],
    ) -> None:
        self._key = key
        self._chain = chain
        self._journal = journal
        self._network = network
        self._script = p2wpkh(key.public)
        self._pending = {txid: parse(raw) for txid, raw in sorted(rows.items())}
        self._scanned: bytes | None = None
        self._height = 0
        self._confirmed: dict[OutPoint, Coin] = {}
        self._spendable: list[tuple[OutPoint, int]] = []
        self._payments = {one.request: one for one in (unpack(Payment, raw) for raw in payments.values())}
        self._busy = trio.Lock()

    @classmethod
    async def open(cls, key: SecretKey, chain: CoinChain, journal: Journal, network: Network) -> "KeyWallet":
        """The wallet of ``key`` with what the journal kept."""
        return cls(key, chain, journal, network, await journal.load(WALLET_TABLE), await journal.load(PAYMENT_TABLE))

    @property
    def address(self) -> str:
        """Where the owner can be paid."""
        return address_of(self._script, self._network.hrp)

    def statistics(self) -> WalletStatistics:
        """As of the last look."""
        return WalletStatistics(len(self._spendable), len(self._pending), sum(value for _, value in self._spendable))

    def pending(self) -> tuple[bytes, ...]:
        """Raw transactions of ours that are not confirmed, sent or not."""
        return tuple(one.serialise() for _, one in sorted(self._pending.items()))

    async def balance_sat(self) -> int:
        """See ``wire.ports.Wallet``."""
        async with self._busy:
            await self._look()
            return sum(value for _, value in self._spendable)

    async def holdings(self) -> Holdings:
        """What there is, by state. Raises ``ChainFault``."""
        async with self._busy:
            await self._look()
            free = dict(self._spendable)
            ripe = [one for one in self._confirmed.values() if self._is_ripe(one)]
            young = sum(one.output.value_sat for one in self._confirmed.values()) - sum(one.output.value_sat for one in ripe)
            confirmed = sum(one.output.value_sat for one in ripe if one.outpoint in free)
            locked = sum(one.output.value_sat for one in ripe) - confirmed
            spendable = sum(free.values())
            return Holdings(confirmed, spendable - confirmed, locked, young, spendable)

    async def history(self, since: int) -> Sequence[TxInfo]:
        """Confirmed transactions of the account in blocks from height ``since`` on, oldest first. Raises ``ChainFault``."""
        return await self._chain.history_of(self._script, since)

    async def fund(self, outputs: Sequence[TxOut], notes: Sequence[bytes] = ()) -> bytes:
        """See ``wire.ports.Wallet``."""
        async with self._busy:
            await self._look()
            transaction = payment(self._key, self._spendable, outputs, notes, await self._chain.feerate())
            raw = transaction.serialise()
            await self._journal.commit([Save(table=WALLET_TABLE, key=transaction.txid, value=raw)])
            self._pending[transaction.txid] = transaction
            return raw

    async def release(self, raw: bytes) -> None:
        """See ``wire.ports.Wallet``."""
        async with self._busy:
            await self._forget([parse(raw).txid])

    async def release_unsent(self, kept: Collection[bytes]) -> int:
        """After a restart: unlock what was built for nobody. ``kept`` are raw transactions that will still be broadcast.

        Returns how many were released; transactions that the chain has seen are left alone.
        """
        async with self._busy:
            await self._look()
            keep = {parse(raw).txid for raw in kept} | {one.txid for one in self._payments.values()}
            unsent = [txid for txid, one in self._pending.items() if txid not in keep and await self._seen(one) is None]
            await self._forget(unsent)
            return len(unsent)

    async def quote(self, address: str, value_sat: int | None, feerate: int | None = None) -> Quote:
        """What a payment would cost now; without a value, of everything. Nothing is kept. Raises as ``send``."""
        async with self._busy:
            await self._look()
            transaction = await self._outgoing(script_of(address, self._network.hrp), value_sat, feerate)
            return self._quoted(transaction)

    async def send(self, request: str, address: str, value_sat: int | None, feerate: int | None = None) -> Sent:
        """Pay out of the wallet; without a value, everything. ``request`` names the payment: the same again changes nothing.

        Raises ``BadAddress``, ``Refused`` and ``Rejected``; then nothing was paid and the coins are free. A chain that does not
        answer is no refusal: the payment stays, ``seen`` is False, and it is broadcast again.
        """
        script = script_of(address, self._network.hrp)
        async with self._busy:
            known = self._payments.get(request)
            if known is not None and (known.script, known.asked_sat) != (script, value_sat):
                raise Refused("request-reused", "this request was for another payment; give every payment a name of its own")
            if known is None:
                await self._look()
                transaction = await self._outgoing(script, value_sat, feerate)
                quote = self._quoted(transaction)
                known = Payment(
                    request=request,
                    number=1 + max((one.number for one in self._payments.values()), default=0),
                    script=script,
                    asked_sat=value_sat,
                    value_sat=quote.value_sat,
                    fee_sat=quote.fee_sat,
                    txid=transaction.txid,
                    raw=transaction.serialise(),
                )
                await self._keep(known, transaction)
                seen = await self._broadcast(known)
            else:
                seen = await self._again(known)
            return Sent(known.txid, known.value_sat, known.fee_sat, seen)

    async def tend(self) -> None:
        """Broadcast payments that the chain has not seen. Raises ``ChainFault``."""
        async with self._busy:
            if not any(one.txid in self._pending for one in self._payments.values()):
                return
            await self._look()
            for one in list(self._payments.values()):
                waiting = self._pending.get(one.txid)
                if waiting is not None and await self._seen(waiting) is None:
                    # Refused now is not refused for ever: it stays until its coins are gone, or it could be paid twice.
                    with suppress(Rejected, ChainFault):
                        await self._chain.submit(one.raw)

    async def _outgoing(self, script: bytes, value_sat: int | None, feerate: int | None) -> Tx:
        rate = feerate if feerate is not None else await self._chain.feerate()
        if value_sat is None:
            return sweep(self._key, self._spendable, script, rate)
        return payment(self._key, self._spendable, [TxOut(value_sat, script)], (), rate)

    def _quoted(self, transaction: Tx) -> Quote:
        values = dict(self._spendable)
        paid = transaction.outputs[0].value_sat
        total = sum(values[one.outpoint] for one in transaction.inputs)
        fee = total - sum(one.value_sat for one in transaction.outputs)
        return Quote(paid, fee, transaction.vsize, len(transaction.inputs))

    async def _keep(self, one: Payment, transaction: Tx) -> None:
        rows = [
            Save(table=WALLET_TABLE, key=one.txid, value=one.raw),
            Save(table=PAYMENT_TABLE, key=one.request.encode(), value=pack(one)),
        ]
        old = sorted((past for past in self._payments.values() if past.txid not in self._pending), key=lambda past: past.number)
        dropped = old[: max(0, len(self._payments) + 1 - PAYMENTS_REMEMBERED_MAX)]
        rows += [Save(table=PAYMENT_TABLE, key=past.request.encode(), value=None) for past in dropped]
        await self._journal.commit(rows)
        for past in dropped:
            del self._payments[past.request]
        self._payments[one.request] = one
        self._pending[one.txid] = transaction

    async def _again(self, one: Payment) -> bool:
        """The same request: what it was for has been seen, or is broadcast again."""
        try:
            await self._chain.submit(one.raw)
        except (Rejected, ChainFault):
            return one.txid not in self._pending
        return True

    async def _broadcast(self, one: Payment) -> bool:
        """Whether the chain has seen it. Raises ``Rejected`` after letting it go."""
        try:
            await self._chain.submit(one.raw)
        except Rejected as refusal:
            if refusal.code == NOT_SEEN:
                return False
            await self._journal.commit([Save(table=PAYMENT_TABLE, key=one.request.encode(), value=None)])
            self._payments.pop(one.request, None)
            await self._forget([one.txid])
            raise
        except ChainFault:
            return False
        return True

    # --- what we have ------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        # What waits is asked first and the coins after it: a block between the two then hides no spent coin.
        seen = {txid: await self._seen(one) for txid, one in self._pending.items()}
        tip = await self._chain.tip()
        if tip.block != self._scanned:
            coins = await self._chain.coins_of(self._script)
            self._confirmed = {one.outpoint: one for one in coins}
            self._scanned, self._height = tip.block, tip.height
        done = [txid for txid, one in self._pending.items() if seen[txid] or (seen[txid] is None and self._is_dead(one))]
        await self._forget(done)
        change = [
            (OutPoint(txid, vout), output.value_sat)
            for txid, one in self._pending.items()
            for vout, output in enumerate(one.outputs)
            if seen[txid] is False and output.script == self._script
        ]
        locked = {spending.outpoint for one in self._pending.values() for spending in one.inputs}
        found = [(one.outpoint, one.output.value_sat) for one in self._confirmed.values() if self._is_ripe(one)]
        free = {outpoint: value for outpoint, value in found + change if outpoint not in locked}
        self._spendable = sorted(free.items(), key=lambda one: (-one[1], one[0].txid, one[0].vout))

    async def _seen(self, transaction: Tx) -> bool | None:
        """True when confirmed, False when waiting, None when the chain does not know it."""
        spendable = [vout for vout, one in enumerate(transaction.outputs) if one.script[:1] != _DATA]
        info = await self._chain.outpoint(OutPoint(transaction.txid, spendable[-1]))
        return None if info is None else info.height is not None

    def _is_dead(self, transaction: Tx) -> bool:
        """Whether an input of it is gone: it was spent by something else that is confirmed."""
        change = {OutPoint(txid, vout) for txid, one in self._pending.items() for vout in range(len(one.outputs))}
        ours = change | set(self._confirmed)
        return any(one.outpoint not in ours for one in transaction.inputs)

    def _is_ripe(self, coin: Coin) -> bool:
        return not coin.coinbase or self._height + 1 - coin.height >= COINBASE_MATURITY

    async def _forget(self, txids: Sequence[bytes]) -> None:
        rows = [Save(table=WALLET_TABLE, key=txid, value=None) for txid in txids if txid in self._pending]
        if rows:
            await self._journal.commit(rows)
            for row in rows:
                del self._pending[row.key]
