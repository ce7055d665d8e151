"""A small script machine of our own for witness version 0, written from the BIPs, to be held against the kernel.

It knows the opcodes of the escrow's three scripts and the few more that Core's vectors of version 0 use; any other is
``Unknown``, never skipped. Consensus rules only, with none of the relay policies: an IF may be answered with any bytes, a
signature may have a high S.
Sources: BIP141, BIP143 (digest), BIP66 (encoding), BIP147 (empty dummy), BIP65, BIP68 and BIP112 (locks).
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from escrow.core.script import Op, script_number, witness_program
from escrow.core.transaction import SEQUENCE_FINAL, Tx
from wire.account import hash160, sha256d
from wire.keys import verify_ecdsa
from wire.ports import TxOut

ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_MOMENT = 500_000_000
_OFF, _IN_TIME, _UNITS = 1 << 31, 1 << 22, 0xFFFF
_ITEM_MAX, _SCRIPT_MAX, _STACK_MAX, _OPERATIONS_MAX, _KEYS_MAX = 520, 10_000, 1_000, 201, 20


class Fails(Exception):
    """The spend is invalid; says why."""


class Unknown(Exception):
    """Something that this machine does not know: it has no opinion."""


class Elsewhere(Unknown):
    """The output is not one of witness version 0."""


def truth(item: bytes) -> bool:
    """Whether an item counts as true: anything but zero, of either sign and any length."""
    return any(item[:-1]) or item[-1:] not in (b"", b"\x00", b"\x80")


def number(item: bytes, most: int = 4) -> int:
    """An item as a number."""
    if len(item) > most:
        raise Fails("a number is too long")
    if not item:
        return 0
    size = int.from_bytes(item[:-1] + bytes([item[-1] & 0x7F]), "little")
    return -size if item[-1] & 0x80 else size


def read_der(der: bytes) -> tuple[int, int]:
    """The two numbers of a strictly encoded signature. Raises ``Fails``."""
    if not 8 <= len(der) <= 72 or der[0] != 0x30 or der[1] != len(der) - 2:
        raise Fails("a signature is badly encoded")
    at, numbers = 2, []
    for _ in range(2):
        if at + 2 > len(der) or der[at] != 2:
            raise Fails("a signature is badly encoded")
        size = der[at + 1]
        body = der[at + 2 : at + 2 + size]
        padded = len(body) > 1 and body[0] == 0 and not body[1] & 0x80
        if size == 0 or len(body) != size or body[0] & 0x80 or padded:
            raise Fails("a signature is badly encoded")
        numbers.append(int.from_bytes(body, "big"))
        at += 2 + size
    if at != len(der):
        raise Fails("a signature is badly encoded")
    return numbers[0], numbers[1]


def write_der(r: int, s: int) -> bytes:
    """The strict encoding of two numbers."""
    parts = b""
    for one in (r, s):
        body = one.to_bytes(one.bit_length() // 8 + 1, "big")
        parts += bytes([2, len(body)]) + body
    return bytes([0x30, len(parts)]) + parts


@dataclass
class Machine:
    """One run of one script at one input."""

    transaction: Tx
    index: int
    value_sat: int
    script: bytes
    stack: list[bytes]
    branches: list[bool] = field(default_factory=list)
    """The answers to the IFs that were reached, in order."""
    checked: int = 0
    """Signatures that were found good."""
    _live: list[bool] = field(default_factory=list)
    _operations: int = 0
    _code_from: int = 0

    def run(self) -> None:
        """To the end. Raises ``Fails`` and ``Unknown``."""
        if len(self.script) > _SCRIPT_MAX:
            raise Fails("the script is too large")
        if any(len(one) > _ITEM_MAX for one in self.stack):
            raise Fails("an item is too large")
        at = 0
        while at < len(self.script):
            code = self.script[at]
            at += 1
            if code <= 0x4E:
                at = self._push(code, at)
            elif code == 0x4F or 0x51 <= code <= 0x60:
                if all(self._live):
                    self.stack.append(script_number(code - 0x50))
            else:
                self._count(1)
                self._operate(code, at)
            if len(self.stack) > _STACK_MAX:
                raise Fails("the stack is too large")
        if self._live:
            raise Fails("an IF has no end")
        if len(self.stack) != 1 or not truth(self.stack[0]):
            raise Fails("the end is not one true item")

    def _push(self, code: int, at: int) -> int:
        size = code
        if code >= 0x4C:
            width = {0x4C: 1, 0x4D: 2, 0x4E: 4}[code]
            if at + width > len(self.script):
                raise Fails("a push is cut off")
            size = int.from_bytes(self.script[at : at + width], "little")
            at += width
        item = self.script[at : at + size]
        if len(item) != size:
            raise Fails("a push is cut off")
        if size > _ITEM_MAX:
            raise Fails("an item is too large")
        if all(self._live):
            self.stack.append(item)
        return at + size

    def _count(self, operations: int) -> None:
        self._operations += operations
        if self._operations > _OPERATIONS_MAX:
            raise Fails("too many operations")

    def _pop(self) -> bytes:
        if not self.stack:
            raise Fails("the stack is empty")
        return self.stack.pop()

    def _operate(self, code: int, at: int) -> None:
        if code in _FLOW:
            self._flow(code)
            return
        step = _STEPS.get(code)
        if step is None:
            raise Unknown(f"opcode {code:#x}")
        if all(self._live):
            if code == _CODESEPARATOR:
                self._code_from = at
            step(self)

    def _flow(self, code: int) -> None:
        if code in (Op.IF, _NOTIF):
            if all(self._live):
                taken = truth(self._pop()) == (code == Op.IF)
                self.branches.append(taken)
            else:
                taken = False
            self._live.append(taken)
        elif not self._live:
            raise Fails("an ELSE or ENDIF without IF")
        elif code == Op.ELSE:
            self._live[-1] = not self._live[-1]
        else:
            self._live.pop()

    def _verify(self) -> None:
        if not truth(self._pop()):
            raise Fails("VERIFY found nothing true")

    def _answer(self, holds: bool) -> None:
        self.stack.append(b"\x01" if holds else b"")

    def _signed(self, signature: bytes, public: bytes) -> bool:
        if not signature:
            return False
        r, s = read_der(signature[:-1])
        if len(public) != {2: 33, 3: 33, 4: 65, 6: 65, 7: 65}.get(public[0] if public else 0):
            return False
        if not (0 < r < ORDER and 0 < s < ORDER):
            return False
        code = self.script[self._code_from :]
        digest = self.transaction.digest(self.index, code, self.value_sat, signature[-1])
        good = verify_ecdsa(public, digest, write_der(r, min(s, ORDER - s)))
        self.checked += good
        return good

    def _check_signature(self) -> None:
        public, signature = self._pop(), self._pop()
        self._answer(self._signed(signature, public))

    def _check_several(self) -> None:
        count = number(self._pop())
        if not 0 <= count <= _KEYS_MAX:
            raise Fails("a number of keys is impossible")
        self._count(count)
        keys = [self._pop() for _ in range(count)]
        wanted = number(self._pop())
        if not 0 <= wanted <= count:
            raise Fails("a number of signatures is impossible")
        signatures = [self._pop() for _ in range(wanted)]
        while signatures and len(signatures) <= len(keys):
            if self._signed(signatures[0], keys.pop(0)):
                signatures.pop(0)
        if self._pop():
            raise Fails("the dummy is not empty")
        self._answer(not signatures)

    def _lock_time(self) -> None:
        wanted = number(self.stack[-1], 5) if self.stack else -1
        lock, sequence = self.transaction.lock_time, self.transaction.inputs[self.index].sequence
        same_kind = (wanted < _MOMENT) == (lock < _MOMENT)
        if wanted < 0 or not same_kind or wanted > lock or sequence == SEQUENCE_FINAL:
            raise Fails("the lock time is not what the script wants")

    def _sequence(self) -> None:
        wanted = number(self.stack[-1], 5) if self.stack else -1
        if wanted < 0:
            raise Fails("a relative lock is negative or missing")
        if wanted & _OFF:
            return
        sequence, version = self.transaction.inputs[self.index].sequence, self.transaction.version & 0xFFFFFFFF
        same_kind = wanted & _IN_TIME == sequence & _IN_TIME
        if version < 2 or sequence & _OFF or not same_kind or wanted & _UNITS > sequence & _UNITS:
            raise Fails("the sequence is not what the script wants")

    def _size(self) -> None:
        item = self._pop()
        self.stack += [item, script_number(len(item))]

    def _duplicate(self) -> None:
        item = self._pop()
        self.stack += [item, item]

    def _swap(self) -> None:
        self.stack += [self._pop(), self._pop()]

    def _hash(self, function: Callable[[bytes], bytes]) -> None:
        self.stack.append(function(self._pop()))


_NOTIF, _CODESEPARATOR = 0x64, 0xAB
_FLOW = (Op.IF, _NOTIF, Op.ELSE, Op.ENDIF)


def _then_verify(step: Callable[[Machine], None]) -> Callable[[Machine], None]:
    def both(machine: Machine) -> None:
        step(machine)
        machine._verify()

    return both


def _equal(machine: Machine) -> None:
    machine._answer(machine._pop() == machine._pop())


def _drop(machine: Machine) -> None:
    machine._pop()


_STEPS: dict[int, Callable[[Machine], None]] = {
    0x61: lambda machine: None,  # NOP
    Op.VERIFY: Machine._verify,
    0x75: _drop,
    Op.DUP: Machine._duplicate,
    0x7C: Machine._swap,  # SWAP
    Op.SIZE: Machine._size,
    Op.EQUAL: _equal,
    Op.EQUALVERIFY: _then_verify(_equal),
    0x8B: lambda machine: machine.stack.append(script_number(number(machine._pop()) + 1)),  # 1ADD
    0x8C: lambda machine: machine.stack.append(script_number(number(machine._pop()) - 1)),  # 1SUB
    0x91: lambda machine: machine._answer(number(machine._pop()) == 0),  # NOT
    Op.SHA256: lambda machine: machine._hash(lambda item: hashlib.sha256(item).digest()),
    Op.HASH160: lambda machine: machine._hash(hash160),
    0xAA: lambda machine: machine._hash(sha256d),  # HASH256
    _CODESEPARATOR: lambda machine: None,
    Op.CHECKSIG: Machine._check_signature,
    Op.CHECKSIGVERIFY: _then_verify(Machine._check_signature),
    Op.CHECKMULTISIG: Machine._check_several,
    0xAF: _then_verify(Machine._check_several),  # CHECKMULTISIGVERIFY
    Op.CHECKLOCKTIMEVERIFY: Machine._lock_time,
    Op.CHECKSEQUENCEVERIFY: Machine._sequence,
}


def program_of(transaction: Tx, index: int, spent: TxOut) -> bytes:
    """The version 0 program that an input spends, itself or out of a P2SH. Raises ``Elsewhere``, and ``Fails`` for idle words."""
    signature, script = transaction.inputs[index].script, spent.script
    if len(script) == 23 and script[:2] == b"\xa9\x14" and script[22] == 0x87:
        inner = signature[1:]
        if not signature or signature[0] != len(inner) or hash160(inner) != script[2:22]:
            raise Elsewhere("not a program out of a P2SH")
        script, signature = inner, b""
    found = witness_program(script)
    if found is None or found[0] != 0:
        raise Elsewhere("not a witness output of version 0")
    if signature:
        raise Fails("a witness spend has no other script")
    return found[1]


def judge(transaction: Tx, index: int, spent: TxOut) -> Machine:
    """Run input ``index`` over the output it spends; the machine as it ended. Raises ``Fails`` and ``Unknown``."""
    program, witness = program_of(transaction, index, spent), transaction.inputs[index].witness
    if len(program) == 20:
        if len(witness) != 2:
            raise Fails("a key's witness has two items")
        code = b"\x76\xa9\x14" + program + b"\x88\xac"
        machine = Machine(transaction, index, spent.value_sat, code, list(witness))
    elif len(program) == 32:
        if not witness or hashlib.sha256(witness[-1]).digest() != program:
            raise Fails("the script is not the one paid to")
        machine = Machine(transaction, index, spent.value_sat, witness[-1], list(witness[:-1]))
    else:
        raise Fails("a program of version 0 has 20 or 32 bytes")
    machine.run()
    return machine
