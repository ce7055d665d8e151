"""Descriptors as we write them; that wallets read them so is shown by ``make test-descriptors``."""

import re

import pytest

from escrow.core.contract import Branch, contract_of
from escrow.core.descriptor import (
    BadDescriptor,
    checksum,
    conditional_descriptor,
    escrow_descriptor,
    with_checksum,
    without_checksum,
)
from escrow.core.script import Op, assemble, p2wsh
from tests.escrow.pair import BUYER
from tests.escrow.scenarios import DELAY, LOCK, terms_at
from wire.account import to_wif
from wire.errors import InvariantBroken


def test_the_checksum_of_bip380() -> None:
    assert with_checksum("raw(deadbeef)") == "raw(deadbeef)#89f8spxm"
    assert without_checksum("raw(deadbeef)#89f8spxm") == "raw(deadbeef)"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("raw(deadbeef)", "no-checksum"),
        ("raw(deadbeef)#", "bad-checksum"),
        ("raw(deadbeef)#89f8spxmx", "bad-checksum"),
        ("raw(deadbeef)#89f8spx", "bad-checksum"),
        ("raw(deedbeef)#89f8spxm", "bad-checksum"),
        ("raw(deedbeef)##9f8spxm", "bad-checksum"),
        ("raw(Ü)#00000000", "bad-descriptor"),
    ],
)
def test_what_bip380_refuses(text: str, code: str) -> None:
    with pytest.raises(BadDescriptor) as refused:
        without_checksum(text)
    assert refused.value.code == code


def test_every_single_letter_is_guarded() -> None:
    text = escrow_descriptor(contract_of("regtest", terms_at(500, arbiter=True))).partition("#")[0]
    right = checksum(text)
    for place in range(0, len(text), 7):
        for letter in "0f,(Z":
            if letter != text[place]:
                assert checksum(text[:place] + letter + text[place + 1 :]) != right


@pytest.mark.parametrize("arbiter", [True, False], ids=["arbiter", "plain"])
def test_the_script_is_the_miniscript_it_claims_to_be(arbiter: bool) -> None:
    """The bytes are spelled out from the descriptor's own keys, so descriptor and script cannot drift apart."""
    contract = contract_of("regtest", terms_at(500, arbiter))
    text = escrow_descriptor(contract)
    keys = [bytes.fromhex(one) for one in _hex_words(text)]
    two = [2, keys[0], keys[1], 2, Op.CHECKMULTISIG]
    alone = [keys[-1], Op.CHECKSIGVERIFY, 509, Op.CHECKLOCKTIMEVERIFY]
    if arbiter:
        middle = [keys[2], Op.CHECKSIGVERIFY, 505, Op.CHECKLOCKTIMEVERIFY, Op.VERIFY]
        middle += [1, keys[3], keys[4], 2, Op.CHECKMULTISIG]
        script = assemble(Op.IF, *two, Op.ELSE, Op.IF, *middle, Op.ELSE, *alone, Op.ENDIF, Op.ENDIF)  # type: ignore[arg-type]
    else:
        script = assemble(Op.IF, *two, Op.ELSE, *alone, Op.ENDIF)  # type: ignore[arg-type]
    assert text.count("or_i") == 1 + arbiter
    assert contract.witness_script == script
    assert contract.funding.script == p2wsh(script)
    assert len(set(keys)) == len(keys) == (6 if arbiter else 3)
    lock, one, other = (bytes.fromhex(word) for word in _hex_words(conditional_descriptor(contract, LOCK)))
    assert lock == LOCK
    assert contract.conditional_script(LOCK) == assemble(
        Op.IF, Op.SIZE, 32, Op.EQUALVERIFY, Op.SHA256, lock, Op.EQUALVERIFY, one, Op.CHECKSIG,
        Op.ELSE, other, Op.CHECKSIGVERIFY, DELAY, Op.CHECKSEQUENCEVERIFY, Op.ENDIF,
    )  # fmt: skip


def _hex_words(text: str) -> list[str]:
    return re.findall(r"[0-9a-f]{64,66}", text)


@pytest.mark.parametrize(("network", "first"), [("regtest", "c"), ("signet", "c"), ("main", "KL")])
def test_secrets_stand_in_the_form_of_their_network(network: str, first: str) -> None:
    contract = contract_of(network, terms_at(500, arbiter=True))
    secret = contract.secret(BUYER, Branch.REFUND)
    written = to_wif(secret, test=network != "main")
    assert written[0] in first
    bare, with_secret = escrow_descriptor(contract), escrow_descriptor(contract, secret)
    assert without_checksum(with_secret) == without_checksum(bare).replace(contract.buyer_refund.hex(), written)
    assert bare != with_secret
    lapse = contract.secret(BUYER, Branch.LAPSE)
    assert to_wif(lapse, test=network != "main") in conditional_descriptor(contract, LOCK, lapse)


def test_a_secret_that_is_no_key_of_the_descriptor_is_a_mistake() -> None:
    contract = contract_of("regtest", terms_at(500, arbiter=False))
    for wrong in (BUYER, contract.secret(BUYER, Branch.LAPSE)):
        with pytest.raises(InvariantBroken):
            escrow_descriptor(contract, wrong)
