"""The two machines of a transfer, without streams: every pair of state and event, each other, and partners who wish them ill."""

import random
from collections.abc import Callable
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cafs.core import receiver as receiving
from cafs.core import sender as sending
from cafs.core.chunker import chunks_of
from cafs.core.faults import Corrupt, NotGranted, Overrun, Stalled, refusal
from cafs.core.manifest import Content, Entry, Manifest, Root, build, entry_of, open_root, root_id, whole
from cafs.core.messages import MESSAGES, Chunk, Done, Message, Refusal, RootOf, Want, Wish
from cafs.core.receiver import Keep, Kept, LocalFailure, Progressed, Receiver, Sort, Sorted, Verified, Verify
from cafs.core.sender import Admit, Admitted, Denied, Fetch, Listen, Read, Sender
from cafs.core.squeeze import Codec, Squeezer
from cafs.core.transfer import Closed, Ended, Heard, Send, Tick
from wire.canon import pack
from wire.errors import InvariantBroken, LocalFault, Misbehaved
from wire.limits import (
    CHUNK_MAX_BYTES,
    MANIFEST_MAX_CHUNKS,
    TRANSFER_READ_CHUNKS,
    TRANSFER_STALL_S,
    TRANSFER_WINDOW_BYTES,
    TRANSFER_WINDOW_CHUNKS,
    WISH_LIST_MAX,
)
from wire.moments import SECOND, Instant
from wire.ports import StreamClosed

NOW = Instant(1_000 * SECOND)
LATE = Instant(NOW + TRANSFER_STALL_S * SECOND)
TICKET = bytes(16)
GONE = Closed(error=StreamClosed("closed", "gone"))
BROKEN = LocalFault("broken", "the disk is broken")


class Thing:
    """A content in memory: its manifest and all its blobs."""

    def __init__(self, data: bytes) -> None:
        chunks = chunks_of(data)
        self.manifest: Manifest = build([entry_of(chunk) for chunk in chunks])
        self.blobs = {entry_of(blob).id: blob for blob in (*chunks, *self.manifest.pages)}
        self.pages = {entry_of(page).id for page in self.manifest.pages}
        self.content = Content(id=self.manifest.id, size=len(data), digest=bytes(32))

    def chunk(self, blob: bytes, codec: Codec = Codec.PLAIN) -> Chunk:
        if codec is Codec.ZSTD:
            codec, body = Squeezer().squeeze(self.blobs[blob])
            return Chunk(blob=blob, codec=codec, body=body)
        return Chunk(blob=blob, codec=codec, body=self.blobs[blob])


FLAT = Thing(random.Random(1).randbytes(3_000_000))
PAGED = Thing(random.Random(2).randbytes(11_000_000))
SHORT = Thing(b"short")
# Runs of one byte are cut at the longest chunk there is: the window is then full in bytes before it is full in number.
WIDE = Thing(b"".join(bytes([number]) * CHUNK_MAX_BYTES for number in range(80)))


# --- every pair ---------------------------------------------------------------------------------------------


def a_receiver(state: receiving.State, thing: Thing = PAGED) -> Receiver:
    """A receiver that got to ``state`` in the ordinary way, everything still to be fetched."""
    machine = Receiver(thing.manifest.id, TICKET)
    root = open_root(thing.manifest.id, thing.manifest.root)
    stored: dict[bytes, bytes] = {}
    todo: list[receiving.Event] = [receiving.Begin()]
    while machine.state is not state:
        for effect in machine.handle(todo.pop(0), NOW):
            match effect:
                case Send(message=Want()):
                    todo.append(Heard(message=RootOf(root=thing.manifest.root)))
                case Send(message=Wish(blobs=blobs)):
                    todo += [Heard(message=thing.chunk(blob)) for blob in blobs]
                case Sort():
                    todo.append(Sorted(held=frozenset(), bodies={}))
                case Keep():
                    stored.update(effect.blobs)
                    todo.append(Kept())
                case Verify():
                    assert len(whole(root, thing.manifest.pages)) <= len(stored)
                    todo.append(Verified(content=thing.content))
                case _:
                    pass
    return machine


SOME = next(iter(PAGED.blobs))
HEARD: list[Message] = [
    Want(content=bytes(32), ticket=TICKET),
    RootOf(root=PAGED.manifest.root),
    RootOf(root=b"\x90"),
    Wish(blobs=(SOME,)),
    Wish(blobs=(bytes(32),) * WISH_LIST_MAX),
    PAGED.chunk(SOME),
    *(PAGED.chunk(page) for page in sorted(PAGED.pages)),
    Chunk(blob=bytes(32), codec=Codec.ZSTD, body=b"x"),
    Done(),
    Refusal(code="not-granted", sentence="no"),
]
RECEIVER_EVENTS: list[receiving.Event] = [
    receiving.Begin(),
    Sorted(held=frozenset(), bodies={}),
    Kept(),
    Verified(content=PAGED.content),
    LocalFailure(error=BROKEN),
    GONE,
    Tick(),
    *(Heard(message=message) for message in HEARD),
]


@pytest.mark.parametrize("state", receiving.State)
@pytest.mark.parametrize("event", RECEIVER_EVENTS, ids=lambda event: type(getattr(event, "message", event)).__name__)
def test_every_pair_of_the_receiver(state: receiving.State, event: receiving.Event) -> None:
    machine = a_receiver(state)
    kind = type(event.message) if isinstance(event, Heard) else type(event)
    known = (state, kind) in receiving.TABLE
    if state is receiving.State.ENDED:
        assert not known
        assert machine.handle(event, NOW) == ()
    elif isinstance(event, Heard):
        effects = machine.handle(event, NOW)
        if not known:
            ended = cast(Ended, effects[0])
            assert isinstance(ended.error, Misbehaved)
            assert machine.state is receiving.State.ENDED
    elif known and not isinstance(event, Kept):
        machine.handle(event, NOW)
    elif not known:
        with pytest.raises(InvariantBroken):
            machine.handle(event, NOW)
    if machine.state is receiving.State.ENDED:
        assert machine.next_deadline() is None


def a_sender(state: sending.State) -> Sender:
    machine = Sender()
    steps: list[sending.Event] = [
        Listen(),
        Heard(message=Want(content=PAGED.manifest.id, ticket=TICKET)),
        Admitted(root=PAGED.manifest.root),
        Heard(message=Wish(blobs=(SOME,))),
    ]
    order = [sending.State.NEW, sending.State.LISTENING, sending.State.OPENING, sending.State.SERVING, sending.State.READING]
    steps = [Listen(), GONE] if state is sending.State.ENDED else steps[: order.index(state)]
    for step in steps:
        machine.handle(step, NOW)
    assert machine.state is state
    return machine


SENDER_EVENTS: list[sending.Event] = [
    Listen(),
    Admitted(root=PAGED.manifest.root),
    Denied(error=NotGranted("not-granted", "no")),
    Denied(error=BROKEN),
    Read(chunks=(PAGED.chunk(SOME),)),
    Read(chunks=()),
    GONE,
    Tick(),
    *(Heard(message=message) for message in HEARD),
]


@pytest.mark.parametrize("state", sending.State)
@pytest.mark.parametrize("event", SENDER_EVENTS, ids=lambda event: type(getattr(event, "message", event)).__name__)
def test_every_pair_of_the_sender(state: sending.State, event: sending.Event) -> None:
    machine = a_sender(state)
    kind = type(event.message) if isinstance(event, Heard) else type(event)
    known = (state, kind) in sending.TABLE
    if state is sending.State.ENDED:
        assert not known
        assert machine.handle(event, NOW) == ()
    elif isinstance(event, Heard):
        effects = machine.handle(event, NOW)
        if not known:
            assert isinstance(cast(Ended, effects[0]).error, Misbehaved)
            assert machine.state is sending.State.ENDED
    elif known:
        machine.handle(event, NOW)
    else:
        with pytest.raises(InvariantBroken):
            machine.handle(event, NOW)


def test_tables_name_methods_that_exist() -> None:
    assert all(hasattr(Receiver, name) for name in receiving.TABLE.values())
    assert all(hasattr(Sender, name) for name in sending.TABLE.values())


# --- one with the other -------------------------------------------------------------------------------------


class Pair:
    """A receiver and a sender joined by two lists, with a store that is a dictionary; the order of what happens is drawn."""

    def __init__(self, thing: Thing, here: dict[bytes, bytes], pick: Callable[[int], int]) -> None:
        self.thing = thing
        self.here = here
        self.pick = pick
        self.receiver, self.sender = Receiver(thing.manifest.id, TICKET), Sender()
        self.to_receiver: list[receiving.Event] = [receiving.Begin()]
        self.to_sender: list[sending.Event] = [Listen()]
        self.local: list[receiving.Event] = []
        self.ended: dict[str, Ended] = {}
        self.chunks_sent: list[bytes] = []
        self.progress: list[tuple[int, int]] = []

    def run(self) -> None:
        """Chunks may overtake each other, answers of the store come whenever they like."""
        while self.to_receiver or self.to_sender or self.local:
            queues = [queue for queue in (self.to_receiver, self.to_sender, self.local) if queue]
            chosen = queues[self.pick(len(queues))]
            if chosen is self.to_sender:
                self.tell_sender(self.to_sender.pop(0))
            elif chosen is self.local:
                self.tell_receiver(self.local.pop(0))
            else:
                free = sum(isinstance(event, Heard) and isinstance(event.message, Chunk) for event in self.to_receiver)
                self.tell_receiver(self.to_receiver.pop(self.pick(free) if free == len(self.to_receiver) else 0))
            blobs, size = self.receiver.credit
            assert 0 <= blobs <= TRANSFER_WINDOW_CHUNKS
            assert 0 <= size <= TRANSFER_WINDOW_BYTES
            assert len(self.to_receiver) <= TRANSFER_WINDOW_CHUNKS + 2

    def tell_receiver(self, event: receiving.Event) -> None:
        for effect in self.receiver.handle(event, NOW):
            match effect:
                case Send():
                    self.to_sender.append(Heard(message=cast(Message, MESSAGES.unpack(MESSAGES.pack(effect.message)))))
                case Sort():
                    held = {blob: self.here[blob] for blob in effect.blobs if blob in self.here}
                    self.local.append(Sorted(held=frozenset(held), bodies=held if effect.bodies else {}))
                case Keep():
                    assert not any(isinstance(event, Kept) for event in self.local)
                    self.here.update(effect.blobs)
                    self.local.append(Kept())
                case Verify():
                    assert self.thing.blobs.items() <= self.here.items()
                    self.local.append(Verified(content=self.thing.content))
                case Progressed():
                    self.progress.append((effect.progress.held, effect.progress.wire))
                case Ended():
                    self.ended["receiver"] = effect

    def tell_sender(self, event: sending.Event) -> None:
        for effect in self.sender.handle(event, NOW):
            match effect:
                case Send():
                    if isinstance(effect.message, Chunk):
                        self.chunks_sent.append(effect.message.blob)
                    self.to_receiver.append(Heard(message=cast(Message, MESSAGES.unpack(MESSAGES.pack(effect.message)))))
                case Admit():
                    assert (effect.content, effect.ticket) == (self.thing.manifest.id, TICKET)
                    self.to_sender.append(Admitted(root=self.thing.manifest.root))
                case Fetch():
                    assert len(effect.blobs) <= TRANSFER_READ_CHUNKS
                    codec = (Codec.PLAIN, Codec.ZSTD)[self.pick(2)]
                    self.to_sender.append(Read(chunks=tuple(self.thing.chunk(blob, codec) for blob in effect.blobs)))
                case Ended():
                    self.ended["sender"] = effect


@given(
    st.sampled_from([FLAT, PAGED, SHORT, WIDE, Thing(b""), Thing(bytes(9_000_000))]),
    st.floats(0, 1),
    st.randoms(use_true_random=False),
)
@settings(max_examples=40, deadline=None)
def test_they_bring_it_over_in_any_order_and_send_only_what_is_missing(thing: Thing, part: float, rolled: random.Random) -> None:
    here = {blob: data for blob, data in sorted(thing.blobs.items()) if rolled.random() < part}
    missing = sorted(thing.blobs.keys() - here.keys())
    pair = Pair(thing, dict(here), rolled.randrange)
    pair.run()
    assert pair.ended == {"receiver": Ended(error=None, content=thing.content), "sender": Ended(error=None)}
    assert sorted(pair.chunks_sent) == missing
    assert pair.progress == sorted(pair.progress)
    assert pair.progress[-1][0] == thing.content.size
    assert pair.receiver.credit == (0, 0)


# --- partners who wish them ill -----------------------------------------------------------------------------

ids = st.sampled_from([*sorted(PAGED.blobs)[:5], *sorted(PAGED.pages), bytes(32)])
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(RootOf, root=st.one_of(st.just(PAGED.manifest.root), st.binary(min_size=1, max_size=50))),
    st.builds(Chunk, blob=ids, codec=st.sampled_from(Codec), body=st.binary(min_size=1, max_size=100)),
    st.sampled_from([PAGED.chunk(blob) for blob in sorted(PAGED.blobs)]),
    st.builds(Wish, blobs=st.lists(ids, min_size=1, max_size=WISH_LIST_MAX).map(tuple)),
    st.just(Done()),
    st.builds(Want, content=st.just(bytes(32)), ticket=st.just(TICKET)),
    st.builds(Refusal, code=st.text("abc-", min_size=1, max_size=9), sentence=st.just("no")),
)


@given(st.sampled_from(receiving.State), st.lists(messages, max_size=30))
@settings(max_examples=200, deadline=None)
def test_nothing_a_sender_says_crashes_a_receiver(state: receiving.State, said: list[Message]) -> None:
    machine = a_receiver(state)
    for message in said:
        for effect in machine.handle(Heard(message=message), NOW):
            if isinstance(effect, Keep):
                assert all(PAGED.blobs[blob] == data for blob, data in effect.blobs)
            assert not isinstance(effect, Ended) or effect.error is not None
        blobs, size = machine.credit
        assert blobs <= TRANSFER_WINDOW_CHUNKS
        assert size <= TRANSFER_WINDOW_BYTES


@given(st.sampled_from(sending.State), st.lists(messages, max_size=30))
@settings(max_examples=200, deadline=None)
def test_nothing_a_receiver_says_crashes_a_sender(state: sending.State, said: list[Message]) -> None:
    machine = a_sender(state)
    for message in said:
        for effect in machine.handle(Heard(message=message), NOW):
            assert not isinstance(effect, Send) or not isinstance(effect.message, Chunk)
            if isinstance(effect, Fetch):
                assert len(effect.blobs) <= TRANSFER_READ_CHUNKS


def ended_by(machine: Receiver, message: Message) -> str:
    effects = machine.handle(Heard(message=message), NOW)
    ended = effects[-1]
    assert isinstance(ended, Ended)
    assert ended.error is not None
    return ended.error.code


def test_what_is_wrong_with_a_chunk_is_named() -> None:
    asked, other = sorted(PAGED.pages)[:2]
    state = receiving.State.PAGES
    assert ended_by(a_receiver(state), Chunk(blob=asked, codec=Codec.PLAIN, body=b"wrong")) == "corrupt-chunk"
    assert ended_by(a_receiver(state), Chunk(blob=bytes(32), codec=Codec.PLAIN, body=b"x")) == "unsolicited-chunk"
    assert ended_by(a_receiver(state), Chunk(blob=asked, codec=Codec.PLAIN, body=bytes(40_000))) == "oversize-chunk"
    assert ended_by(a_receiver(state), Chunk(blob=asked, codec=Codec.ZSTD, body=b"no frame")) == "bad-compression"
    twice = a_receiver(state)
    assert twice.handle(Heard(message=PAGED.chunk(asked)), NOW)
    assert twice.handle(Heard(message=PAGED.chunk(other)), NOW) == ()
    assert ended_by(twice, PAGED.chunk(asked)) == "unsolicited-chunk"
    assert ended_by(a_receiver(receiving.State.ASKED), RootOf(root=FLAT.manifest.root)) == "wrong-manifest"
    blob = next(iter(SHORT.blobs))
    lied = pack(Root(size=9, paged=False, entries=(Entry(id=blob, size=9),)))
    machine = Receiver(root_id(lied), TICKET)
    for event in (receiving.Begin(), Heard(message=RootOf(root=lied)), Sorted(held=frozenset(), bodies={})):
        machine.handle(event, NOW)
    assert ended_by(machine, SHORT.chunk(blob)) == "wrong-size"
    assert ended_by(a_receiver(receiving.State.CHUNKS), Refusal(code="weird", sentence="")) == "weird"


def test_a_receiver_keeps_its_window_while_the_store_is_slow() -> None:
    machine = Receiver(FLAT.manifest.id, TICKET)
    machine.handle(receiving.Begin(), NOW)
    machine.handle(Heard(message=RootOf(root=FLAT.manifest.root)), NOW)
    wished: list[bytes] = []
    todo = list(machine.handle(Sorted(held=frozenset(), bodies={}), NOW))
    keeps = 0
    while todo:
        effect = todo.pop(0)
        if isinstance(effect, Send) and isinstance(effect.message, Wish):
            wished += effect.message.blobs
            for blob in effect.message.blobs:
                todo += machine.handle(Heard(message=FLAT.chunk(blob)), NOW)
        keeps += isinstance(effect, Keep)
    assert keeps == 1
    assert len(wished) == TRANSFER_WINDOW_CHUNKS
    assert machine.next_deadline() is None  # the peer owes nothing: it is our store that is slow


def test_what_was_not_being_kept_cannot_have_been_kept() -> None:
    with pytest.raises(InvariantBroken):
        a_receiver(receiving.State.SORTING_CHUNKS, FLAT).handle(Kept(), NOW)


def test_silence_ends_a_transfer_at_either_end() -> None:
    for asking in (a_receiver(receiving.State.ASKED), a_receiver(receiving.State.CHUNKS, FLAT)):
        assert asking.next_deadline() == LATE
        assert asking.handle(Tick(), Instant(LATE - 1)) == ()
        assert isinstance(cast(Ended, asking.handle(Tick(), LATE)[0]).error, Stalled)
    for listening in (a_sender(sending.State.LISTENING), a_sender(sending.State.SERVING)):
        assert listening.next_deadline() == LATE
        assert listening.handle(Tick(), Instant(LATE - 1)) == ()
        assert isinstance(cast(Ended, listening.handle(Tick(), LATE)[0]).error, Stalled)
    assert a_sender(sending.State.READING).next_deadline() is None


def test_a_sender_is_not_asked_for_more_than_a_window_or_for_foreign_blobs() -> None:
    machine = a_sender(sending.State.READING)
    full = Heard(message=Wish(blobs=(SOME,) * WISH_LIST_MAX))
    assert machine.handle(full, NOW) == ()
    assert isinstance(cast(Ended, machine.handle(full, NOW)[0]).error, Overrun)
    foreign = a_sender(sending.State.READING)
    assert isinstance(cast(Ended, foreign.handle(Read(chunks=()), NOW)[0]).error, Overrun)


def test_a_sender_does_not_serve_for_ever() -> None:
    machine = a_sender(sending.State.SERVING)
    wish = Heard(message=Wish(blobs=(SOME,) * TRANSFER_READ_CHUNKS))
    for count in range(2 * MANIFEST_MAX_CHUNKS // TRANSFER_READ_CHUNKS):
        effects = machine.handle(wish, NOW)
        if isinstance(effects[0], Ended):
            assert isinstance(effects[0].error, Overrun)
            assert count * TRANSFER_READ_CHUNKS >= MANIFEST_MAX_CHUNKS
            return
        machine.handle(Read(chunks=(PAGED.chunk(SOME),)), NOW)
    raise AssertionError("it never ended")


def test_our_own_fault_is_not_told_in_detail() -> None:
    refused, ended = a_sender(sending.State.READING).handle(Denied(error=BROKEN), NOW)
    assert refused == Send(message=Refusal(code="failed", sentence="the sender cannot go on"))
    assert ended == Ended(error=BROKEN)


def test_a_stream_that_dies_while_we_verify_does_not_matter() -> None:
    machine = a_receiver(receiving.State.VERIFYING)
    assert machine.handle(GONE, NOW) == ()
    assert machine.handle(Verified(content=PAGED.content), NOW) == (Ended(error=None, content=PAGED.content),)
    failed = a_receiver(receiving.State.VERIFYING)
    wrong = Corrupt("not-canonical", "not the one manifest")
    assert failed.handle(LocalFailure(error=wrong), NOW) == (Ended(error=wrong),)


def test_refusals_have_names() -> None:
    assert isinstance(refusal("not-granted", ""), NotGranted)
    assert refusal("something new", "because").sentence == "because"
