"""What sentences say, and whether the committed vocabulary can say it."""

import numpy as np
import sentencepiece

from toolkit.playground.scenes import CLASSNAMES, COLOURS, SHAPES, UNSEEN, Scene, Thing, sample_scene
from toolkit.playground.sentences import CLASS_TEMPLATES, sentence
from toolkit.playground.towers import CONTEXT_LENGTH, scene_clip
from toolkit.playground.vocabulary import VOCABULARY_PATH, train_vocabulary

VOCABULARY = sentencepiece.SentencePieceProcessor(model_file=str(VOCABULARY_PATH))


def _sentences(count: int) -> list[str]:
    rng = np.random.default_rng(1)
    return [sentence(sample_scene(rng), rng, full=index % 4 == 0) for index in range(count)]


def test_no_sentence_names_an_unseen_combo():
    forbidden = [f"{colour} {shape}" for colour, shape in UNSEEN] + [f"{shape} in {colour}" for colour, shape in UNSEEN]
    assert not [told for told in _sentences(4000) if any(words in told for words in forbidden)]


def test_sentences_vary_and_repeat_with_the_generator():
    told = _sentences(1000)
    assert len(set(told)) > 800
    assert told == _sentences(1000)


def test_a_full_sentence_says_everything_and_turns_the_relation_with_the_order():
    things = (Thing("red", "circle", "small", 0.2, 0.5, 0.15), Thing("orange", "star", "big", 0.8, 0.5, 0.22))
    scene, rng = Scene(things, "sand", "left of"), np.random.default_rng(0)
    for _ in range(50):
        told = sentence(scene, rng, full=True)
        assert all(word in told for word in ("red", "circle", "orange", "star", "sand"))
        assert ("left of" in told) == (told.index("circle") < told.index("star"))
        assert "a orange" not in told


def test_the_vocabulary_has_every_word_and_knows_every_sentence():
    unknown = VOCABULARY.unk_id()
    prompts = [template.format(name) for template in CLASS_TEMPLATES for name in CLASSNAMES]
    for ids in VOCABULARY.encode(_sentences(4000) + prompts):
        assert unknown not in ids and len(ids) < CONTEXT_LENGTH
    for word in [*COLOURS, *SHAPES]:
        assert len(VOCABULARY.encode(f"a {word}.")) == 3, word
    assert unknown not in VOCABULARY.encode("My DOG's hat, (isn't it?): 42!")


def test_the_vocabulary_fits_the_towers_and_can_be_made_again(tmp_path):
    special = VOCABULARY.pad_id(), VOCABULARY.eos_id(), VOCABULARY.unk_id(), VOCABULARY.bos_id()
    assert special == (0, 1, 2, -1)
    assert VOCABULARY.vocab_size() == scene_clip().text.tokens.num_embeddings <= 400
    assert VOCABULARY_PATH.stat().st_size < 50_000
    again = sentencepiece.SentencePieceProcessor(model_file=str(train_vocabulary(tmp_path / "words.model")))
    assert [again.id_to_piece(i) for i in range(320)] == [VOCABULARY.id_to_piece(i) for i in range(320)]
