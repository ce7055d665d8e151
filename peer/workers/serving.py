"""The worker's side of the pipe: one work in, one answer out, until the pipe ends.

Both ways a frame is 4 bytes of big-endian length and that many bytes. A work is a bare frame. An answer's first byte says
what it is: ``RESULT`` and the result, or ``REFUSAL`` and a packed ``Refusal``. A worker that refuses stays; one that ran out of
memory says so and leaves, because nobody knows what the failed allocation left behind.
"""

import os
import sys
from collections.abc import Callable
from typing import Annotated, BinaryIO, Final

from wire.canon import Size, pack, record
from wire.errors import BitwrkError
from wire.limits import CONTENT_MAX_BYTES, REASON_MAX_CHARS

LENGTH_BYTES: Final = 4
RESULT: Final = 0
REFUSAL: Final = 1
MEMORY: Final = "memory-limit"
FAULT: Final = "worker-fault"

Compute = Callable[[bytes], bytes]
"""What a worker is: work bytes to result bytes; a ``BitwrkError`` is its refusal."""


@record
class Refusal:
    """Why there is no result: a short stable word and a sentence."""

    code: Annotated[str, Size(1, 64)]
    sentence: Annotated[str, Size(0, 4 * REASON_MAX_CHARS)]


def frame(*parts: bytes) -> bytes:
    """The parts as one frame."""
    return sum(map(len, parts)).to_bytes(LENGTH_BYTES, "big") + b"".join(parts)


def answer(compute: Compute, work: bytes) -> tuple[bytes, bool]:
    """The framed answer of ``compute`` to ``work``, whatever it raises; and whether the worker is fit for another."""
    try:
        return frame(bytes([RESULT]), compute(work)), True
    except BitwrkError as refused:
        return _refusal(refused.code, refused.sentence), True
    except MemoryError:
        return _refusal(MEMORY, "the work needs more memory than this worker may use"), False
    except Exception as fault:  # the defect is ours, and the next work deserves an answer too
        return _refusal(FAULT, f"the worker stumbled over its own {type(fault).__name__}"), True


def _refusal(code: str, sentence: str) -> bytes:
    return frame(bytes([REFUSAL]), pack(Refusal(code=code[:64], sentence=sentence[:REASON_MAX_CHARS])))


def serve(compute: Compute, works: BinaryIO, answers: BinaryIO) -> None:
    """Answer every work from ``works`` on ``answers`` until the first ends. A broken frame ends it too."""
    fit = True
    while fit and len(head := works.read(LENGTH_BYTES)) == LENGTH_BYTES:
        length = int.from_bytes(head, "big")
        if length > CONTENT_MAX_BYTES:
            return
        try:
            work = works.read(length)
        except MemoryError:
            answers.write(_refusal(MEMORY, "the work alone is larger than this worker's memory"))
            answers.flush()
            return
        if len(work) < length:
            return
        said, fit = answer(compute, work)
        answers.write(said)
        answers.flush()


def main(compute: Compute) -> None:
    """Serve on standard input and output. Whatever else prints goes to standard error, so it cannot spoil a frame."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(compute, sys.stdin.buffer, answers)
