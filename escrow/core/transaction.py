"""Segwit transactions as bytes: serialise, parse, ids, size, and the digest that a witness v0 signature signs.

Sources: BIP141 (witness, virtual size), BIP143 (digest), BIP144 (serialisation).
Ids are in internal byte order, the reverse of what explorers print.
"""

import dataclasses
import hashlib
from typing import Final

from wire.account import sha256d
from wire.errors import Misbehaved
from wire.limits import TX_MAX_BYTES
from wire.ports import OutPoint, TxOut

SEQUENCE_FINAL: Final = 0xFFFFFFFF
SEQUENCE_REPLACEABLE: Final = 0xFFFFFFFD
"""Signals replacement (BIP125), keeps the lock time alive and asks for no relative lock."""

SIGHASH_ALL: Final = 1
_ANYONE_CAN_PAY: Final = 0x80
_NONE: Final = 2
_SINGLE: Final = 3
_ZERO: Final = bytes(32)


class BadTransaction(Misbehaved):
    """The bytes are not a transaction."""


def compact(number: int) -> bytes:
    """Bitcoin's variable-length integer in its shortest form."""
    if number < 0xFD:
        return bytes([number])
    if number <= 0xFFFF:
        return b"\xfd" + number.to_bytes(2, "little")
    if number <= 0xFFFFFFFF:
        return b"\xfe" + number.to_bytes(4, "little")
    return b"\xff" + number.to_bytes(8, "little")


def prefixed(data: bytes) -> bytes:
    """``data`` behind its length."""
    return compact(len(data)) + data


def show_id(identity: bytes) -> str:
    """A txid or block hash as explorers and RPC print it."""
    return identity[::-1].hex()


def read_id(text: str) -> bytes:
    """The 32 internal bytes of a printed txid or block hash. Raises ``BadTransaction``."""
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != 32:
        raise BadTransaction("bad-id", f"{text[:80]!r} is not 64 hexadecimal digits")
    return raw[::-1]


def outpoint_bytes(outpoint: OutPoint) -> bytes:
    """36 bytes: txid and little-endian index."""
    return outpoint.txid + outpoint.vout.to_bytes(4, "little")


def read_outpoint(raw: bytes) -> OutPoint:
    """The outpoint in 36 bytes."""
    return OutPoint(raw[:32], int.from_bytes(raw[32:36], "little"))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TxIn:
    """What is spent. ``witness`` is the stack, bottom first; ``script`` stays empty for segwit."""

    outpoint: OutPoint
    sequence: int = SEQUENCE_REPLACEABLE
    script: bytes = b""
    witness: tuple[bytes, ...] = ()


def _output_bytes(output: TxOut) -> bytes:
    return output.value_sat.to_bytes(8, "little", signed=True) + prefixed(output.script)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tx:
    """A transaction."""

    inputs: tuple[TxIn, ...]
    outputs: tuple[TxOut, ...]
    lock_time: int = 0
    version: int = 2

    def serialise(self, *, witness: bool = True) -> bytes:
        """The bytes on the wire, or the old form without witnesses."""
        with_witness = witness and any(one.witness for one in self.inputs)
        parts = [self.version.to_bytes(4, "little", signed=True), b"\x00\x01" if with_witness else b"", compact(len(self.inputs))]
        parts += [outpoint_bytes(one.outpoint) + prefixed(one.script) + one.sequence.to_bytes(4, "little") for one in self.inputs]
        parts.append(compact(len(self.outputs)))
        parts += [_output_bytes(one) for one in self.outputs]
        if with_witness:
            parts += [compact(len(one.witness)) + b"".join(prefixed(item) for item in one.witness) for one in self.inputs]
        parts.append(self.lock_time.to_bytes(4, "little"))
        return b"".join(parts)

    @property
    def txid(self) -> bytes:
        """32 bytes that name it, whatever its witnesses are."""
        return sha256d(self.serialise(witness=False))

    @property
    def wtxid(self) -> bytes:
        """32 bytes over everything."""
        return sha256d(self.serialise())

    @property
    def weight(self) -> int:
        """Weight units (BIP141)."""
        return 3 * len(self.serialise(witness=False)) + len(self.serialise())

    @property
    def vsize(self) -> int:
        """Virtual bytes, the unit of fees."""
        return -(-self.weight // 4)

    def with_witness(self, index: int, witness: tuple[bytes, ...]) -> "Tx":
        """The same with another witness at one input."""
        spending = dataclasses.replace(self.inputs[index], witness=witness)
        return dataclasses.replace(self, inputs=(*self.inputs[:index], spending, *self.inputs[index + 1 :]))

    def digest(self, index: int, script_code: bytes, value_sat: int, sighash: int = SIGHASH_ALL) -> bytes:
        """The 32 bytes that a witness v0 signature at input ``index`` signs (BIP143)."""
        alone, base = sighash & _ANYONE_CAN_PAY, sighash & 0x1F
        here = self.inputs[index]
        prevouts = _ZERO if alone else sha256d(b"".join(outpoint_bytes(one.outpoint) for one in self.inputs))
        if alone or base in (_NONE, _SINGLE):
            sequences = _ZERO
        else:
            sequences = sha256d(b"".join(one.sequence.to_bytes(4, "little") for one in self.inputs))
        if base not in (_NONE, _SINGLE):
            outputs = sha256d(b"".join(_output_bytes(one) for one in self.outputs))
        elif base == _SINGLE and index < len(self.outputs):
            outputs = sha256d(_output_bytes(self.outputs[index]))
        else:
            outputs = _ZERO
        return sha256d(
            self.version.to_bytes(4, "little", signed=True)
            + prevouts
            + sequences
            + outpoint_bytes(here.outpoint)
            + prefixed(script_code)
            + value_sat.to_bytes(8, "little", signed=True)
            + here.sequence.to_bytes(4, "little")
            + outputs
            + self.lock_time.to_bytes(4, "little")
            + (sighash & 0xFFFFFFFF).to_bytes(4, "little")
        )


class _Reader:
    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.at = 0

    def take(self, size: int) -> bytes:
        end = self.at + size
        if end > len(self.raw):
            raise BadTransaction("short-transaction", "the transaction ends too early")
        piece = self.raw[self.at : end]
        self.at = end
        return piece

    def integer(self, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)

    def compact(self) -> int:
        first = self.integer(1)
        if first < 0xFD:
            return first
        size, least = {0xFD: (2, 0xFD), 0xFE: (4, 1 << 16), 0xFF: (8, 1 << 32)}[first]
        number = self.integer(size)
        if number < least:
            raise BadTransaction("bad-compact", "a length is not in its shortest form")
        return number

    def count(self, least_bytes: int) -> int:
        """A number of items of at least ``least_bytes`` each; more than could follow is refused before any is read."""
        number = self.compact()
        if number * least_bytes > len(self.raw) - self.at:
            raise BadTransaction("short-transaction", "the transaction announces more than it holds")
        return number

    def data(self) -> bytes:
        return self.take(self.count(1))


def _read_inputs(reader: _Reader) -> list[TxIn]:
    inputs = []
    for _ in range(reader.count(41)):
        txid, vout = reader.take(32), reader.integer(4)
        script = reader.data()
        inputs.append(TxIn(outpoint=OutPoint(txid, vout), script=script, sequence=reader.integer(4)))
    return inputs


def _read(reader: _Reader) -> Tx:
    version = reader.integer(4, signed=True)
    segwit = reader.raw[reader.at : reader.at + 2] == b"\x00\x01"
    if segwit:
        reader.take(2)
    inputs = _read_inputs(reader)
    outputs = []
    for _ in range(reader.count(9)):
        value_sat = reader.integer(8, signed=True)
        outputs.append(TxOut(value_sat, reader.data()))
    if segwit:
        for index, one in enumerate(inputs):
            stack = tuple(reader.data() for _ in range(reader.count(1)))
            inputs[index] = dataclasses.replace(one, witness=stack)
        if not any(one.witness for one in inputs):
            raise BadTransaction("empty-witness", "the transaction announces witnesses and has none")
    lock_time = reader.integer(4)
    return Tx(inputs=tuple(inputs), outputs=tuple(outputs), lock_time=lock_time, version=version)


def parse(raw: bytes, most: int = TX_MAX_BYTES) -> Tx:
    """The transaction in ``raw``; its serialisation gives ``raw`` again. Raises ``BadTransaction``."""
    if len(raw) > most:
        raise BadTransaction("oversize", f"{len(raw)} bytes are more than a transaction of {most}")
    reader = _Reader(raw)
    transaction = _read(reader)
    if reader.at != len(raw):
        raise BadTransaction("trailing-bytes", "something follows the transaction")
    return transaction


def parse_block(raw: bytes) -> tuple[bytes, tuple[Tx, ...]]:
    """Header (80 bytes) and transactions of a serialised block. Raises ``BadTransaction``."""
    reader = _Reader(raw)
    header = reader.take(80)
    body = tuple(_read(reader) for _ in range(reader.count(60)))
    if reader.at != len(raw):
        raise BadTransaction("trailing-bytes", "something follows the block")
    return header, body


def merkle_root(leaves: list[bytes]) -> bytes:
    """Root over txids (or wtxids) as a block header commits to it."""
    row = list(leaves)
    while len(row) > 1:
        if len(row) % 2:
            row.append(row[-1])
        row = [sha256d(row[index] + row[index + 1]) for index in range(0, len(row), 2)]
    return row[0]


def sha256(data: bytes) -> bytes:
    """One SHA-256."""
    return hashlib.sha256(data).digest()
