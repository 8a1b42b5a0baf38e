"""Two gloo ranks give the value and the gradient of one rank on the whole batch, and wrong exchanges are caught."""

import json
from pathlib import Path

import pytest
from launch_ranks import run_ranks

from toolkit.losses import LOSSES

LOCAL_ONLY = {"feature"}
"""Losses that compare row with row: nothing crosses ranks, so no exchange can be wrong."""
SURVIVORS = {("pvl", "NoGradient"), ("pvl", "OwnSlice"), ("pvl", "Average"), ("pvl", "WrongOrder")}
"""pvl gathers the teacher's features only, which need no gradient: these mutants are the same computation."""


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    out = tmp_path_factory.mktemp("distributed") / "errors.json"
    run_ranks(Path(__file__).with_name("worker.py"), str(out))
    return json.loads(out.read_text())


@pytest.mark.parametrize("name", LOSSES)
def test_two_ranks_equal_one(errors, name):
    value, gradient = errors[name]["Collective"]
    assert value < 1e-12
    assert gradient < 1e-12


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in LOCAL_ONLY])
@pytest.mark.parametrize("mutant", ["NoGradient", "OwnSlice", "Average", "WrongOrder", "NoGather"])
def test_wrong_exchanges_die(errors, name, mutant):
    if (name, mutant) in SURVIVORS:
        assert max(errors[name][mutant]) < 1e-12
    else:
        assert max(errors[name][mutant]) > 1e-3
