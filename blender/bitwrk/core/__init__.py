# SPDX-License-Identifier: GPL-3.0-or-later
"""What the add-on knows without Blender: tiles, money, the node, the course of a frame. Standard library only."""
