# SPDX-License-Identifier: GPL-3.0-or-later
"""Run inside Blender: open a scene as somebody careless would, scripts and all, and render it."""

import os
import sys

import bpy

bpy.ops.wm.open_mainfile(filepath=sys.argv[sys.argv.index("--") + 1], use_scripts=True)
bpy.ops.render.render(write_still=False)
sys.stdout.flush()
os._exit(0)
