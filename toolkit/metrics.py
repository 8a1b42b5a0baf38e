"""What a person sees of a run while it goes: a bar or lines, JSONL, TensorBoard, W&B. Rank 0 only."""

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from toolkit.config import Run
from toolkit.data.index import write_aside
from toolkit.errors import ConfigError

METRICS_NAME = "metrics.jsonl"


class Metrics:
    """Writes scalars by step; after a resume the steps that are run again replace the old lines."""

    def __init__(self, run: Run, first_step: int) -> None:
        """Lines after `first_step` in an existing file are dropped: they belong to work that was lost."""
        self.run, self.first_step = run, first_step
        self.folder = Path(run.out_dir)
        self.started = time.monotonic()
        keep_up_to(self.folder / METRICS_NAME, first_step)
        self._file = open(self.folder / METRICS_NAME, "a", buffering=1)  # noqa: SIM115  one handle for the whole run
        self._board: Any = None
        if run.logging.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=first_step + 1)
        self._wandb = start_wandb(run)
        last = min(run.steps, run.stop_at_step or run.steps)
        self._bar = tqdm(
            total=last, initial=first_step, unit="step", disable=not sys.stderr.isatty(), dynamic_ncols=True
        )
        self._last = last

    def log(self, step: int, values: dict[str, float]) -> None:
        """Write scalars after update number `step` (1-based count of updates done)."""
        self._file.write(
            json.dumps({"step": step, **{k: v if math.isfinite(v) else None for k, v in values.items()}}) + "\n"
        )
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(values, step=step)

    def show(self, step: int, values: dict[str, float]) -> None:
        """Move the bar, or print a line where there is no terminal."""
        terms = " ".join(
            f"{k.removeprefix('train/loss_')} {v:.4f}" for k, v in values.items() if k.startswith("train/loss_")
        )
        wait = values.get("data/wait_fraction", 0.0)
        speed = values.get("speed/images_per_second", 0.0)
        done = step - self.first_step
        eta = (time.monotonic() - self.started) / max(done, 1) * (self._last - step)
        text = f"loss {values['train/loss']:.4f} ({terms}) lr {values['optim/lr']:.2e} {speed:,.0f} images/s data wait {wait:.0%}"
        if self._bar.disable:
            print(f"step {step}/{self._last} {text} ETA {clock(eta)}", flush=True)
        else:
            self._bar.set_postfix_str(text)
            self._bar.update(step - self._bar.n)

    def write(self, line: str) -> None:
        """A line of text that does not tear the bar."""
        tqdm.write(line)

    def close(self) -> None:
        """Flush and close everything."""
        self._bar.close()
        self._file.close()
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


def clock(seconds: float) -> str:
    """`1:02:03`."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def keep_up_to(path: Path, step: int) -> None:
    """Drop lines of a metrics file after `step`, and a torn last one."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    write_aside(path, "".join(f"{line}\n" for line in kept))


def start_wandb(run: Run) -> Any:
    """A W&B run if one was asked for; raises ConfigError when the package is not installed."""
    if not run.logging.wandb_project:
        return None
    try:
        import wandb
    except ImportError as error:
        raise ConfigError(
            f"logging.wandb_project={run.logging.wandb_project} needs the wandb package; pip install 'dime-fm-toolkit[wandb]' or unset it"
        ) from error
    return wandb.init(project=run.logging.wandb_project, dir=run.out_dir, name=Path(run.out_dir).name, resume="allow")
