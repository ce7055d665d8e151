# SPDX-License-Identifier: GPL-3.0-or-later
"""Run by a second Blender: open a file, take everything it needs into it, save it uncompressed under another name.

blender --background --factory-startup --disable-autoexec --python packer.py -- FROM TO
"""

import os
import sys

import bpy

ROUNDS_MAX = 16


def collections():
    """All kinds of data in the file."""
    for prop in bpy.data.bl_rna.properties:
        if prop.type == "COLLECTION" and prop.identifier not in {"libraries", "window_managers", "screens", "workspaces"}:
            yield getattr(bpy.data, prop.identifier)


def make_local():
    """Turn what is linked from other files into data of this one. Making one thing local can bring others to light."""
    for _ in range(ROUNDS_MAX):
        linked = [item for kind in collections() for item in kind if item.library is not None]
        if not linked:
            break
        for item in linked:
            item.make_local()
    for kind in collections():
        for item in kind:
            if getattr(item, "override_library", None) is not None and hasattr(item.override_library, "destroy"):
                try:
                    item.override_library.destroy()
                except (RuntimeError, ReferenceError):
                    continue


def still_scripts():
    """Remove drivers that would need Python; what they computed last stays as the value."""
    for kind in collections():
        for item in kind:
            data = getattr(item, "animation_data", None)
            for curve in list(data.drivers) if data else ():
                if curve.driver.type == "SCRIPTED" and not curve.driver.is_simple_expression:
                    data.drivers.remove(curve)


def pack_files():
    """Take in every external file that is there. What is missing was reported before, and the artist decided."""
    for kind in (bpy.data.images, bpy.data.fonts, bpy.data.sounds):
        for item in kind:
            if getattr(item, "packed_file", None) or (kind is bpy.data.images and item.source not in {"FILE", "TILED"}):
                continue
            try:
                item.pack()
            except (RuntimeError, AttributeError):
                continue


def main():
    """Do it and end at once; Blender's own clean-up is not needed."""
    source, target = sys.argv[sys.argv.index("--") + 1 :]
    bpy.ops.wm.open_mainfile(filepath=source, load_ui=False, use_scripts=False)
    make_local()
    still_scripts()
    pack_files()
    bpy.ops.wm.save_as_mainfile(filepath=target, copy=True, compress=False, check_existing=False)
    sys.stdout.flush()
    os._exit(0)


main()
