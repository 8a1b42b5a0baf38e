"""Forward and backward of one training step, however the global batch is spread over ranks and micro-batches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from toolkit import distributed
from toolkit.config import Batch
from toolkit.embeddings import Embeddings
from toolkit.engine import backward
from toolkit.losses import LossOutput
from toolkit.models import Teacher

Tensors = dict[str, Tensor]
MAIN = "teacher"
"""Name of the main teacher among several: its text space and tokenizer are the run's."""
Check = Callable[[LossOutput], LossOutput]
"""Called between forward and backward on every rank; raises to stop the run, hands back what is to be differentiated."""


@dataclass
class Step:
    """What stays the same from step to step. `per_micro_batch`: the cheaper, other loss of naive accumulation."""

    engine: Any
    teachers: dict[str, Teacher]
    """By the name of their tensors; `teacher` is the main one. Empty: the losses imitate nobody."""
    batch: Batch
    device: torch.device
    seed: int
    per_micro_batch: bool = False

    def forward_backward(self, tensors: Tensors, number: int, *, check: Check, observe: bool = False) -> LossOutput:
        """Gradients of step `number` from this rank's rows (host tensors, micro-batches one behind the other).

        The losses see the global batch whatever the accumulation: features of all micro-batches without graph, the
        loss's gradient by them, then each micro-batch again with graph, its random numbers the same as the first time.
        """
        if self.batch.grad_accum_steps == 1:
            return self._at_once(tensors, number, check, observe)
        if self.per_micro_batch:
            return self._each_by_itself(tensors, number, check, observe)
        return self._features_first(tensors, number, check, observe)

    def _at_once(self, tensors: Tensors, number: int, check: Check, observe: bool) -> LossOutput:
        """One micro-batch holds all rows: the ordinary forward and backward."""
        given = self._micro(tensors, 0)
        target = teacher_embeddings(self.teachers, given)
        self._seed(number, 0)
        found: LossOutput = self.engine(given, teacher=target, observe=observe)
        found = check(found)
        backward(self.engine, found.total)
        return found

    def _features_first(self, tensors: Tensors, number: int, check: Check, observe: bool) -> LossOutput:
        """K forwards without graph, one loss on features, K forwards and backwards; no row waits for another's activations."""
        count = self.batch.grad_accum_steps
        parts, targets = [], []
        with kept_buffers(self.engine.module.student):  # BatchNorm counts each row once, in the replay
            for k in range(count):
                given = self._micro(tensors, k)
                targets.append(teacher_embeddings(self.teachers, given))
                self._seed(number, k)
                with torch.no_grad():
                    parts.append(self.engine(given, mode="embed"))
        features = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        found: LossOutput = self.engine(
            {}, mode="from_features", features=features, teacher=joined(targets), observe=observe
        )
        found = check(found)
        assert found.gradients is not None
        for k in range(count):
            self._seed(number, k)
            pull = {name: gradient.chunk(count)[k] for name, gradient in found.gradients.features.items()}
            surrogate = self.engine(
                self._micro(tensors, k),
                mode="replay",
                gradients=found.gradients._replace(features=pull),
                share=1 / count,
            )
            backward(self.engine, surrogate)
        return found

    def _each_by_itself(self, tensors: Tensors, number: int, check: Check, observe: bool) -> LossOutput:
        """Each micro-batch compared with itself over the ranks: another loss, that of a batch K times smaller."""
        count = self.batch.grad_accum_steps
        found: list[LossOutput] = []
        for k in range(count):
            given = self._micro(tensors, k)
            target = teacher_embeddings(self.teachers, given)
            self._seed(number, k)
            output: LossOutput = check(self.engine(given, teacher=target, observe=observe))
            backward(self.engine, output.total / count)
            found.append(LossOutput(output.total.detach(), detached(output.terms), output.seen))
        return mean_of(found)

    def _micro(self, tensors: Tensors, k: int) -> Tensors:
        """Micro-batch k on the device."""
        count = self.batch.grad_accum_steps
        return {name: rows.chunk(count)[k].to(self.device, non_blocking=True) for name, rows in tensors.items()}

    def _seed(self, number: int, k: int) -> None:
        """The same generator in the first pass and in the replay, and for the same rows on another rank."""
        seed_micro_batch(self.seed, number, distributed.rank() * self.batch.grad_accum_steps + k, self.device)


def seed_micro_batch(seed: int, step: int, index: int, device: torch.device) -> None:
    """Random numbers of a micro-batch (drop-path, dropout, masks) depend on the seed, the step and its place in the batch.

    So a replay draws what the first pass drew, and one rank with 24 micro-batches what 24 ranks draw.
    """
    drawn = int(np.random.SeedSequence([seed, 5, step, index]).generate_state(1, np.uint64)[0] >> 1)
    torch.default_generator.manual_seed(drawn)  # not torch.manual_seed, which is slow where CUDA is not in use
    if device.type == "cuda":
        torch.cuda.manual_seed(drawn)


def teacher_embeddings(teachers: dict[str, Teacher], tensors: Tensors) -> Embeddings | None:
    """What the teachers make of a batch, the main one with the others in it; None without a main one.

    Stored (`teacher_image_features`, ...) or computed from each one's views and tokens.
    """

    def of(name: str, teacher: Teacher, others: tuple[Embeddings, ...]) -> Embeddings:
        image, text = tensors.get(f"{name}_image_features"), tensors.get(f"{name}_text_features")
        if image is None and f"{name}_images" in tensors:
            image = teacher.encode_image(tensors[f"{name}_images"])
        if text is None and f"{name}_tokens" in tensors:
            text = teacher.encode_text(tensors[f"{name}_tokens"])
        return Embeddings(image, text, teacher.logit_scale, teacher.logit_bias, others=others)

    if MAIN not in teachers:
        return None
    others = tuple(of(name, teacher, ()) for name, teacher in teachers.items() if name != MAIN)
    return of(MAIN, teachers[MAIN], others)


def joined(parts: list[Embeddings | None]) -> Embeddings | None:
    """The teachers' rows of all micro-batches."""
    first = parts[0]
    if first is None:
        return None

    def cat(name: str) -> Tensor | None:
        rows = [getattr(part, name) for part in parts]
        return None if rows[0] is None else torch.cat(rows)

    others = tuple(joined([part.others[k] for part in parts if part is not None]) for k in range(len(first.others)))
    return Embeddings(
        cat("image"), cat("text"), first.logit_scale, first.logit_bias, others=tuple(o for o in others if o is not None)
    )


@contextmanager
def kept_buffers(module: nn.Module) -> Iterator[None]:
    """Buffers inside as outside: whatever a forward pass writes into them is undone."""
    before = [buffer.clone() for buffer in module.buffers()]
    try:
        yield
    finally:
        for buffer, old in zip(module.buffers(), before, strict=True):
            buffer.copy_(old)


def detached(values: Tensors) -> Tensors:
    """Without graph."""
    return {name: value.detach() for name, value in values.items()}


def mean_of(outputs: list[LossOutput]) -> LossOutput:
    """Mean over micro-batches of every value."""

    def mean(parts: list[Tensors]) -> Tensors:
        return {name: torch.stack([part[name] for part in parts]).mean() for name in parts[0]}

    total = torch.stack([output.total for output in outputs]).mean()
    return LossOutput(total, mean([output.terms for output in outputs]), mean([output.seen for output in outputs]))
