"""Bonds before the kernel: nobody takes one early, nobody else takes one ever, and other wallets read them."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escrow.core.bond import RELEASE_VBYTES, BadBond, bond_descriptor, bond_output, bond_script, release
from escrow.core.descriptor import checksum
from escrow.core.script import p2wsh
from escrow.core.transaction import Tx
from escrow.shell.regtest import Regtest
from tests.escrow.judges import KernelJudge, Stage, output
from tests.escrow.pair import BUYER, SELLER
from tests.escrow.scenarios import EARLY, RATE, SCRIPT, STRANGER
from wire.keys import SecretKey
from wire.ports import OutPoint

NET, VALUE, BLOCKS = "regtest", 50_000, 6


class Locked:
    """A bond that is on the chain."""

    def __init__(self, chain: Regtest) -> None:
        self.stage = Stage(KernelJudge(chain))
        self.until = self.stage.judge.height + BLOCKS
        paying = self.stage.judge.pay([bond_output(NET, SELLER.public, VALUE, self.until)])
        self.stage.accepts("the bond", paying)
        self.outpoint = output(paying)

    def release(self, key: SecretKey = SELLER, until: int | None = None) -> Tx:
        return release(NET, key, self.outpoint, VALUE, until or self.until, RATE)

    def wait(self) -> None:
        self.stage.judge.mine(self.until - self.stage.judge.height)


@pytest.fixture
def locked(chain: Regtest) -> Locked:
    return Locked(chain)


def test_the_account_takes_its_bond_back_in_time_and_not_before(locked: Locked) -> None:
    taking = locked.release()
    assert taking.vsize <= RELEASE_VBYTES
    locked.stage.refuses("a release before its height", taking, EARLY)
    hasty = dataclasses.replace(taking, lock_time=0)
    locked.stage.refuses("a release that claims to be in time", hasty, SCRIPT)
    locked.wait()
    locked.stage.accepts("the release", taking)


@pytest.mark.parametrize("thief", [BUYER, STRANGER], ids=["another account", "a stranger"])
def test_nobody_else_takes_it_at_any_time(locked: Locked, thief: SecretKey) -> None:
    locked.wait()
    taking = locked.release(thief)
    locked.stage.refuses("somebody else's own script", taking, SCRIPT)
    script = bond_script(NET, SELLER.public, locked.until)
    forged = taking.with_witness(0, (taking.inputs[0].witness[0], script))
    locked.stage.refuses("somebody else's signature", forged, SCRIPT)
    locked.stage.refuses("another height", locked.release(until=locked.until - 1), SCRIPT)
    plain = SELLER.sign_ecdsa(taking.digest(0, script, VALUE)) + b"\x01"
    locked.stage.refuses("the account's own key", taking.with_witness(0, (plain, script)), SCRIPT)


@given(st.integers(1, 499_999_999), st.integers(1, 499_999_999))
def test_a_bond_is_of_one_account_until_one_height(one: int, other: int) -> None:
    scripts = {(key, until): bond_script(NET, key.public, until) for key in (BUYER, SELLER) for until in (one, other)}
    assert len(set(scripts.values())) == len(scripts)
    assert bond_output(NET, BUYER.public, VALUE, one).script == p2wsh(scripts[BUYER, one])
    assert bond_script("main", BUYER.public, one) != scripts[BUYER, one]


def test_other_wallets_read_it() -> None:
    text, check = bond_descriptor(NET, SELLER.public, 500).split("#")
    assert text.startswith("wsh(and_v(v:pk(")
    assert text.endswith("),after(500)))")
    assert check == checksum(text)


def test_what_cannot_be_locked_or_released_is_named() -> None:
    for until in (0, 500_000_000):
        with pytest.raises(BadBond) as caught:
            bond_script(NET, SELLER.public, until)
        assert caught.value.code == "bad-height"
    with pytest.raises(BadBond) as caught:
        release(NET, SELLER, OutPoint(bytes(32), 0), 400, 100, RATE)
    assert caught.value.code == "bond-dust"
