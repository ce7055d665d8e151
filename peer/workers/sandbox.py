"""A sandbox for work that runs other people's programs or parses other people's files: bubblewrap, and it fails closed.

Inside there is a read-only system, an empty ``/tmp`` of bounded size, and nothing else: no network, no other processes, no
home, no environment, no capabilities, nowhere to write but ``/tmp``. The only ways in and out are the file descriptors that
the starter hands over. The kernel limits each process; ``peer.workers.guarded`` limits all of them together.

There are two ways in, because a limit on the number of processes does not bind the super-user:

- started by an ordinary user, bubblewrap makes a user namespace and forbids making more of them inside;
- started by the super-user, it needs none; the command becomes a user number of its own, which nobody else has.

Where bubblewrap is missing or the kernel forbids it, nothing runs, and the owner is told how to mend it.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wire.errors import LocalFault
from wire.limits import SANDBOX_FILES_MAX, SANDBOX_TEMP_MAX_BYTES

_TOOLS_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_INSIDE_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_FIRST_OWN_USER: Final = 1_600_000_000  # far above what any distribution gives to people or services
_NOBODY: Final = 65_534
_CHECK_S: Final = 20
_INSTALL: Final = "install it, for example with: apt-get install bubblewrap"
_SYSTEM_FOLDERS: Final = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
# What programs need of /etc to find their libraries and fonts; nothing in it is private.
_SYSTEM_FILES: Final = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/fonts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the kernel grants each process inside; ``processes`` counts threads and bounds all of them together."""

    memory_bytes: int
    processes: int
    cpu_s: int
    temp_bytes: int = SANDBOX_TEMP_MAX_BYTES
    file_bytes: int = SANDBOX_TEMP_MAX_BYTES
    open_files: int = SANDBOX_FILES_MAX


def _tool(name: str, mend: str) -> str:
    found = shutil.which(name, path=_TOOLS_PATH)
    if found is None:
        raise LocalFault("no-sandbox", f"{name} is missing, and work of strangers only runs in a sandbox; {mend}")
    return found


def super_user() -> bool:
    """Whether this process is the machine's own super-user, and not one that only exists in a user namespace."""
    if os.geteuid() != 0:
        return False
    try:
        return Path("/proc/self/uid_map").read_text().split() == ["0", "0", str((1 << 32) - 1)]
    except OSError:
        return False


def sandboxed(
    command: Sequence[str],
    limits: Limits,
    *,
    visible: Sequence[Path] = (),
    environment: Sequence[tuple[str, str]] = (),
    own_user: bool | None = None,
) -> tuple[str, ...]:
    """The command line that runs ``command`` inside. Raises ``LocalFault`` when there is no sandbox on this machine.

    ``visible`` are files and folders that can be read inside, at their own places. ``own_user`` chooses the way in; by default
    it is chosen by who we are. File descriptors that the starter passes on stay open inside.
    """
    if sys.platform != "linux":
        raise LocalFault("no-sandbox", "work of strangers only runs in a sandbox, and there is one on Linux only")
    bwrap = _tool("bwrap", _INSTALL)
    prlimit = _tool("prlimit", "it is part of util-linux")
    inside: list[str] = []
    if super_user() if own_user is None else own_user:
        own = str(_FIRST_OWN_USER + os.getpid())
        line = [bwrap, "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
        # These two capabilities are what the first program inside needs to become that user, and are gone once it has.
        line += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        inside += [
            _tool("setpriv", "it is part of util-linux"),
            "--reuid",
            own,
            "--regid",
            own,
            "--clear-groups",
            "--inh-caps=-all",
            "--",
        ]
    else:
        line = [bwrap, "--unshare-all", "--unshare-user", "--disable-userns", "--cap-drop", "ALL"]
        line += ["--uid", str(_NOBODY), "--gid", str(_NOBODY)]
    line += ["--die-with-parent", "--new-session", "--hostname", "worker", "--clearenv"]
    for name, value in (("PATH", _INSIDE_PATH), ("HOME", "/tmp"), ("TMPDIR", "/tmp"), ("LANG", "C.UTF-8"), *environment):  # noqa: S108
        line += ["--setenv", name, value]
    line += _file_system(limits.temp_bytes, visible)
    # Limits are set inside: outside, one on processes would count everything else that the owner runs.
    inside += [
        prlimit,
        f"--as={limits.memory_bytes}",
        f"--fsize={limits.file_bytes}",
        f"--nofile={limits.open_files}",
        f"--nproc={limits.processes}",
        f"--cpu={limits.cpu_s}",
        "--core=0",
    ]
    return (*line, "--", *inside, "--", *command)


def _file_system(temp_bytes: int, visible: Sequence[Path]) -> list[str]:
    """What is where inside. Only ``/tmp`` can be written."""
    line = ["--ro-bind", "/usr", "/usr"]
    for name in _SYSTEM_FOLDERS:
        folder = Path(name)
        if folder.is_symlink():
            line += ["--symlink", os.readlink(folder), name]  # noqa: PTH115 - the text of the link, not where it leads
        elif folder.is_dir():
            line += ["--ro-bind", name, name]
    line += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    line += ["--perms", "1777", "--size", str(temp_bytes), "--tmpfs", "/tmp"]  # noqa: S108 - the one inside
    shown = [*map(Path, _SYSTEM_FILES), *visible]
    # Folders on the way to something visible would otherwise be closed to all but their maker.
    for folder in sorted({above for one in shown for above in one.parents} - {Path("/")}):
        if not folder.is_relative_to("/usr"):
            line += ["--perms", "0755", "--dir", str(folder)]
    for name in _SYSTEM_FILES:
        line += ["--ro-bind-try", name, name]
    for path in visible:
        line += ["--ro-bind", str(path), str(path)]
    return [*line, "--remount-ro", "/", "--chdir", "/tmp"]  # noqa: S108 - likewise


def check_sandbox() -> None:
    """Run nothing in a sandbox, to see whether that works. Raises ``LocalFault`` with what the owner can do."""
    limits = Limits(memory_bytes=1 << 30, processes=64, cpu_s=10, temp_bytes=1 << 20)
    command = sandboxed(("/usr/bin/true",), limits)
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_CHECK_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LocalFault("no-sandbox", f"bubblewrap cannot be started: {type(error).__name__}") from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise LocalFault(
            "no-sandbox",
            "bubblewrap does not work here, and work of strangers only runs in a sandbox: "
            f"{said[-1] if said else 'it said nothing'}; in a container it needs leave to make namespaces; "
            "elsewhere see sysctl kernel.unprivileged_userns_clone",
        )
