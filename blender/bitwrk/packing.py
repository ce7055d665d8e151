# SPDX-License-Identifier: GPL-3.0-or-later
"""From the open scene to one file that has everything in it, without changing the session.

A copy is saved in a temporary folder, then a second Blender in the background opens the copy, takes in linked and external
data, and saves it again, uncompressed: that way most of the file stays the same, byte for byte, from one rendering to the
next, and need not be sent again.
"""

import os
import subprocess
import sys

import bpy

from .core.assets import Asset

PACKING_S = 600
_SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "packer.py")


class PackingFailed(Exception):
    """There is no file to send; the text says why."""


def _exists(path: str, library) -> tuple:
    full = bpy.path.abspath(path, library=library) if path else ""
    return full, bool(full) and os.path.isfile(full)


def assets() -> list:
    """Every file that the session's data refers to."""
    found = []

    def add(kind, item, path, packed):
        full, exists = _exists(path, item.library)
        found.append(Asset(kind, item.name, full, packed, exists))

    for image in bpy.data.images:
        if image.users and image.source in {"FILE", "TILED", "SEQUENCE", "MOVIE"}:
            kind = {"SEQUENCE": "sequence", "MOVIE": "movie"}.get(image.source, "image")
            path = image.filepath.replace("<UDIM>", "1001") if image.source == "TILED" else image.filepath
            add(kind, image, path, bool(image.packed_file) or bool(len(image.packed_files)))
    for font in bpy.data.fonts:
        if font.users and font.filepath != "<builtin>":
            add("font", font, font.filepath, bool(font.packed_file))
    for library in bpy.data.libraries:
        full, exists = _exists(library.filepath, library.library)
        found.append(Asset("library", library.name, full, bool(library.packed_file), exists))
    for cache in bpy.data.cache_files:
        if cache.users:
            add("cache", cache, cache.filepath, False)
    for volume in getattr(bpy.data, "volumes", ()):
        if volume.users:
            add("volume", volume, volume.filepath, bool(volume.packed_file))
    return found


def blender_command(script: str, *arguments: str) -> list:
    """How to run a script in another Blender like this one; this one may be the program or a Python module."""
    if bpy.app.binary_path:
        quiet = ["--background", "--factory-startup", "--disable-autoexec", "-noaudio"]
        return [bpy.app.binary_path, *quiet, "--python-exit-code", "1", "--python", script, "--", *arguments]
    return [sys.executable, script, "--", *arguments]


def pack(folder: str) -> str:
    """The path of a file in ``folder`` that holds the whole scene. Raises ``PackingFailed``."""
    copy, packed = os.path.join(folder, "copy.blend"), os.path.join(folder, "scene.blend")
    try:
        bpy.ops.wm.save_as_mainfile(filepath=copy, copy=True, compress=False, relative_remap=True, check_existing=False)
    except RuntimeError as error:
        raise PackingFailed(f"the scene cannot be saved: {str(error).strip()}") from None
    try:
        done = subprocess.run(
            blender_command(_SCRIPT, copy, packed), stdin=subprocess.DEVNULL, capture_output=True, timeout=PACKING_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PackingFailed(f"the second Blender that packs the scene failed: {error}") from None
    finally:
        if os.path.exists(copy):
            os.unlink(copy)
    if done.returncode != 0 or not os.path.isfile(packed):
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise PackingFailed(f"the scene cannot be packed: {' '.join(last) or 'no reason was given'}")
    return packed
