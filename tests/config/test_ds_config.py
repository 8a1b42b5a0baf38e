"""DeepSpeed's file holds speed and memory only."""

import json
from pathlib import Path
from typing import Any

import pytest

from toolkit.config.ds_config import ALLOWED, OWNED_BY_RUN, load_ds_config, shipped_ds_configs, zero_stage
from toolkit.errors import ConfigError


def said(tmp_path: Path, content: Any) -> str:
    """The complaint about a file with this content."""
    path = tmp_path / "mine.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ConfigError) as caught:
        load_ds_config(str(path))
    return str(caught.value)


def test_every_shipped_file_loads() -> None:
    """ZeRO 0 to 3 and offload, by the names of the README."""
    stages = {name: zero_stage(load_ds_config(name)) for name in shipped_ds_configs()}
    assert stages == {
        "ds_configs/zero0.json": 0,
        "ds_configs/zero1.json": 1,
        "ds_configs/zero2.json": 2,
        "ds_configs/zero3.json": 3,
        "ds_configs/zero3_offload.json": 3,
    }


def test_shipped_files_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the user's own file of that name comes first."""
    monkeypatch.chdir(tmp_path)
    assert zero_stage(load_ds_config("ds_configs/zero2.json")) == 2
    (tmp_path / "ds_configs").mkdir()
    (tmp_path / "ds_configs/zero2.json").write_text('{"zero_optimization": {"stage": 3}}')
    assert zero_stage(load_ds_config("ds_configs/zero2.json")) == 3


@pytest.mark.parametrize("key", OWNED_BY_RUN)
def test_what_the_run_owns_is_refused(key: str, tmp_path: Path) -> None:
    """A value in two places would win in one of them, unseen."""
    message = said(tmp_path, {"zero_optimization": {"stage": 1}, key: 1})
    assert f"sets {key}, which belongs to the run ({OWNED_BY_RUN[key]})" in message and "remove it" in message


def test_clipping_is_owned() -> None:
    """DeepSpeed's default became 1.0, so the run always writes its own."""
    assert OWNED_BY_RUN["gradient_clipping"] == "optim.gradient_clipping" and not set(OWNED_BY_RUN) & set(ALLOWED)


def test_a_mistyped_key_is_refused(tmp_path: Path) -> None:
    """DeepSpeed takes it in silence and runs at stage 0."""
    message = said(tmp_path, {"zero_optimisation": {"stage": 3}})
    assert "no DeepSpeed setting 'zero_optimisation' is allowed here; did you mean zero_optimization?" in message


def test_overlap_comm_is_refused(tmp_path: Path) -> None:
    """It has corrupted gradients; false is fine."""
    assert "overlap_comm, which has corrupted gradients" in said(
        tmp_path, {"zero_optimization": {"stage": 2, "overlap_comm": True}}
    )
    (tmp_path / "mine.json").write_text('{"zero_optimization": {"stage": 2, "overlap_comm": false}}')
    assert zero_stage(load_ds_config(str(tmp_path / "mine.json"))) == 2


@pytest.mark.parametrize("content", ["{", "[]", "3", '{"zero_optimization": 3}', '{"zero_optimization": []}'])
def test_what_is_no_ds_config_is_refused(content: str, tmp_path: Path) -> None:
    """Not with a Python error."""
    assert "is not JSON" in said(tmp_path, content) or "is no DeepSpeed config" in said(tmp_path, content)


@pytest.mark.parametrize("path", ["ds_configs/zero4.json", "ds_configs", ""])
def test_a_missing_file_lists_the_shipped_ones(path: str) -> None:
    """A folder is no file either."""
    with pytest.raises(ConfigError, match=r"shipped are ds_configs/zero0\.json"):
        load_ds_config(path)
