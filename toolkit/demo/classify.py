"""Each model's probabilities for one picture, with its times; one forward at a time."""

import statistics
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from toolkit.data.decode import MAX_RATIO, BadSample
from toolkit.data.images import decode_image, plain_view
from toolkit.demo.request import Question, Refused
from toolkit.evaluate.models import Encoder
from toolkit.evaluate.sets import MAX_PIXELS
from toolkit.evaluate.zero_shot import encode_texts

KEPT_SENTENCES = 4096
FORWARDS, FORWARDS_MS = 9, 200.0
"""A picture is encoded so often, or until so much time has gone."""
BAD_PICTURE = {
    "undecodable": "This is not a picture that can be read here. JPEG, PNG, WebP, GIF, BMP, TIFF and AVIF can.",
    "too_many_pixels": f"The picture has more than {MAX_PIXELS // 10**6} million pixels. Save it smaller.",
    "too_narrow": f"The picture is more than {MAX_RATIO} times as long as it is wide. Crop it.",
    "floating_point_pixels": "The picture holds floating-point numbers. Save it as PNG or JPEG.",
}
"""What a reason of toolkit.data.decode means to whoever gave the picture."""


@dataclass
class Side:
    """A model of the page, and the sentences it has encoded before."""

    name: str
    """`student` or `teacher`."""
    what: str
    """In words: architecture, checkpoint."""
    encoder: Encoder
    logit_scale: float
    """Already exponentiated."""
    image_params: int
    text_params: int
    own_text: bool = True
    """False: its sentences are the teacher's."""
    sentences: "OrderedDict[str, Tensor]" = field(default_factory=OrderedDict)
    """Sentence -> unit-norm embedding [e], the one used last at the end."""

    def about(self) -> dict[str, Any]:
        """For the page."""
        names = ("name", "what", "logit_scale", "image_params", "text_params", "own_text")
        side = self.encoder.preprocess.image_size
        return {**{name: getattr(self, name) for name in names}, "image_size": side}


class Classifier:
    """Student and teacher, or a student alone. A single thread computes, so that no request disturbs another's times."""

    def __init__(self, sides: list[Side]) -> None:
        """In the order of the page; a side without a text tower needs one called `teacher` beside it."""
        self.sides = sides
        self._slot = ThreadPoolExecutor(max_workers=1, thread_name_prefix="forward")
        # not a lock: OpenMP starts a team of threads for every thread that computes, which the first forward would pay for

    def warm_up(self) -> None:
        """First forwards, which are slow, on a grey picture."""
        self._slot.submit(self._compute, Image.new("RGB", (64, 64), "grey"), ["a picture"]).result()
        for side in self.sides:
            side.sentences.clear()

    def close(self) -> None:
        """No more forwards."""
        self._slot.shutdown(wait=False, cancel_futures=True)

    def answer(self, question: Question) -> dict[str, Any]:
        """`models.<name>`: `probabilities` in the order of `labels`, `top` and times in ms; `agreement` in words.

        Raises Refused where the picture cannot be read.
        """
        return self._slot.submit(self._answer, question).result()

    def _answer(self, question: Question) -> dict[str, Any]:
        """On the computing thread."""
        began = time.perf_counter()
        try:
            image = decode_image(question.picture, MAX_PIXELS)
        except BadSample as error:
            reason = str(error.args[0])
            raise Refused(422, BAD_PICTURE.get(reason, f"The picture cannot be used ({reason}).")) from error
        decode_ms = 1000 * (time.perf_counter() - began)
        models = self._compute(image, question.sentences)
        return {
            "labels": list(question.labels),
            "prompt": question.prompt,
            "notes": list(question.notes),
            "picture": {"width": image.width, "height": image.height, "decode_ms": decode_ms},
            "models": models,
            "agreement": agreement(question.labels, {name: found["probabilities"] for name, found in models.items()}),
        }

    def _compute(self, image: Image.Image, sentences: list[str]) -> dict[str, dict[str, Any]]:
        """By side, in the order of the page."""
        texts: dict[str, tuple[Tensor, float, int]] = {}
        for side in self.sides:
            if side.own_text:
                texts[side.name] = self._texts(side, sentences)
        views: dict[str, Tensor] = {}
        resize_ms: dict[str, float] = {}
        for side in self.sides:
            began = time.perf_counter()
            views[side.name] = plain_view(image, side.encoder.preprocess)[None]
            resize_ms[side.name] = 1000 * (time.perf_counter() - began)
        features, times = timed({side.name: side.encoder for side in self.sides}, views)
        found = {}
        for side in self.sides:
            head, text_ms, new = texts[side.name if side.own_text else "teacher"]
            chances = probabilities(features[side.name][0], head, side.logit_scale)
            found[side.name] = {
                "probabilities": chances.tolist(),
                "top": int(chances.argmax()),
                "image_ms": statistics.median(times[side.name]),
                "image_runs": len(times[side.name]),
                "resize_ms": resize_ms[side.name],
                "text_ms": text_ms,
                "new_sentences": new,
            }
        return found

    @staticmethod
    def _texts(side: Side, sentences: list[str]) -> tuple[Float[Tensor, "k e"], float, int]:
        """Embeddings on the CPU, the ms it took for those not known before, and how many these were."""
        new = [sentence for sentence in dict.fromkeys(sentences) if sentence not in side.sentences]
        began = time.perf_counter()
        if new:
            side.sentences.update(zip(new, encode_texts(side.encoder, new).cpu(), strict=True))
        spent = 1000 * (time.perf_counter() - began)
        for sentence in sentences:
            side.sentences.move_to_end(sentence)
        head = torch.stack([side.sentences[sentence] for sentence in sentences])
        while len(side.sentences) > KEPT_SENTENCES:
            side.sentences.popitem(last=False)
        return head, spent, len(new)


def timed(
    encoders: dict[str, Encoder], views: dict[str, Tensor]
) -> tuple[dict[str, Float[Tensor, "1 e"]], dict[str, list[float]]]:
    """Features on the CPU, and the ms of each forward: in turn, and several of fast models, so that a hiccup hits nobody alone."""
    features: dict[str, Tensor] = {}
    times: dict[str, list[float]] = {name: [] for name in encoders}
    for _ in range(FORWARDS):
        for name, encoder in encoders.items():
            began = time.perf_counter()
            features[name] = encoder.encode_image(views[name]).cpu()  # .cpu() waits for a GPU
            times[name].append(1000 * (time.perf_counter() - began))
        if sum(map(sum, times.values())) > FORWARDS_MS:
            break
    return features, times


def probabilities(image: Float[Tensor, " e"], head: Float[Tensor, "k e"], scale: float) -> Float[Tensor, " k"]:
    """softmax(scale * cosine) over the labels, in float64."""
    return (scale * (head.double() @ image.double())).softmax(-1)


def agreement(labels: tuple[str, ...], chances: dict[str, list[float]]) -> str:
    """Student against teacher in a sentence or two; empty where one of them is missing."""
    if not chances.keys() >= {"student", "teacher"}:
        return ""
    student, teacher = chances["student"], chances["teacher"]
    if len(labels) == 1:
        return "With one label both can only choose it; type more."
    shared = sum(min(pair) for pair in zip(student, teacher, strict=True))
    common = f"Their probabilities overlap by {100 * shared:.0f} %."
    own, other = (max(range(len(labels)), key=each.__getitem__) for each in (student, teacher))
    if own == other:
        return f"Both say “{labels[own]}”. {common}"
    place = 1 + sum(chance > student[other] for chance in student)
    return (
        f"They disagree: the student says “{labels[own]}”, the teacher “{labels[other]}”, "
        f"which is number {place} of {len(labels)} for the student. {common}"
    )
