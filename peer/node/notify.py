"""Telling the service manager how we are: the datagrams of sd_notify(3), in the few lines that it takes."""

import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import trio

_LOG: Final = logging.getLogger("bitwrk.service")
_PETS_PER_TIMEOUT: Final = 3


class Notifier:
    """Speaks to the socket that ``environment`` names, or to nobody. ``watchdog_s`` is how often we must say that we live."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        given = os.environ if environment is None else environment
        name = given.get("NOTIFY_SOCKET", "")
        # A name that begins with @ is in the abstract namespace, which the kernel writes with a zero byte.
        self._address = "\0" + name[1:] if name.startswith("@") else name
        self.watchdog_s = self._watchdog(given) if name else None

    @staticmethod
    def _watchdog(given: Mapping[str, str]) -> float | None:
        try:
            microseconds = int(given.get("WATCHDOG_USEC", "0"))
            ours = int(given.get("WATCHDOG_PID", os.getpid())) == os.getpid()
        except ValueError:
            return None
        return microseconds / 1e6 if microseconds > 0 and ours else None

    def say(self, *lines: str) -> None:
        """Send lines such as ``READY=1``. Never raises: a manager that does not listen must not end us."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            _LOG.debug("the service manager could not be told %s: %s", lines[0], error)

    def status(self, sentence: str) -> None:
        """What a person reads in the manager's status."""
        self.say(f"STATUS={' '.join(sentence.split())}")

    async def keep_alive(self, pulse: Callable[[], Awaitable[None]]) -> None:
        """Say that we live as long as ``pulse`` comes back, several times within the manager's patience."""
        if self.watchdog_s is None:
            return
        pause_s = self.watchdog_s / _PETS_PER_TIMEOUT
        while True:
            await pulse()
            self.say("WATCHDOG=1")
            await trio.sleep(pause_s)
