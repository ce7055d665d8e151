"""A stand-in for Blender with the worker's script in it: writes real OpenEXR files, and misbehaves when the scene says so.

The first word of the scene, after Blender's own magic, is what it does.
"""

import json
import os
import sys

from peer.workers.blender.openexr import Window
from peer.workers.blender.pixels import write
from tests.blender.picture import picture


def main() -> None:
    works, answers = sys.stdin.buffer, sys.stdout.buffer

    def say(told: object, data: bytes = b"", head: bytes = b"") -> None:
        answers.write(head + json.dumps(told).encode() + b"\n" + data)
        answers.flush()

    answers.write(b"Blender 9.9.9 says all sorts of things first\n")
    say({"version": "9.9.1", "build": "fake", "kernel": "none"}, head=b"BITWRK/1 ")
    mood = ""
    while line := works.readline():
        asked = json.loads(line)
        if asked["do"] == "scene":
            mood = works.read(asked["bytes"])[12:].split(b" ")[0].decode()
            if mood == "refuse-scene":
                say({"ok": False, "code": "bad-scene", "sentence": "not a scene"})
            else:
                say({"ok": True})
            continue
        if mood == "crash":
            os.kill(os.getpid(), 11)
        if mood == "sleep":
            import time

            time.sleep(600)
        if mood == "costly":
            say({"ok": False, "code": "too-costly", "sentence": "too many rays"})
            continue
        width, height = asked["image_width"], asked["image_height"]
        values, channels = picture(asked["layer"], width, height, asked["frame"])
        margin = 3
        left, top = max(0, asked["left"] - margin), max(0, asked["top"] - margin)
        right = min(width, asked["left"] + asked["width"] + margin)
        bottom = min(height, asked["top"] + asked["height"] + margin)
        part = values[:, top:bottom, left:right]
        shown = {"left": left, "top": top, "width": right - left, "height": bottom - top}
        if mood == "other-layer":
            channels = tuple(name.replace(asked["layer"], "Other") for name in channels)
        data = write(part, channels, Window(0, 0, right - left, bottom - top), Window(0, 0, width, height), {"Date": "today"})
        if mood == "garbage":
            data = b"garbage" * 100
        if mood == "small":
            shown["width"] -= 1
        if mood == "number":
            say({"ok": True, "bytes": -1})
            continue
        if mood == "number-text":
            say({"ok": True, "bytes": "many"})
            continue
        if mood == "no-json":
            answers.write(b"hello\n")
            answers.flush()
            continue
        if mood == "list":
            say([1, 2])
            continue
        if mood == "long-line":
            answers.write(b"x" * 100_000)
            answers.flush()
            continue
        if mood == "pid":
            shown["pid"] = os.getpid()
        say({"ok": True, "bytes": len(data), **shown}, data)


main()
