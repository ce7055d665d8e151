"""Who spent a confirmed output, found by reading blocks as they come.

The follower knows the best chain from where it began, reads each new block once, and steps back when the chain did. Only outputs
that somebody asked for are remembered.
"""

from dataclasses import dataclass, replace
from typing import Any, Protocol

from escrow.core.transaction import BadTransaction, Tx, merkle_root, parse, parse_block, read_id, show_id
from wire.account import sha256d
from wire.limits import CHAIN_LOOKBACK_BLOCKS
from wire.ports import ChainFault, OutInfo, OutPoint, Tip, TxInfo

BLOCKS_AT_ONCE = 16


class Asks(Protocol):
    """What the follower needs of a node."""

    async def sure(self, method: str, *parameters: Any) -> Any:
        """See ``CoreChain.sure``."""
        ...

    async def sure_all(self, *calls: tuple[Any, ...]) -> list[Any]:
        """See ``CoreChain.sure_all``."""
        ...


def _hash(told: Any) -> bytes:
    try:
        return read_id(told)
    except (BadTransaction, TypeError):
        raise ChainFault("chain-garbled", "the chain gave something else than a block's hash") from None


def _block(told: Any, block: bytes) -> tuple[bytes, bytes, tuple[Tx, ...]]:
    try:
        header, body = parse_block(bytes.fromhex(told))
    except BadTransaction as error:
        raise ChainFault("chain-garbled", f"the chain gave a block that cannot be read: {error.sentence}") from None
    except (ValueError, TypeError):
        raise ChainFault("chain-garbled", "the chain gave something else than a block") from None
    if sha256d(header) != block or merkle_root([one.txid for one in body]) != header[36:68]:
        raise ChainFault("chain-garbled", "the chain gave another block than was asked for")
    return block, header, body


async def read_blocks(node: Asks, start: int, end: int) -> list[tuple[bytes, bytes, tuple[Tx, ...]]]:
    """Hash, header and transactions of the best chain's blocks from height ``start`` to before ``end``. Raises ``ChainFault``."""
    told = await node.sure_all(*(("getblockhash", height) for height in range(start, end)))
    hashes = [_hash(one) for one in told]
    raws = await node.sure_all(*(("getblock", show_id(one), 0) for one in hashes))
    return [_block(raw, block) for raw, block in zip(raws, hashes, strict=True)]


@dataclass(frozen=True, slots=True)
class _Sighting:
    """What blocks told of one output: value, script and height of its making, and its spender."""

    made: OutInfo | None = None
    spender: TxInfo | None = None
    searched: bool = False


class Follower:
    """Remembers watched outputs and their spenders while the chain grows and is reorganised."""

    def __init__(self, node: Asks) -> None:
        self._node = node
        self._hashes: dict[int, bytes] = {}
        self._height = -1
        self._watched: dict[OutPoint, _Sighting] = {}

    def watch(self, outpoint: OutPoint) -> None:
        """Look for this output in blocks from now on."""
        self._watched.setdefault(outpoint, _Sighting())

    def remember(self, outpoint: OutPoint, info: OutInfo) -> None:
        """The output is unspent in the chain: what it holds, for when it is spent."""
        made = replace(info, spent_by=None)
        self._watched[outpoint] = _Sighting(made=made if info.height is not None else None)

    def transaction(self, txid: bytes) -> TxInfo | None:
        """A confirmed spender we read."""
        for one in self._watched.values():
            if one.spender is not None and parse(one.spender.raw).txid == txid:
                return one.spender
        return None

    async def follow(self, tip: Tip) -> None:
        """Read the blocks up to ``tip``. Raises ``ChainFault``."""
        if self._height < 0:
            self._height, self._hashes = tip.height, {tip.height: tip.block}
            return
        while self._height >= 0 and not await self._stands(tip):
            self._step_back()
        if self._height < 0:
            self._height, self._hashes = tip.height, {tip.height: tip.block}
            return
        for height in range(self._height + 1, tip.height + 1):
            ((block, _, body),) = await read_blocks(self._node, height, height + 1)
            self._hashes[height], self._height = block, height
            self._hashes.pop(height - CHAIN_LOOKBACK_BLOCKS, None)
            self._note(body, height, set(self._watched))

    async def spent(self, outpoint: OutPoint) -> OutInfo | None:
        """The output as blocks told of it, searched for once in the past; None when no block told."""
        sighting = self._watched[outpoint]
        if not sighting.searched and (sighting.made is None or sighting.spender is None):
            for start in range(max(1, self._height - CHAIN_LOOKBACK_BLOCKS), self._height + 1, BLOCKS_AT_ONCE):
                blocks = await read_blocks(self._node, start, min(start + BLOCKS_AT_ONCE, self._height + 1))
                for place, (_, _, body) in enumerate(blocks):
                    self._note(body, start + place, {outpoint})
            self._watched[outpoint] = replace(self._watched[outpoint], searched=True)
            sighting = self._watched[outpoint]
        if sighting.made is None:
            return None
        return replace(sighting.made, spent_by=sighting.spender)

    async def _stands(self, tip: Tip) -> bool:
        if self._height > tip.height:
            return False
        known = self._hashes.get(self._height)
        if self._height == tip.height:
            return known == tip.block
        return known == _hash(await self._node.sure("getblockhash", self._height))

    def _step_back(self) -> None:
        """The last block left the chain: forget what it told."""
        for outpoint, one in self._watched.items():
            spender = None if one.spender is not None and one.spender.height == self._height else one.spender
            made = None if one.made is not None and one.made.height == self._height else one.made
            self._watched[outpoint] = replace(one, spender=spender, made=made)
        self._hashes.pop(self._height, None)
        self._height -= 1
        if self._height not in self._hashes:
            self._height = -1

    def _note(self, body: tuple[Tx, ...], height: int, wanted: set[OutPoint]) -> None:
        wanted_ids = {one.txid for one in wanted}
        for transaction in body:
            txid = transaction.txid
            if txid in wanted_ids:
                for outpoint in wanted:
                    if outpoint.txid == txid and outpoint.vout < len(transaction.outputs):
                        output = transaction.outputs[outpoint.vout]
                        made = OutInfo(output.value_sat, output.script, height, None)
                        self._watched[outpoint] = replace(self._watched[outpoint], made=made)
            for one in transaction.inputs:
                if one.outpoint in wanted:
                    spender = TxInfo(transaction.serialise(), height)
                    self._watched[one.outpoint] = replace(self._watched[one.outpoint], spender=spender)
