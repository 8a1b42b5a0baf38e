"""Check after check: rank 0 calls each, every rank measures, rank 0 judges and goes on without those that do not answer."""

import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from toolkit.doctor.check import Check, Context, Facts, Row
from toolkit.errors import ToolkitError

BEAT_SECONDS = 1.0
SILENCE_SECONDS = 30.0
"""Without a beat, after which a rank is given up."""
AGAIN = 2
"""Further measurements before a rank is blamed, of checks that may be disturbed."""
PATIENCE_SECONDS = 600.0
"""That a rank waits for rank 0 beyond the longest check."""
TOOLKIT = str(Path(__file__).parents[1])


def within(seconds: float, action: Callable[[], Any], alive: Callable[[], object] = lambda: None) -> dict[str, Any]:
    """`{"facts": ...}`, or `{"error": ..., "mistake": is it the user's}`; `alive` is called now and then meanwhile.

    The action runs in a thread of its own, which is left behind where it does not end.
    """
    box: dict[str, Any] = {}

    def work() -> None:
        try:
            box["facts"] = action()
        except BaseException as error:
            box.update({"error": reason(error), "mistake": isinstance(error, ToolkitError)})

    thread = threading.Thread(target=work, daemon=True)
    deadline = time.monotonic() + seconds
    thread.start()
    while thread.is_alive() and time.monotonic() < deadline:
        thread.join(min(BEAT_SECONDS, max(deadline - time.monotonic(), 0.0)))
        alive()
    if box:
        return dict(box)
    return {"error": f"did not end within {seconds:.0f} s{place_of(thread)}", "mistake": False}


def reason(error: BaseException) -> str:
    """A user's mistake in its own words; of anything else the type and the place too."""
    if isinstance(error, ToolkitError):
        return str(error)
    passed = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in passed if frame.filename.startswith(TOOLKIT) and frame.filename != __file__]
    at = f" (at {Path(frames[-1].filename).relative_to(Path(TOOLKIT).parent)}:{frames[-1].lineno})" if frames else ""
    first = (str(error).strip().splitlines() or [""])[0][:300]
    return f"{type(error).__name__}: {first}{at}"


def place_of(thread: threading.Thread) -> str:
    """Where a thread stands now."""
    frame = sys._current_frames().get(thread.ident or -1)
    if frame is None:
        return ""
    last = traceback.extract_stack(frame)[-1]
    return f"; it stands in {last.name} ({Path(last.filename).name}:{last.lineno})"


def answer(check: Check, context: Context) -> dict[str, Any]:
    """This rank's measurement."""

    def measured() -> Any:
        if context.device.type == "cuda":
            torch.cuda.set_device(context.device)  # each thread has its own current device
        return check.measure(context)

    return within(limit_of(check, context), measured, context.board.beat)


def limit_of(check: Check, context: Context) -> float:
    """Seconds for a check."""
    return context.limit if context.limit is not None else check.seconds


def follow(context: Context, checks: Mapping[str, Check]) -> int:
    """What every rank but 0 does; returns the exit code that rank 0 says."""
    longest = max([limit_of(check, context) for check in checks.values()], default=0.0) + PATIENCE_SECONDS
    turn = 0
    while True:
        note = context.board.read(f"turn/{turn}", longest)
        if "end" in note:
            return int(note["end"])
        if context.rank not in note["lost"]:
            context.board.post(f"answer/{turn}/{context.rank}", answer(checks[note["check"]], context))
        turn += 1


class Leader:
    """Rank 0: calls the checks, collects, judges."""

    def __init__(self, context: Context, say: Callable[[str], object]) -> None:
        """`say` prints progress."""
        self.context, self.say = context, say
        self.lost: set[int] = {rank for rank in range(context.world) if rank not in context.hosts}
        """Ranks that do not answer."""
        self.failed: dict[str, set[int]] = {}
        """By check, the ranks on which it did not end well; of checks that were not asked, all of them."""
        self.stuck = False
        """Has a rank failed in something that ranks do together: the process group cannot be used any more."""
        self.turn = 0

    def run(self, checks: Sequence[Check]) -> list[Row]:
        """The rows of all checks."""
        rows = []
        for number, check in enumerate(checks, 1):
            start = time.monotonic()
            self.say(f"[{number}/{len(checks)}] {check.name}: {check.about} ... ")
            found = [replace(row, check=check.name) for row in self.one(check)]
            bad = sum(row.verdict == "bad" for row in found)
            warned = sum(row.verdict == "warn" for row in found)
            verdict = f"{bad} BAD" if bad else f"{warned} to look at" if warned else "good"
            self.say(f"{verdict} ({time.monotonic() - start:.1f} s)\n")
            rows += found
        return rows

    def one(self, check: Check) -> list[Row]:
        """Rows of one check."""
        everyone = set(range(self.context.world))
        self.failed[check.name] = everyone
        if why := self.obstacle(check):
            return [Row("left out", self.context.where(everyone), why, verdict="warn", todo="mend that first")]
        if check.before is not None:
            first = check.before
            begun = within(limit_of(check, self.context), lambda: first(self.context))
            if "error" in begun:
                return [self.broken({0}, begun["error"], check.about if begun["mistake"] else "")]
        facts, rows = self.measured(check)
        judged = self.judged(check, facts)
        for _ in range(AGAIN if check.better is not None else 0):
            if rows or all(row.verdict == "good" for row in judged):
                break
            more, rows = self.measured(check)
            facts = {
                rank: check.better(facts[rank], one) for rank, one in more.items() if check.better and rank in facts
            }
            judged = self.judged(check, facts)
        self.failed[check.name] = everyone - set(facts)
        self.stuck = self.stuck or (check.together and bool(self.failed[check.name]))
        return rows + judged

    def measured(self, check: Check) -> tuple[Facts, list[Row]]:
        """Facts of the ranks that could measure, rows for the others."""
        answers, silent = self.ask(check)
        rows = [] if not silent else [self.broken(silent, f"no sign of life for {self.silence(check):.0f} s")]
        reasons: dict[str, set[int]] = {}
        for rank, found in answers.items():
            if "error" in found:
                reasons.setdefault(found["error"], set()).add(rank)
        for why, ranks in reasons.items():
            mistake = any(answers[rank].get("mistake") for rank in ranks)
            rows.append(self.broken(ranks, why, check.about if mistake else ""))
        return {rank: found["facts"] for rank, found in sorted(answers.items()) if "error" not in found}, rows

    def judged(self, check: Check, facts: Facts) -> list[Row]:
        """What the check makes of them."""
        try:
            return check.judge(facts, self.context) if facts else []
        except Exception as error:
            return [self.broken({0}, reason(error))]

    def obstacle(self, check: Check) -> str:
        """Why a check cannot be asked, or an empty string."""
        where = self.context.where
        for name in check.needs:
            failed = self.failed.get(name, set()) - (set() if check.together else self.lost)
            if failed:
                return f"it needs {name}, which did not end well on {where(failed)}"
        if not check.together:
            return ""
        if self.lost:
            return f"it needs all ranks, and {where(self.lost)} does not answer"
        return "the ranks cannot reach each other" if self.stuck else ""

    def ask(self, check: Check) -> tuple[dict[int, dict[str, Any]], set[int]]:
        """Answers by rank, and those that fell silent."""
        turn, self.turn = self.turn, self.turn + 1
        board = self.context.board
        board.post(f"turn/{turn}", {"check": check.name, "lost": sorted(self.lost)})
        answers = {0: answer(check, self.context)}
        waiting = set(range(1, self.context.world)) - self.lost
        heard = {rank: (board.beats(rank), time.monotonic()) for rank in waiting}
        silent: set[int] = set()
        pause = 0.01
        while waiting:
            for rank in sorted(waiting):
                name = f"answer/{turn}/{rank}"
                if board.has(name):
                    answers[rank] = board.read(name, BEAT_SECONDS)
                elif (count := board.beats(rank)) != heard[rank][0]:
                    heard[rank] = (count, time.monotonic())
                elif time.monotonic() - heard[rank][1] > self.silence(check):
                    silent.add(rank)
            waiting -= silent | set(answers)
            time.sleep(pause)
            pause = min(2 * pause, 0.5)
        self.lost |= silent
        return answers, silent

    def silence(self, check: Check) -> float:
        """How long a rank may be silent."""
        return max(2 * BEAT_SECONDS, min(SILENCE_SECONDS, limit_of(check, self.context)))

    def broken(self, ranks: set[int], why: str, about: str = "") -> Row:
        """A check that failed itself; with `about`, one that met a user's mistake."""
        where = self.context.where(ranks)
        if about:
            return Row(about, where, why, verdict="bad")
        silent = bool(ranks & self.lost)
        todo = "look at that process and its node (is it stopped, out of memory, is the network up?)" if silent else ""
        return Row("the check itself", where, why, "an answer", "bad", todo)

    def end(self, code: int) -> None:
        """Let the others go; they have a few seconds to hear it, as this process may be what they listen to."""
        self.context.board.post(f"turn/{self.turn}", {"end": code})
        for rank in sorted(set(range(1, self.context.world)) - self.lost):
            with suppress(TimeoutError):
                self.context.board.read(f"left/{rank}", 5.0)


def facts_of(found: Facts, key: str) -> dict[int, Any]:
    """One entry of every rank's facts."""
    return {rank: facts[key] for rank, facts in found.items()}
