"""Linear probes on cached features: ELEVATER's protocol and a clean one, the whole search side by side."""

from toolkit.evaluate.probe.features import Labelled
from toolkit.evaluate.probe.grid import Point
from toolkit.evaluate.probe.protocols import ProbeResult, linear_probe
from toolkit.evaluate.probe.split import few_shot_rows, sample_few_shot_subset
from toolkit.evaluate.probe.trials import Settings

__all__ = [
    "Labelled",
    "Point",
    "ProbeResult",
    "Settings",
    "few_shot_rows",
    "linear_probe",
    "sample_few_shot_subset",
]
