"""Compile DeepSpeed's CPU communication operator now, so that the first run does not wait for it: python -m toolkit.build_ops"""

import shutil
import sys
import time


def main() -> None:
    """Build it unless a GPU is there (then it is not used); say what is missing if it cannot be built."""
    import torch

    if torch.cuda.is_available():
        return
    missing = [tool for tool in ("g++", "ninja") if shutil.which(tool) is None]
    if missing:
        sys.exit(
            f"{' and '.join(missing)} missing: DeepSpeed compiles an operator for CPU ranks; install it and run this again"
        )
    from toolkit.engine import build_cpu_operator

    started = time.monotonic()
    build_cpu_operator()
    print(f"DeepSpeed's CPU operator is ready ({time.monotonic() - started:.0f} s)")


if __name__ == "__main__":
    main()
