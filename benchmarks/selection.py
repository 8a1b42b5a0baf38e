"""`dime select` on random unit vectors: time and peak memory of the whole command, and faiss's exact index beside it.

    python benchmarks/selection.py                                        (1M sentences x 100k images, width 768; 5 GB of disk)
    python benchmarks/selection.py --sentences 20000 --images 2000 --no-receipt

The command runs as a user runs it, from shards and stores on disk to shards on disk. Memory: the largest sum over its
processes of their proportional share (PSS, which counts shared libraries once) and the largest VmHWM of one of them,
looked at four times a second. Checked: the exact best sentence of 64 images is in the corpus, which holds as many sentences as there are
images, so that every image's best must be. faiss (IndexFlatIP, all cores), where it is installed, searches the best 8 of every image in a
process of its own with everything in memory; reading, filters and writing are not in its time.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from receipt import receipt, write

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

PER_SHARD = 10_000
WORDS = (
    "a",
    "photo",
    "of",
    "one",
    "two",
    "red",
    "green",
    "small",
    "large",
    "dog",
    "cat",
    "tree",
    "river",
    "boat",
    "sky",
)


def main() -> None:
    """Make the data, run, look, check, write."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--sentences", type=int, default=1_000_000)
    words.add_argument("--images", type=int, default=100_000)
    words.add_argument("--width", type=int, default=768)
    words.add_argument("--workers", type=int, default=0)
    words.add_argument("--device", default="cpu")
    words.add_argument("--folder", type=Path, default=None, help="where the data are made and kept (default temporary)")
    words.add_argument("--name", default="selection_cpu2_202611", help="of the result file")
    words.add_argument("--no-receipt", action="store_true", help="print only")
    words.add_argument("--faiss", type=Path, default=None, help=argparse.SUPPRESS)
    given = words.parse_args()
    if given.faiss is not None:
        search_with_faiss(given.faiss)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        make_data(folder, given.sentences, given.images, given.width)
        raw: dict[str, Any] = {"sizes": {name: getattr(given, name) for name in ("sentences", "images", "width")}}
        out = Path(temporary) / "corpus"
        command = [sys.executable, "-m", "toolkit.cli", "select", "--images", str(folder / "store"), "--texts", str(folder / "store"),
                   "--size", str(given.images), "--out", str(out), "--workers", str(given.workers), "--device", given.device,
                   "--json"]  # fmt: skip
        raw["dime select"] = watched(command)
        found = json.loads(raw["dime select"].pop("last"))
        raw["chosen"], raw["k"] = found["chosen"], found["k"]
        raw["checked"] = check(folder, out, given.width)
        try:
            import faiss

            raw["faiss"] = watched([sys.executable, __file__, "--faiss", str(folder)])
            raw["faiss"] |= {"version": faiss.__version__, **json.loads(raw["faiss"].pop("last"))}
        except ImportError:
            print("faiss is not installed (pip install faiss-cpu): nothing to compare with")
    text = table(raw)
    print(text)
    if not given.no_receipt:
        command_text = " ".join(["python benchmarks/selection.py", *sys.argv[1:]])
        write(given.name, "Choosing sentences: `dime select` on random unit vectors", text, receipt(command_text), raw)


def make_data(folder: Path, sentences: int, images: int, width: int) -> None:
    """Shards of short random sentences, and both stores; what is complete is kept."""
    import torch

    from toolkit.data.shards import scan_shard, write_shards
    from toolkit.data.store import EmbeddingStore

    mark = folder / f"made-{sentences}-{images}-{width}"
    if mark.exists():
        return
    identity = {"version": 1, "teacher": "random", "weights_sha256": "0" * 64, "width": width}
    stores = {kind: EmbeddingStore(folder / "store" / kind, identity) for kind in ("text", "image")}
    for store in stores.values():
        store.write_identity()

    def samples() -> Iterator[dict[str, Any]]:
        rng = np.random.default_rng(0)
        for k in range(sentences):
            said = " ".join(WORDS[n] for n in rng.integers(0, len(WORDS), 8))
            yield {"__key__": f"{k:08d}", "txt": f"{said} {k}"}

    write_shards(folder / "texts", samples(), PER_SHARD)
    rng = np.random.default_rng(1)
    for path in sorted((folder / "texts").glob("*.tar")):
        keys = scan_shard(path).keys
        stores["text"].write(path, keys, torch.from_numpy(unit_rows(rng, len(keys), width)))
    for number, start in enumerate(range(0, images, PER_SHARD)):
        keys = tuple(map(str, range(start, min(start + PER_SHARD, images))))
        stores["image"].write(
            folder / f"images/{number:05d}.tar", keys, torch.from_numpy(unit_rows(rng, len(keys), width))
        )
    mark.touch()


def unit_rows(rng: np.random.Generator, count: int, width: int) -> np.ndarray:
    """Random directions, fp32."""
    rows = rng.standard_normal((count, width), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def watched(command: list[str]) -> dict[str, Any]:
    """Seconds, peak memory and last line of a command; what it says is passed on."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    peak = {"sum_pss": 0, "one_vmhwm": 0, "processes": 0}

    def look() -> None:
        while process.poll() is None:
            tree = processes_below(process.pid)
            held = [(kilobytes(pid, "smaps_rollup", "Pss:"), kilobytes(pid, "status", "VmHWM:")) for pid in tree]
            peak["sum_pss"] = max(peak["sum_pss"], sum(pss for pss, _ in held))
            peak["one_vmhwm"] = max(peak["one_vmhwm"], *(high for _, high in held), 0)
            peak["processes"] = max(peak["processes"], len(tree))
            time.sleep(0.25)

    watcher = threading.Thread(target=look)
    watcher.start()
    last = ""
    assert process.stdout is not None
    for line in process.stdout:
        last = line
        if not line.startswith("{"):
            print(line, end="", flush=True)
    process.wait()
    watcher.join()
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    mebibytes = {name: round(value / 1024) for name, value in peak.items() if name != "processes"}
    return {
        "seconds": round(time.monotonic() - began, 1),
        "peak_mib": mebibytes,
        "processes": peak["processes"],
        "last": last,
    }


def processes_below(root: int) -> list[int]:
    """A process and all that came of it."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def kilobytes(pid: int, name: str, field: str) -> int:
    """One line of a file under /proc, 0 where the process is gone."""
    try:
        lines = (Path("/proc") / str(pid) / name).read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(field)), 0)


def rows_of(folder: Path, kind: str) -> np.ndarray:
    """All embeddings of a store, in order."""
    from toolkit.data.stored import StoredPool, read_manifest, stored_shards

    store = folder / "store" / kind
    rows = StoredPool(stored_shards(store), int(read_manifest(store)["width"]))
    return rows.read(0, len(rows))


def check(folder: Path, out: Path, width: int) -> str:
    """The best sentences of 64 images, found directly, are in the corpus; a sentence in words."""
    images, texts = rows_of(folder, "image"), rows_of(folder, "text")
    chosen = np.load(out / "chosen.npy", allow_pickle=False)
    places = set((chosen["shard"].astype(np.int64) * PER_SHARD + chosen["row"]).tolist())
    some = images[np.random.default_rng(2).choice(len(images), min(64, len(images)), replace=False)]
    best = (some @ texts.T).argmax(1).tolist()
    inside = sum(place in places for place in best)
    assert inside == len(best), f"only {inside} of {len(best)} best sentences are in the corpus"
    return f"{inside} of {len(best)} images have their best sentence in the corpus"


def search_with_faiss(folder: Path) -> None:
    """In a process of its own; prints seconds as the last line."""
    import faiss

    images, texts = rows_of(folder, "image"), rows_of(folder, "text")
    began = time.monotonic()
    index = faiss.IndexFlatIP(texts.shape[1])
    index.add(texts)
    index.search(images, 8)
    print(json.dumps({"search_seconds": round(time.monotonic() - began, 1)}))


def table(raw: dict[str, Any]) -> str:
    """A row for each, and the sizes in words."""
    sizes, rows = (
        raw["sizes"],
        ["| | seconds | peak, all processes (MiB) | peak, one process (MiB) |", "|---|---|---|---|"],
    )
    for name in ("dime select", "faiss"):
        if name in raw:
            seconds = raw[name].get("search_seconds", raw[name]["seconds"])
            peak = raw[name]["peak_mib"]
            rows.append(f"| {name} | {seconds} | {peak['sum_pss']} | {peak['one_vmhwm']} |")
    said = (
        f"{sizes['sentences']:,} sentences x {sizes['images']:,} images, width {sizes['width']}; {raw['chosen']:,} chosen, "
        f"k {raw['k']}; {raw['dime select']['processes']} processes. {raw['checked']}."
    )
    return "\n".join([*rows, "", said])


if __name__ == "__main__":
    main()
