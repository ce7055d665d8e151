"""What a funding transaction says to its maker alone, so that he finds his escrows again with nothing but his key.

One data output stands for all escrows of a transaction. It holds a note each, under a keystream that follows from the account
key, the transaction's first input and its other outputs; so no two memos ever share one, and to others it is noise. There is no
mark in it: a memo is ours when what it says gives the script of an output beside it.

    note    [flags 1, seller 32, counter 4, refund height 3], and with an arbiter [arbiter 32, ruling height 3]

Everything else that the script needs follows from the account key.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Final

from escrow.core.contract import BadTerms, Contract, Terms, contract_of
from escrow.core.script import Op, assemble
from escrow.core.transaction import Tx, outpoint_bytes, sha256
from wire.keys import Public, SecretKey
from wire.network import Network
from wire.ports import OutPoint, TxOut

NOTE_BYTES: Final = 40
RULED_NOTE_BYTES: Final = 75
_HEIGHT_END: Final = 1 << 24
_ODD, _RULED, _ARBITER_ODD = 1, 2, 4


def nonce_of(key: SecretKey, network: Network, instance: bytes, seller: bytes, counter: int) -> bytes:
    """The 32 bytes that make this channel differ from others: the counter in the open, and 28 bytes that follow from the key."""
    shown = counter.to_bytes(4, "big")
    return shown + key.derive("escrow/nonce", network.name.encode(), instance, seller, shown)[:28]


def counter_of(nonce: bytes) -> int:
    """The counter that ``nonce_of`` was given."""
    return int.from_bytes(nonce[:4], "big")


def note_of(key: SecretKey, network: Network, terms: Terms) -> bytes:
    """What the buyer has to know of ``terms`` beside his key; empty for terms that cannot be found again like this."""
    ours = terms.nonce == nonce_of(key, network, terms.instance, terms.seller, counter_of(terms.nonce))
    if not ours or terms.refund_height >= _HEIGHT_END:
        return b""
    flags = terms.seller[0] & _ODD
    note = terms.seller[1:] + terms.nonce[:4] + terms.refund_height.to_bytes(3, "big")
    if terms.arbiter is not None:
        flags |= _RULED | (_ARBITER_ODD if terms.arbiter[0] & 1 else 0)
        note += terms.arbiter[1:] + terms.ruling_height.to_bytes(3, "big")
    return bytes([flags]) + note


def _stream(key: SecretKey, first: OutPoint, others: Sequence[TxOut], size: int) -> bytes:
    summary = b"".join(one.value_sat.to_bytes(8, "little") + sha256(one.script) for one in others)
    return key.derive("escrow/memo", outpoint_bytes(first), summary, length=size)


def _mixed(one: bytes, other: bytes) -> bytes:
    return bytes(left ^ right for left, right in zip(one, other, strict=True))


def data_output(data: bytes) -> TxOut:
    """An output that only says something."""
    return TxOut(0, assemble(Op.RETURN) + assemble(data))


def data_in(output: TxOut) -> bytes | None:
    """What a data output says, when that is one push of at least a note; else None."""
    script = output.script
    for size, start in ((script[1:2], 2), (script[2:3], 3), (script[2:4], 4)):
        data = script[start:]
        if int.from_bytes(size, "little") == len(data) >= NOTE_BYTES and data_output(data).script == script:
            return data
    return None


def sealed(key: SecretKey, first: OutPoint, others: Sequence[TxOut], notes: Sequence[bytes]) -> TxOut:
    """The memo of a transaction whose first input spends ``first`` and whose outputs beside the memo are ``others``."""
    plain = b"".join(notes)
    return data_output(_mixed(plain, _stream(key, first, others, len(plain))))


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """An escrow of ours in a transaction. Fee rate, credit and claim delay of its terms are the network's usual ones, because
    the chain does not show what was agreed; so its ``channel`` is not the one that the seller knows.
    """

    outpoint: OutPoint
    contract: Contract


def found_in(key: SecretKey, network: Network, instance: bytes, transaction: Tx) -> tuple[Found, ...]:
    """The escrows that the holder of ``key`` funded with this transaction and left a note about."""
    txid = transaction.txid
    places = {one.script: (vout, one.value_sat) for vout, one in enumerate(transaction.outputs)}
    found = []
    for at, output in enumerate(transaction.outputs):
        data = data_in(output)
        if data is None:
            continue
        others = transaction.outputs[:at] + transaction.outputs[at + 1 :]
        plain = _mixed(data, _stream(key, transaction.inputs[0].outpoint, others, len(data)))
        for terms in _read(key, network, instance, plain):
            try:
                contract = contract_of(network.name, terms)
            except BadTerms:
                break
            place = places.get(contract.funding.script)
            if place is None:
                break
            whole = dataclasses.replace(terms, capacity_sat=place[1])
            found.append(Found(OutPoint(txid, place[0]), contract_of(network.name, whole)))
    return tuple(found)


def _read(key: SecretKey, network: Network, instance: bytes, plain: bytes) -> Iterator[Terms]:
    """The notes one after the other, until one that is none."""
    at = 0
    while at < len(plain):
        flags = plain[at]
        ruled = bool(flags & _RULED)
        note = plain[at + 1 : at + (RULED_NOTE_BYTES if ruled else NOTE_BYTES)]
        at += 1 + len(note)
        if flags > (_ODD | _RULED | _ARBITER_ODD) or len(note) + 1 not in (NOTE_BYTES, RULED_NOTE_BYTES):
            return
        seller = Public(bytes([2 + (flags & _ODD)]) + note[:32])
        refund_height = int.from_bytes(note[36:39], "big")
        arbiter = Public(bytes([3 if flags & _ARBITER_ODD else 2]) + note[39:71]) if ruled else None
        yield Terms(
            version=1,
            instance=instance,
            buyer=key.public,
            seller=seller,
            nonce=nonce_of(key, network, instance, seller, int.from_bytes(note[32:36], "big")),
            capacity_sat=1,
            arbiter=arbiter,
            ruling_height=int.from_bytes(note[71:74], "big"),
            refund_height=refund_height,
            claim_delay_blocks=network.claim_delay_blocks,
            feerate_sat_per_kvb=network.feerate_min_sat_per_kvb,
            credit_sat=0,
        )
