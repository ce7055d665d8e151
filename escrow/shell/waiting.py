"""Which waiting transaction spends an output, at a node that cannot be asked: Bitcoin Core before 24, and bcoin.

The whole mempool is read once and then only what is new in it. That is for small mempools; a large one is refused by name.
"""

from typing import Any, Protocol

from escrow.core.transaction import BadTransaction, Tx, parse, show_id
from wire.limits import MEMPOOL_MAX_TRANSACTIONS, RPC_BATCH_MAX
from wire.ports import ChainFault, OutPoint


class Asks(Protocol):
    """What is needed of a node."""

    async def sure(self, method: str, *parameters: Any) -> Any:
        """See ``CoreChain.sure``."""
        ...

    async def batch(self, *calls: tuple[Any, ...]) -> list[Any]:
        """See ``CoreChain.batch``."""
        ...


class WaitingRoom:
    """A copy of a node's mempool, brought up to date by every question."""

    def __init__(self, node: Asks) -> None:
        self._node = node
        self._transactions: dict[str, Tx] = {}

    async def spender(self, outpoint: OutPoint) -> str | None:
        """Printed id of the waiting transaction that spends ``outpoint``. Raises ``ChainFault``."""
        names = await self._node.sure("getrawmempool")
        if len(names) > MEMPOOL_MAX_TRANSACTIONS:
            raise ChainFault(
                "chain-old",
                f"the chain does not know gettxspendingprevout, and {len(names)} transactions wait there, too many to read; "
                "use a newer node",
            )
        self._transactions = {name: self._transactions[name] for name in names if name in self._transactions}
        new = [name for name in names if name not in self._transactions]
        for start in range(0, len(new), RPC_BATCH_MAX):
            asked = new[start : start + RPC_BATCH_MAX]
            for name, raw in zip(asked, await self._node.batch(*(("getrawtransaction", name) for name in asked)), strict=True):
                if isinstance(raw, str):  # one that has left in the meantime is refused, which is no harm
                    self._keep(name, raw)
        return next((name for name, one in self._transactions.items() if any(i.outpoint == outpoint for i in one.inputs)), None)

    def _keep(self, name: str, raw: str) -> None:
        try:
            transaction = parse(bytes.fromhex(raw))
        except (ValueError, BadTransaction):
            return  # larger than what nodes relay, so no spend of an escrow
        if show_id(transaction.txid) == name:
            self._transactions[name] = transaction
