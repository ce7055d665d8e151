"""Bitcoin script as the escrow writes it, the outputs it pays to, and their addresses.

Sources: BIP141 (witness programs), BIP62 (minimal pushes), BIP173 and BIP350 (bech32, bech32m).
"""

import enum
from typing import Final

from escrow.core.transaction import sha256
from wire.account import hash160
from wire.errors import Refused


class Op(enum.IntEnum):
    """The opcodes that are used."""

    ZERO = 0x00
    IF = 0x63
    ELSE = 0x67
    ENDIF = 0x68
    VERIFY = 0x69
    RETURN = 0x6A
    DUP = 0x76
    SIZE = 0x82
    EQUAL = 0x87
    EQUALVERIFY = 0x88
    SHA256 = 0xA8
    HASH160 = 0xA9
    CHECKSIG = 0xAC
    CHECKSIGVERIFY = 0xAD
    CHECKMULTISIG = 0xAE
    CHECKLOCKTIMEVERIFY = 0xB1
    CHECKSEQUENCEVERIFY = 0xB2


class BadAddress(Refused):
    """The text is not an address of this network."""


def script_number(number: int) -> bytes:
    """``number`` as the script machine keeps it: little-endian, sign in the highest bit, shortest form."""
    if number == 0:
        return b""
    size = abs(number)
    raw = bytearray(size.to_bytes((size.bit_length() + 7) // 8, "little"))
    if raw[-1] & 0x80:
        raw.append(0)
    if number < 0:
        raw[-1] |= 0x80
    return bytes(raw)


def push(data: bytes) -> bytes:
    """The shortest instruction that puts ``data`` on the stack."""
    if data == b"":
        return b"\x00"
    if len(data) == 1 and 1 <= data[0] <= 16:
        return bytes([0x50 + data[0]])
    if data == b"\x81":
        return b"\x4f"
    if len(data) < 0x4C:
        return bytes([len(data)]) + data
    if len(data) <= 0xFF:
        return b"\x4c" + bytes([len(data)]) + data
    return b"\x4d" + len(data).to_bytes(2, "little") + data


def assemble(*items: Op | int | bytes) -> bytes:
    """A script: opcodes as they are, integers as minimal numbers, bytes as minimal pushes."""
    parts = []
    for item in items:
        if isinstance(item, Op):
            parts.append(bytes([item]))
        elif isinstance(item, int):
            parts.append(push(script_number(item)))
        else:
            parts.append(push(item))
    return b"".join(parts)


def p2wsh(witness_script: bytes) -> bytes:
    """The output script that pays to a witness script."""
    return b"\x00\x20" + sha256(witness_script)


def p2wpkh(public: bytes) -> bytes:
    """The output script that pays to a compressed key."""
    return b"\x00\x14" + hash160(public)


def p2wpkh_code(public: bytes) -> bytes:
    """What a signature spending ``p2wpkh(public)`` signs as its script (BIP143)."""
    return assemble(Op.DUP, Op.HASH160, hash160(public), Op.EQUALVERIFY, Op.CHECKSIG)


def witness_program(script: bytes) -> tuple[int, bytes] | None:
    """Version and program of a witness output, or None for any other."""
    if not 4 <= len(script) <= 42 or script[1] != len(script) - 2:
        return None
    if script[0] == 0:
        return 0, script[2:]
    return (script[0] - 0x50, script[2:]) if 0x51 <= script[0] <= 0x60 else None


_ALPHABET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_BECH32: Final = 1
_BECH32M: Final = 0x2BC830A3


def _polymod(values: list[int]) -> int:
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, term in enumerate(_GENERATOR):
            if top >> bit & 1:
                check ^= term
    return check


def _expand(hrp: str) -> list[int]:
    return [ord(letter) >> 5 for letter in hrp] + [0] + [ord(letter) & 31 for letter in hrp]


def _regroup(data: bytes | list[int], width: int, into: int, *, pad: bool) -> list[int] | None:
    held, bits, groups = 0, 0, []
    for value in data:
        held = (held << width | value) & 0xFFFF
        bits += width
        while bits >= into:
            bits -= into
            groups.append(held >> bits & ((1 << into) - 1))
    if pad:
        if bits:
            groups.append(held << (into - bits) & ((1 << into) - 1))
    elif bits >= width or held << (into - bits) & ((1 << into) - 1):
        return None
    return groups


def address_of(script: bytes, hrp: str) -> str:
    """The bech32 (version 0) or bech32m address of a witness output. Raises ``BadAddress`` for any other script."""
    found = witness_program(script)
    if found is None:
        raise BadAddress("bad-address", "only witness outputs have an address here")
    version, program = found
    data = [version, *(_regroup(program, 8, 5, pad=True) or [])]
    check = _polymod(_expand(hrp) + data + [0] * 6) ^ (_BECH32 if version == 0 else _BECH32M)
    data += [check >> 5 * (5 - index) & 31 for index in range(6)]
    return hrp + "1" + "".join(_ALPHABET[value] for value in data)


def script_of(address: str, hrp: str) -> bytes:
    """The output script that ``address`` names on the network with prefix ``hrp``. Raises ``BadAddress``."""
    text = address.lower()
    if address not in (text, address.upper()) or not 14 <= len(text) <= 90:
        raise BadAddress("bad-address", f"{address[:100]!r} is not an address: wrong length or mixed case")
    prefix, _, rest = text.rpartition("1")
    if prefix != hrp:
        raise BadAddress("wrong-network", f"{address!r} is not an address of this network; those start with {hrp}1")
    if any(letter not in _ALPHABET for letter in rest) or len(rest) < 8:
        raise BadAddress("bad-address", f"{address!r} has a letter that no address has")
    values = [_ALPHABET.index(letter) for letter in rest]
    version, check = values[0], _polymod(_expand(hrp) + values)
    program = _regroup(values[1:-6], 5, 8, pad=False)
    if check != (_BECH32 if version == 0 else _BECH32M) or program is None:
        raise BadAddress("bad-checksum", f"{address!r} is mistyped: its checksum is wrong")
    if version > 16 or not 2 <= len(program) <= 40 or (version == 0 and len(program) not in (20, 32)):
        raise BadAddress("bad-address", f"{address!r} is not an address that can be paid")
    return bytes([version + 0x50 if version else 0, len(program), *program])
