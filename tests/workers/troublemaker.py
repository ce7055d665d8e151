"""A worker that does what the work says, most of it forbidden. Started by path: python -I troublemaker.py"""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time

from peer.workers.serving import FAULT, main
from wire.errors import Refused


def facts() -> bytes:
    """What this process was given, measured from the inside."""
    limits = {
        name: resource.getrlimit(getattr(resource, name))
        for name in ("RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_FSIZE", "RLIMIT_NOFILE")
    }
    return json.dumps(
        {
            "environment": sorted(os.environ),
            "folder": sorted(os.listdir(".")),  # noqa: PTH208
            "descriptors": sorted(int(one) for one in os.listdir("/proc/self/fd")),  # noqa: PTH208
            "session": os.getsid(0) == os.getpid() == os.getpgid(0),
            "limits": limits,
            "cpu_s": resource.getrlimit(resource.RLIMIT_CPU)[0],
            "nice": os.nice(0),
            "isolated": sys.flags.isolated,
        }
    ).encode()


def say(raw: bytes) -> None:
    """Write past the frames, on whatever descriptor the answers go to."""
    for descriptor in range(3, 8):
        with contextlib.suppress(OSError):
            os.write(descriptor, raw)
            return


def compute(work: bytes) -> bytes:
    verb, _, rest = work.partition(b" ")
    match verb.decode():
        case "facts":
            return facts()
        case "pid":
            return str(os.getpid()).encode()
        case "sleep":
            time.sleep(3600)
        case "allocate":
            return bytes(len(bytearray(int(rest))))
        case "burst":
            hoard = []
            try:
                while True:
                    hoard.append(bytearray(1 << 20))
            except MemoryError:
                hoard.clear()
                print("MemoryError", file=sys.stderr, flush=True)
                os._exit(1)
        case "signal":
            os.kill(os.getpid(), int(rest))
            signal.pause()
        case "exit":
            print("last words", file=sys.stderr, flush=True)
            os._exit(int(rest))
        case "refuse":
            raise Refused("too-dull", "this work is beneath me")
        case "stumble":
            raise KeyError(rest)
        case "result":
            return bytes(int(rest))
        case "raw":
            say(rest)
            time.sleep(3600)
        case "extra":
            say((5).to_bytes(4, "big") + b"\x00good" + b"for nobody")
            time.sleep(3600)
        case "close":
            for descriptor in range(3, 8):
                try:
                    os.close(descriptor)
                except OSError:
                    continue
            time.sleep(3600)
        case "write":
            try:
                with open("/tmp/bitwrk-troublemaker", "wb", buffering=0) as file:  # noqa: PTH123
                    os.unlink("/tmp/bitwrk-troublemaker")  # noqa: PTH108
                    return str(sum(file.write(bytes(1 << 16)) for _ in range(4))).encode()
            except OSError as error:
                return error.__class__.__name__.encode() + b" " + str(error.errno).encode()
        case "spawn":
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
            return str(child.pid).encode()
        case _:
            return work
    return FAULT.encode()


if __name__ == "__main__":
    main(compute)
