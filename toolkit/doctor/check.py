"""What a check is: a measurement that every rank makes alone or together, and a judgement of all of them by rank 0."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from toolkit.config import Batch, Run
from toolkit.doctor.board import Board

Verdict = Literal["good", "warn", "bad"]
Facts = dict[int, Any]
"""By rank: what its measurement returned, as JSON gives it back."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    where: str
    found: str
    wanted: str = ""
    verdict: Verdict = "good"
    todo: str = ""
    """What to do about it; empty where all is well."""
    check: str = ""
    """Name of the check, filled in by the one who runs it."""


@dataclass
class Context:
    """What a check may look at."""

    run: Run
    batch: Batch
    rank: int
    device: torch.device
    hosts: dict[int, str]
    """By rank, of all that came."""
    board: Board
    nonce: str
    """The same on all ranks, of no other doctor."""
    deep: bool = False
    limit: float | None = None
    """Seconds for each check, instead of its own."""
    kept: dict[str, Any] = field(default_factory=dict)
    """What one check leaves to a later one on this rank."""

    @property
    def world(self) -> int:
        """Ranks of this launch, those that did not come too."""
        return self.batch.world_size

    def neighbours(self) -> list[int]:
        """Ranks of this rank's host, itself among them."""
        return [rank for rank, host in sorted(self.hosts.items()) if host == self.hosts[self.rank]]

    def is_first_here(self) -> bool:
        """Is it the one that looks at what a whole host shares."""
        return self.neighbours()[0] == self.rank

    def where(self, ranks: Collection[int]) -> str:
        """`rank 3 (node2)`, `ranks 0, 1 (node1)`, `all 16 ranks`."""
        chosen = sorted(ranks)
        if len(chosen) == self.world > 1:
            return f"all {self.world} ranks"
        hosts = list(dict.fromkeys(self.hosts.get(rank, "host unknown") for rank in chosen))
        shown = ", ".join(map(str, chosen[:6])) + (f" and {len(chosen) - 6} more" if len(chosen) > 6 else "")
        named = ", ".join(hosts[:3]) + (f" and {len(hosts) - 3} more" if len(hosts) > 3 else "")
        return f"rank{'s' * (len(chosen) > 1)} {shown} ({named})"


@dataclass(frozen=True)
class Check:
    """One of the doctor's questions."""

    name: str
    about: str
    """A few words, for `--list` and the line that is printed while it runs."""
    measure: Callable[[Context], Any]
    """On every rank; returns what JSON can hold. What it raises becomes a bad row."""
    judge: Callable[[Facts, Context], list[Row]]
    """On rank 0, of the ranks whose measurement ended well."""
    seconds: float = 60.0
    """After which a rank's measurement is given up."""
    together: bool = False
    """Do ranks wait for each other in it; it is left out where one of them is missing or could not do what it needs."""
    needs: tuple[str, ...] = ()
    """Checks that must have ended well on a rank before this one."""
    before: Callable[[Context], None] | None = None
    """On rank 0, before the others begin."""
    better: Callable[[Any, Any], Any] | None = None
    """Of two measurements of a rank the one that counts: where not all is good, all ranks measure again."""


def gibibytes(size: int) -> str:
    """`1.5 GiB`, or MiB where that is little."""
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"
