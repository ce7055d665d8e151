"""The driver of a node: composes rooms, feeds the brain, performs its effects. Dull on purpose."""
