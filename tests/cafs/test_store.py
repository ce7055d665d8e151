"""The store on disk: what goes in comes out, once; it keeps its quota, its pins and its word after a kill."""

import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cafs.core.chunker import chunks_of
from cafs.core.faults import Corrupt, Damaged, NoSuchContent, StoreFull, TooLarge
from cafs.core.manifest import build, entry_of
from cafs.shell.store import Store
from wire.digest import content_id
from wire.errors import LocalFault
from wire.limits import STORE_BLOCK_BYTES, STORE_ROW_BYTES

MIB = 1 << 20


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.mark.parametrize("size", [0, 1, 4_096, 131_072, STORE_BLOCK_BYTES, STORE_BLOCK_BYTES + 1, 12_000_000])
async def test_what_goes_in_comes_out(tmp_path: Path, size: int) -> None:
    async with Store(tmp_path) as store:
        data = noise(size, size)
        content = await store.put(data)
        assert content.size == size
        assert content.digest == content_id(data)
        assert content.id == build([entry_of(chunk) for chunk in chunks_of(data)]).id
        assert await store.read(content.id) == data
        assert await store.find(content.id) == content
        assert (await store.manifest(content.id)).id == content.id
        assert b"".join([block async for block in store.stream(content.id)]) == data
        assert await store.put(pieces(data, 70_001)) == content


async def test_a_second_copy_costs_nothing(tmp_path: Path) -> None:
    async with Store(tmp_path) as store:
        data = noise(1, 2 * MIB)
        await store.put(data)
        once = await store.usage()
        await store.put(data)
        assert await store.usage() == once
        await store.put(data[:MIB] + b"!" + data[MIB:])
        twice = await store.usage()
        assert twice.contents == 2
        assert twice.used_bytes - once.used_bytes < 100_000


async def test_what_is_not_here_is_named(tmp_path: Path) -> None:
    async with Store(tmp_path) as store:
        assert not await store.has(bytes(32))
        for attempt in (store.read(bytes(32)), store.manifest(bytes(32)), anext(store.stream(bytes(32)))):
            with pytest.raises(NoSuchContent):
                await attempt
        content = await store.put(b"12345")
        with pytest.raises(TooLarge):
            await store.read(content.id, most_bytes=4)


async def test_it_survives_a_restart(tmp_path: Path) -> None:
    """F9."""
    data = noise(2, 3 * MIB)
    async with Store(tmp_path) as store:
        content = await store.put(data)
        await store.pin(content.id, "job 1")
        usage = await store.usage()
    async with Store(tmp_path) as store:
        assert await store.find(content.id) == content
        assert await store.read(content.id) == data
        assert await store.usage() == usage
        assert await store.owners() == ["job 1"]


async def test_the_oldest_unpinned_goes_first_and_the_pinned_never(tmp_path: Path) -> None:
    """F6."""
    async with Store(tmp_path, 5 * MIB) as store:
        pinned = await store.put(noise(3, MIB))
        await store.pin(pinned.id, "a")
        await store.pin(pinned.id, "b")
        await store.unpin("b")
        old, used, new = [await store.put(noise(seed, MIB)) for seed in (4, 5, 6)]
        await store.read(old.id)  # now `used` is the one that was not needed for longest
        later = await store.put(noise(7, MIB))
        assert [await store.has(one.id) for one in (pinned, old, used, new, later)] == [True, True, False, True, True]
        for seed in range(20, 30):
            await store.put(noise(seed, MIB))
        assert await store.has(pinned.id)
        assert (await store.usage()).used_bytes <= 5 * MIB
        await store.unpin("a")
        assert (await store.usage()).locked_bytes == 0
        for seed in range(30, 40):
            await store.put(noise(seed, MIB))
        assert not await store.has(pinned.id)


async def test_when_everything_is_pinned_the_owner_is_told(tmp_path: Path) -> None:
    async with Store(tmp_path, 3 * MIB) as store:
        for seed in (1, 2):
            await store.pin((await store.put(noise(seed, MIB))).id, "job")
        before = await store.usage()
        assert before.locked_bytes == before.used_bytes
        with pytest.raises(StoreFull, match="raise the quota"):
            await store.put(noise(3, 2 * MIB))
        assert await store.usage() == before
        await store.unpin("job")
        await store.put(noise(3, 2 * MIB))


async def test_a_pin_may_come_before_the_content(tmp_path: Path) -> None:
    async with Store(tmp_path, 3 * MIB) as store:
        data = noise(1, MIB)
        await store.pin(build([entry_of(chunk) for chunk in chunks_of(data)]).id, "job")
        content = await store.put(data)
        for seed in range(2, 9):
            await store.put(noise(seed, MIB))
        assert await store.has(content.id)


async def test_a_content_being_read_is_not_freed(tmp_path: Path) -> None:
    async with Store(tmp_path, 5 * MIB) as store:
        data = noise(1, 3 * MIB)
        content = await store.put(data)
        blocks = store.stream(content.id)
        first = await anext(blocks)
        assert (await store.usage()).locked_bytes > 3 * MIB
        with pytest.raises(StoreFull):
            await store.put(noise(2, 3 * MIB))
        assert first + b"".join([block async for block in blocks]) == data
        assert (await store.usage()).locked_bytes == 0
        blocks = store.stream(content.id)
        await anext(blocks)
        del blocks
        assert (await store.usage()).locked_bytes == 0
        await store.put(noise(2, 3 * MIB))
        assert not await store.has(content.id)


async def test_a_put_that_fails_or_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    """F5."""
    async with Store(tmp_path) as store:

        async def hang_up() -> AsyncIterator[bytes]:
            yield noise(1, 3 * MIB)
            raise ConnectionError("the client is gone")

        async def stall() -> AsyncIterator[bytes]:
            yield noise(2, 3 * MIB)
            scope.cancel()
            await trio.sleep_forever()

        with pytest.raises(ConnectionError):
            await store.put(hang_up())
        with trio.CancelScope() as scope:
            await store.put(stall())
        assert scope.cancelled_caught
        usage = await store.usage()
        assert (usage.used_bytes, usage.locked_bytes, usage.blobs) == (0, 0, 0)


async def test_puts_side_by_side(tmp_path: Path) -> None:
    async with Store(tmp_path) as store:
        data = noise(1, 5 * MIB)
        async with trio.open_nursery() as nursery:
            for size in (50_000, 300_000, 5 * MIB):
                nursery.start_soon(store.put, pieces(data, size))
        usage = await store.usage()
        assert usage.contents == 1
        assert usage.locked_bytes == 0
        assert (await store.put(data)).size == 5 * MIB
        assert await store.usage() == usage


async def test_a_fetch_and_a_put_of_one_content_meet(tmp_path: Path) -> None:
    async with Store(tmp_path) as store:
        data = noise(1, MIB)
        chunks = chunks_of(data)
        manifest = build([entry_of(chunk) for chunk in chunks])
        async with store.receiving(manifest.id, manifest.root) as inlet:
            await inlet.keep([(entry_of(chunks[0]).id, chunks[0])])
            assert not await store.has(manifest.id)
            content = await store.put(data)
            assert await store.has(manifest.id)
            held, _ = await inlet.claim([entry_of(chunk).id for chunk in chunks], bodies=False)
            assert len(held) == len(chunks)
            assert await inlet.verify() == content
        assert await store.read(manifest.id) == data


async def test_parts_do_not_make_a_whole(tmp_path: Path) -> None:
    async with Store(tmp_path) as store:
        data = noise(1, MIB)
        chunks = chunks_of(data)
        manifest = build([entry_of(chunk) for chunk in chunks])
        async with store.receiving(manifest.id, manifest.root) as inlet:
            await inlet.keep([(entry_of(chunk).id, chunk) for chunk in chunks[1:]])
            with pytest.raises(Damaged):
                await inlet.verify()
        with pytest.raises(NoSuchContent):
            await store.read(manifest.id)
        with pytest.raises(Corrupt):
            async with store.receiving(bytes(32), manifest.root):
                pass


# --- damage -------------------------------------------------------------------------------------------------


async def test_a_changed_blob_is_found_forgotten_and_can_come_back(tmp_path: Path) -> None:
    data = noise(1, MIB)
    async with Store(tmp_path) as store:
        content = await store.put(data)
    with sqlite3.connect(tmp_path / "content.sqlite") as db:
        db.execute("UPDATE bodies SET data = zeroblob(length(data)) WHERE number = 7")
    db.close()
    async with Store(tmp_path) as store:
        assert await store.has(content.id)
        with pytest.raises(Damaged, match="fetch it again"):
            await store.read(content.id)
        assert not await store.has(content.id)
        assert (await store.usage()).locked_bytes == 0
        assert await store.put(data) == content
        assert await store.read(content.id) == data


async def test_a_changed_root_is_found(tmp_path: Path) -> None:
    async with Store(tmp_path) as store:
        content = await store.put(b"data")
        store._shelf._db.execute("UPDATE contents SET root = x'9300c290'")
        with pytest.raises(Damaged):
            await store.manifest(content.id)
        assert not await store.has(content.id)
        assert (await store.usage()).locked_bytes == 0


async def test_a_file_that_is_no_store_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "content.sqlite").write_bytes(b"not a database at all" * 1_000)
    with pytest.raises(Damaged, match="move the file away"):
        Store(tmp_path)
    assert (tmp_path / "content.sqlite").read_bytes().startswith(b"not a database")


async def test_places_where_no_store_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LocalFault, match="cannot be made"):
        Store(tmp_path / "file")
    async with Store(tmp_path / "one"):
        with pytest.raises(LocalFault, match="another process"):
            Store(tmp_path / "one")
    with sqlite3.connect(tmp_path / "one" / "content.sqlite") as db:
        db.execute("PRAGMA user_version=9")
    db.close()
    with pytest.raises(LocalFault, match="another version"):
        Store(tmp_path / "one")
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o700


async def test_a_full_disk_is_said_and_survived(tmp_path: Path) -> None:
    async with Store(tmp_path) as store:
        content = await store.put(noise(1, MIB))
        pages = store._shelf._db.execute("PRAGMA page_count").fetchone()[0]
        store._shelf._db.execute(f"PRAGMA max_page_count={pages + 20}")
        before = await store.usage()
        with pytest.raises(StoreFull, match="disk under"):
            await store.put(noise(2, 3 * MIB))
        assert await store.usage() == before
        assert len(await store.read(content.id)) == MIB
        store._shelf._db.execute("PRAGMA max_page_count=4294967294")
        await store.put(noise(2, 3 * MIB))


_PUTTER = """
import random, sys, trio
from pathlib import Path
from cafs.shell.store import Store

async def main():
    async with Store(Path(sys.argv[1])) as store:
        await store.put(random.Random(1).randbytes(2 << 20))
        async def slowly():
            for seed in range(10_000):
                yield random.Random(seed + 100).randbytes(300_000)
                print(seed, flush=True)
        await store.put(slowly())

trio.run(main)
"""


def _put_and_be_killed(folder: Path, after: int) -> None:
    """Another process puts one content, then a part of a second one: some blocks more than ``after`` of them."""
    with subprocess.Popen([sys.executable, "-c", _PUTTER, str(folder)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) >= after:
                break
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL


@pytest.mark.parametrize("after", [0, 3, 17])
async def test_a_kill_in_the_middle_of_a_put_leaves_a_good_store(tmp_path: Path, after: int) -> None:
    """The process dies by SIGKILL at a moment of its own; what it had finished is there, what it had not is gone."""
    _put_and_be_killed(tmp_path, after)
    data = noise(1, 2 * MIB)
    async with Store(tmp_path) as store:
        usage = await store.usage()
        blobs = chunks_of(data)
        assert usage.blobs == len(blobs)
        assert usage.used_bytes == len(data) + STORE_ROW_BYTES * (len(blobs) + 1)
        assert usage.locked_bytes == 0
        content = build([entry_of(chunk) for chunk in blobs]).id
        assert await store.read(content) == data
        assert store._shelf._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert (await store.put(noise(9, MIB))).size == MIB


async def test_a_torn_write_is_forgotten(tmp_path: Path) -> None:
    """The end of the write-ahead log is cut off, as by a loss of power: what was whole before it is still there."""
    _put_and_be_killed(tmp_path, 0)
    log = tmp_path / "content.sqlite-wal"
    whole = log.read_bytes()
    log.write_bytes(whole[: len(whole) - 5_000])
    async with Store(tmp_path) as store:
        data = noise(1, 2 * MIB)
        assert await store.read(build([entry_of(chunk) for chunk in chunks_of(data)]).id) == data
        assert store._shelf._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# --- a store against a dictionary ---------------------------------------------------------------------------

steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 7)),
        st.tuples(st.just("pin"), st.integers(0, 7)),
        st.tuples(st.just("unpin"), st.integers(0, 7)),
        st.tuples(st.just("read"), st.integers(0, 7)),
        st.tuples(st.just("reopen"), st.just(0)),
    ),
    max_size=25,
)


@given(steps)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_of_things_keeps_quota_pins_and_accounts(
    tmp_path_factory: pytest.TempPathFactory, done: list[tuple[str, int]]
) -> None:
    trio.run(_steps, tmp_path_factory.mktemp("store"), done)


async def _steps(folder: Path, done: list[tuple[str, int]]) -> None:
    # Neighbours share half of their bytes.
    datas = [noise(number // 2, 100_000) + noise(50 + number, 100_000) for number in range(8)]
    quota = 900_000
    store = Store(folder, quota)
    ids = [build([entry_of(chunk) for chunk in chunks_of(data)]).id for data in datas]
    pinned: set[int] = set()
    kept: set[int] = set()
    for step, number in done:
        match step:
            case "put":
                try:
                    await store.put(datas[number])
                    kept |= {number} & pinned
                except StoreFull:
                    assert len(kept) >= 3
            case "pin":
                await store.pin(ids[number], f"owner {number}")
                pinned.add(number)
                kept |= {number} if await store.has(ids[number]) else set()
            case "unpin":
                await store.unpin(f"owner {number}")
                pinned.discard(number)
                kept.discard(number)
            case "read":
                try:
                    assert await store.read(ids[number]) == datas[number]
                except NoSuchContent:
                    assert number not in kept
            case "reopen":
                await store.aclose()
                store = Store(folder, quota)
        usage = await store.usage()
        assert usage.used_bytes <= quota
        assert (usage.locked_bytes > 0) == bool(kept)
        for one in kept:
            assert await store.has(ids[one])
    lengths, count = store._shelf._db.execute("SELECT coalesce(sum(length(data)), 0), count(*) FROM bodies").fetchone()
    usage = await store.usage()
    rows = store._shelf._db.execute("SELECT count(*) FROM contents").fetchone()[0]
    assert usage.used_bytes == lengths + STORE_ROW_BYTES * (count + rows)
    orphans = "SELECT count(*) FROM blobs WHERE number NOT IN (SELECT blob FROM parts)"
    assert store._shelf._db.execute(orphans).fetchone() == (0,)
    await store.aclose()
