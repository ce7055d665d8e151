"""The runner, the search and one pair of processes are tried here; what the figures are, `make bench` shows."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from tests.bench import __main__ as runner
from tests.bench import reconcile, signed
from tests.bench.mesh import EDGES, NODES, Spread, degree_of
from tests.bench.relay import Climb

GOOD: dict[str, Any] = {
    "name": "a.b",
    "value": 0.81234567,
    "unit": "ratio",
    "baseline": "something else",
    "higher_is_better": True,
    "bound": 0.75,
}


def run(within: float) -> Spread:
    return Spread(within=within, p50_ms=1, p99_ms=2, cpu_us=3)


def test_a_figure_holds_or_not() -> None:
    assert runner.checked(GOOD) == {**GOOD, "value": 0.8123, "holds": True}
    assert not runner.checked({**GOOD, "value": 0.7})["holds"]
    assert not runner.checked({**GOOD, "higher_is_better": False})["holds"]
    assert "DOES NOT HOLD" in runner.line(runner.checked({**GOOD, "value": 0.7}))


@pytest.mark.parametrize("key", GOOD)
def test_what_is_no_figure_is_refused(key: str) -> None:
    with pytest.raises(TypeError):
        runner.checked({**GOOD, key: None})


def test_a_module_that_fails_is_told_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(module: str) -> list[dict[str, Any]]:
        if module == "relay":
            raise RuntimeError(f"{tmp_path}/broken")
        return [runner.checked(GOOD)]

    monkeypatch.setattr(runner, "measure", measure)
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert runner.main(["relay", "intake"]) == 1
    written = json.loads((tmp_path / "bench-out/results.json").read_text())
    assert [one["name"] for one in written["figures"]] == ["a.b"]
    assert written["failures"] == [{"module": "relay", "error": "RuntimeError: ./broken"}]
    assert str(tmp_path) not in json.dumps(written)
    assert runner.main(["intake"]) == 0
    assert runner.main(["nonsense"]) == 2
    assert "choose from" in capsys.readouterr().err


def test_the_search_climbs_while_it_passes_and_forgives_twice() -> None:
    climb = Climb(1_000)
    for within in (1.0, 0.5, 0.5, 0.9991, 0.5, 0.998, 0.1):
        climb.note(run(within))
    assert climb.best == 1_250
    assert climb.attempts[:2] == ["1000", "1250 failed (50.0 %)"]
    assert 1_250 < climb.rate < 1_562
    assert not climb.done


def test_the_search_comes_down_when_its_start_is_too_high_and_ends() -> None:
    climb = Climb(1_000)
    while not climb.done:
        climb.note(run(0.0))
    assert climb.best == 0
    assert climb.rate < 500
    assert len(climb.attempts) == Climb.ATTEMPTS


def test_the_edges_are_those_that_are_told() -> None:
    assert len(set(EDGES)) == len(EDGES) == 12
    assert [degree_of(number) for number in range(NODES)] == [3, 4, 5, 4, 3, 5]


def test_the_bare_loop_does_what_a_node_does_and_notices_what_is_wrong() -> None:
    (raw,) = signed.sealed_orders(1)
    signed.agree(raw)
    signed.bare([raw])
    for at in (40, len(raw) - 1):
        wrong = bytearray(raw)
        wrong[at] ^= 1
        with pytest.raises(ValueError):
            signed.bare([raw, bytes(wrong)])


def test_an_empty_book_is_filled_from_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "ORDERS", 20)
    monkeypatch.setattr(reconcile, "ROUNDS", 1)
    figure = reconcile._restart([])
    assert (figure["name"], figure["unit"]) == ("reconcile.restart_10k_s", "s")
    assert figure["value"] > 0
