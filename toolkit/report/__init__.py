"""The report of a run: one self-contained page for people, one small file for programs."""

from toolkit.report.page import write_report

__all__ = ["write_report"]
