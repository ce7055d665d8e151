"""The tables of the two machines as text, for the specification; what is printed there is what runs."""

from escrow.core.channel import Table


def draw(table: Table) -> str:
    """A Markdown table: phase, event, and where it may lead besides staying."""
    lines = ["| in phase | takes | and may go to |", "|---|---|---|"]
    for phase, row in table.items():
        by_target: dict[str, list[str]] = {}
        for kind, step in row.items():
            target = ", ".join(one.value for one in step.to) or "(stays)"
            by_target.setdefault(target, []).append(kind.__name__)
        for target, kinds in by_target.items():
            lines.append(f"| {phase.value} | {', '.join(kinds)} | {target} |")
        if not row:
            lines.append(f"| {phase.value} | nothing | (the end) |")
    return "\n".join(lines)
