"""Judging a student beside its teacher: zero-shot, retrieval, agreement, all through one harness."""

from toolkit.evaluate.harness import Harness, flat_metrics
from toolkit.evaluate.models import StudentEncoder

__all__ = ["Harness", "StudentEncoder", "flat_metrics"]
