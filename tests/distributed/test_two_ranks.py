"""Two gloo ranks give the value and the gradient of one rank on the whole batch, and wrong exchanges are caught."""

import json
from pathlib import Path

import pytest
from launch_ranks import run_ranks

from toolkit.losses import LOSSES

LOCAL_ONLY = {"feature", "fd", "mfd", "dual_head"}
"""Losses that compare row with row: nothing crosses ranks, so no exchange can be wrong."""
TEACHER_ONLY = {"pvl", "icl", "cross_kd", "queue_pvl", "cos_smooth_l1", "phi_s"}
"""Losses that gather the teacher's features alone, which need no gradient: mutants of the gradient are the same."""
LABELLED = {"contrastive", "icl", "afd"}
"""Losses with labels on the diagonal; the others give the same for any order of all columns."""
SURVIVORS = {
    *((name, mutant) for name in TEACHER_ONLY for mutant in ("NoGradient", "OwnSlice", "Average", "WrongOrder")),
    *((name, "Reversed") for name in LOSSES if name not in LABELLED),
    ("gd", "WrongOrder"),  # each model's gradients are sums over its own columns, in any order
}
CAN_DO_WITHOUT_TEXT = [n for n, kind in LOSSES.items() if "text" in kind.needs and "student_text" not in kind.needs]


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    out = tmp_path_factory.mktemp("distributed") / "errors.json"
    run_ranks(Path(__file__).with_name("worker.py"), str(out))
    return json.loads(out.read_text())


@pytest.mark.parametrize("name", [*LOSSES, *(f"{name} without text" for name in CAN_DO_WITHOUT_TEXT)])
def test_two_ranks_equal_one(errors, name):
    value, gradient, buffers = errors[name]["Collective"]
    assert value < 1e-12
    assert gradient < 1e-12
    assert buffers < 1e-12


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in LOCAL_ONLY])
@pytest.mark.parametrize("mutant", ["NoGradient", "OwnSlice", "Average", "WrongOrder", "NoGather", "Reversed"])
def test_wrong_exchanges_die(errors, name, mutant):
    value, gradient, _ = errors[name][mutant]
    if (name, mutant) in SURVIVORS:
        assert max(value, gradient) < 1e-12
    else:
        assert max(value, gradient) > 1e-3
