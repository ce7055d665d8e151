"""The owner's coins: witness outputs to his account key, in a wallet that keeps only what the chain cannot tell it.

Confirmed coins come from a scan of the chain at every new block. Beside them stands one journal row for each transaction of
ours that is not confirmed yet: its inputs are not spent twice, and its change is spendable once the chain has seen it. A
transaction that was built and never broadcast keeps its coins locked until ``release``.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import trio

from escrow.core.amounts import DUST_P2WPKH_SAT, fee_sat
from escrow.core.memo import data_output, sealed
from escrow.core.script import Op, address_of, p2wpkh, p2wpkh_code, script_of
from escrow.core.spends import sign_spend
from escrow.core.transaction import Tx, TxIn, parse
from escrow.shell.ledger import COINBASE_MATURITY, Coin
from wire.effects import Save
from wire.errors import Refused
from wire.keys import SecretKey
from wire.limits import WALLET_INPUTS_MAX
from wire.network import Network
from wire.ports import Chain, Journal, OutPoint, Rejected, TxOut

WALLET_TABLE = "wallet"
_SIGNATURE_MOST = bytes(72)
_DATA = bytes([Op.RETURN])


class CoinChain(Chain, Protocol):
    """A chain that can list coins."""

    async def coins_of(self, script: bytes) -> Sequence[Coin]:
        """Confirmed unspent outputs with this script."""
        ...


@dataclass(frozen=True, slots=True)
class WalletStatistics:
    """How the wallet stands."""

    coins: int
    pending: int
    spendable_sat: int


class KeyWallet:
    """``wire.ports.Wallet`` for one account key; open it with ``KeyWallet.open``."""

    def __init__(self, key: SecretKey, chain: CoinChain, journal: Journal, network: Network, rows: Mapping[bytes, bytes]) -> None:
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
        self._busy = trio.Lock()

    @classmethod
    async def open(cls, key: SecretKey, chain: CoinChain, journal: Journal, network: Network) -> "KeyWallet":
        """The wallet of ``key`` with what the journal kept."""
        return cls(key, chain, journal, network, await journal.load(WALLET_TABLE))

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

    async def fund(self, outputs: Sequence[TxOut], notes: Sequence[bytes] = ()) -> bytes:
        """See ``wire.ports.Wallet``. Largest coins first. Raises ``Refused("no-funds", …)``."""
        async with self._busy:
            await self._look()
            transaction = self._built(outputs, notes, await self._chain.feerate())
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
            keep = {parse(raw).txid for raw in kept}
            unsent = [txid for txid, one in self._pending.items() if txid not in keep and await self._seen(one) is None]
            await self._forget(unsent)
            return len(unsent)

    async def send(self, address: str, value_sat: int) -> bytes:
        """Pay out of the wallet; returns the txid. Raises ``BadAddress``, ``Refused`` and ``Rejected``."""
        raw = await self.fund([TxOut(value_sat, script_of(address, self._network.hrp))])
        try:
            return await self._chain.submit(raw)
        except Rejected:
            await self.release(raw)
            raise

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

    # --- building ----------------------------------------------------------------------------------------------

    def _built(self, outputs: Sequence[TxOut], notes: Sequence[bytes], feerate: int) -> Tx:
        wanted = sum(one.value_sat for one in outputs)
        room = [data_output(b"".join(notes))] if any(notes) else []
        chosen: list[tuple[OutPoint, int]] = []
        for coin in self._spendable[:WALLET_INPUTS_MAX]:
            chosen.append(coin)
            rest = sum(value for _, value in chosen) - wanted
            with_change = self._draft(chosen, (*outputs, *room, TxOut(0, self._script)))
            change = rest - fee_sat(with_change.vsize, feerate)
            if change >= DUST_P2WPKH_SAT:
                return self._signed(chosen, outputs, notes, TxOut(change, self._script))
            if rest >= fee_sat(self._draft(chosen, (*outputs, *room)).vsize, feerate):
                return self._signed(chosen, outputs, notes)
        have = sum(value for _, value in self._spendable)
        raise Refused("no-funds", f"{wanted} sat and fees are needed, the wallet has {have}; send coins to {self.address}")

    def _draft(self, chosen: Sequence[tuple[OutPoint, int]], outputs: tuple[TxOut, ...]) -> Tx:
        witness = (_SIGNATURE_MOST, self._key.public)
        return Tx(inputs=tuple(TxIn(outpoint=outpoint, witness=witness) for outpoint, _ in chosen), outputs=outputs)

    def _signed(
        self, chosen: Sequence[tuple[OutPoint, int]], outputs: Sequence[TxOut], notes: Sequence[bytes], *change: TxOut
    ) -> Tx:
        memo = [sealed(self._key, chosen[0][0], (*outputs, *change), notes)] if any(notes) else []
        transaction = self._draft(chosen, (*outputs, *memo, *change))
        code = p2wpkh_code(self._key.public)
        for index, (_, value_sat) in enumerate(chosen):
            signature = sign_spend(self._key, transaction.digest(index, code, value_sat))
            transaction = transaction.with_witness(index, (signature, self._key.public))
        return transaction
