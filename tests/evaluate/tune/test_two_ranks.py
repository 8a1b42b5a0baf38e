"""Two gloo ranks share the trials and find what one finds alone; where one of them fails, both say so."""

import json
from pathlib import Path

import pytest
from launch_ranks import run_ranks


@pytest.mark.slow
def test_two_ranks_find_what_one_finds(tmp_path: Path) -> None:
    """Every number, with dropout; and half of the trials each."""
    script = Path(__file__).with_name("worker.py")
    for ranks in (1, 2):
        run_ranks(script, str(tmp_path / str(ranks)), ranks=ranks)
    alone, first, second = (json.loads((tmp_path / name).read_text()) for name in ("1.0", "2.0", "2.1"))
    for protocol in ("elevater", "clean"):
        assert alone[protocol] == first[protocol] == second[protocol]
    assert first["trials"] + second["trials"] == alone["trials"] and abs(first["trials"] - second["trials"]) <= 5
    assert "said" not in alone and second["said"] == "row 7 is torn"
    assert first["said"] == "fine-tune: another rank could not go on; its message says why"
