"""Sentences to tokens; both kinds travel to data workers."""

import io
import pickle
from pathlib import Path

import open_clip
import pytest
import sentencepiece
import torch

from toolkit.errors import ConfigError
from toolkit.models.tokenizers import SentencePieceTokenizer, build_tokenizer

WORDS = ["red", "blue", "green", "dot", "square", "circle", "two", "three", "left", "right"]


def vocabulary(path: Path, **ids: int) -> str:
    """A sentencepiece model of whole words."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(WORDS[k:] + WORDS[:k]) for k in range(len(WORDS))]),
        model_writer=model, model_type="word", vocab_size=len(WORDS) + 3, hard_vocab_limit=False, minloglevel=3,
        **{"pad_id": 0, "unk_id": 1, "eos_id": 2, "bos_id": -1, **ids},
    )  # fmt: skip
    path.write_bytes(model.getvalue())
    return str(path)


def test_pieces_then_end_then_padding(tmp_path: Path) -> None:
    """int64, one row per sentence, also for an empty one."""
    tokenize = build_tokenizer(vocabulary(tmp_path / "v.model"), 6)
    rows = tokenize(["red dot", "", "two red dot"])
    ids = {
        word: sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "v.model")).encode(word)[0]
        for word in WORDS
    }
    assert rows.dtype == torch.int64
    assert rows.tolist() == [
        [ids["red"], ids["dot"], 2, 0, 0, 0],
        [2, 0, 0, 0, 0, 0],
        [ids["two"], ids["red"], ids["dot"], 2, 0, 0],
    ]
    assert len(set(ids.values())) == len(WORDS) and min(ids.values()) > 2


def test_the_end_token_survives_a_cut(tmp_path: Path) -> None:
    """Pooling happens there."""
    tokenize = build_tokenizer(vocabulary(tmp_path / "v.model"), 4)
    whole, cut = tokenize(["red dot left", "red dot left right two"]).tolist()
    assert whole == cut and cut[-1] == 2 and 0 not in cut


def test_a_vocabulary_without_padding(tmp_path: Path) -> None:
    """Then 0 is used; without an end token it is refused."""
    path = vocabulary(tmp_path / "v.model", pad_id=-1, unk_id=0, eos_id=1)
    assert build_tokenizer(path, 5)(["red"]).tolist()[0][1:] == [1, 0, 0, 0]
    with pytest.raises(ConfigError, match="has no end token"):
        build_tokenizer(vocabulary(tmp_path / "w.model", eos_id=-1), 5)


def test_open_clips_own(tmp_path: Path) -> None:
    """At the context length that was asked for."""
    words = ["a red dot", "a " * 50]
    ours = build_tokenizer("ViT-B-32", 12)(words)
    assert torch.equal(ours, open_clip.get_tokenizer("ViT-B-32", context_length=12)(words))
    assert ours.shape == (2, 12) and ours.dtype == torch.int64 and int(ours[1, -1]) == 49407


def test_both_pickle(tmp_path: Path) -> None:
    """Data workers get them so."""
    for name in (vocabulary(tmp_path / "v.model"), "ViT-B-32"):
        tokenize = build_tokenizer(name, 7)
        again = pickle.loads(pickle.dumps(tokenize))  # noqa: S301  our own bytes
        assert torch.equal(again(["red dot"]), tokenize(["red dot"]))


def test_a_missing_vocabulary_is_refused(tmp_path: Path) -> None:
    """Not with a message from inside sentencepiece."""
    with pytest.raises(ConfigError, match=r"tokenizer .*none\.model does not exist"):
        build_tokenizer(str(tmp_path / "none.model"), 5)
    with pytest.raises(ConfigError, match=r"no tokenizer named 'ViT-B-23'; did you mean ViT-B-32\?"):
        build_tokenizer("ViT-B-23", 5)
    assert SentencePieceTokenizer(vocabulary(tmp_path / "v.model"), 5).context_length == 5
