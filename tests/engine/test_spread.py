"""The losses see the global batch however it is spread: ranks x accumulation x ZeRO stage give one process's weights."""

import json
from pathlib import Path

import pytest
from launch_ranks import run_ranks

WORKER = Path(__file__).with_name("spread_worker.py")
ACCUMULATIONS = (1, 2, 4)
MUTANTS = ("no_replay", "wrong_offset")
GATHER_MUTANTS = ("no_gradient", "average")
"""Wrong gathers; with one rank there is nothing to gather."""


@pytest.fixture(
    scope="module", params=[1, 2, pytest.param(4, marks=pytest.mark.slow)], ids=lambda ranks: f"{ranks}_ranks"
)
def differences(request, tmp_path_factory):
    """Largest difference of any weight after three steps of SGD, by set-up."""
    found = {"ranks": request.param}
    for kind in ("plain", "zero"):
        out = tmp_path_factory.mktemp("spread") / f"{kind}.json"
        mutants = (*MUTANTS, *GATHER_MUTANTS) if kind == "plain" else ()
        run_ranks(WORKER, str(out), kind, *mutants, ranks=request.param)
        found |= json.loads(out.read_text())
    return found


@pytest.mark.parametrize("accumulation", ACCUMULATIONS)
def test_exact_in_float64(differences, accumulation):
    """The same Distiller and Step under plain gloo, drop-path on, a loss with parameters of its own."""
    assert differences[f"plain x{accumulation}"] < 1e-10


@pytest.mark.parametrize("accumulation", ACCUMULATIONS)
@pytest.mark.parametrize("stage", range(4))
def test_every_zero_stage_in_fp32(differences, stage, accumulation):
    """In stage 3 every parameter is in pieces, those beside the towers' submodules too."""
    assert differences[f"zero{stage} x{accumulation}"] < 1e-5


@pytest.mark.parametrize("accumulation", ACCUMULATIONS[1:])
@pytest.mark.parametrize("mutant", [*MUTANTS, *GATHER_MUTANTS])
def test_mutants_die(differences, mutant, accumulation):
    if mutant in GATHER_MUTANTS and differences["ranks"] == 1:
        assert differences[f"{mutant} x{accumulation}"] < 1e-10
    else:
        assert differences[f"{mutant} x{accumulation}"] > 1e-3


@pytest.mark.parametrize("accumulation", ACCUMULATIONS[1:])
def test_per_micro_batch_is_another_loss(differences, accumulation):
    """Which is why it has a name of its own."""
    assert differences[f"per_micro_batch x{accumulation}"] > 1e-2
