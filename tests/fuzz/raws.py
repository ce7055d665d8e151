"""Transactions as bytes, bent: what we read and what the kernel reads.

They agree on everything but one thing, by intent: the kernel reads a transaction and leaves what follows it, we refuse that.
"""

from functools import lru_cache
from random import Random

from escrow.core.transaction import BadTransaction, parse
from tests.escrow.core_vectors import transactions_of
from tests.fuzz.opinions import Disagreement
from tests.fuzz.spends import make_case

_MARKS = (0x00, 0x01, 0xFC, 0xFD, 0xFE, 0xFF)
_HEAD = 60


@lru_cache(maxsize=1)
def _public() -> tuple[bytes, ...]:
    return tuple(bytes.fromhex(raw) for name in ("tx_valid.json", "tx_invalid.json") for _, raw, _ in transactions_of(name))


def make_raw(seed: int, number: int) -> bytes:
    """Bytes ``number`` of the run with this seed."""
    random = Random(f"raw/{seed}/{number}")
    good = make_case(seed, number).transaction.serialise() if random.random() < 0.5 else random.choice(_public())
    raw = bytearray(good)
    for _ in range(random.choice((0, 1, 1, 2))):
        at = random.randrange(len(raw) if random.random() < 0.5 else min(_HEAD, len(raw)))
        match random.randrange(5):
            case 0:
                raw[at] ^= 1 << random.randrange(8)
            case 1:
                del raw[at : at + random.randrange(1, 4)]
            case 2:
                raw[at:at] = random.randbytes(random.randrange(1, 4))
            case 3:
                raw[at] = random.choice(_MARKS)
            case _:
                raw += random.randbytes(random.randrange(1, 3))
    return bytes(raw)


def kernel_reads(raw: bytes) -> bytes | None:
    """The transaction at the start of ``raw`` as the kernel writes it again, or None."""
    import pbk

    try:
        return bytes(pbk.Transaction(raw))
    except (RuntimeError, ValueError, pbk.KernelException):
        return None


def check_raw(raw: bytes) -> str:
    """Our verdict: "accepted", or the code of the refusal. Raises ``Disagreement``."""
    word = "accepted"
    try:
        if parse(raw).serialise() != raw:
            raise Disagreement("what we read does not come back")
    except BadTransaction as refused:
        word = refused.code
    kernel = kernel_reads(raw)
    if word == "trailing-bytes":
        holds = kernel is None or len(kernel) < len(raw)
    else:
        holds = (kernel == raw) == (word == "accepted") and (kernel is None) == (word != "accepted")
    if not holds:
        raise Disagreement(f"we say {word}, the kernel reads {None if kernel is None else kernel.hex()}")
    return word
