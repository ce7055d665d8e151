"""The slow effects of single units: moving content, computing, encrypting. Each is one task and answers with one event."""

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from cafs.core.manifest import Content
from cafs.shell.service import ContentService
from cafs.shell.store import Store
from peer.core.events import (
    Compute,
    Computed,
    ComputeFailed,
    Decrypt,
    Decrypted,
    Encrypt,
    Encrypted,
    Fetch,
    Fetched,
    FetchFailed,
    ReadBack,
    Recall,
)
from peer.node.registry import Worker
from wire.cipher import DoesNotOpen, decrypt, encrypt
from wire.errors import BitwrkError, Refused

UnitEffect = Fetch | Compute | Encrypt | Decrypt | Recall
Tell = Callable[[Any], Awaitable[None]]


class UnitTasks:
    """At most one task per unit at a time; ``stop`` ends it without an answer."""

    def __init__(
        self, nursery: trio.Nursery, store: Store, content: ContentService, workers: dict[str, Worker], tell: Tell
    ) -> None:
        self._nursery = nursery
        self._store = store
        self._content = content
        self._tell = tell
        self._running: dict[bytes, trio.CancelScope] = {}
        self._workers = workers

    def start(self, effect: UnitEffect) -> None:
        """Begin the effect; a task that runs for the same unit is ended first."""
        self.stop(effect.unit)
        scope = self._running[effect.unit] = trio.CancelScope()
        self._nursery.start_soon(self._run, effect, scope)

    def stop(self, unit: bytes) -> None:
        """End whatever runs for the unit."""
        scope = self._running.pop(unit, None)
        if scope is not None:
            scope.cancel()

    @property
    def running(self) -> int:
        """How many tasks are at work."""
        return len(self._running)

    async def _run(self, effect: UnitEffect, scope: trio.CancelScope) -> None:
        answer: Any = None
        with scope:
            try:
                match effect:
                    case Fetch():
                        answer = await self._fetch(effect)
                    case Compute():
                        answer = await self._compute(effect)
                    case Encrypt():
                        answer = await self._encrypt(effect)
                    case Decrypt():
                        answer = await self._decrypt(effect)
                    case Recall():
                        answer = ReadBack(unit=effect.unit, cipher=await self._store.read(effect.cipher))
            except BitwrkError as error:
                answer = self._failure(effect, error)
        if self._running.get(effect.unit) is scope:
            del self._running[effect.unit]
            if answer is not None:
                await self._tell(answer)

    @staticmethod
    def _failure(effect: UnitEffect, error: BitwrkError) -> Any:
        match effect:
            case Fetch():
                return FetchFailed(unit=effect.unit, code=error.code, sentence=error.sentence)
            case Decrypt():
                return Decrypted(unit=effect.unit, plain=None)
            case Recall():
                return ReadBack(unit=effect.unit, cipher=None)
            case Compute() | Encrypt():
                return ComputeFailed(unit=effect.unit, code=error.code, sentence=error.sentence)

    async def _fetch(self, effect: Fetch) -> Fetched:
        content = await self._content.fetch(effect.peer, effect.content, effect.ticket)
        if content.size != effect.size:
            raise Refused("wrong-size", f"the content has {content.size} bytes and not the {effect.size} that were announced")
        await self._store.pin(content.id, effect.owner)
        return Fetched(unit=effect.unit, content=content.id)

    async def _keep(self, data: bytes, owner: str) -> Content:
        content = await self._store.put(data)
        await self._store.pin(content.id, owner)
        return content

    async def _compute(self, effect: Compute) -> Computed:
        pool = self._workers.get(effect.worker)
        if pool is None:
            raise Refused("no-worker", f"no worker called {effect.worker!r} is running here")
        result = await pool.run(await self._store.read(effect.work), time_s=effect.time_s)
        content = await self._keep(result, effect.owner)
        return Computed(unit=effect.unit, plain=content.id)

    async def _encrypt(self, effect: Encrypt) -> Encrypted:
        plain = await self._store.read(effect.plain)
        cipher = await trio.to_thread.run_sync(encrypt, effect.key, plain)
        content = await self._keep(cipher, effect.owner)
        return Encrypted(unit=effect.unit, cipher=content.id, size=content.size)

    async def _decrypt(self, effect: Decrypt) -> Decrypted:
        cipher = await self._store.read(effect.cipher)
        try:
            plain = await trio.to_thread.run_sync(decrypt, effect.key, cipher)
        except DoesNotOpen:
            return Decrypted(unit=effect.unit, plain=None)
        content = await self._keep(plain, effect.owner)
        return Decrypted(unit=effect.unit, plain=content.id)
