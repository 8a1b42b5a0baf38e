"""The sentencepiece model of the playground's sentences, and how to make it again."""

import io
import string
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import sentencepiece

from toolkit.playground.scenes import sample_scene
from toolkit.playground.sentences import sentence

VOCABULARY_PATH = Path(__file__).parent / "assets" / "words.model"


def train_vocabulary(path: Path, sentences: int = 20_000, seed: int = 0) -> Path:
    """Writes a model whose pieces are the playground's words, plus single characters for whatever else one types.

    Text is taken as it stands (identity normalisation); pad is 0, end of sentence 1, unknown 2, no begin token.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=_sentences(sentences, seed),
        model_writer=model,
        model_type="bpe",
        vocab_size=320,
        hard_vocab_limit=False,
        required_chars=string.ascii_letters + string.digits + "'-,.!?:;()\"",
        normalization_rule_name="identity",
        split_by_unicode_script=True,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())
    return path


def _sentences(count: int, seed: int) -> Iterator[str]:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield sentence(sample_scene(rng), rng)


if __name__ == "__main__":
    train_vocabulary(VOCABULARY_PATH)
