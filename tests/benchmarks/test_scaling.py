"""The network model of `dime estimate` against bytes that were counted on real ranks."""

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks.scaling import RESULT, as_table, in_words, measured_bytes, modelled_bytes, recipe, table_rows
from toolkit.estimate.described import describe

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks/results"


@pytest.mark.parametrize("ranks", [2, 8])
def test_the_model_still_gives_the_counted_bytes(ranks: int) -> None:
    """Headers and acknowledgements come on top, most where messages are small."""
    rows = json.loads((RESULTS / f"{RESULT}.json").read_text())["raw"]
    counted = {row["case"]: row["measured"] for row in rows if row["ranks"] == ranks}
    modelled = modelled_bytes(ranks)
    assert set(modelled) == set(counted)
    for case, size in counted.items():
        assert 0.98 < size / modelled[case] < (1.1 if case == "losses alone" else 1.03), case


def test_tables_say_what_grows() -> None:
    """With a fixed batch the exchange stays and the compute goes; what does not divide by the GPUs is left out."""
    run = recipe(
        "recipes/quickstart.py", "data.global_batch_size=1024", "student.kwargs.width=48", "data.batch_size_per_gpu=16"
    )
    rows = table_rows(describe(run, 8), None)
    assert [row["gpus"] for row in rows] == [8, 16, 32, 64, 128, 256, 512, 1024]
    assert rows[0]["compute"] > 50 * rows[-1]["compute"] and rows[-1]["gradients"] >= rows[0]["gradients"]
    efficiencies = [row["efficiency"] for row in rows]
    assert efficiencies[0] == 1 and efficiencies == sorted(efficiencies, reverse=True)
    assert as_table(rows).count("\n") == 1 + len(rows) and "the gradient reduction" in in_words(rows).lower()
    growing = table_rows(describe(run, 8), 64)
    assert [row["batch"] for row in growing] == [64 * row["gpus"] for row in growing]


@pytest.mark.slow
def test_counting_again(tmp_path: Path) -> None:
    """Two real ranks in a network of their own."""
    if subprocess.run(["unshare", "-Urn", "true"], capture_output=True).returncode:
        pytest.skip("this machine allows no network namespace")
    counted, modelled = measured_bytes(2, tmp_path), modelled_bytes(2)
    assert set(counted) == set(modelled)
    assert all(0.98 < counted[case] / modelled[case] < 1.03 for case in counted)
