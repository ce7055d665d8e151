"""Whole runs: the same seed gives the same log in any process, and every rule holds under loss, crashes, malice and partition."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from escrow.core.events import How
from simulations.world.plan import Churn, Mischief, Plan, Roads, Trade
from simulations.world.report import report
from simulations.world.run import Stage
from wire.errors import Refused

ROOT = Path(__file__).parents[2]
SMALL = Trade(jobs_per_minute=4, buyers=0.4, work_least_s=0.5, work_most_s=2, patience_s=30, units_most=2)
DEALS = Plan(nodes=6, seconds=30, quiet_s=90, arrive_s=3, deals=True, trade=SMALL)
ROUGH = Roads(
    model="lognormal", least_ms=20, most_ms=200, frame_loss=0.05, frame_repeat=0.05, letter_loss=0.02, breaks_per_hour=120
)


def ran(plan: Plan, seed: int) -> tuple[Stage, dict[str, float]]:
    stage = Stage(plan, seed)
    stage.run()
    return stage, report(stage).measures


def command(hash_seed: str, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "simulations.cli", *arguments, "--json"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world with everything in it that could depend on a process, and short."""
    path = tmp_path_factory.mktemp("scenario") / "short.toml"
    path.write_text(
        """
kind = "world"
[plan]
nodes = 9
seconds = 20
quiet_s = 60
arrive_s = 2
deals = true
skew_ms = 50
[plan.roads]
frame_loss = 0.05
letter_loss = 0.02
[plan.churn]
crashes_per_hour = 60
[plan.mischief]
silent_sellers = 1
equivocators = 1
flooders = 1
[plan.trade]
jobs_per_minute = 4
work_least_s = 0.5
work_most_s = 2
"""
    )
    return path


def test_a_seed_gives_the_same_log_whatever_the_process_hashes_with(scenario: Path) -> None:
    one, other = command("1", "run", str(scenario), "--seed", "5"), command("77", "run", str(scenario), "--seed", "5")
    assert one["event_log_hash"] == other["event_log_hash"]
    assert one["measures"] == other["measures"]
    assert one["measures"]["events"] > 1_000
    assert command("1", "run", str(scenario), "--seed", "6")["event_log_hash"] != one["event_log_hash"]


def test_everything_asked_is_delivered_and_paid_when_nothing_goes_wrong() -> None:
    stage, found = ran(DEALS, 1)
    assert found["units_asked"] > 3
    assert found["answers_result"] == found["units_asked"] == found["units_finished"]
    assert found["paid_msat"] > 0
    # Sellers are paid whole satoshi, one rounding per channel.
    assert 0 <= found["paid_msat"] // 1_000 - found["escrow_to_sellers_sat"] <= found["channels"]
    assert stage.money is not None
    assert found["chain_fees_sat"] == stage.money.chain.fees_sat
    assert found["views_differing"] < 0.02


@pytest.mark.parametrize("seed", [1, 2])
def test_rules_hold_over_bad_roads(seed: int) -> None:
    _, found = ran(dataclasses.replace(DEALS, roads=ROUGH, skew_ms=80), seed)
    assert found["lost"] > 100
    assert found["units_finished"] > 0
    assert "world_banished-honest" not in found


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_rules_hold_when_processes_are_killed_at_any_moment(seed: int) -> None:
    churn = Churn(crashes_per_hour=120, torn=0.6, pause_least_s=1, pause_most_s=8)
    _, found = ran(dataclasses.replace(DEALS, churn=churn, seconds=45), seed)
    assert found["crashes"] > 2
    assert found["matches"] > 0


def test_some_of_the_killed_die_between_the_commit_and_what_follows() -> None:
    churn = Churn(crashes_per_hour=200, torn=1.0, pause_least_s=1, pause_most_s=4)
    torn = sum(ran(dataclasses.replace(DEALS, churn=churn), seed)[1].get("world_torn", 0) for seed in (1, 2))
    assert torn > 0


@pytest.mark.parametrize(
    ("mischief", "least_banished"),
    [
        (Mischief(silent_sellers=1, silent_buyers=1), 0),
        (Mischief(equivocators=1, flooders=1), 1),
    ],
)
def test_rules_hold_among_adversaries(mischief: Mischief, least_banished: int) -> None:
    _, found = ran(dataclasses.replace(DEALS, nodes=8, mischief=mischief, seconds=30, quiet_s=90), 1)
    assert found["units_finished"] > 0
    assert found.get("world_banished", 0) >= least_banished
    assert "world_banished-honest" not in found


def test_a_key_kept_back_is_taken_from_the_chain() -> None:
    """The seller who takes the payment and gives nothing must show the key to be paid."""
    trade = dataclasses.replace(SMALL, buyers=0.5)
    plan = dataclasses.replace(DEALS, nodes=4, mischief=Mischief(keyless_sellers=2), trade=trade, seconds=40, quiet_s=150)
    stage, found = ran(plan, 1)
    assert found["units_finished"] > 0
    claimed = [one for one in stage.ledgers.endings() if one.how is How.CLAIMED]
    assert claimed
    assert all(one.to_seller_sat > 0 for one in claimed)


def test_an_order_signed_away_twice_is_proved_and_its_owner_banished() -> None:
    trade = Trade(buyers=0.3, jobs_per_minute=20, work_least_s=1, work_most_s=2)
    plan = Plan(nodes=8, seconds=60, quiet_s=10, arrive_s=2, mischief=Mischief(equivocators=1), trade=trade)
    stage, found = ran(plan, 3)
    counts = sum(host.counts["equivocation"] for host in stage.world.everyone)
    assert counts > 0
    assert found["world_banished"] > 0


def test_two_halves_sign_nothing_twice_while_the_world_is_divided() -> None:
    churn = Churn(partition_at_s=15, partition_s=20)
    _, found = ran(Plan(nodes=20, seconds=50, quiet_s=20, arrive_s=3, churn=churn), 1)
    assert found["matches"] > 0


def test_two_halves_find_each_other_again() -> None:
    churn = Churn(partition_at_s=15, partition_s=20)
    _, found = ran(Plan(nodes=30, seconds=60, quiet_s=60, arrive_s=3, churn=churn), 1)
    assert found["islands_per_article"] == 1


def test_nodes_that_come_and_go_agree_again() -> None:
    churn = Churn(shape=0.5, scale_min=0.5, pause_least_s=2, pause_most_s=10)
    _, found = ran(Plan(nodes=16, seconds=60, quiet_s=30, arrive_s=3, churn=churn), 1)
    assert found["crashes"] > 3
    assert found["views"] > 100


@pytest.mark.parametrize(
    "plan",
    [
        Plan(clock="sundial"),
        Plan(nodes=2, mischief=Mischief(flooders=1)),
        Plan(mischief=Mischief(keyless_sellers=1)),
        Plan(roads=Roads(model="teleport")),
        Plan(roads=Roads(least_ms=0)),
    ],
)
def test_worlds_that_cannot_be_are_refused_in_words(plan: Plan) -> None:
    with pytest.raises(Refused) as refusal:
        Stage(plan, 1)
    assert refusal.value.sentence
