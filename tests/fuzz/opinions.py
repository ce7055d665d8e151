"""What we think of a spend, beside what the kernel says: the script machine, and the house's own recognisers."""

from escrow.core.contract import Branch
from escrow.core.script import p2wsh
from escrow.core.spends import SpendKind, classify, complete, is_signed, key_shown, state
from escrow.core.transaction import Tx, parse
from escrow.shell.consensus import verify_input
from tests.escrow.interpreter import ORDER, Fails, Machine, Unknown, judge, read_der
from tests.escrow.pair import SELLER, lock_of
from tests.escrow.scenarios import LOCK
from tests.fuzz.spends import Case, secret

BRANCHES = {
    (True, (True,)): {SpendKind.SETTLED, SpendKind.CONDITIONAL},
    (True, (False, True)): {SpendKind.RULED},
    (True, (False, False)): {SpendKind.REFUNDED},
    (False, (True,)): {SpendKind.SETTLED, SpendKind.CONDITIONAL},
    (False, (False,)): {SpendKind.REFUNDED},
}
"""By the form of the escrow and the answers to the script's IFs: what such a spend is."""


class Disagreement(Exception):
    """We think one thing and the kernel another."""


def opinion(case: Case) -> tuple[bool | None, str, Machine | None]:
    """The machine's verdict (None: it has no opinion), why, and the machine."""
    try:
        machine = judge(case.transaction, 0, case.spent[0])
    except Fails as why:
        return False, str(why), None
    except Unknown as why:
        return None, str(why), None
    return True, "", machine


def check(case: Case) -> tuple[bool, bool]:
    """Ask the kernel and compare: its verdict, and whether we had an opinion. Raises ``Disagreement``."""
    if parse(case.transaction.serialise()) != case.transaction:
        raise Disagreement("a transaction does not come back from its bytes")
    kernel = verify_input(case.transaction, 0, case.spent)
    ours, why, machine = opinion(case)
    if ours is not None and ours != kernel:
        raise Disagreement(f"the kernel says {kernel}, our machine says {ours} {why}")
    if kernel and machine is not None and case.spent[0] == case.contract.funding:
        check_recognised(case, machine)
    if kernel and case.kind in ("claim", "lapse") and case.spent[0].script == p2wsh(case.contract.conditional_script(LOCK)):
        check_key(case)
    return kernel, ours is not None


def check_recognised(case: Case, machine: Machine) -> None:
    """A spend that the chain takes is seen for what it is."""
    arbiter = case.contract.terms.arbiter is not None
    seen = classify(case.contract, case.transaction, case.transaction.inputs[0].outpoint, [LOCK])
    if seen.kind not in BRANCHES[arbiter, tuple(machine.branches)]:
        raise Disagreement(f"taken by branch {machine.branches}, and seen as {seen.kind}")


def check_key(case: Case) -> None:
    """A claim that the chain takes shows its key, and a lapse shows none."""
    shown = key_shown(case.transaction, case.transaction.inputs[0].outpoint, LOCK)
    if (shown is None) != (len(case.transaction.inputs[0].witness) == 3) or (shown is not None and lock_of(shown) != LOCK):
        raise Disagreement("the key of a claim is not seen")


def check_signature(case: Case) -> bool:
    """The buyer's signature inside a state: what we take, the chain takes; what we do not take and it does is only a high S.

    Returns what we think of it. Raises ``Disagreement``.
    """
    one, funding = case.contract, case.transaction.inputs[0].outpoint
    place = 1 if one.buyer_coop < one.seller_coop else 2
    witness = case.transaction.inputs[0].witness
    item = witness[place] if len(witness) == 5 else b""
    der = item[:-1] if item[-1:] == b"\x01" else item
    ours = is_signed(one, funding, case.paid_msat, case.lock, der)
    unsigned: Tx = state(one, funding, case.paid_msat, case.lock)
    completed = complete(one, unsigned, der, secret(one, SELLER, Branch.COOPERATE))
    kernel = verify_input(completed, 0, [one.funding])
    if ours and not kernel:
        raise Disagreement("we take a signature that the chain does not")
    if kernel and not ours and read_der(der)[1] <= ORDER // 2:
        raise Disagreement("the chain takes a signature with a low S that we do not")
    return ours
