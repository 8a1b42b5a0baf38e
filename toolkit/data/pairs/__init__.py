"""Pictures with captions: sets for image-text retrieval, and captions with a hard negative each for compositionality."""

from toolkit.data.pairs.compositions import CompositionSet, open_compositions
from toolkit.data.pairs.find import open_pairs
from toolkit.data.pairs.known import KNOWN, Known, known_of
from toolkit.data.pairs.paired import PairedSet

__all__ = ["KNOWN", "CompositionSet", "Known", "PairedSet", "known_of", "open_compositions", "open_pairs"]
