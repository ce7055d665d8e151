"""Two wallet libraries that are not ours read our descriptors: the same bytes, the same addresses, and a way to the money."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from escrow.core.contract import Branch, Contract, contract_of
from escrow.core.descriptor import conditional_descriptor, escrow_descriptor, without_checksum
from escrow.core.script import address_of, p2wpkh, p2wsh
from escrow.core.spends import SpendKind, classify, key_shown
from escrow.core.transaction import Tx, parse
from escrow.shell.regtest import Regtest
from tests.escrow.judges import KernelJudge, Stage, output
from tests.escrow.pair import BUYER
from tests.escrow.scenarios import DELAY, LOCK, PAID_MSAT, Escrow, funded, terms_at
from wire.keys import SecretKey
from wire.network import MAIN, NETWORKS, REGTEST, Network
from wire.ports import TxOut

HOME = p2wpkh(SecretKey(b"\x66" * 32).public)
HEIGHTS = (100, 130, 40_000, 8_400_000)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    chain = Regtest(tmp_path_factory.mktemp("chain"), REGTEST)
    chain.mine(130)
    yield Stage(KernelJudge(chain))
    chain.close()


def descriptors(contract: Contract) -> list[tuple[str, bytes]]:
    """Both outputs of a contract: descriptor and witness script."""
    return [
        (escrow_descriptor(contract), contract.witness_script),
        (conditional_descriptor(contract, LOCK), contract.conditional_script(LOCK)),
    ]


CONTRACTS = [
    pytest.param(network, height, arbiter, id=f"{network.name}-{height}-{'arbiter' if arbiter else 'plain'}")
    for network in NETWORKS.values()
    for height in HEIGHTS
    for arbiter in (True, False)
]


@pytest.mark.parametrize(("network", "height", "arbiter"), CONTRACTS)
def test_embit_derives_the_same_bytes(network: Network, height: int, arbiter: bool) -> None:
    from embit.descriptor import Descriptor
    from embit.descriptor.checksum import add_checksum
    from embit.networks import NETWORKS as THEIRS

    for text, script in descriptors(contract_of(network.name, terms_at(height, arbiter))):
        read = Descriptor.from_string(text)
        assert read.witness_script().data == script
        assert read.script_pubkey().data == p2wsh(script)
        theirs = read.address(THEIRS[{"regtest": "regtest", "signet": "signet", "main": "main"}[network.name]])
        assert theirs == address_of(p2wsh(script), network.hrp)
        assert add_checksum(without_checksum(text)) == text


@pytest.mark.parametrize(("network", "height", "arbiter"), CONTRACTS)
def test_bdk_derives_the_same_bytes(network: Network, height: int, arbiter: bool) -> None:
    import bdkpython as bdk

    kind = bdk.NetworkKind.MAIN if network is MAIN else bdk.NetworkKind.TEST
    theirs = {"regtest": bdk.Network.REGTEST, "signet": bdk.Network.SIGNET, "main": bdk.Network.BITCOIN}[network.name]
    for text, script in descriptors(contract_of(network.name, terms_at(height, arbiter))):
        wallet = bdk.Wallet.create_single(bdk.Descriptor(text, kind), theirs, bdk.Persister.new_in_memory())
        address = wallet.reveal_next_address(bdk.KeychainKind.EXTERNAL).address
        assert bytes(address.script_pubkey().to_bytes()) == p2wsh(script)
        assert str(address) == address_of(p2wsh(script), network.hrp)
        assert wallet.descriptor_checksum(bdk.KeychainKind.EXTERNAL) == text.rpartition("#")[2]


def test_a_mistyped_descriptor_is_noticed_by_both() -> None:
    import bdkpython as bdk
    from embit.descriptor import Descriptor
    from embit.descriptor.checksum import add_checksum

    text = escrow_descriptor(contract_of("regtest", terms_at(100, arbiter=True)))
    wrong = text.replace("after(109)", "after(108)")
    with pytest.raises(bdk.DescriptorError):
        bdk.Descriptor(wrong, bdk.NetworkKind.TEST)
    Descriptor.from_string(wrong)  # embit drops the checksum unread, so it is compared by hand
    assert add_checksum(wrong.partition("#")[0]) != wrong


def last_ways(policy: dict[str, Any]) -> dict[str, list[int]]:
    """BDK's path to the last branch of every choice in a descriptor."""
    found: dict[str, list[int]] = {}
    while policy["type"] == "THRESH":
        if policy["threshold"] < len(policy["items"]):
            found[policy["id"]] = [len(policy["items"]) - 1]
        policy = policy["items"][-1]
    return found


def take_with_bdk(text: str, made: Tx, height: int) -> Tx:
    """Everything that ``made`` pays to the descriptor, taken home by BDK with the secret in it."""
    import bdkpython as bdk

    keychain = bdk.KeychainKind.EXTERNAL
    wallet = bdk.Wallet.create_single(
        bdk.Descriptor(text, bdk.NetworkKind.TEST), bdk.Network.REGTEST, bdk.Persister.new_in_memory()
    )
    wallet.reveal_next_address(keychain)
    wallet.apply_unconfirmed_txs([bdk.UnconfirmedTx(tx=bdk.Transaction(made.serialise()), last_seen=1)])
    path = last_ways(json.loads(wallet.policies(keychain).as_string()))
    builder = bdk.TxBuilder().policy_path(path, keychain).drain_wallet().drain_to(bdk.Script(HOME)).current_height(height)
    psbt = builder.fee_absolute(bdk.Amount.from_sat(500)).finish(wallet)
    options = bdk.SignOptions(
        trust_witness_utxo=True,
        assume_height=height,
        allow_all_sighashes=False,
        try_finalize=True,
        sign_with_tap_internal_key=False,
        allow_grinding=True,
    )
    assert wallet.sign(psbt, options)
    return parse(bytes(psbt.extract_tx().serialize()))


@pytest.mark.parametrize("arbiter", [True, False], ids=["arbiter", "plain"])
def test_bdk_takes_the_refund_with_nothing_but_the_descriptor(stage: Stage, arbiter: bool) -> None:
    escrow = funded(stage, arbiter)
    text = escrow_descriptor(escrow.contract, escrow.secret(BUYER, Branch.REFUND))
    made = stage.judge.confirmed(escrow.funding.txid)
    assert made is not None
    escrow.until(escrow.contract.terms.refund_height)
    taking = take_with_bdk(text, made, escrow.height)
    assert classify(escrow.contract, taking, escrow.funding, []).kind is SpendKind.REFUNDED
    assert taking.outputs == (TxOut(escrow.contract.terms.capacity_sat - 500, HOME),)
    stage.accepts("a refund made by BDK", taking)


@pytest.mark.parametrize("arbiter", [True, False], ids=["arbiter", "plain"])
def test_bdk_takes_back_what_nobody_claimed(stage: Stage, arbiter: bool) -> None:
    escrow = funded(stage, arbiter)
    close = escrow.publish(PAID_MSAT)
    text = conditional_descriptor(escrow.contract, LOCK, escrow.secret(BUYER, Branch.LAPSE))
    stage.judge.mine(DELAY)
    taking = take_with_bdk(text, close, escrow.height)
    assert taking.inputs[0].outpoint == output(close)
    assert key_shown(taking, output(close), LOCK) is None
    stage.accepts("a lapse made by BDK", taking)


def take_with_embit(escrow: Escrow, text: str) -> Tx:
    """The refund, put together and finished by embit."""
    from embit.descriptor import Descriptor
    from embit.psbt import PSBT
    from embit.script import Script, Witness
    from embit.transaction import Transaction, TransactionInput, TransactionOutput

    read, terms = Descriptor.from_string(text), escrow.contract.terms
    spending = TransactionInput(escrow.funding.txid[::-1], escrow.funding.vout, sequence=0xFFFFFFFD)
    paying = TransactionOutput(terms.capacity_sat - 500, Script(HOME))
    psbt = PSBT(Transaction(version=2, vin=[spending], vout=[paying], locktime=terms.refund_height))
    psbt.inputs[0].witness_utxo = TransactionOutput(terms.capacity_sat, read.script_pubkey())
    psbt.inputs[0].witness_script = read.witness_script()
    assert psbt.sign_with(read) == 1
    (signature,) = psbt.inputs[0].partial_sigs.values()
    branch = [b""] if terms.arbiter is None else [b"", b""]
    done = psbt.tx
    done.vin[0].witness = Witness([signature, *branch, read.witness_script().data])
    return parse(done.serialize())


@pytest.mark.parametrize("arbiter", [True, False], ids=["arbiter", "plain"])
def test_embit_signs_the_refund_from_the_descriptor(stage: Stage, arbiter: bool) -> None:
    escrow = funded(stage, arbiter)
    text = escrow_descriptor(escrow.contract, escrow.secret(BUYER, Branch.REFUND))
    escrow.until(escrow.contract.terms.refund_height)
    stage.accepts("a refund signed by embit", take_with_embit(escrow, text))
