"""The report of a run: one self-contained page for people, one small file for programs; and several runs side by side."""

from toolkit.report.compare import write_comparison
from toolkit.report.page import write_report

__all__ = ["write_comparison", "write_report"]
