"""The home: modes, owners, and what is never overwritten."""

import fcntl
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from peer.home import Home, new_key
from wire.account import BadText, from_wif, to_wif
from wire.errors import LocalFault
from wire.keys import SecretKey

WIF = to_wif(SecretKey(bytes(range(1, 33))))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def sentence(fault: pytest.ExceptionInfo[LocalFault], code: str, *words: str) -> None:
    assert fault.value.code == code
    assert "\n" not in fault.value.sentence
    for word in words:
        assert word in fault.value.sentence


def test_a_new_home_is_private(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        home = Home.at(tmp_path / "deep" / "home")
        home.key()
        home.token()
    finally:
        os.umask(old)
    assert mode(home.folder) == 0o700
    assert mode(home.key_path) == mode(home.token_path) == 0o600


def test_the_key_is_made_once(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "h")
    assert not home.has_key()
    key = home.key()
    assert home.has_key()
    before = home.key_path.read_bytes()
    assert home.key().public == home.load_key().public == key.public
    assert home.key_path.read_bytes() == before
    assert from_wif(home.export()).public == key.public
    assert new_key().public != key.public


def test_the_token_is_made_once_and_is_long(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "h")
    with pytest.raises(LocalFault, match="no node has run"):
        home.read_token()
    token = home.token()
    assert len(token) >= 43
    assert home.token() == home.read_token() == token


def test_import_never_overwrites(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "h")
    assert home.import_key(f"  {WIF}\n").public == from_wif(WIF).public
    assert home.export() == WIF
    other = to_wif(new_key())
    with pytest.raises(LocalFault) as caught:
        home.import_key(other)
    sentence(caught, "key-exists", "never overwritten")
    assert home.export() == WIF


def test_import_does_not_follow_a_link(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "h")
    target = tmp_path / "elsewhere"
    home.key_path.symlink_to(target)
    with pytest.raises(LocalFault):
        home.import_key(WIF)
    assert not target.exists()


@pytest.mark.parametrize("text", ["", "nonsense", WIF[:-1] + ("1" if WIF[-1] != "1" else "2"), "1" * 500])
def test_import_of_what_is_no_key(tmp_path: Path, text: str) -> None:
    home = Home.at(tmp_path / "h")
    with pytest.raises(BadText):
        home.import_key(text)
    assert not home.has_key()


def test_both_forms_of_wif_are_read(tmp_path: Path) -> None:
    # From the Bitcoin wiki's page on the wallet import format: one key, uncompressed form.
    home = Home.at(tmp_path / "h")
    key = home.import_key("5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTJ")
    assert key.secret.hex() == "0c28fca386c7a227600b2fe50b7cae11ec86d3bf1fbe471be89827e19d72aa1d"
    assert home.load_key().public == key.public


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o660, 0o602, 0o644, 0o610, 0o777])
@pytest.mark.parametrize("which", ["key_path", "token_path"])
def test_files_open_to_others_are_refused(tmp_path: Path, bits: int, which: str) -> None:
    home = Home.at(tmp_path / "h")
    home.key()
    home.token()
    path: Path = getattr(home, which)
    path.chmod(bits)
    read = home.key if which == "key_path" else home.token
    with pytest.raises(LocalFault) as caught:
        read()
    sentence(caught, "open-file", str(path), f"chmod 600 {path}")
    path.chmod(0o400)
    read()


def test_a_foreign_key_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home.at(tmp_path / "h")
    home.key()
    us = os.geteuid()
    monkeypatch.setattr("peer.home.os.geteuid", lambda: us + 1)
    with pytest.raises(LocalFault) as caught:
        home.load_key()
    sentence(caught, "foreign-file", str(home.key_path), "belongs to another user")
    with pytest.raises(LocalFault) as caught:
        Home.at(home.folder)
    sentence(caught, "foreign-home", "belongs to another user", "--home")


def test_an_unreadable_key_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home.at(tmp_path / "h")
    home.key()

    def denied(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("peer.home.os.open", denied)
    with pytest.raises(LocalFault) as caught:
        home.key()
    sentence(caught, "unreadable-file", str(home.key_path), "permission denied")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_modes_that_deny_the_owner(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "h")
    home.key()
    home.key_path.chmod(0)
    with pytest.raises(LocalFault, match="cannot be read"):
        home.key()
    home.folder.chmod(0o500)
    with pytest.raises(LocalFault, match="not writable"):
        Home.at(home.folder)
    home.folder.chmod(0o700)


@pytest.mark.parametrize("content", [b"", b"\n", b"not a key", b"\xff\xfe\x00", b"1" * 5_000])
def test_a_damaged_key_file_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    home = Home.at(tmp_path / "h")
    home.key_path.write_bytes(content)
    home.key_path.chmod(0o600)
    with pytest.raises(LocalFault) as caught:
        home.key()
    assert str(home.key_path) in caught.value.sentence
    assert home.key_path.read_bytes() == content


def test_a_folder_or_a_pipe_is_no_key(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "h")
    home.key_path.mkdir()
    with pytest.raises(LocalFault):
        home.key()
    home.key_path.rmdir()
    os.mkfifo(home.key_path, 0o600)
    with pytest.raises(LocalFault, match="not a regular file"):
        home.key()


def test_a_full_disk_leaves_no_half_of_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home.at(tmp_path / "h")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("peer.home.os.fsync", full)
    with pytest.raises(LocalFault, match="no space left on device"):
        home.key()
    assert not home.has_key()


# --- the folder --------------------------------------------------------------------------------------------


def test_an_empty_folder_is_made_private(tmp_path: Path) -> None:
    (tmp_path / "h").mkdir(mode=0o755)
    (tmp_path / "h").chmod(0o775)
    assert mode(Home.at(tmp_path / "h").folder) == 0o700


def test_a_folder_with_a_key_is_made_private(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "h")
    home.key()
    home.folder.chmod(0o755)
    Home.at(home.folder)
    assert mode(home.folder) == 0o700


def test_a_folder_that_is_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "h"
    folder.mkdir()
    (folder / "file").touch()
    folder.chmod(0o755)
    assert mode(Home.at(folder).folder) == 0o755
    folder.chmod(0o777)
    with pytest.raises(LocalFault) as caught:
        Home.at(folder)
    sentence(caught, "open-home", "others may write", f"chmod 700 {folder}")
    assert mode(folder) == 0o777


def test_homes_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(LocalFault) as caught:
            Home.at(folder)
        sentence(caught, "bad-home", str(folder))
    monkeypatch.setattr("peer.home.os.access", lambda *_: False)
    with pytest.raises(LocalFault) as caught:
        Home.at(tmp_path / "h")
    sentence(caught, "bad-home", "not writable")


# --- the lock and the announcement -------------------------------------------------------------------------


def test_one_node_at_a_time(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "h")
    with home.lock():
        with pytest.raises(LocalFault) as caught, Home.at(home.folder).lock():
            pytest.fail("two nodes in one home")
        sentence(caught, "home-in-use", f"process {os.getpid()}", str(home.folder), "--home")
    with home.lock():
        pass


HOLDER = """
import sys
from pathlib import Path
from peer.home import Home

with Home.at(Path(sys.argv[1])).lock():
    print("held", flush=True)
    input()
"""


def test_the_lock_is_between_processes_and_ends_with_them(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "h")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(home.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(LocalFault, match=f"process {process.pid}"), home.lock():
            pytest.fail("two nodes in one home")
        process.kill()
    with home.lock():
        pass


def test_the_lock_is_not_inherited(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "h")
    with home.lock():
        descriptors = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
        ours = [fd for fd in descriptors if _same(fd, home.lock_path)]
        assert ours
        assert all(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC for fd in ours)


def _same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def test_the_announcement_lasts_as_long_as_the_node(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "h")
    with pytest.raises(LocalFault, match="no node runs in"):
        home.api_port()
    with home.announce(12_345):
        assert home.api_port() == 12_345
        assert json.loads(home.api_path.read_text()) == {"port": 12_345, "pid": os.getpid()}
        assert mode(home.api_path) == 0o600
        assert sorted(path.name for path in home.folder.iterdir()) == ["api.json"]
    assert not home.api_path.exists()


def test_the_announcement_of_the_next_node_is_left_alone(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "h")
    with home.announce(1_234):
        home.api_path.write_text(json.dumps({"port": 4_321, "pid": os.getpid() + 1}))
    assert home.api_path.exists()


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"port": "x", "pid": 1}', '{"port": 0, "pid": 1}', '{"port": 70000, "pid": 1}', '{"port": 1}', "\x00"],
)
def test_a_damaged_announcement(tmp_path: Path, text: str) -> None:
    home = Home.at(tmp_path / "h")
    home.api_path.write_text(text)
    with pytest.raises(LocalFault) as caught:
        home.api_port()
    sentence(caught, "no-node", "damaged")


def test_a_killed_node_s_announcement_is_not_believed(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "h")
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        pass
    home.api_path.write_text(json.dumps({"port": 1_234, "pid": process.pid}))
    with pytest.raises(LocalFault, match="no node runs in"):
        home.api_port()
