"""The escrow's outputs as descriptors, with which any descriptor wallet finds and spends them without this program.

A key stands there as 33 bytes in hex, or in wallet import format where its secret is given: a wallet that imports the escrow's
descriptor with the secret of the refund branch can take the refund, one with that of the lapse branch a balance nobody claimed.
Such a text is worth as much as the account: a branch secret is the account's secret plus a number that the other party knows.
Sources: BIP380 (expressions and checksum), BIP382 (wsh), miniscript.
"""

from typing import Final

from escrow.core.contract import Contract, in_order
from wire.account import to_wif
from wire.errors import Refused, require
from wire.keys import SecretKey
from wire.network import network_named

_LETTERS: Final = "0123456789()[],'/*abcdefgh@:$%{}IJKLMNOPQRSTUVWXYZ&+-.;<=>?!^_|~ijklmnopqrstuvwxyzABCDEFGH`#\"\\ "
_CHECK_LETTERS: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR: Final = (0xF5DEE51989, 0xA9FDCA3312, 0x1BAB10E32D, 0x3706B1677A, 0x644D626FFD)
_CHECK_SYMBOLS: Final = 8


class BadDescriptor(Refused):
    """The text is not a descriptor, or is mistyped."""


def _symbols(text: str) -> list[int]:
    """Each letter as its place within its group of 32, and after every third letter the three groups as one symbol."""
    symbols: list[int] = []
    groups: list[int] = []
    for letter in text:
        place = _LETTERS.find(letter)
        if place < 0:
            raise BadDescriptor("bad-descriptor", f"a descriptor has no letter {letter!r}")
        symbols.append(place % 32)
        groups.append(place // 32)
        if len(groups) == 3:
            symbols.append(groups[0] * 9 + groups[1] * 3 + groups[2])
            groups = []
    if groups:
        symbols.append(groups[0] if len(groups) == 1 else groups[0] * 3 + groups[1])
    return symbols


def checksum(text: str) -> str:
    """The eight letters that go behind a descriptor. Raises ``BadDescriptor``."""
    check = 1
    for symbol in [*_symbols(text), *[0] * _CHECK_SYMBOLS]:
        top = check >> 35
        check = (check & 0x7FFFFFFFF) << 5 ^ symbol
        for bit, term in enumerate(_GENERATOR):
            if top >> bit & 1:
                check ^= term
    check ^= 1
    return "".join(_CHECK_LETTERS[check >> 5 * (_CHECK_SYMBOLS - 1 - place) & 31] for place in range(_CHECK_SYMBOLS))


def with_checksum(text: str) -> str:
    """A descriptor as wallets take it."""
    return f"{text}#{checksum(text)}"


def without_checksum(text: str) -> str:
    """The descriptor before its checksum, which must be there and right. Raises ``BadDescriptor``."""
    body, mark, check = text.rpartition("#")
    if not mark:
        raise BadDescriptor("no-checksum", "the descriptor has no checksum")
    if check != checksum(body):
        raise BadDescriptor("bad-checksum", "the descriptor is mistyped: its checksum is wrong")
    return body


class _Keys:
    """How keys are written: those whose secret is there in wallet import format."""

    def __init__(self, contract: Contract, secrets: tuple[SecretKey, ...]) -> None:
        self._test = not network_named(contract.network).real_money
        self._secrets: dict[bytes, SecretKey] = {one.public: one for one in secrets}
        self._used: set[bytes] = set()

    def __call__(self, public: bytes) -> str:
        secret = self._secrets.get(public)
        if secret is None:
            return public.hex()
        self._used.add(public)
        return to_wif(secret, test=self._test)

    def all_used(self) -> None:
        require(self._used == set(self._secrets), "foreign-secret", "a secret was given that is no key of this descriptor")


def escrow_descriptor(contract: Contract, *secrets: SecretKey) -> str:
    """The escrow itself, with checksum. ``secrets`` are branch keys (``Contract.secret``) to be written down with it."""
    key, terms = _Keys(contract, secrets), contract.terms
    coop = ",".join(key(one) for one in in_order(contract.buyer_coop, contract.seller_coop))
    way = f"and_v(v:pk({key(contract.buyer_refund)}),after({terms.refund_height}))"
    if terms.arbiter is not None:
        either = ",".join(key(one) for one in in_order(contract.buyer_rule, contract.seller_rule))
        ruling = f"and_v(v:pk({key(terms.arbiter)}),and_v(v:after({terms.ruling_height}),multi(1,{either})))"
        way = f"or_i({ruling},{way})"
    key.all_used()
    return with_checksum(f"wsh(or_i(multi(2,{coop}),{way}))")


def conditional_descriptor(contract: Contract, lock: bytes, *secrets: SecretKey) -> str:
    """The seller's balance behind ``lock``, with checksum; ``secrets`` as for the escrow."""
    key = _Keys(contract, secrets)
    claim = f"and_v(v:sha256({lock.hex()}),pk({key(contract.seller_claim)}))"
    lapse = f"and_v(v:pk({key(contract.buyer_lapse)}),older({contract.terms.claim_delay_blocks}))"
    key.all_used()
    return with_checksum(f"wsh(or_i({claim},{lapse}))")
