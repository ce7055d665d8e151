"""The add-on and the worker: without Blender here, with two of them in ``test_real``."""
