"""Finds on a chain what belongs to a key, and takes back what is due. Needs the key and the chain and nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from escrow.core.memo import Found
from escrow.core.recovery import Judged, Standing, escrows_in, judge, judge_lock, take_back
from escrow.core.script import address_of, p2wpkh
from escrow.core.transaction import parse
from escrow.shell.ledger import Coin
from wire.keys import SecretKey
from wire.network import Network
from wire.ports import Chain, Rejected, TxInfo


class HistoryChain(Chain, Protocol):
    """A chain that can list what concerns one script."""

    async def coins_of(self, script: bytes) -> Sequence[Coin]:
        """Confirmed unspent outputs with this script."""
        ...

    async def history_of(self, script: bytes, since: int) -> Sequence[TxInfo]:
        """Transactions in blocks from height ``since`` on that pay to this witness script or spend from it, oldest first."""
        ...


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was found at ``height``, and what was broadcast: refunds by the outpoint of their escrow, refusals in words."""

    height: int
    address: str
    coins: tuple[Coin, ...]
    escrows: tuple[Judged, ...]
    sent: tuple[tuple[bytes, bytes], ...]
    refused: tuple[str, ...]


async def escrows_since(key: SecretKey, network: Network, chain: HistoryChain, since: int) -> list[Found]:
    """The escrows that ``key`` funded in blocks from height ``since`` on. Raises ``ChainFault``."""
    instance = await chain.instance()
    history = await chain.history_of(p2wpkh(key.public), since)
    return escrows_in(key, network, instance, [parse(one.raw, len(one.raw)) for one in history])


async def recover(
    key: SecretKey, network: Network, chain: HistoryChain, known: Sequence[Found], *, take: bool = True
) -> Recovered:
    """See how the escrows stand. With ``take`` every refund that is due is broadcast. Raises ``ChainFault``."""
    script = p2wpkh(key.public)
    tip = await chain.tip()
    escrows, sent, refused = [], [], []
    for found in known:
        judged = judge(found, await chain.outpoint(found.outpoint), tip.height)
        if judged.locked is not None:
            judged = judge_lock(judged, await chain.outpoint(judged.locked))
        if take and judged.standing is Standing.DUE:
            try:
                txid = await chain.submit(take_back(judged, key, await chain.feerate()).serialise())
            except Rejected as error:
                refused.append(error.sentence)
            else:
                sent.append((found.contract.channel, txid))
        escrows.append(judged)
    coins = tuple(await chain.coins_of(script))
    return Recovered(tip.height, address_of(script, network.hrp), coins, tuple(escrows), tuple(sent), tuple(refused))
