"""What others published on the sets of a page, with its sources numbered as footnotes."""

from dataclasses import dataclass, field

TASKS = ("zero_shot", "linear_probe")
"""Of these the toolkit ships numbers; the clean protocols are others and are set beside nothing."""


@dataclass
class Sources:
    """Numbers them in the order in which a table meets them."""

    known: list[str] = field(default_factory=list)

    def number(self, source: str) -> int:
        """From 1."""
        if source not in self.known:
            self.known.append(source)
        return self.known.index(source) + 1


def published_for(task: str, columns: list[str]) -> dict[str, dict[str, tuple[float, str]]]:
    """Percent and source by model and set (or `elevater`, `robustness` for a mean)."""
    if task not in TASKS:
        return {}
    from toolkit.evaluate.published import rows_for  # its package loads torch: only where there is something to show

    rows = rows_for(task, columns)
    return {model: {of: (one.percent, one.source) for of, one in scores.items()} for model, scores in rows.items()}
