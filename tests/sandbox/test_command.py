"""Any program as a worker: real ones, under the pool, in the sandbox."""

from pathlib import Path

import pytest

from peer.workers import sandbox
from peer.workers.command import command_worker
from peer.workers.pool import WorkFailed, open_pool
from peer.workers.spec import WorkerSpec
from wire.errors import LocalFault, Refused

pytestmark = pytest.mark.sandbox


async def once(spec: WorkerSpec, work: bytes, time_s: float = 30) -> bytes:
    async with open_pool(spec, 1) as pool:
        return await pool.run(work, time_s=time_s)


@pytest.mark.parametrize(
    ("template", "work", "result"),
    [
        ("sort {in} -o {out}", b"b\nc\na\n", b"a\nb\nc\n"),
        ("sort {in}", b"b\na\n", b"a\nb\n"),
        ("tr a-z A-Z", b"shout", b"SHOUT"),
        ("dd of={out} status=none", bytes(range(256)) * 5_000, bytes(range(256)) * 5_000),
        ("cat", b"", b""),
        ("sh -c 'cat; echo chatter >&2'", b"words", b"words"),
        ("printf %s '$HOME ; `id`'", b"", b"$HOME ; `id`"),
    ],
)
async def test_templates(template: str, work: bytes, result: bytes) -> None:
    assert await once(command_worker(template, "test"), work) == result


async def test_every_work_gets_a_sandbox_of_its_own() -> None:
    async with open_pool(command_worker("sh -c 'ls -A /tmp; touch /tmp/left'", "test"), 1) as pool:
        first = await pool.run(b"", time_s=30)
        assert await pool.run(b"", time_s=30) == first == b"in\nout\n"


async def test_what_fails_is_refused_and_the_worker_goes_on() -> None:
    async with open_pool(command_worker("grep -q yes {in}", "test"), 1) as pool:
        with pytest.raises(WorkFailed) as caught:
            await pool.run(b"no", time_s=30)
        assert (caught.value.code, caught.value.detail) == ("bad-work", "command-failed")
        assert "status 1" in caught.value.sentence
        assert await pool.run(b"yes", time_s=30) == b""
        assert pool.statistics().started == 1


async def test_too_long_is_too_long() -> None:
    with pytest.raises(WorkFailed) as caught:
        await once(command_worker("sleep 60", "test"), b"", time_s=0.5)
    assert caught.value.code == "time-limit"
    with pytest.raises(WorkFailed) as caught:
        await once(command_worker("sleep 60", "test", time_max_s=1), b"")
    assert caught.value.code in ("time-limit", "worker-fault")


async def test_the_key_is_out_of_reach(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("secret")
    with pytest.raises(WorkFailed) as caught:
        await once(command_worker(f"cat {secret}", "test"), b"")
    assert caught.value.detail == "command-failed"


async def test_a_program_outside_the_system_and_a_shared_folder(tmp_path: Path) -> None:
    shared = tmp_path / "data"
    shared.mkdir()
    (shared / "table").write_text("from outside")
    program = tmp_path / "tool.sh"
    program.write_text(f"#!/bin/sh\ncat {shared}/table && ! touch {shared}/x 2>/dev/null\n")
    program.chmod(0o755)
    assert await once(command_worker(str(program), "test", shared=(shared,)), b"") == b"from outside"
    assert [one.name for one in shared.iterdir()] == ["table"]


def test_templates_that_make_no_sense() -> None:
    for template in ("", "'open", " ".join(["x"] * 300)):
        with pytest.raises(Refused):
            command_worker(template, "test")
    with pytest.raises(LocalFault) as caught:
        command_worker("no-such-program-at-all {in}", "test")
    assert caught.value.code == "no-program"
    with pytest.raises(LocalFault):
        command_worker("cat", "test", shared=(Path("/no/such/folder"),))


def test_no_sandbox_no_worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sandbox, "_TOOLS_PATH", str(tmp_path))
    with pytest.raises(LocalFault) as caught:
        command_worker("cat", "test")
    assert caught.value.code == "no-sandbox"
