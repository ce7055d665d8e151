# SPDX-License-Identifier: GPL-3.0-or-later
"""Run inside Blender: install the add-on if asked, open a scene, render it with an engine, save it as an image.

Arguments: a JSON object with scene, out, engine, and for our engine zip, legacy, home, settings.
"""

import json
import os
import sys
import traceback

import bpy

told = json.loads(sys.argv[sys.argv.index("--") + 1])


def switch_on():
    """Install the add-on as a user would; returns the name of its module."""
    if told["legacy"]:
        bpy.ops.preferences.addon_install(filepath=told["zip"], overwrite=True)
        bpy.ops.preferences.addon_enable(module="bitwrk")
        return "bitwrk"
    bpy.ops.extensions.package_install_files(filepath=told["zip"], repo="user_default", enable_on_install=True)
    return "bl_ext.user_default.bitwrk"


def main():
    import addon_utils

    addon_utils.enable("cycles")
    bpy.ops.wm.open_mainfile(filepath=told["scene"], load_ui=False)
    scene = bpy.context.scene
    if told["engine"] != "CYCLES":
        module = switch_on()
        bpy.context.preferences.addons[module].preferences.home = told["home"]
        for name, value in told["settings"].items():
            setattr(scene.bitwrk, name, value)
    scene.render.engine = told["engine"]
    settings = scene.render.image_settings
    if hasattr(settings, "media_type"):
        settings.media_type = "MULTI_LAYER_IMAGE"
    settings.file_format = "OPEN_EXR_MULTILAYER"
    settings.color_depth = "32"
    settings.exr_codec = "ZIP"
    if hasattr(settings, "use_exr_interleave"):
        settings.use_exr_interleave = True
    scene.render.use_file_extension = False
    scene.render.filepath = told["out"]
    for layer in scene.view_layers:
        layer.use_pass_z = True
    bpy.ops.render.render(write_still=True)


status = 0
try:
    main()
except Exception:
    traceback.print_exc()
    status = 1
sys.stdout.flush()
sys.stderr.flush()
os._exit(status)
