"""Stands in for `python -u -m toolkit.cli embed KIND SHARDS --out STORE --part I/N`: a file per shard, restartable, no torch.

What it writes is also noted in `written`. While there is a file `hold-I` part I waits after its first new shard, with `hold-I-empty`
before it; with `die-I` it kills itself after each new shard.
"""

import os
import signal
import sys
import time
from pathlib import Path

WORDS = sys.argv[1:]


def main() -> None:
    """Every N-th shard from the I-th on."""
    assert WORDS[:4] == ["-u", "-m", "toolkit.cli", "embed"], WORDS
    part, parts = (int(number) for number in WORDS[WORDS.index("--part") + 1].split("/"))
    store = Path(WORDS[WORDS.index("--out") + 1]) / WORDS[4].removesuffix("s")
    store.mkdir(parents=True, exist_ok=True)
    print(f"part {part} of {parts}: {WORDS}", flush=True)
    while Path(f"hold-{part}-empty").exists():
        time.sleep(0.01)
    for shard in sorted(Path(WORDS[5]).glob("*.tar"))[part::parts]:
        file = store / f"{shard.stem}.safetensors"
        if file.exists():
            continue
        file.write_text("rows")
        with open("written", "a") as log:
            log.write(f"{shard.stem}\n")
        while Path(f"hold-{part}").exists():
            time.sleep(0.01)
        if Path(f"die-{part}").exists():
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
