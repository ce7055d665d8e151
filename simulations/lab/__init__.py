"""The laboratory: scenario files, runs with a manifest, tables and figures, sweeps on all cores, comparison with published
values.
"""
