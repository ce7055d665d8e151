"""Blender as a worker: tiles of scenes, rendered by Cycles in a sandbox. Nothing here imports Blender."""
