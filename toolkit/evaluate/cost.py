"""What a model costs: bytes of its weights, and how long a forward takes here, the models measured in turn."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from toolkit import heartbeat
from toolkit.errors import ConfigError
from toolkit.evaluate.judged import Judged
from toolkit.evaluate.models import Encoder, StudentEncoder
from toolkit.models import Teacher

BATCHES = (1, 32)
WARM_UP = 3
"""Forwards that are not counted; one where a forward takes long."""
MIN_RUNS, MAX_RUNS, FEWEST_RUNS = 20, 200, 3
ENOUGH_SECONDS, MOST_SECONDS = 1.0, 8.0
"""Per model and entry: from the 20th forward on it ends after 1 s, in any case after 8 s (but not before the third)."""
SENTENCE = "a photo of a dog on a beach, seen from afar."
PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.float64: "fp64"}

Cost = dict[str, Any]
"""`image_bytes`, `text_bytes`, `image_ms` and `text_ms` by batch, `device`, `precision`; what is not known is absent."""


def cost_of(judged: Judged) -> Cost:
    """Of one model; see `costs_of`."""
    return costs_of({judged.name: judged})[judged.name]


def costs_of(
    models: Mapping[str, Judged],
    report: Callable[[str], None] = lambda line: None,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Cost]:
    """Of each model, measured in turn (student, teacher, student, ...), so that a slow moment of the machine hits all.

    A forward is `encode_image` of bytes in the model's own size, or `encode_text` of tokens, with normalisation and, on a
    GPU, the way there and the wait for it. `report` gets a line per entry; `clock` returns seconds.
    """
    costs: dict[str, Cost] = {name: {**weights_of(judged), **where(judged)} for name, judged in models.items()}
    for kind, prepare in (("image", image_forward), ("text", text_forward)):
        for batch in BATCHES:
            timers: dict[str, Timer] = {}
            for name, judged in models.items():
                try:
                    timers[name] = Timer(prepare(judged.encoder, batch), clock)
                except ConfigError as error:  # a teacher without a tokenizer
                    report(f"no {kind} times of {name}: {error}")
            in_turn(list(timers.values()))
            for name, timer in timers.items():
                costs[name].setdefault(f"{kind}_ms", {})[str(batch)] = timer.summary()
            if timers:
                report(f"{kind}, batch {batch}: " + ", ".join(f"{name} {t.in_words()}" for name, t in timers.items()))
    return costs


@dataclass
class Timer:
    """One forward of one model, and how long it took each time."""

    forward: Callable[[], Any]
    clock: Callable[[], float]
    seconds: list[float] = field(default_factory=list)

    def once(self) -> float:
        """Seconds of a forward."""
        began = self.clock()
        self.forward()
        return self.clock() - began

    def warm_up(self) -> None:
        """Forwards that do not count."""
        spent = 0.0
        for _ in range(WARM_UP):
            spent += self.once()
            if spent > ENOUGH_SECONDS:
                break

    @property
    def done(self) -> bool:
        """Measured enough, or long enough."""
        runs, spent = len(self.seconds), sum(self.seconds)
        if runs >= MAX_RUNS:
            return True
        return (runs >= MIN_RUNS and spent >= ENOUGH_SECONDS) or (runs >= FEWEST_RUNS and spent >= MOST_SECONDS)

    def summary(self) -> dict[str, float | int]:
        """Median and 95th percentile in ms."""
        p50, p95 = np.percentile(np.array(self.seconds) * 1000, [50, 95])
        return {"p50": round(float(p50), 4), "p95": round(float(p95), 4), "runs": len(self.seconds)}

    def in_words(self) -> str:
        """`3.1 ms (p95 3.4, 50 runs)`."""
        found = self.summary()
        p50, p95 = (f"{found[key]:.3g}" if found[key] < 1000 else f"{found[key]:,.0f}" for key in ("p50", "p95"))
        return f"{p50} ms (p95 {p95}, {found['runs']} runs)"


def in_turn(timers: list[Timer]) -> None:
    """Warm all up, then one forward of each, again and again; who is done drops out."""
    for timer in timers:
        timer.warm_up()
    while left := [timer for timer in timers if not timer.done]:
        heartbeat.alive()
        for timer in left:
            timer.seconds.append(timer.once())


def image_forward(encoder: Encoder, batch: int) -> Callable[[], Any]:
    """Of random pictures, always the same."""
    side = encoder.preprocess.image_size
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8, generator=generator)
    return lambda: finished(encoder.encode_image(pictures))


def text_forward(encoder: Encoder, batch: int) -> Callable[[], Any]:
    """Of one sentence `batch` times, as tokens; raises ConfigError where there is no tokenizer."""
    tokens = encoder.tokenizer()([SENTENCE] * batch)
    return lambda: finished(encoder.encode_text(tokens))


def finished(features: Tensor) -> Tensor:
    """Features that are there, not only asked of a GPU."""
    if features.is_cuda:
        torch.cuda.synchronize(features.device)
    return features


def module_of(encoder: Encoder) -> nn.Module | None:
    """The network behind it, where it is one of torch."""
    if isinstance(encoder, Teacher):
        return encoder.module
    return encoder.model.module if isinstance(encoder, StudentEncoder) else None


def weights_of(judged: Judged) -> dict[str, int]:
    """`image_bytes` and `text_bytes` as held: parameters and stored buffers of the `visual` of a module, and its others.

    `facts` of a format that is no torch module may have them as it counts them.
    """
    module = module_of(judged.encoder)
    if module is None and judged.image_module is None:
        return {key: int(judged.facts[key]) for key in ("image_bytes", "text_bytes") if key in judged.facts}
    if module is None:
        assert judged.image_module is not None
        return {"image_bytes": held(image_tower(judged.image_module))}
    image = held(image_tower(module))
    return {"image_bytes": image, "text_bytes": held(module) - image}


def image_tower(module: nn.Module) -> nn.Module:
    """`visual` where the module names it so, else all of it."""
    visual = getattr(module, "visual", module)
    assert isinstance(visual, nn.Module)
    return visual


def held(module: nn.Module) -> int:
    """Bytes of its state; tensors that share their memory count once."""
    distinct = {(t.data_ptr(), t.numel()): t.numel() * t.element_size() for t in module.state_dict().values()}
    return sum(distinct.values())


def where(judged: Judged) -> dict[str, str]:
    """`device` and `precision` in words; `facts` overrule."""
    module = module_of(judged.encoder) or judged.image_module
    found: dict[str, str] = {}
    tensor = next((p for p in module.parameters() if p.is_floating_point()), None) if module is not None else None
    if tensor is not None:
        found["precision"] = PRECISIONS.get(tensor.dtype, str(tensor.dtype).removeprefix("torch."))
    on_gpu = tensor is not None and tensor.is_cuda
    threads = torch.get_num_threads()
    cpu = f"CPU, {threads} thread{'' if threads == 1 else 's'}"
    found["device"] = torch.cuda.get_device_name(tensor.device) if on_gpu and tensor is not None else cpu
    return found | {key: str(judged.facts[key]) for key in ("device", "precision") if key in judged.facts}
