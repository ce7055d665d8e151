"""What really happened, read back from the chain and from the journals of the nodes: never from what the demonstration hoped.

The journals say which channels there were and which units were sold at what price; the chain says what each escrow paid out.
Money is conserved when every escrow's outputs and fees add up to what went in, sellers got what their revealed units cost, and
no two journals disagree.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from escrow.core.contract import channel_id, contract_of
from escrow.core.script import p2wpkh
from escrow.core.state import CHANNEL_TABLE, ChannelRow, Role
from escrow.core.transaction import Tx, parse, read_outpoint
from peer.core.deal import Deal, Phase, Unit
from peer.core.deal import Role as DealRole
from peer.core.ledger import DEAL_TABLE, UNIT_TABLE
from peer.demo.cluster import DevChain
from peer.journal import read_rows
from wire.account import account_of
from wire.canon import unpack
from wire.money import MSAT_PER_SAT

PAID: Final = (Phase.REVEALED, Phase.FINISHED)


@dataclass(frozen=True, slots=True)
class Escrow:
    """One channel as the chain shows it. ``to_seller_sat`` and ``to_buyer_sat`` arrived in outputs only they can spend."""

    buyer: str
    seller: str
    funding_txid: str
    funding_height: int | None
    close_txid: str | None
    close_height: int | None
    capacity_sat: int
    to_seller_sat: int
    to_buyer_sat: int
    fees_sat: int

    @property
    def adds_up(self) -> bool:
        """Whether nothing appeared or vanished."""
        return self.to_seller_sat + self.to_buyer_sat + self.fees_sat == self.capacity_sat


def channels_of(journal: Path) -> Iterator[ChannelRow]:
    """The channels that a node's journal knows."""
    for _, raw in sorted(read_rows(journal, CHANNEL_TABLE).items()):
        yield unpack(ChannelRow, raw)


def sales_of(journal: Path) -> Iterator[tuple[Deal, Unit]]:
    """The units that a node sold and gave the key for."""
    deals = {key: unpack(Deal, raw) for key, raw in read_rows(journal, DEAL_TABLE).items()}
    for _, raw in sorted(read_rows(journal, UNIT_TABLE).items()):
        unit = unpack(Unit, raw)
        if deals[unit.deal].role is DealRole.SELLER and unit.phase in PAID:
            yield deals[unit.deal], unit


class Auditor:
    """Follows the escrows of a buyer through the blocks of the chain."""

    def __init__(self, chain: DevChain, client: httpx.AsyncClient) -> None:
        self._chain = chain
        self._client = client
        self._spends: dict[tuple[bytes, int], tuple[Tx, int]] = {}
        self._heights: dict[bytes, int] = {}

    async def read_chain(self) -> None:
        """Read every block: which transaction spends which output, at which height."""
        top = int(await self._chain.call(self._client, "getblockcount"))
        for height in range(1, top + 1):
            block_hash = await self._chain.call(self._client, "getblockhash", height)
            block = await self._chain.call(self._client, "getblock", block_hash, 2)
            for line in block["tx"]:
                transaction = parse(bytes.fromhex(line["hex"]))
                self._heights[transaction.txid] = height
                for spent in transaction.inputs:
                    self._spends[spent.outpoint.txid, spent.outpoint.vout] = (transaction, height)

    def escrow(self, network: str, row: ChannelRow) -> Escrow | None:
        """One funded channel; None when it never got as far as the chain."""
        if row.funding is None:
            return None
        funding = read_outpoint(row.funding)
        if funding.txid not in self._heights:
            return None
        contract = contract_of(network, row.terms)
        close = self._spends.get((funding.txid, funding.vout))
        seller_script, buyer_script = p2wpkh(row.terms.seller), p2wpkh(row.terms.buyer)
        paid = {seller_script: 0, buyer_script: 0}
        fees = 0
        if close is not None:
            fees = self._follow(close[0], contract.funding.value_sat, paid)
        return Escrow(
            buyer=account_of(row.terms.buyer),
            seller=account_of(row.terms.seller),
            funding_txid=funding.txid[::-1].hex(),
            funding_height=self._heights[funding.txid],
            close_txid=close[0].txid[::-1].hex() if close else None,
            close_height=close[1] if close else None,
            capacity_sat=row.terms.capacity_sat,
            to_seller_sat=paid[seller_script],
            to_buyer_sat=paid[buyer_script],
            fees_sat=fees,
        )

    def _follow(self, transaction: Tx, value_sat: int, paid: dict[bytes, int]) -> int:
        """Add up who got what from a transaction that spends one escrow output, through a claim if there is one; returns fees."""
        fees = value_sat - sum(output.value_sat for output in transaction.outputs)
        for index, output in enumerate(transaction.outputs):
            if output.script in paid:
                paid[output.script] += output.value_sat
                continue
            onward = self._spends.get((transaction.txid, index))
            if onward is not None:
                fees += self._follow(onward[0], output.value_sat, paid)
        return fees


def ledger_of(journals: dict[str, Path]) -> dict[str, tuple[int, int]]:
    """Units sold and msat earned by each seller's account, by his own journal."""
    earned: dict[str, tuple[int, int]] = {}
    for account, journal in journals.items():
        tiles = paid_msat = 0
        for deal, _ in sales_of(journal):
            tiles += 1
            paid_msat += deal.price_msat
        earned[account] = (tiles, paid_msat)
    return earned


def money_conserved(network: str, escrows: list[Escrow], buyer: Path, sellers: dict[str, Path]) -> list[str]:
    """What does not add up, in words; empty when everything does."""
    wrong: list[str] = []
    for escrow in escrows:
        if escrow.close_txid is None:
            wrong.append(f"the escrow {escrow.funding_txid} is still open")
        elif not escrow.adds_up:
            wrong.append(f"the escrow {escrow.funding_txid} does not add up")
    bought = {
        channel_id(network, row.terms): row for row in channels_of(buyer) if row.role is Role.BUYER and row.funding is not None
    }
    for account, journal in sellers.items():
        due = {channel_id(network, row.terms): row.revealed_msat for row in channels_of(journal) if row.role is Role.SELLER}
        sold: dict[bytes | None, int] = {}
        for deal, _ in sales_of(journal):
            sold[deal.channel] = sold.get(deal.channel, 0) + deal.price_msat
        for channel, row in bought.items():
            if account_of(row.terms.seller) != account:
                continue
            if due.get(channel, 0) != sold.get(channel, 0):
                wrong.append(f"{account} was credited {due.get(channel, 0)} msat but sold units for {sold.get(channel, 0)} msat")
            onchain = [one for one in escrows if one.seller == account and one.funding_txid == _txid(row)]
            got = sum(one.to_seller_sat for one in onchain)
            at_least = sold.get(channel, 0) // MSAT_PER_SAT - sum(one.fees_sat for one in onchain)
            if got > row.paid_msat // MSAT_PER_SAT or got < at_least:
                wrong.append(f"{account} got {got} sat on the chain for units worth {sold.get(channel, 0)} msat")
    return wrong


def _txid(row: ChannelRow) -> str:
    return "" if row.funding is None else read_outpoint(row.funding).txid[::-1].hex()


def escrow_lines(escrows: list[Escrow]) -> list[dict[str, Any]]:
    """The escrows as plain values."""
    return [asdict(one) for one in escrows]
