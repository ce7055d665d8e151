"""Attempts from inside: at the network, at files, at other processes, at the machine's resources."""

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from peer.home import Home
from peer.workers import sandbox
from peer.workers.guarded import Ended, Guarded, memory_of
from peer.workers.sandbox import Limits, check_sandbox, sandboxed, super_user
from wire.errors import LocalFault

pytestmark = pytest.mark.sandbox

LIMITS = Limits(memory_bytes=1 << 30, processes=32, cpu_s=20, temp_bytes=16 << 20, file_bytes=8 << 20, open_files=64)
Python = tuple[str, tuple[Path, ...]]
TRY = """
import json, os, sys
def tried(what):
    try:
        return [True, repr(what())[:200]]
    except BaseException as error:
        return [False, type(error).__name__]
"""


def enter(
    python: Python, own_user: bool, program: str, *arguments: str, limits: Limits = LIMITS, shared: tuple[Path, ...] = ()
) -> list[str]:
    """The command line of a Python program in the sandbox. The super-user goes in through a user namespace as somebody else."""
    words = [python[0], "-I", "-c", program, *arguments]
    command = sandboxed(words, limits, visible=(*python[1], *shared), own_user=own_user)
    if super_user() and not own_user:
        return ["/usr/bin/setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "--", *command]
    return list(command)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may read and write, as far as the machine's own rules go."""
    folder = Path(tempfile.mkdtemp(prefix="bitwrk-test-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def run_inside(python: Python, own_user: bool, program: str, *arguments: str, shared: tuple[Path, ...] = ()) -> Any:
    """What a Python program in the sandbox says, as JSON."""
    command = enter(python, own_user, TRY + program, *arguments, shared=shared)
    done = subprocess.run(command, capture_output=True, timeout=60, check=False, env={"SECRET": "x"})
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def test_a_listener_outside_cannot_be_reached(python: Python, own_user: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = listener.accept()  # from outside it can
            accepted.close()
        program = (
            "import socket; print(json.dumps([tried(lambda: socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)),"
            "tried(lambda: socket.create_connection(('192.0.2.1', 80), 3)), tried(lambda: socket.if_nameindex())]))"
        )
        local, far, interfaces = run_inside(python, own_user, program, "127.0.0.1", str(port))
        assert local == [False, "ConnectionRefusedError"]
        assert far[0] is False
        assert interfaces == [True, "[(1, 'lo')]"]
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_an_abstract_socket_outside_cannot_be_reached(python: Python, own_user: bool) -> None:
    name = f"\0bitwrk-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        listener.listen()
        program = (
            "import socket; s = socket.socket(socket.AF_UNIX); print(json.dumps(tried(lambda: s.connect('\\0' + sys.argv[1]))))"
        )
        assert run_inside(python, own_user, program, name[1:]) == [False, "ConnectionRefusedError"]


def test_the_key_file_cannot_be_read(python: Python, own_user: bool, tmp_path: Path) -> None:
    home = Home.at(tmp_path / "home")
    home.key()
    assert home.key_path.read_text()
    program = "print(json.dumps([tried(lambda: open(sys.argv[1]).read()), tried(lambda: os.listdir(sys.argv[2]))]))"
    told = run_inside(python, own_user, program, str(home.key_path), str(tmp_path))
    assert told == [[False, "FileNotFoundError"], [False, "FileNotFoundError"]]


def test_a_key_file_inside_a_visible_folder_stays_closed(python: Python, tmp_path: Path) -> None:
    """Somebody shares too much with a command: the key is still nobody's but its owner's, if the worker is another user."""
    if not super_user():
        pytest.skip("inside a user namespace the worker is its owner")
    home = Home.at(tmp_path / "home")
    home.key()
    program = "print(json.dumps(tried(lambda: open(sys.argv[1]).read())))"
    assert run_inside(python, True, program, str(home.key_path), shared=(tmp_path,)) == [False, "PermissionError"]


def test_nothing_outside_can_be_written(python: Python, own_user: bool, open_folder: Path) -> None:
    inside_tmp = "/tmp/bitwrk-proof"
    places = [
        f"{open_folder}/x",
        "/x",
        "/usr/x",
        "/usr/bin/x",
        "/etc/x",
        "/dev/x",
        "/dev/shm/x",
        "/proc/sys/kernel/hostname",
        "/var/x",
    ]
    program = "import pathlib; print(json.dumps([tried(lambda: pathlib.Path(p).write_text('x')) for p in sys.argv[1:]]))"
    *blocked, allowed = run_inside(python, own_user, program, *places, inside_tmp)
    assert {place: told[0] for place, told in zip(places, blocked, strict=True)} == dict.fromkeys(places, False)
    assert allowed[0] is True
    assert not Path(inside_tmp).exists()
    assert list(open_folder.iterdir()) == []
    # Even what is shown is only shown.
    (open_folder / "there").write_text("seen")
    program = "place = sys.argv[1]; print(json.dumps([open(place + '/there').read(), tried(lambda: open(place + '/x', 'w'))]))"
    seen, wrote = run_inside(python, own_user, program, str(open_folder), shared=(open_folder,))
    assert seen == "seen"
    assert wrote == [False, "OSError"]
    assert [one.name for one in open_folder.iterdir()] == ["there"]


def test_the_files_of_this_machine_are_not_there(python: Python, own_user: bool) -> None:
    program = (
        "print(json.dumps([sorted(os.listdir('/')), tried(lambda: open('/etc/passwd').read()),"
        "tried(lambda: os.listdir('/home'))]))"
    )
    seen, passwd, homes = run_inside(python, own_user, program)
    allowed = {"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "proc", "dev", "tmp", "etc"}
    assert set(seen) <= allowed | {path.parts[1] for path in python[1]}
    assert passwd[0] is False
    assert homes[0] is False


def test_other_processes_are_out_of_sight_and_reach(python: Python, own_user: bool) -> None:
    victim = subprocess.Popen(["sleep", "60"])
    try:
        program = (
            "print(json.dumps([[p for p in os.listdir('/proc') if p.isdigit()], tried(lambda: os.kill(int(sys.argv[1]), 9)), "
            "tried(lambda: os.kill(-1, signal.SIGTERM)), os.getppid()]))"
        )
        program = "import signal; signal.signal(15, signal.SIG_IGN)\n" + program
        seen, killed, _, parent = run_inside(python, own_user, program, str(victim.pid))
        assert len(seen) <= 2
        assert parent in (0, 1)
        assert killed == [False, "ProcessLookupError"]
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


def test_who_one_is_inside(python: Python, own_user: bool) -> None:
    program = (
        "status = dict(l.split(':\\t') for l in open('/proc/self/status').read().splitlines() if ':\\t' in l)\n"
        "import resource as r\n"
        "kinds = (r.RLIMIT_AS, r.RLIMIT_FSIZE, r.RLIMIT_NOFILE, r.RLIMIT_NPROC, r.RLIMIT_CPU, r.RLIMIT_CORE)\n"
        "print(json.dumps({'user': os.getuid(), 'environment': sorted(os.environ), 'host': os.uname().nodename,"
        "'caps': [status[n] for n in ('CapInh', 'CapPrm', 'CapEff', 'CapAmb')], 'nnp': status['NoNewPrivs'],"
        "'files': sorted(os.listdir('/proc/self/fd'))[:-1], 'session': os.getsid(0) != 0,"
        "'limits': [r.getrlimit(kind)[1] for kind in kinds]}))"
    )
    told = run_inside(python, own_user, program)
    assert told["user"] != 0
    assert told["environment"] == ["HOME", "LANG", "PATH", "PWD", "TMPDIR"]
    assert told["host"] == "worker"
    assert told["caps"] == ["0000000000000000"] * 4
    assert told["nnp"] == "1"
    assert told["files"] == ["0", "1", "2"]
    assert told["limits"] == [1 << 30, 8 << 20, 64, 32, 20, 0]


def test_no_way_to_become_more(python: Python, own_user: bool) -> None:
    program = (
        "import ctypes; libc = ctypes.CDLL(None, use_errno=True)\n"
        "print(json.dumps([tried(lambda: os.setuid(0)), libc.mount(b'none', b'/tmp', b'tmpfs', 0, None),"
        "libc.sethostname(b'x', 1), libc.umount2(b'/usr', 2), tried(lambda: os.mknod('/tmp/d', 0o20666, os.makedev(1, 1)))]))"
    )
    user, mount, host, unmount, device = run_inside(python, own_user, program)
    assert user in ([False, "PermissionError"], [False, "OSError"])  # forbidden, or there is no such user in the namespace
    assert (mount, host, unmount) == (-1, -1, -1)
    assert device == [False, "PermissionError"]


def test_more_namespaces_are_refused(python: Python) -> None:
    program = "import ctypes; print(json.dumps(ctypes.CDLL(None).unshare(0x10000000)))"
    assert run_inside(python, False, program) == -1


def test_a_fork_bomb_fizzles(python: Python, own_user: bool) -> None:
    program = (
        "n = 0\n"
        "try:\n"
        "    while n < 2000:\n"
        "        if os.fork() == 0:\n"
        "            import signal; signal.pause()\n"
        "        n += 1\n"
        "except OSError as error: print(json.dumps([n, type(error).__name__]), flush=True)\n"
        "else: print(json.dumps([n, 'no limit']), flush=True)\n"
        "os._exit(0)"
    )
    command = enter(python, own_user, TRY + program)
    with Guarded(command, memory_bytes=1 << 30) as inside:
        inside.allow(30)
        count, why = json.loads(inside.read_line(200, lambda one: True))
    assert why == "BlockingIOError"
    assert 0 < count <= LIMITS.processes


def test_memory_of_one_process_is_bounded(python: Python, own_user: bool) -> None:
    assert run_inside(python, own_user, "print(json.dumps(tried(lambda: len(bytearray(2 << 30)))))") == [False, "MemoryError"]


def test_memory_of_many_processes_is_bounded(python: Python, own_user: bool) -> None:
    """Each stays below its own limit; together they are too much."""
    program = (
        "for _ in range(6):\n    if os.fork() == 0:\n        break\n"
        "kept = bytearray(os.urandom(1 << 20)) * 120\nimport time; time.sleep(60)"
    )
    command = enter(python, own_user, TRY + program)
    with Guarded(command, memory_bytes=300 << 20) as inside:
        inside.allow(40)
        with pytest.raises(Ended) as caught:
            inside.read_exactly(1)
        assert caught.value.code == "memory-limit"
        assert not inside.alive()


def test_the_disk_is_bounded(python: Python, own_user: bool) -> None:
    program = (
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "total = 0; why = ''\n"
        "def fill(name, most):\n"
        "    global total\n"
        "    with open(name, 'wb', 0) as f:\n"
        "        for _ in range(most): total += f.write(bytes(1 << 20))\n"
        "one = tried(lambda: fill('/tmp/0', 64)); first = total\n"
        "many = [tried(lambda: fill('/tmp/%d' % n, 7)) for n in range(1, 9)]\n"
        "print(json.dumps([one, first, many[-1], total]))"
    )
    one, first, last, total = run_inside(python, own_user, program)
    assert one == [False, "OSError"]
    assert first <= LIMITS.file_bytes
    assert last == [False, "OSError"]
    assert total <= LIMITS.temp_bytes


def test_open_files_are_bounded(python: Python, own_user: bool) -> None:
    told = run_inside(python, own_user, "print(json.dumps(tried(lambda: [open('/dev/null') for _ in range(100)])))")
    assert told == [False, "OSError"]


def test_processor_time_is_bounded(python: Python, own_user: bool) -> None:
    limits = Limits(memory_bytes=1 << 30, processes=32, cpu_s=1, temp_bytes=1 << 20)
    command = enter(python, own_user, "while True: pass", limits=limits)
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode in (128 + signal.SIGXCPU, 128 + signal.SIGKILL)


def test_time_is_bounded(python: Python, own_user: bool) -> None:
    command = enter(python, own_user, "import time; time.sleep(600)")
    with Guarded(command, memory_bytes=1 << 30) as inside:
        inside.allow(0.3)
        with pytest.raises(Ended) as caught:
            inside.read_exactly(1)
        assert caught.value.code == "time-limit"


def test_a_flood_of_words_fills_nothing(python: Python, own_user: bool) -> None:
    program = "import os\nfor _ in range(400): os.write(2, b'y' * 65536)\nos.write(2, b'the end'); os.write(1, b'!')"
    command = enter(python, own_user, program)
    with Guarded(command, memory_bytes=1 << 30) as inside:
        inside.allow(60)
        assert inside.read_exactly(1) == b"!"
        with contextlib.suppress(Ended):
            inside.read_exactly(1)
        assert len(inside.last_words()) <= 4_096
        assert inside.last_words().endswith("the end")


_STARTER = """
import subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
print(child.pid, flush=True)
child.wait()
"""


def _processes_below(pid: int) -> list[int]:
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                started = [int(two) for two in (task / "children").read_text().split()]
                found += started
                waiting += started
    return found


def test_everything_inside_dies_with_who_started_it(python: Python, own_user: bool) -> None:
    program = "import os, time\nfor _ in range(3):\n    os.fork()\nos.write(1, b'.')\ntime.sleep(600)"
    command = enter(python, own_user, program)
    starter = subprocess.Popen([sys.executable, "-c", _STARTER, *command], stdout=subprocess.PIPE)
    assert starter.stdout is not None
    said = b""
    while said.count(b".") < 8:
        said += os.read(starter.stdout.fileno(), 100)
    watched = [os.pidfd_open(pid) for pid in _processes_below(starter.pid)]
    assert len(watched) >= 9
    starter.kill()
    starter.wait()
    starter.stdout.close()
    end = time.monotonic() + 20
    for descriptor in watched:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, end - time.monotonic()))
        os.close(descriptor)
        assert ready


def test_memory_is_added_up_over_processes() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "k = bytearray(80 << 20); print(1, flush=True); input()"], stdin=-1, stdout=-1
    )
    assert child.stdout is not None
    child.stdout.readline()
    assert memory_of(child.pid) > 80 << 20
    assert memory_of(os.getpid()) > memory_of(child.pid)
    child.communicate(b"\n")


# --- it fails closed ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("missing", ["bwrap", "prlimit", "setpriv"])
def test_without_a_tool_nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str) -> None:
    for tool in {"bwrap", "prlimit", "setpriv"} - {missing}:
        (tmp_path / tool).symlink_to(f"/usr/bin/{tool}")
    monkeypatch.setattr(sandbox, "_TOOLS_PATH", str(tmp_path))
    with pytest.raises(LocalFault) as caught:
        sandboxed(["/usr/bin/true"], LIMITS, own_user=True)
    assert caught.value.code == "no-sandbox"
    if missing == "bwrap":
        assert "apt-get install bubblewrap" in caught.value.sentence


def test_a_sandbox_that_does_not_work_is_no_sandbox(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'No permissions to create new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    for tool in ("prlimit", "setpriv"):
        (tmp_path / tool).symlink_to(f"/usr/bin/{tool}")
    monkeypatch.setattr(sandbox, "_TOOLS_PATH", str(tmp_path))
    with pytest.raises(LocalFault) as caught:
        check_sandbox()
    assert caught.value.code == "no-sandbox"
    assert "No permissions" in caught.value.sentence


def test_elsewhere_than_on_linux_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(LocalFault) as caught:
        sandboxed(["/usr/bin/true"], LIMITS)
    assert caught.value.code == "no-sandbox"
