"""Which sentences to distil on: those the teacher sees in the user's pictures, and baselines of equal size."""

from toolkit.corpus.command import select_corpus
from toolkit.corpus.request import Filters, Request

__all__ = ["Filters", "Request", "select_corpus"]
