"""Blocks for regtest, where the work is about two hashes. Sources: BIP34 (height), BIP141 (witness commitment)."""

from collections.abc import Sequence
from typing import Final

from escrow.core.script import Op, assemble
from escrow.core.transaction import SEQUENCE_FINAL, Tx, TxIn, compact, merkle_root
from escrow.shell.ledger import COINBASE_OUTPOINT
from wire.account import sha256d
from wire.money import SAT_PER_BTC
from wire.ports import TxOut

_BITS: Final = 0x207FFFFF
_TARGET: Final = 0x7FFFFF << 8 * 29
_VERSION: Final = 0x20000000
_HALVING_BLOCKS: Final = 150
_COMMITMENT: Final = bytes.fromhex("aa21a9ed")
BLOCK_WEIGHT_MAX: Final = 3_900_000


def subsidy_sat(height: int) -> int:
    """The reward of the block at ``height`` on regtest, without fees."""
    halvings = height // _HALVING_BLOCKS
    return 50 * SAT_PER_BTC >> halvings if halvings < 64 else 0


def _coinbase(height: int, value_sat: int, script: bytes, body: Sequence[Tx], tag: bytes) -> Tx:
    root = merkle_root([bytes(32), *(one.wtxid for one in body)])
    commitment = assemble(Op.RETURN, _COMMITMENT + sha256d(root + bytes(32)))
    signature = assemble(height) + bytes([len(tag)]) + tag
    spending = TxIn(outpoint=COINBASE_OUTPOINT, sequence=SEQUENCE_FINAL, script=signature, witness=(bytes(32),))
    return Tx(inputs=(spending,), outputs=(TxOut(value_sat, script), TxOut(0, commitment)))


def build_block(
    *, height: int, previous: bytes, time_s: int, script: bytes, body: Sequence[Tx], fees_sat: int, tag: bytes = b"\x00"
) -> bytes:
    """A block with enough work, its reward to ``script``. ``tag`` makes two blocks of one height differ."""
    coinbase = _coinbase(height, subsidy_sat(height) + fees_sat, script, body, tag)
    root = merkle_root([coinbase.txid, *(one.txid for one in body)])
    start = _VERSION.to_bytes(4, "little") + previous + root + time_s.to_bytes(4, "little") + _BITS.to_bytes(4, "little")
    nonce = 0
    while True:
        header = start + nonce.to_bytes(4, "little")
        if int.from_bytes(sha256d(header), "little") <= _TARGET:
            break
        nonce += 1
    return header + compact(1 + len(body)) + b"".join(one.serialise() for one in (coinbase, *body))
