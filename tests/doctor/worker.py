"""`dime` with something wrong on this rank, as WOUNDS says: what the doctor must find."""

import os
import signal
import sys
import time
from dataclasses import replace
from typing import Any

import torch

from toolkit.cli import dispatch
from toolkit.doctor import clock, network, versions
from toolkit.doctor.check import Context
from toolkit.doctor.checks import CHECKS
from toolkit.launch import launch


def measured_as(name: str, measure: Any) -> None:
    """Put another measurement in the place of a check's."""
    CHECKS[name] = replace(CHECKS[name], measure=measure)


def other_version() -> None:
    """Of torch."""
    own = versions.version_of
    versions.version_of = lambda name: "2.99.0" if name == "torch" else own(name)


def slow() -> None:
    """Half as fast as a thousandth of the others: what it says counts."""
    own = CHECKS["compute"].measure
    measured_as("compute", lambda context: own(context) | {"tflops": own(context)["tflops"] / 1000})


def wrong_clock() -> None:
    """A minute ahead."""
    clock.now = lambda: time.time() + 60


def wrong_sum() -> None:
    """One number comes back as another."""
    own = network.reduce_numbers

    def reduce_wrongly(numbers: torch.Tensor) -> None:
        own(numbers)
        numbers[-1] += 1

    network.reduce_numbers = reduce_wrongly


def hangs(context: Context) -> None:
    """For ever."""
    time.sleep(10_000)


def stops(context: Context) -> None:
    """This process gives no sign of life any more; the test kills it."""
    os.kill(os.getpid(), signal.SIGSTOP)


def dies(context: Context) -> None:
    """As one that ran out of memory does."""
    os._exit(9)


def raises(context: Context) -> None:
    """A mistake of the check."""
    raise KeyError("nobody thought of this")


WOUNDS = {
    "other_version": other_version,
    "slow": slow,
    "wrong_clock": wrong_clock,
    "wrong_sum": wrong_sum,
    "hangs": lambda: measured_as("limits", hangs),
    "stops": lambda: measured_as("limits", stops),
    "dies": lambda: measured_as("limits", dies),
    "hangs_in_sum": lambda: setattr(network, "reduce_numbers", hangs),
    "raises": lambda: measured_as("limits", raises),
}

if __name__ == "__main__":
    for wound in filter(None, os.environ["WOUNDS"].split(",")):
        WOUNDS[wound]()
    sys.argv[0] = "dime"
    launch(dispatch)
