# SPDX-License-Identifier: GPL-3.0-or-later
"""Run inside Blender: switch more passes on. Arguments: from, to."""

import os
import sys

import bpy

source, target = sys.argv[sys.argv.index("--") + 1 :]
bpy.ops.wm.open_mainfile(filepath=source, load_ui=False)
for layer in bpy.context.scene.view_layers:
    layer.use_pass_z = True
    layer.cycles.denoising_store_passes = True
bpy.ops.wm.save_as_mainfile(filepath=target, compress=False)
sys.stdout.flush()
os._exit(0)
