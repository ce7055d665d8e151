"""The one door to bdkpython, the Bitcoin Dev Kit: its clients for Esplora and Electrum, and how they are asked from trio.

The library is an extra and is loaded only when a chain needs it. It blocks, so every call runs in a thread of a small pool and
has a limit of time; a thread that outlives it is left behind and keeps its place in the pool until the library's own limit ends
it. What goes wrong in the library becomes one of two things: no answer or an unreadable one is a ``ChainFault``, an error that
the server itself answered is a ``Refusal``, whose meaning the driver knows.
"""

import os
from collections.abc import Callable
from importlib import util
from typing import Any, Final, TypeVar

import trio

from escrow.core.transaction import show_id
from wire.errors import LocalFault
from wire.limits import FAR_READ_TIMEOUT_S, FAR_THREADS_MAX, FAR_TIMEOUT_S
from wire.ports import ChainFault

T = TypeVar("T")

MODULE: Final = "bdkpython"
MEND: Final = "install the extra: pip install 'bitwrk[bdk]', or from the sources make bdk"
_HTTP_TIMEOUT: Final = "MINREQ_TIMEOUT"
"""The HTTP client inside the library takes its limit of time, in seconds, from this variable and from nowhere else."""
_SOCKET_ERRORS: Final = (
    "IoError",
    "SharedIoError",
    "AllAttemptsErrored",
    "CouldNotCreateConnection",
    "CouldntLockReader",
    "Mpsc",
    "InvalidDnsNameError",
    "MissingDomain",
)
_UNREAD: Final = " at line "
"""Where JSON that cannot be read is named by the library as a failure of its HTTP client."""


class Refusal(Exception):
    """The server answered with an error: its HTTP status, 0 where there is none, and its words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def present() -> bool:
    """Whether the library is installed; it is not loaded for that."""
    return util.find_spec(MODULE) is not None


def _load() -> Any:
    os.environ.setdefault(_HTTP_TIMEOUT, str(FAR_READ_TIMEOUT_S))
    import bdkpython

    return bdkpython


class Library:
    """bdkpython for one server at ``place``, which is how faults call it. Open it with ``Library.load``."""

    def __init__(self, module: Any, place: str) -> None:
        self.module = module
        self._place = place
        self._limiter = trio.CapacityLimiter(FAR_THREADS_MAX)
        self._unreadable = (module.EsploraError, module.InternalError, module.TransactionError, module.FromScriptError)

    @classmethod
    async def load(cls, place: str) -> "Library":
        """Load the library. Raises ``LocalFault`` when it is not installed or does not run on this machine."""
        try:
            return cls(await trio.to_thread.run_sync(_load), place)
        except ImportError:
            raise LocalFault("no-bdk", f"chains behind Esplora and Electrum need the library bdkpython; {MEND}") from None
        except (OSError, AttributeError, RuntimeError) as error:
            said = f"the library bdkpython does not run on this machine: {type(error).__name__}: {error}"
            raise LocalFault("no-bdk", f"{said}; choose a chain of another kind") from None

    def txid(self, txid: bytes) -> Any:
        """The library's object for a txid in internal byte order."""
        return self.module.Txid.from_string(show_id(txid))

    async def ask(self, work: Callable[..., T], *arguments: Any) -> T:
        """What ``work`` returns. Raises ``ChainFault`` and ``Refusal``."""

        def call() -> T:
            return work(*arguments)

        try:
            with trio.fail_after(FAR_TIMEOUT_S):
                return await trio.to_thread.run_sync(call, limiter=self._limiter, abandon_on_cancel=True)
        except trio.TooSlowError:
            raise self.down(f"no answer in {FAR_TIMEOUT_S} s") from None
        except self.module.EsploraError.HttpResponse as error:
            raise Refusal(int(error.status), str(error.error_message)) from None
        except self.module.ElectrumError.Protocol as error:
            raise Refusal(0, str(error.error_message)) from None
        except self.module.EsploraError.Minreq as error:
            if _UNREAD in str(error.error_message):
                raise self.garbled(error) from None
            raise self.down(str(error.error_message)) from None
        except self.module.ElectrumError as error:
            if type(error).__name__ in _SOCKET_ERRORS:
                raise self.down(str(error) or type(error).__name__) from None
            raise self.garbled(error) from None
        except self._unreadable as error:
            raise self.garbled(error) from None

    def down(self, reason: str) -> ChainFault:
        """There is no answer."""
        return ChainFault("chain-down", f"the chain at {self._place} does not answer: {reason[:200]}")

    def refused(self, what: str, refusal: Refusal) -> ChainFault:
        """An error where a working server answers."""
        status = f" ({refusal.status})" if refusal.status else ""
        return ChainFault("chain-refused", f"the chain at {self._place} refuses {what}{status}: {refusal.message[:200]}")

    def garbled(self, error: object) -> ChainFault:
        """There is an answer that nobody can read."""
        said = f"{type(error).__name__}: {error}" if isinstance(error, Exception) else str(error)
        return ChainFault("chain-garbled", f"the chain at {self._place} answers something else than was asked: {said[:200]}")
