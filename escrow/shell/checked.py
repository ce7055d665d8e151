"""A chain that is not taken at its word: whatever can be checked without trust is, before anybody acts on it.

A backend may be defective, overloaded or dishonest. What it says of a transaction is held against the transaction's own hash,
what it says of a spender against the spender's inputs, and everything against the bounds of what can be. A contradiction is a
``ChainFault`` named ``chain-lies``: nobody hears of it as news, so no state changes and nothing is signed. What is *left out*
cannot be seen by asking one chain; that is what a second one is for (``ComparedChain``).
"""

from collections import OrderedDict
from collections.abc import Awaitable, Sequence
from typing import Any, Final, TypeVar

from escrow.core.transaction import BadTransaction, Tx, parse, show_id
from escrow.shell.ledger import Coin
from escrow.shell.recovery import HistoryChain
from wire.account import sha256d
from wire.errors import BitwrkError
from wire.limits import CHECKED_TRANSACTIONS_MAX, SCRIPT_MAX_BYTES, SUPPLY_MAX_SAT
from wire.network import Network
from wire.ports import ChainFault, OutInfo, OutPoint, Rejected, Tip, TxInfo

T = TypeVar("T")
_HEIGHT_END: Final = 500_000_000


def lie(sentence: str) -> ChainFault:
    """The chain contradicts itself or what is certain."""
    return ChainFault("chain-lies", f"the chain contradicts itself: {sentence}")


class CheckedChain:
    """``wire.ports.Chain`` over another one, with every answer checked."""

    def __init__(self, chain: HistoryChain, network: Network) -> None:
        self._chain = chain
        self._network = network
        self._known: OrderedDict[bytes, Tx] = OrderedDict()
        self._instance: bytes | None = None

    async def _named(self, asked: Awaitable[T]) -> T:
        """The answer; what a driver lets slip is named."""
        try:
            return await asked
        except BitwrkError:
            raise
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise ChainFault("chain-garbled", f"the chain gave an answer of another shape: {type(error).__name__}") from None

    async def instance(self) -> bytes:
        """See ``wire.ports.Chain``; one that turns into another chain while we look is a lie."""
        told = await self._named(self._chain.instance())
        if self._instance is None:
            self._instance = told
        if told != self._instance or len(told) != 32:
            raise lie("it is another chain than it was")
        return told

    async def tip(self) -> Tip:
        """See ``wire.ports.Chain``."""
        tip = await self._named(self._chain.tip())
        if not 0 <= tip.height < _HEIGHT_END or len(tip.block) != 32:
            raise lie(f"its best block is said to be at height {tip.height}")
        return tip

    async def feerate(self) -> int:
        """See ``wire.ports.Chain``; always within the network's clamp."""
        told = await self._named(self._chain.feerate())
        return max(self._network.feerate_min_sat_per_kvb, min(int(told), self._network.feerate_max_sat_per_kvb))

    async def submit(self, raw: bytes) -> bytes:
        """See ``wire.ports.Chain``."""
        try:
            transaction = parse(raw)
        except BadTransaction as error:
            raise Rejected(error.code, error.sentence) from None
        self._remember(transaction)
        told = await self._named(self._chain.submit(raw))
        if told != transaction.txid:
            raise lie(f"it calls the transaction {show_id(transaction.txid)} by another name")
        return told

    async def tx(self, txid: bytes) -> TxInfo | None:
        """See ``wire.ports.Chain``."""
        told = await self._named(self._chain.tx(txid))
        if told is not None and self._transaction(told).txid != txid:
            raise lie(f"asked for the transaction {show_id(txid)} it gave another")
        return told

    async def outpoint(self, outpoint: OutPoint) -> OutInfo | None:
        """See ``wire.ports.Chain``."""
        told = await self._named(self._chain.outpoint(outpoint))
        if told is None:
            return None
        name = f"{show_id(outpoint.txid)}:{outpoint.vout}"
        if not 0 <= told.value_sat <= SUPPLY_MAX_SAT or len(told.script) > SCRIPT_MAX_BYTES:
            raise lie(f"the output {name} is said to hold what no output can")
        if told.height is not None and not 0 <= told.height < _HEIGHT_END:
            raise lie(f"the output {name} is said to be at height {told.height}")
        made = self._known.get(outpoint.txid)
        if made is not None:
            if outpoint.vout >= len(made.outputs):
                raise lie(f"the output {name} does not exist")
            here = made.outputs[outpoint.vout]
            if (here.value_sat, here.script) != (told.value_sat, told.script):
                raise lie(f"the output {name} is said to hold something else than its transaction says")
        if told.spent_by is not None:
            spender = self._transaction(told.spent_by)
            if all(one.outpoint != outpoint for one in spender.inputs):
                raise lie(f"what is said to spend {name} does not")
            if told.spent_by.height is not None and (told.height is None or told.spent_by.height < told.height):
                raise lie(f"the output {name} is said to be spent before it was made")
        return told

    def _transaction(self, info: TxInfo) -> Tx:
        try:
            transaction = parse(info.raw)
        except BadTransaction as error:
            raise ChainFault("chain-garbled", f"the chain gave something that is no transaction: {error.sentence}") from None
        if info.height is not None and not 0 <= info.height < _HEIGHT_END:
            raise lie(f"the transaction {show_id(transaction.txid)} is said to be at height {info.height}")
        self._remember(transaction)
        return transaction

    def _remember(self, transaction: Tx) -> None:
        self._known[transaction.txid] = transaction
        self._known.move_to_end(transaction.txid)
        if len(self._known) > CHECKED_TRANSACTIONS_MAX:
            self._known.popitem(last=False)

    # --- for wallets -------------------------------------------------------------------------------------------

    async def coins_of(self, script: bytes) -> Sequence[Coin]:
        """See ``HistoryChain``."""
        coins = await self._named(self._chain.coins_of(script))
        if len({one.outpoint for one in coins}) != len(coins):
            raise lie("it lists a coin twice")
        for one in coins:
            if one.output.script != script or not 0 < one.output.value_sat <= SUPPLY_MAX_SAT:
                raise lie("it lists a coin that is none of this account's")
        return coins

    async def history_of(self, script: bytes, since: int) -> Sequence[TxInfo]:
        """See ``HistoryChain``."""
        return await self._named(self._chain.history_of(script, since))


def _facts(info: OutInfo | None) -> tuple[Any, ...] | None:
    """What two honest chains with one best block must agree on: everything that is confirmed."""
    if info is None or info.height is None:
        return None
    spender = info.spent_by
    confirmed = None if spender is None or spender.height is None else (sha256d(spender.raw), spender.height)
    return info.value_sat, info.script, info.height, confirmed


class ComparedChain(CheckedChain):
    """Two chains that have to agree: the first serves, the second is asked the same wherever an omission would cost money.

    What waits in a mempool may be known to one of them only; then whoever knows more is heard. What is confirmed has to be the
    same when both stand at the same block; until then there is no answer but a ``ChainFault`` named ``chains-disagree``.
    """

    def __init__(self, first: HistoryChain, second: HistoryChain, network: Network) -> None:
        super().__init__(first, network)
        self._second = CheckedChain(second, network)

    async def instance(self) -> bytes:
        """See ``wire.ports.Chain``."""
        told = await super().instance()
        if await self._second.instance() != told:
            raise ChainFault("chains-disagree", "the two chains of the settings are not the same chain")
        return told

    async def tip(self) -> Tip:
        """The block both stand at. Raises ``ChainFault`` while they do not."""
        one, other = await super().tip(), await self._second.tip()
        if one != other:
            places = f"at heights {one.height} and {other.height}"
            raise ChainFault("chains-disagree", f"the two chains stand at different blocks, {places}; waiting for them")
        return one

    async def submit(self, raw: bytes) -> bytes:
        """Both are told; one that takes it is enough."""
        try:
            told = await super().submit(raw)
        except (Rejected, ChainFault):
            return await self._second.submit(raw)
        try:
            await self._second.submit(raw)
        except (Rejected, ChainFault):
            return told
        return told

    async def outpoint(self, outpoint: OutPoint) -> OutInfo | None:
        """See ``wire.ports.Chain``."""
        before = await self.tip()
        one, other = await super().outpoint(outpoint), await self._second.outpoint(outpoint)
        if await self.tip() != before:
            raise ChainFault("chains-disagree", "a block came while the two chains were compared; asked again")
        if _facts(one) != _facts(other):
            name = f"{show_id(outpoint.txid)}:{outpoint.vout}"
            raise ChainFault("chains-disagree", f"the two chains tell different stories of the output {name}; one of them lies")
        if one is None or (one.spent_by is None and other is not None and other.spent_by is not None):
            return other
        return one

    async def coins_of(self, script: bytes) -> Sequence[Coin]:
        """See ``HistoryChain``."""
        one, other = await super().coins_of(script), await self._second.coins_of(script)
        if {(coin.outpoint, coin.output) for coin in one} != {(coin.outpoint, coin.output) for coin in other}:
            raise ChainFault("chains-disagree", "the two chains list different coins of this account; one is behind or lies")
        return one
