"""Public vectors for signatures and transactions, and how many of them we agree with. ``make vectors`` prints the counts.

Each set states the rule by which a row applies to us: we make and read transactions, and sign spends of witness version 0.
A row that applies and does not agree is a failure; a row that does not apply is counted, too.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from escrow.core.script import Op, push, script_number
from escrow.core.transaction import BadTransaction, Tx, TxIn, compact, outpoint_bytes, parse, prefixed, sha256
from escrow.shell.consensus import verify_input
from tests.escrow.interpreter import Elsewhere, Fails, Unknown, judge
from wire.account import sha256d
from wire.keys import SecretKey, verify_ecdsa
from wire.ports import OutPoint, TxOut

VECTORS = Path(__file__).parent.parent / "vectors" / "bitcoin"
CONSENSUS = {"P2SH", "WITNESS", "DERSIG", "NULLDUMMY", "CHECKLOCKTIMEVERIFY", "CHECKSEQUENCEVERIFY"}
"""The flags of Core's vectors that stand for rules of consensus; the others are for relaying."""

WORDS = {
    "NOP": 0x61, "NOTIF": 0x64, "DROP": 0x75, "SWAP": 0x7C, "1ADD": 0x8B, "1SUB": 0x8C, "NOT": 0x91, "CODESEPARATOR": 0xAB,
    "HASH256": 0xAA, "CHECKMULTISIGVERIFY": 0xAF,
} | {one.name: int(one) for one in Op if one.name != "ZERO"}  # fmt: skip


@dataclass
class Count:
    """How one set of vectors went. ``left_out`` are the reasons why rows do not apply."""

    name: str
    rule: str
    rows: int = 0
    applicable: int = 0
    agreed: int = 0
    checked: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def skip(self, reason: str) -> None:
        self.left_out[reason] = self.left_out.get(reason, 0) + 1

    def say(self, agrees: bool, row: object) -> None:
        self.applicable += 1
        self.agreed += agrees
        if not agrees:
            self.wrong.append(str(row)[:200])


def rows_of(name: str) -> list[list[object]]:
    """The rows of a file that are not comments."""
    rows: list[list[object]] = json.loads((VECTORS / name).read_text())
    return [row for row in rows if len(row) > 1]


def assemble_words(text: str) -> bytes | None:
    """A script in the notation of Core's vectors; None when it uses a word we do not know."""
    out = b""
    for word in text.split():
        if word.lstrip("-").isdigit():
            number = int(word)
            out += bytes([0x50 + number]) if 1 <= number <= 16 else b"\x4f" if number == -1 else push(script_number(number))
        elif word.startswith("0x"):
            out += bytes.fromhex(word[2:])
        elif word in WORDS:
            out += bytes([WORDS[word]])
        elif word[0] == word[-1] == "'":
            out += push(word[1:-1].encode())
        else:
            return None
    return out


def transactions_of(name: str) -> Iterator[tuple[dict[OutPoint, TxOut | None], str, set[str]]]:
    """Spent outputs, raw transaction and flags of each row of ``tx_valid`` or ``tx_invalid``."""
    for spends, text, flags in rows_of(name):
        assert isinstance(spends, list)
        spent: dict[OutPoint, TxOut | None] = {}
        for txid, vout, script, *value in spends:
            raw = assemble_words(script)
            output = None if raw is None else TxOut(value[0] if value else 0, raw)
            spent[OutPoint(bytes.fromhex(txid)[::-1], vout & 0xFFFFFFFF)] = output
        yield spent, str(text), set(str(flags).split(",")) - {"NONE"}


def judged(transaction: Tx, spent: list[TxOut]) -> tuple[int, int, int]:
    """Over all inputs that spend version 0: how many there are, how many our machine refuses, and signatures found good.

    Raises ``Unknown`` when one of them uses an opcode that the machine does not know.
    """
    found = refused = checked = 0
    for index, output in enumerate(spent):
        try:
            machine = judge(transaction, index, output)
        except Elsewhere:
            continue
        except Fails:
            refused += 1
        else:
            checked += machine.checked
        found += 1
    return found, refused, checked


def kernel_passes(transaction: Tx, spent: list[TxOut]) -> bool:
    """Whether the kernel takes every input."""
    return all(verify_input(transaction, index, spent) for index in range(len(spent)))


# --- sighash.json ---------------------------------------------------------------------------------------------------


def old_digest(transaction: Tx, script: bytes, index: int, kind: int) -> bytes:
    """The digest from before witnesses, put together from the pieces of a parsed transaction."""
    base, alone = kind & 0x1F, bool(kind & 0x80)
    if base == 3 and index >= len(transaction.outputs):
        return (1).to_bytes(32, "little")
    loose = base in (2, 3)
    inputs = b""
    for place, one in enumerate(transaction.inputs):
        if alone and place != index:
            continue
        code = script.replace(bytes([0xAB]), b"") if place == index else b""  # these scripts push no data, so it is an opcode
        sequence = 0 if loose and place != index else one.sequence
        inputs += outpoint_bytes(one.outpoint) + prefixed(code) + sequence.to_bytes(4, "little")
    outputs = list(transaction.outputs)
    if loose:
        outputs = [] if base == 2 else [TxOut(-1, b"")] * index + [transaction.outputs[index]]
    tail = b"".join(one.value_sat.to_bytes(8, "little", signed=True) + prefixed(one.script) for one in outputs)
    return sha256d(
        transaction.version.to_bytes(4, "little", signed=True)
        + compact(1 if alone else len(transaction.inputs)) + inputs
        + compact(len(outputs)) + tail
        + transaction.lock_time.to_bytes(4, "little") + (kind & 0xFFFFFFFF).to_bytes(4, "little")
    )  # fmt: skip


def old_digests() -> Count:
    """Core's ``sighash.json``."""
    count = Count("sighash.json", "these digests are from before witnesses: each must follow from the transaction as we read it")
    for row in rows_of("sighash.json"):
        raw, script, index, kind, digest = row
        count.rows += 1
        data = bytes.fromhex(str(raw))
        transaction = parse(data)
        assert isinstance(index, int)
        assert isinstance(kind, int)
        made = old_digest(transaction, bytes.fromhex(str(script)), index, kind)
        count.say(transaction.serialise() == data and made[::-1].hex() == digest, row)
    return count


# --- the examples of BIP143, and RFC 6979 ----------------------------------------------------------------------------


def bip143() -> Count:
    """The examples of BIP143: our digest from the transaction alone, their signature under it, ours the same."""
    count = Count("bip143.json", "every example: the digest, and where keys are given the signature")
    for row in rows_of("bip143.json")[1:]:
        _, unsigned, text, digest, public, secret, signature = row
        count.rows += 1
        transaction, preimage = parse(bytes.fromhex(str(unsigned))), bytes.fromhex(str(text))
        index = next(at for at, one in enumerate(transaction.inputs) if outpoint_bytes(one.outpoint) == preimage[68:104])
        width = 1 if preimage[104] < 0xFD else 3
        code, value = preimage[104 + width : -52], int.from_bytes(preimage[-52:-44], "little")
        kind = preimage[-4]
        made = transaction.digest(index, code, value, kind)
        agrees = made.hex() == digest
        if public and secret and signature:
            der = bytes.fromhex(str(signature)).removesuffix(bytes([kind]))
            agrees &= verify_ecdsa(bytes.fromhex(str(public)), made, der)
            agrees &= SecretKey(bytes.fromhex(str(secret))).sign_ecdsa(made) == der
            count.checked += 1
        count.say(agrees, row)
    return count


# --- whole transactions ---------------------------------------------------------------------------------------------


def _transactions(name: str, count: Count, applies: Callable[[set[str]], bool], passes: bool) -> Count:
    for spent, text, flags in transactions_of(name):
        count.rows += 1
        try:
            transaction = parse(bytes.fromhex(text))
        except BadTransaction:
            count.skip("cannot be read, and is refused for that")
            continue
        if transaction.serialise().hex() != text:
            count.wrong.append("does not come back: " + text[:100])
        outputs = [spent.get(one.outpoint) for one in transaction.inputs]
        known = [one for one in outputs if one is not None]
        if not applies(flags) or len(known) != len(outputs):
            count.skip("witnesses are off, rules of relaying are on, or a script has words we do not know")
            continue
        found, refused, checked = judged(transaction, known)
        if not found:
            count.skip("no version 0 spend")
            continue
        count.checked += checked + refused
        count.say((refused == 0) == passes == kernel_passes(transaction, known), text)
    return count


def valid_transactions() -> Count:
    """Core's ``tx_valid.json``: everything comes back byte for byte, and version 0 spends pass our machine and the kernel."""
    rule = "an input spends a version 0 program, itself or out of a P2SH, and the row does not switch witnesses off"
    name = "tx_valid.json"
    return _transactions(name, Count(name, rule), lambda without: not without & CONSENSUS, passes=True)


def invalid_transactions() -> Count:
    """Core's ``tx_invalid.json``: the same, refused."""
    rule = "an input spends a version 0 program, and the row asks for witnesses and nothing but consensus rules"
    name = "tx_invalid.json"
    return _transactions(name, Count(name, rule), lambda flags: "WITNESS" in flags and flags <= CONSENSUS, passes=False)


def witness_scripts() -> Count:
    """The rows of Core's ``script_tests.json`` that have a witness."""
    count = Count("script_tests_witness.json", "a version 0 program, and nothing asked for but consensus rules")
    for row in rows_of("script_tests_witness.json"):
        count.rows += 1
        first, signature_words, script_words, flags_text, verdict = row[:5]
        assert isinstance(first, list)
        *items, value = first
        signature, script = assemble_words(str(signature_words)), assemble_words(str(script_words))
        flags = set(str(flags_text).split(","))
        if not flags <= CONSENSUS or "WITNESS" not in flags or any("#" in item for item in items):
            count.skip("no witnesses, taproot, or rules of relaying")
            continue
        if signature is None or script is None:
            count.skip("uses a word we do not know")
            continue
        output = TxOut(round(value * 100_000_000), script)
        credit = Tx(
            inputs=(TxIn(outpoint=OutPoint(bytes(32), 0xFFFFFFFF), sequence=0xFFFFFFFF, script=b"\x00\x00"),),
            outputs=(output,),
            version=1,
        )
        stack = tuple(bytes.fromhex(item) for item in items)
        spending = TxIn(outpoint=OutPoint(credit.txid, 0), sequence=0xFFFFFFFF, script=signature, witness=stack)
        transaction = Tx(inputs=(spending,), outputs=(TxOut(output.value_sat, b""),), version=1)
        try:
            found, refused, checked = judged(transaction, [output])
        except Unknown:
            count.skip("uses an opcode that our machine does not know")
            continue
        if not found:
            count.skip("no version 0 spend")
            continue
        count.checked += checked
        count.say((refused == 0) == (verdict == "OK") == kernel_passes(transaction, [output]), row)
    return count


def signatures() -> Count:
    """Deterministic signatures."""
    count = Count("rfc6979.json", "every row: the signature of the message's SHA-256")
    for row in rows_of("rfc6979.json")[1:]:
        secret, message, signature = (str(one) for one in row)
        count.rows += 1
        count.say(SecretKey(bytes.fromhex(secret)).sign_ecdsa(sha256(message.encode())).hex() == signature, row)
    return count


SETS = (old_digests, bip143, valid_transactions, invalid_transactions, witness_scripts, signatures)


def main() -> int:
    """Print how all sets went; returns the exit code."""
    failed = False
    for one in SETS:
        count = one()
        print(f"{count.name}: {count.rows} rows, {count.applicable} apply, {count.agreed} agree; {count.checked} checks inside")
        print(f"    applies: {count.rule}")
        for reason, number in sorted(count.left_out.items()):
            print(f"    left out: {number}, {reason}")
        for row in count.wrong:
            print(f"    WRONG: {row}")
        failed |= bool(count.wrong)
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
