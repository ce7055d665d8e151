"""Work itself: warm subprocesses under limits, and the two workers that are built in, ``rays`` and ``echo``."""
