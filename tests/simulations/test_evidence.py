"""Evidence over whole runs: what was paid for, alone or under one key with others, is proven on both sides; so is a lie."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from peer.core import selling
from peer.core.batches import make_batch
from peer.core.bundle import Bundle, check, check_log, proves_bad_result, seal_lies
from peer.core.deal import Deal, Phase, Role, Unit
from peer.core.fraud import BadBatch, check_fraud
from peer.core.ledger import DEAL_TABLE, UNIT_TABLE
from peer.core.letters import BatchBody
from peer.core.logbook import RECEIPT_TABLE
from peer.core.proofs import FRAUD_TABLE
from simulations.world.host import Host
from simulations.world.plan import Churn, Plan, Roads, Trade
from simulations.world.run import Stage
from wire.canon import unpack
from wire.network import NETWORKS

MANY = Trade(jobs_per_minute=15, buyers=0.4, work_least_s=0.1, work_most_s=0.4, patience_s=60, units_most=16)
PLAN = Plan(nodes=4, seconds=40, quiet_s=90, arrive_s=3, deals=True, trade=MANY)
FAR = Roads(model="lognormal", least_ms=100, most_ms=400)
LOSSY = Roads(
    model="lognormal", least_ms=20, most_ms=200, frame_loss=0.05, frame_repeat=0.05, letter_loss=0.02, breaks_per_hour=120
)


def run(monkeypatch: pytest.MonkeyPatch, seed: int, **changes: Any) -> Stage:
    """A run whose evidence can be checked: the simulated network is one that verifiers know."""
    stage = Stage(dataclasses.replace(PLAN, **changes), seed)
    stage.run()
    network = stage.world.network
    monkeypatch.setattr("peer.core.bundle.NETWORKS", {**NETWORKS, network.name: network})
    return stage


def bundles(host: Host) -> dict[bytes, Bundle]:
    return {key: Bundle.read(raw) for key, raw in host.disk.get(RECEIPT_TABLE, {}).items()}


def units(host: Host, role: Role, which: Callable[[Unit], bool]) -> set[bytes]:
    deals = {name: unpack(Deal, raw) for name, raw in host.disk.get(DEAL_TABLE, {}).items()}
    kept = {key: unpack(Unit, raw) for key, raw in host.disk.get(UNIT_TABLE, {}).items()}
    return {key for key, unit in kept.items() if deals[key[:32]].role is role and which(unit)}


@pytest.mark.parametrize(
    ("seed", "changes"),
    [
        (8, {"roads": FAR}),
        (2, {"roads": FAR, "churn": Churn(crashes_per_hour=120, torn=0.6, pause_least_s=1, pause_most_s=8)}),
        (7, {"roads": LOSSY}),
    ],
    ids=["far apart", "killed at any moment", "over bad roads"],
)
def test_every_finished_unit_is_proven_on_both_sides(monkeypatch: pytest.MonkeyPatch, seed: int, changes: dict[str, Any]) -> None:
    stage = run(monkeypatch, seed, **changes)
    together = alone = 0
    for role in Role:
        proven: set[bytes] = set()
        for host in stage.world.hosts.values():
            held = bundles(host)
            finished = units(host, role, lambda unit: unit.phase is Phase.FINISHED)
            assert finished <= set(held)
            for deal in {key[:32] for key in finished}:
                lines = [held[key] for key in sorted(finished) if key[:32] == deal]
                assert all(check(one) and not proves_bad_result(one) for one in lines)
                assert check_log(lines)
            together += sum(held[key].batch is not None for key in finished)
            alone += sum(held[key].batch is None for key in finished)
            proven |= finished
        assert len(proven) > 40
    assert together > 40
    assert alone > 10


def test_a_seal_that_hides_another_key_is_proven_to_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sellers whose batches give one wrong key each: buyers hold evidence that they paid, and the proof goes round."""

    def lying(*arguments: Any) -> BatchBody:
        body = make_batch(*arguments)
        first = dataclasses.replace(body.units[0], seal=bytes(32))
        return dataclasses.replace(body, units=(first, *body.units[1:]))

    monkeypatch.setattr(selling, "make_batch", lying)
    stage = run(monkeypatch, 1, roads=FAR)
    hosts: Sequence[Host] = list(stage.world.hosts.values())
    lies = 0
    for host in hosts:
        held = bundles(host)
        for key in units(host, Role.BUYER, lambda unit: unit.code == "bad-batch"):
            assert "bad-batch" in [one.step for one in check(held[key])]
            assert seal_lies(held[key])
            lies += 1
        good = units(host, Role.BUYER, lambda unit: unit.phase is Phase.FINISHED)
        assert not any(proves_bad_result(held[key]) for key in good)
    assert lies > 0
    proofs = [
        {check_fraud(stage.world.network, raw) for raw in host.disk.get(FRAUD_TABLE, {}).values()}
        for host in hosts
        if host.disk.get(FRAUD_TABLE)
    ]
    assert len(proofs) == len(hosts)
    assert all(isinstance(one, BadBatch) for told in proofs for one in told)
