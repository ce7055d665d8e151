"""The home of one node: a private folder with its key, its journal, its API token, and a lock that one node at a time holds.

Whoever reads ``privatekey.wif`` can spend the owner's money, and whoever reads ``api-token`` can make the node spend it. So both
are made exclusively with mode 0600, are never overwritten, and are refused when somebody else owns them or may read them: a key
that was open to others must be treated as lost, and only its owner can decide that.
"""

import errno
import fcntl
import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from wire.account import BadText, from_wif, to_wif
from wire.errors import LocalFault
from wire.keys import BadKey, SecretKey

KEY_FILE: Final = "privatekey.wif"
TOKEN_FILE: Final = "api-token"  # noqa: S105 - the name of a file
LOCK_FILE: Final = "lock"
API_FILE: Final = "api.json"
_SMALL_FILE_BYTES: Final = 4_096
_PRIVATE_FOLDER: Final = 0o700
_PRIVATE_FILE: Final = 0o600


def _why(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()


def new_key() -> SecretKey:
    """A fresh key from the system's randomness."""
    while True:
        with suppress(BadKey):  # about one draw in 2^128
            return SecretKey(secrets.token_bytes(32))


class Home:
    """The folder of one node. Make it with ``Home.at``; every failure is a ``LocalFault`` with one sentence."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key_path = folder / KEY_FILE
        self.token_path = folder / TOKEN_FILE
        self.api_path = folder / API_FILE
        self.lock_path = folder / LOCK_FILE
        self.journal_path = folder / "journal.sqlite"
        self.tape_path = folder / "tape.sqlite"

    @classmethod
    def at(cls, folder: Path) -> "Home":
        """The home in ``folder``, which is created with mode 0700 when it is missing and checked when it is there."""
        try:
            folder.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
        except FileExistsError:
            raise LocalFault("bad-home", f"the home {folder} is not a folder; choose another with --home") from None
        except OSError as error:
            raise LocalFault("bad-home", f"the home {folder} cannot be made: {_why(error)}") from None
        home = cls(folder)
        home._check_folder()
        return home

    def _check_folder(self) -> None:
        try:
            found = self.folder.stat()
            if found.st_uid != os.geteuid():
                raise LocalFault("foreign-home", f"the home {self.folder} belongs to another user; choose your own with --home")
            mode = stat.S_IMODE(found.st_mode)
            if mode & 0o077:
                ours = self.key_path.exists() or not any(self.folder.iterdir())
                if ours:
                    self.folder.chmod(_PRIVATE_FOLDER)
                elif mode & 0o022:
                    raise LocalFault(
                        "open-home", f"others may write into the home {self.folder}; mend it with: chmod 700 {self.folder}"
                    )
        except OSError as error:
            raise LocalFault("bad-home", f"the home {self.folder} cannot be used: {_why(error)}") from None
        if not os.access(self.folder, os.R_OK | os.W_OK | os.X_OK):
            raise LocalFault("bad-home", f"the home {self.folder} is not writable; mend it with: chmod 700 {self.folder}")

    # --- private files ---------------------------------------------------------------------------------------

    def _create_private(self, path: Path, text: str) -> None:
        """Write a new file of mode 0600. Raises ``FileExistsError`` rather than touch an existing one."""
        try:
            opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _PRIVATE_FILE)
        except FileExistsError:
            raise
        except OSError as error:
            raise LocalFault("bad-home", f"{path} cannot be written: {_why(error)}") from None
        try:
            with os.fdopen(opened, "w") as file:
                os.fchmod(opened, _PRIVATE_FILE)
                file.write(text)
                file.flush()
                os.fsync(opened)
            folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            # Half a key is worse than none, and this file is certainly the one made above.
            path.unlink(missing_ok=True)
            raise LocalFault("bad-home", f"{path} cannot be written: {_why(error)}") from None

    def _read_private(self, path: Path, what: str) -> str:
        """The text of a private file, after checking whose it is and who may read it. Raises ``FileNotFoundError``."""
        try:
            opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise LocalFault("unreadable-file", f"the {what} {path} cannot be read: {_why(error)}") from None
        try:
            found = os.fstat(opened)
            if not stat.S_ISREG(found.st_mode):
                raise LocalFault("unreadable-file", f"the {what} {path} is not a regular file")
            if found.st_uid != os.geteuid():
                raise LocalFault("foreign-file", f"the {what} {path} belongs to another user; it has to be yours alone")
            if stat.S_IMODE(found.st_mode) & 0o077:
                raise LocalFault(
                    "open-file", f"the {what} {path} may be read or changed by others; if you still trust it: chmod 600 {path}"
                )
            raw = os.read(opened, _SMALL_FILE_BYTES + 1)
            text = raw.decode("ascii").strip()
        except (OSError, UnicodeDecodeError):
            raise LocalFault("unreadable-file", f"the {what} {path} cannot be read: it holds no text") from None
        finally:
            os.close(opened)
        if not text or len(raw) > _SMALL_FILE_BYTES:
            raise LocalFault("unreadable-file", f"the {what} {path} cannot be read: it is {'too long' if text else 'empty'}")
        return text

    # --- the key ---------------------------------------------------------------------------------------------

    def has_key(self) -> bool:
        """Whether a key file is there, readable or not."""
        return os.path.lexists(self.key_path)

    def load_key(self) -> SecretKey:
        """The key in the key file. Raises ``LocalFault`` when there is none or it may not be used."""
        try:
            text = self._read_private(self.key_path, "key file")
        except FileNotFoundError:
            raise LocalFault("no-key", f"there is no key in {self.folder} yet; start a node or run: bitwrk key import") from None
        try:
            return from_wif(text)
        except (BadText, BadKey):
            raise LocalFault(
                "bad-key-file", f"the key file {self.key_path} holds no key in wallet import format; restore it from your backup"
            ) from None

    def key(self) -> SecretKey:
        """The key of this home, made on first use."""
        if not self.has_key():
            made = new_key()
            with suppress(FileExistsError):  # another process was first; its key counts
                self._create_private(self.key_path, to_wif(made) + "\n")
        return self.load_key()

    def import_key(self, wif: str) -> SecretKey:
        """Keep a key that the owner brings. Raises ``BadText``, or ``LocalFault`` when there is a key already."""
        try:
            key = from_wif(wif)
        except BadKey as bad:
            raise BadText("bad-wif", bad.sentence) from None
        try:
            self._create_private(self.key_path, to_wif(key) + "\n")
        except FileExistsError:
            raise LocalFault(
                "key-exists", f"there is a key in {self.key_path} already and it is never overwritten; choose another --home"
            ) from None
        return key

    def export(self) -> str:
        """The key in wallet import format."""
        return to_wif(self.load_key())

    # --- the local API's files -------------------------------------------------------------------------------

    def token(self) -> str:
        """The secret that local programs show to spend; made on first use."""
        if not os.path.lexists(self.token_path):
            with suppress(FileExistsError):
                self._create_private(self.token_path, secrets.token_urlsafe(32) + "\n")
        return self.read_token()

    def read_token(self) -> str:
        """The token of a home that has one. Raises ``LocalFault``."""
        try:
            return self._read_private(self.token_path, "API token")
        except FileNotFoundError:
            raise LocalFault("no-token", f"no node has run in {self.folder} yet; start one with: bitwrk node") from None

    @contextmanager
    def announce(self, port: int) -> Iterator[None]:
        """While this lasts, ``api.json`` tells local programs the port and the process of the node."""
        text = json.dumps({"port": port, "pid": os.getpid()})
        fresh = self.api_path.with_name(f"{API_FILE}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        try:
            self._create_private(fresh, text + "\n")
            fresh.replace(self.api_path)
        except OSError as error:
            raise LocalFault("bad-home", f"{self.api_path} cannot be written: {_why(error)}") from None
        try:
            yield
        finally:
            with suppress(OSError, ValueError, KeyError, TypeError):
                if json.loads(self.api_path.read_text())["pid"] == os.getpid():
                    self.api_path.unlink()

    def api_port(self) -> int:
        """The port of the node that runs in this home. Raises ``LocalFault`` when none has announced itself."""
        try:
            told = json.loads(self.api_path.read_text())
            port, process = told["port"], told["pid"]
            if type(port) is not int or not 0 < port < 65_536 or type(process) is not int or process <= 0:
                raise ValueError
            # A node that was killed leaves this file behind, and who listens on that port now must not get the token.
            os.kill(process, 0)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            raise LocalFault(
                "no-node", f"no node runs in {self.folder}; start one with: bitwrk node --home {self.folder}"
            ) from None
        except OSError as error:
            raise LocalFault("no-node", f"{self.api_path} cannot be read: {_why(error)}") from None
        except (ValueError, KeyError, TypeError, OverflowError):
            raise LocalFault("no-node", f"{self.api_path} is damaged; stop the node of this home and start it again") from None
        return port

    # --- the lock --------------------------------------------------------------------------------------------

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the home for one node. The kernel lets go of it however the process ends, so a lock is never stale."""
        try:
            opened = os.open(self.lock_path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _PRIVATE_FILE)
        except OSError as error:
            raise LocalFault("bad-home", f"{self.lock_path} cannot be opened: {_why(error)}") from None
        try:
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise LocalFault("bad-home", f"{self.lock_path} cannot be locked: {_why(error)}") from None
                holder = os.pread(opened, 32, 0).decode("ascii", "replace").strip()
                process = f" (process {holder})" if holder.isdigit() else ""
                raise LocalFault(
                    "home-in-use", f"another node{process} is using the home {self.folder}; stop it or choose another with --home"
                ) from None
            os.ftruncate(opened, 0)
            os.pwrite(opened, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(opened)
