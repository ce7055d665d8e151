"""From the path of a Blender to the worker that sells its tiles."""

import os
import shutil
import sys
from pathlib import Path
from typing import Final

from peer.workers.blender.keeper import Facts, Setup, start
from peer.workers.blender.work import ARTICLE_ROOT, CLASSES, article_of
from peer.workers.sandbox import check_sandbox
from peer.workers.spec import WorkerSpec
from wire.canon import pack
from wire.errors import LocalFault, Refused
from wire.limits import BLENDER_MEMORY_DEFAULT_BYTES, WORK_TIME_MAX_S

DEFAULT_CLASS: Final = "2G"
SCRIPT: Final = Path(__file__).resolve().parents[3] / "blender" / "worker" / "render_worker.py"
"""Where the script that runs inside Blender is in a source tree; it is licensed like Blender and not part of this package."""

_QUIET: Final = ("--background", "--factory-startup", "--disable-autoexec", "-noaudio")


def _homes(program: Path) -> tuple[Path, ...]:
    """What must be visible for a program outside the system's folders to run: itself, its folder, its environment's."""
    real = program.resolve()
    found = [real.parent if real.parent.name != "bin" else real.parent.parent]
    settings = program.parent.parent / "pyvenv.cfg"
    if settings.is_file():
        found.append(program.parent.parent)
        for line in settings.read_text().splitlines():
            name, _, value = line.partition("=")
            if name.strip() == "home" and value.strip():
                found.append(Path(value.strip()).resolve().parent)
    return tuple(sorted({one for one in found if not one.is_relative_to("/usr")}))


def blender_setup(
    blender: Path | str,
    *,
    script: Path = SCRIPT,
    cost_class: str = DEFAULT_CLASS,
    memory_bytes: int,
    threads: int,
    time_max_s: int,
) -> Setup:
    """How to start ``blender``: the program, or a Python that has the module bpy. Raises ``LocalFault``."""
    found = shutil.which(str(blender))
    if found is None:
        raise LocalFault("no-blender", f"there is no program {str(blender)!r}; give the path of Blender, or of a Python with bpy")
    if not script.is_file():
        raise LocalFault("no-script", f"the script that renders inside Blender is not at {script}; it comes with the source")
    program = Path(os.path.abspath(found))  # noqa: PTH100 - a link must not be followed: environments are found beside it
    script = script.resolve()
    if program.name.startswith("python"):
        words: tuple[str, ...] = (str(program), "-I", str(script))
    else:
        words = (str(program), *_QUIET, "--threads", str(threads), "--python-exit-code", "1", "--python", str(script))
    visible = [str(one) for one in _homes(program)]
    return Setup(
        words=words,
        visible=(*visible, str(script)),
        cost_class=cost_class,
        memory_bytes=memory_bytes,
        threads=threads,
        time_max_s=time_max_s,
    )


def probe(setup: Setup) -> Facts:
    """Start Blender once, in its sandbox, to learn what it is. Raises ``LocalFault``."""
    inside, facts = start(setup)
    inside.close()
    return facts


def blender_worker(
    blender: Path | str,
    *,
    article: str | None = None,
    script: Path | None = None,
    cost_class: str = DEFAULT_CLASS,
    memory_bytes: int = BLENDER_MEMORY_DEFAULT_BYTES,
    threads: int | None = None,
    time_max_s: int = WORK_TIME_MAX_S,
) -> WorkerSpec:
    """The worker that renders with ``blender``. Starts it once to see that it runs and which version it is.

    An ``article`` of ours says the cost class with its last word, and has to be of this version.

    Raises ``LocalFault`` when there is no sandbox or Blender does not start, ``Refused`` for an unknown cost class.
    """
    ours = article is not None and article.startswith(f"{ARTICLE_ROOT}/")
    if ours and article is not None:
        cost_class = article.rpartition("/")[2]
    if cost_class not in CLASSES:
        raise Refused("unknown-class", f"there is no cost class {cost_class!r}; choose one of {', '.join(CLASSES)}")
    check_sandbox()
    setup = blender_setup(
        blender,
        script=script or SCRIPT,
        cost_class=cost_class,
        memory_bytes=memory_bytes,
        threads=threads or os.cpu_count() or 1,
        time_max_s=time_max_s,
    )
    facts = probe(setup)
    own = article_of(facts.version, cost_class)
    if ours and article != own:
        raise Refused("wrong-version", f"{blender} is Blender {facts.version}, which sells {own} and not {article}")
    return WorkerSpec(
        name="blender",
        article=article or own,
        command=(sys.executable, "-I", "-B", "-m", "peer.workers.blender", pack(setup).hex()),
        time_max_s=time_max_s,
        # The keeper itself holds a work, its scene and a result at the same time.
        memory_max_bytes=max(memory_bytes, BLENDER_MEMORY_DEFAULT_BYTES),
        sandboxed=True,
    )
