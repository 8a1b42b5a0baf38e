"""Run by several real ranks: the same steps with the batch spread in other ways; rank 0 writes the largest differences.

usage: spread_worker.py OUT.json STAGES [MUTANT...], with RANK, WORLD_SIZE, ... in the environment. STAGES: `plain` (gloo,
float64, the same Distiller and Step without DeepSpeed) or `zero` (DeepSpeed, fp32, stages 0-3).
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from timm.layers import DropPath
from torch import Tensor, nn

from toolkit import distributed, embeddings
from toolkit.config import Batch, Data, Optim, Preprocess, Run, batch_arithmetic
from toolkit.distiller import Distiller
from toolkit.embeddings import LOCAL, Embeddings, Exchange
from toolkit.engine import build_engine
from toolkit.losses import LossSum, build_loss
from toolkit.losses.similarity_kl import Labels, similarity_kl
from toolkit.step import Step, seed_micro_batch

WIDTH, ROWS, STEPS, LR, SEED = 16, 32, 3, 0.2, 3
CPU = torch.device("cpu")


class Towers(nn.Module):
    """Two towers with drop-path, parameters of their own beside the submodules, and a learnable scale."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.words = nn.Linear(3 * 8 * 8, 24), nn.Linear(24, 24), nn.Embedding(40, 24)
        self.drop = DropPath(0.4)
        self.proj = nn.Parameter(torch.randn(24, WIDTH) / 5)
        self.logit_scale = nn.Parameter(torch.full((1,), 2.0))

    def encode_image(self, images: Tensor) -> Tensor:
        x = self.stem(images.flatten(1).to(self.stem.weight.dtype))
        return (x + self.drop(torch.tanh(self.block(x)))) @ self.proj

    def encode_text(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens).mean(1)
        return (x + self.drop(torch.tanh(self.block(x)))) @ self.proj


class OwnParameters(nn.Module):
    """A loss with a projection, a learnable scale and labels: what AFD and ICL have."""

    needs = frozenset({"teacher"})

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(WIDTH, WIDTH, bias=False)
        self.log_scale = nn.Parameter(torch.full((1,), 1.0))

    def forward(self, student: Embeddings, teacher: Embeddings, exchange: Exchange = LOCAL) -> Tensor:
        columns = exchange.gather(self.project(teacher.image))
        return similarity_kl(
            student.image, columns, Labels(), logit_scale=self.log_scale.exp(), both=True, exchange=exchange
        )


class PlainEngine:
    """What Step asks of an engine, in ordinary PyTorch: gradients averaged over ranks, SGD."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def backward(self, loss: Tensor, scale_wrt_gas: bool) -> None:
        loss.backward()

    def step(self) -> None:
        for parameter in self.module.parameters():
            assert parameter.grad is not None
            dist.all_reduce(parameter.grad)
            parameter.data -= LR * parameter.grad / dist.get_world_size()
            parameter.grad = None


def distiller(dtype: torch.dtype) -> Distiller:
    torch.manual_seed(0)
    terms = {"vl": build_loss("vl", scale=20.0), "pvl": build_loss("pvl"), "udist": build_loss("udist")}
    terms |= {"contrastive": build_loss("contrastive"), "own": OwnParameters()}
    weights = {"vl": 0.7, "pvl": 0.3, "udist": 0.1, "contrastive": 0.5, "own": 0.5}
    module = Distiller(Towers(), LossSum(terms, weights), Preprocess(image_size=8), text_tower=True)
    return module.to(dtype).train()


def batches(dtype: torch.dtype) -> list[dict[str, Tensor]]:
    """The global batch of every step, features of a teacher included."""
    draw = torch.Generator().manual_seed(1)
    return [
        {
            "student_images": torch.randint(0, 256, (ROWS, 3, 8, 8), dtype=torch.uint8, generator=draw),
            "student_tokens": torch.randint(0, 40, (ROWS, 5), generator=draw),
            "teacher_image_features": torch.randn(ROWS, WIDTH, generator=draw).to(dtype),
            "teacher_text_features": torch.randn(ROWS, WIDTH, generator=draw).to(dtype),
        }
        for _ in range(STEPS)
    ]


def reference(dtype: torch.dtype, parts: int) -> dict[str, Tensor]:
    """One process, the whole batch in one graph; random numbers are drawn per part, as any spread into `parts` does."""
    module = distiller(dtype)
    for number, batch in enumerate(batches(dtype)):
        rows = []
        for part in range(parts):
            seed_micro_batch(SEED, number, part, CPU)
            rows.append(module.embed({name: tensor.chunk(parts)[part] for name, tensor in batch.items()}))
        student = Embeddings(torch.cat([r.image for r in rows]), torch.cat([r.text for r in rows]), rows[0].logit_scale)
        teacher = Embeddings(batch["teacher_image_features"], batch["teacher_text_features"])
        module.losses(student, teacher, LOCAL).total.backward()
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.grad is not None:
                    parameter -= LR * parameter.grad
                parameter.grad = None
    return {name: p.detach() for name, p in module.named_parameters()}


def weights_of(engine: Any) -> dict[str, Tensor]:
    """Whole parameters, gathered where ZeRO-3 has spread them."""
    if isinstance(engine, PlainEngine):
        return {name: p.detach() for name, p in engine.module.named_parameters()}
    import deepspeed

    stage = engine.zero_optimization_stage()
    with deepspeed.zero.GatheredParameters(list(engine.module.parameters()), enabled=stage == 3):
        return {name: p.detach().clone() for name, p in engine.module.named_parameters()}


def spread(engine: Any, dtype: torch.dtype, batch: Batch, per_micro_batch: bool = False) -> dict[str, Tensor]:
    """The same steps on this rank's share."""
    teacher: Any = SimpleNamespace(logit_scale=None, logit_bias=None)
    step = Step(engine, {"teacher": teacher}, batch, CPU, SEED, per_micro_batch)
    for number, whole in enumerate(batches(dtype)):
        mine = {name: rows.chunk(distributed.world())[distributed.rank()] for name, rows in whole.items()}
        step.forward_backward(mine, number, check=lambda output: output, observe=number == 1)
        engine.step()
    return weights_of(engine)


def worst(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    assert found.keys() == wanted.keys()
    return max(float((found[name] - wanted[name]).abs().max()) for name in wanted)


@contextmanager
def mutated(name: str) -> Iterator[None]:
    """One thing broken, as it has been broken in public code."""
    before = (embeddings.AllGather.backward, Step._seed, Step._micro)

    def no_gradient(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0].chunk(dist.get_world_size())[dist.get_rank()]

    def average(ctx: Any, *grads: Tensor) -> Tensor:
        return before[0](ctx, *grads) / dist.get_world_size()

    if name in ("no_gradient", "average"):
        embeddings.AllGather.backward = staticmethod({"no_gradient": no_gradient, "average": average}[name])
    if name == "no_replay":
        Step._seed = lambda self, number, k: None
    if name == "wrong_offset":
        Step._micro = lambda self, tensors, k: before[2](
            self, tensors, (k + torch.is_grad_enabled()) % self.batch.grad_accum_steps
        )
    yield
    embeddings.AllGather.backward, Step._seed, Step._micro = before


def zero_configs(folder: Path) -> Iterator[tuple[str, Path]]:
    """ZeRO stages as files; in stage 3 nothing is small enough to stay whole."""
    for stage in range(4):
        zero = {"stage": stage, "overlap_comm": False}
        zero |= {"stage3_param_persistence_threshold": 0} if stage == 3 else {}
        path = folder / f"zero{stage}_{distributed.rank()}.json"
        path.write_text(json.dumps({"zero_optimization": zero}))
        yield f"zero{stage}", path


def main() -> None:

    out, kind, *mutants = sys.argv[1:]
    distributed.init()
    dtype = torch.float64 if kind == "plain" else torch.float32
    found: dict[str, float] = {}
    for accumulation in (1, 2, 4):
        data = Data(global_batch_size=ROWS, batch_size_per_gpu=ROWS // distributed.world() // accumulation)
        run = Run(data=data, optim=Optim(optimizer="sgd", lr=LR, weight_decay=0.0), precision="fp32")
        batch = batch_arithmetic(run, distributed.world())
        wanted = reference(dtype, distributed.world() * accumulation)
        if kind == "plain":
            found[f"plain x{accumulation}"] = worst(spread(PlainEngine(distiller(dtype)), dtype, batch), wanted)
            if accumulation > 1:
                other = spread(PlainEngine(distiller(dtype)), dtype, batch, per_micro_batch=True)
                found[f"per_micro_batch x{accumulation}"] = worst(other, wanted)
                for name in mutants:
                    with mutated(name):
                        found[f"{name} x{accumulation}"] = worst(
                            spread(PlainEngine(distiller(dtype)), dtype, batch), wanted
                        )
            continue
        for name, path in zero_configs(Path(out).parent):
            from dataclasses import replace

            engine = build_engine(replace(run, deepspeed=str(path)), distiller(dtype), batch, CPU)
            found[f"{name} x{accumulation}"] = worst(spread(engine, dtype, batch), wanted)
    if distributed.is_main():
        Path(out).write_text(json.dumps(found))
    distributed.shutdown()


if __name__ == "__main__":
    main()
