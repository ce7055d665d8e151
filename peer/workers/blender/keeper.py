"""The keeper of one Blender: takes works, keeps the scene of the last one loaded in a sandbox, hands out checked tiles.

Runs as a program of its own under ``peer.workers.pool``. Blender gets one process per scene; another scene ends it, and so do
a crash, a limit, or two minutes without work. What comes out of it is decoded, checked, cropped and written anew.
"""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Final

from peer.workers.blender.openexr import Window
from peer.workers.blender.pixels import crop, pixels, seal
from peer.workers.blender.work import CLASSES, BadTile, Work, check_channels, read_result, read_work
from peer.workers.guarded import Ended, Guarded
from peer.workers.sandbox import Limits, sandboxed
from peer.workers.serving import FAULT, MEMORY, main
from wire.canon import Range, Size, record, unpack
from wire.errors import BitwrkError, LocalFault, Refused
from wire.limits import (
    BLENDER_LINE_MAX_BYTES,
    BLENDER_PROCESSES_MAX,
    RESULT_MAX_BYTES,
    SANDBOX_IDLE_S,
    SANDBOX_MEMORY_MAX_BYTES,
    SANDBOX_START_S,
    SANDBOX_TEMP_MAX_BYTES,
    WORK_TIME_MAX_S,
)

PROTOCOL: Final = b"BITWRK/1 "
_CPU_MAX_S: Final = 1_000_000  # the clock per work and the idle limit are what ends a process
_Word = Annotated[str, Size(1, 4_096)]


@record
class Setup:
    """How to start Blender, and what it may cost. ``words`` is the whole command inside the sandbox."""

    words: Annotated[tuple[_Word, ...], Size(1, 32)]
    visible: Annotated[tuple[_Word, ...], Size(0, 32)]
    cost_class: Annotated[str, Size(1, 16)]
    memory_bytes: Annotated[int, Range(1, SANDBOX_MEMORY_MAX_BYTES)]
    threads: Annotated[int, Range(1, 1_024)]
    time_max_s: Annotated[int, Range(1, WORK_TIME_MAX_S)]


@record
class Facts:
    """What a Blender says it is. Two of the same facts give the same pixels."""

    version: Annotated[str, Size(3, 32)]
    build: Annotated[str, Size(1, 64)]
    kernel: Annotated[str, Size(1, 32)]


def _line(inside: Guarded, start: bytes) -> Any:
    """The next line of JSON that begins with ``start``; Blender's own chatter before the first one is passed over."""
    line = inside.read_line(BLENDER_LINE_MAX_BYTES, lambda one: one.startswith(start))
    try:
        told = json.loads(line[len(start) :])
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise Ended("crashed", "Blender said something else than an answer")
    return told


def _count(told: dict[str, Any], name: str, most: int) -> int:
    value = told.get(name)
    if type(value) is not int or not 0 <= value <= most:
        raise Ended("crashed", f"Blender's answer has no sensible {name!r}")
    return value


def start(setup: Setup) -> tuple[Guarded, Facts]:
    """A Blender in a sandbox, ready for a scene. Raises ``LocalFault`` with what it said when it does not start."""
    limits = Limits(
        memory_bytes=setup.memory_bytes,
        processes=BLENDER_PROCESSES_MAX,
        cpu_s=_CPU_MAX_S,
        temp_bytes=min(SANDBOX_TEMP_MAX_BYTES, setup.memory_bytes),
    )
    line = sandboxed(setup.words, limits, visible=[Path(one) for one in setup.visible])
    inside = Guarded(line, memory_bytes=setup.memory_bytes)
    inside.allow(SANDBOX_START_S, sentence=f"Blender was not ready within {SANDBOX_START_S} s")
    try:
        told = _line(inside, PROTOCOL)
        facts = Facts(**{name: str(told.get(name, "")) for name in ("version", "build", "kernel")})
    except BitwrkError as error:
        words = inside.last_words().splitlines()[-1:]
        inside.close()
        raise LocalFault("blender-start", f"{setup.words[0]} did not start: {error.sentence}; {' '.join(words)[:200]}") from None
    return inside, facts


class Keeper:
    """Holds at most one Blender."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._inside: Guarded | None = None
        self._facts: Facts | None = None
        self._scene = b""

    def close(self) -> None:
        """End Blender."""
        if self._inside is not None:
            self._inside.close()
            self._inside = None

    def compute(self, data: bytes) -> bytes:
        """The tile that ``data`` asks for. Raises ``Refused``."""
        work = read_work(data)
        try:
            inside, facts = self._with_scene(work.scene)
            inside.allow(self._setup.time_max_s)
            file, shown = self._ask(inside, work)
            result = self._finish(work, file, shown, facts)
            inside.allow(SANDBOX_IDLE_S, "idle", "nobody asked for this scene any more")
        except Ended as ended:
            if self._inside is not None:
                sys.stderr.write(self._inside.last_words()[-400:] + "\n")
            self.close()
            raise Refused(MEMORY if ended.code == "memory-limit" else FAULT, ended.sentence) from None
        except LocalFault as fault:
            sys.stderr.write(fault.sentence + "\n")
            raise Refused(FAULT, "the seller's Blender does not start") from None
        return result

    def _with_scene(self, scene: bytes) -> tuple[Guarded, Facts]:
        """A Blender that has this scene, and only ever had this scene."""
        name = hashlib.blake2b(scene).digest()
        if self._inside is not None and self._facts is not None and self._scene == name and self._inside.alive():
            return self._inside, self._facts
        self.close()
        self._inside, self._facts = start(self._setup)
        self._inside.allow(self._setup.time_max_s)
        self._inside.write(json.dumps({"do": "scene", "bytes": len(scene)}).encode() + b"\n", scene)
        self._answer(self._inside)
        self._scene = name
        return self._inside, self._facts

    def _answer(self, inside: Guarded) -> dict[str, Any]:
        """Blender's answer. Raises ``BadTile`` when it refuses; the scene is then forgotten with its process."""
        told: dict[str, Any] = _line(inside, b"")
        if told.get("ok") is True:
            return told
        inside.allow(SANDBOX_IDLE_S, "idle", "nobody asked for this scene any more")
        if told.get("code") == "bad-scene":
            self.close()
        raise BadTile(str(told.get("code", "render-failed")), str(told.get("sentence", "Blender gave no reason")))

    def _ask(self, inside: Guarded, work: Work) -> tuple[bytes, Window]:
        """The file of the tile as Blender wrote it, and the rectangle that it says it shows."""
        asked = {
            "do": "tile",
            "scene_name": work.scene_name,
            "layer": work.layer,
            "image_width": work.image_width,
            "image_height": work.image_height,
            "frame": work.frame,
            "left": work.left,
            "top": work.top,
            "width": work.width,
            "height": work.height,
            "rays_most": CLASSES[self._setup.cost_class],
            "threads": self._setup.threads,
        }
        inside.write(json.dumps(asked).encode() + b"\n")
        told = self._answer(inside)
        file = inside.read_exactly(_count(told, "bytes", RESULT_MAX_BYTES))
        shown = Window(
            _count(told, "left", work.left),
            _count(told, "top", work.top),
            _count(told, "width", work.image_width),
            _count(told, "height", work.image_height),
        )
        return file, shown

    @staticmethod
    def _finish(work: Work, file: bytes, shown: Window, facts: Facts) -> bytes:
        """The tile's own rectangle out of what Blender wrote, in a file that says nothing of this machine but its kind."""
        try:
            image = read_result(file)
            check_channels(image, work.layer)
            if (image.data.width, image.data.height) != (shown.width, shown.height):
                raise BadTile("other-rectangle", "the image is of another size than announced")
            values = crop(pixels(image), shown, work.tile)
        except (BadTile, ValueError) as bad:
            raise Ended("crashed", f"Blender's image is not as asked: {bad}") from None
        display = Window(0, 0, work.image_width, work.image_height)
        texts = {
            "bitwrkBlender": facts.version,
            "bitwrkBuild": facts.build,
            "bitwrkKernel": facts.kernel,
            "bitwrkFrame": str(work.frame),
        }
        return seal(values, image.channels, work.tile, display, texts)


def run(packed: str) -> None:
    """Serve on standard input and output; ``packed`` is the setup in hexadecimal digits."""
    os.chdir("/")
    main(Keeper(unpack(Setup, bytes.fromhex(packed))).compute)
