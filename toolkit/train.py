"""The one training loop. Read it downwards; the losses are in toolkit/losses, the wrapped module in toolkit/distiller.py."""

import json
from collections.abc import Collection
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import torch

from toolkit import config, distributed, facts, launches, signals
from toolkit.agreement import Agreement
from toolkit.checkpoint import Progress
from toolkit.checkpoint.resume import resume
from toolkit.checkpoint.saver import Saver
from toolkit.config import Batch, Run, batch_arithmetic, shards_of, world_size_from_environment
from toolkit.data.build import Streams, build_sources, check_shards
from toolkit.data.cache import cache_of
from toolkit.data.index import write_aside
from toolkit.distiller import Distiller
from toolkit.embed import prepare_stores, stored_teacher
from toolkit.embeddings import ARRIVALS
from toolkit.engine import build_engine, set_lr, set_weights, update
from toolkit.errors import ConfigError
from toolkit.evaluate import Harness, StudentEncoder, flat_metrics
from toolkit.evaluate.table import as_text
from toolkit.evaluate.zero_shot import class_embeddings
from toolkit.first_batch import try_fake_batch
from toolkit.heartbeat import Heartbeat
from toolkit.losses import LossSum, build_losses
from toolkit.meter import Meter
from toolkit.metrics import Metrics
from toolkit.models import Model, Teacher, build_student, build_teacher, build_tokenizer
from toolkit.models.student import sync_batchnorm
from toolkit.report import write_report
from toolkit.schedules import lr_at, weight_at
from toolkit.signals import Asked
from toolkit.step import MAIN, Step


def train(run: Run) -> dict[str, Any]:
    """Distil: build, resume if there is something to resume, step, evaluate, report.

    Every rank calls it; all return the final evaluation (empty when stopped before the last step).
    """
    batch = batch_arithmetic(run, world_size_from_environment())
    signals.set_budget(run.max_hours, run.time_margin_seconds)
    distributed.init()
    facts.check_same_run(run)
    heartbeat = Heartbeat(Path(run.out_dir) / "heartbeats", run.faults.hang_seconds)
    heartbeat.start()
    try:
        return distil(run, batch, heartbeat)
    finally:
        heartbeat.stop()


def distil(run: Run, batch: Batch, heartbeat: Heartbeat) -> dict[str, Any]:
    """As `train`, with the ranks connected."""
    device = distributed.device()
    check_shards(run)

    teacher, student, losses, distiller, imitated = build_models(run, batch, device)
    harness = Harness(run.evaluation, cache=cache_of(run.data))
    frozen = try_fake_batch(distiller, student, imitated, run, batch, device)
    if frozen:
        distributed.say(f"frozen, because no loss reaches them: {len(frozen)} tensors, the first is {frozen[0]}")

    # Data: counted, and embedded where the run keeps a store of the teacher's embeddings.
    reads_text = "text" in losses.needs
    stores = prepare_stores(run, imitated, reads_text)
    sources = build_sources(
        run.data, batch, student=student.preprocess, teachers={name: one.preprocess for name, one in imitated.items()},
        tokenizers=tokenizers(run, student, imitated, reads_text=reads_text, stores=stores), seed=run.seed, stores=stores,
    )  # fmt: skip
    start = facts.write_facts(run, batch, student, teacher, {name: source.facts() for name, source in sources.items()})
    distributed.say(facts.in_words(run, start))

    # Engine, and the newest complete checkpoint if there is one.
    engine = build_engine(run, distiller, batch, device)
    progress = resume(engine, student, run)
    last = min(run.steps, run.stop_at_step or run.steps)
    encoder = (
        StudentEncoder(student, engine, device, text_tower=run.student.text_tower, teacher=teacher)
        if run.evaluation.sets
        else None
    )
    step = Step(engine, imitated, batch, device, run.seed, run.data.accumulation == "per_micro_batch")
    if progress.step < last:
        streams = Streams(
            sources, rank=distributed.rank(), world=distributed.world(), first_step=progress.step, workers=run.workers
        )
        with closing(Saver(run)) as saver:
            asked = loop(run, step, student, streams, progress, last, harness, encoder, teacher, heartbeat, saver)
        if asked and progress.step < run.steps:
            return stopped(run, progress, asked)
    if last < run.steps:
        distributed.say(
            f"stopped at step {last} of {run.steps} as stop_at_step says; the same command without it goes on"
        )
        return {}
    with heartbeat.long_phase("the last evaluation", progress.step):
        result = finish(run, engine, student, teacher, progress, harness, encoder, device)
    if distributed.is_main():
        launches.end(Path(run.out_dir), "DONE", progress.step, again=False)
    return result


def stopped(run: Run, progress: Progress, asked: Asked) -> dict[str, Any]:
    """Asked to stop, and the checkpoint is there: say so, to people and to whoever launched this."""
    if distributed.is_main():
        launches.end(Path(run.out_dir), asked.name, progress.step, again=asked.again)
    distributed.say(
        f"stopped at step {progress.step} of {run.steps}: {asked.words}; the checkpoint is complete, the same command goes on from it"
    )
    return {}


class Models(NamedTuple):
    """What a run is made of, on the device, before the engine wraps it."""

    teacher: Teacher | None
    student: Model
    losses: LossSum
    distiller: Distiller
    imitated: dict[str, Teacher]
    """The teachers that the losses look at, by the name of their tensors."""


def build_models(run: Run, batch: Batch, device: torch.device) -> Models:
    """The same seed on every rank, so that all students start equal, whether a teacher is built before or not."""
    teacher = teacher_of(run, run.teacher, device) if run.teacher.name else None
    distributed.seed_everything(run.seed)
    student = build_student(run.student, teacher)
    student.module = sync_batchnorm(student.module, batch.world_size)
    losses = build_losses(run.losses, embed_dim=student.embed_dim, class_embeddings=class_embeddings(teacher))
    distiller = Distiller(
        student.module, losses, student.preprocess, text_tower=run.student.text_tower, compile=run.compile
    )
    if teacher is not None:
        teacher.release()
    distiller.to(device)
    return Models(teacher, student, losses, distiller, imitated_teachers(run, losses, teacher, device))


def loop(
    run: Run, step: Step, student: Model, streams: Streams, progress: Progress, last: int, harness: Harness,
    encoder: StudentEncoder | None, teacher: Teacher | None, heartbeat: Heartbeat, saver: Saver,
) -> Asked:  # fmt: skip
    """From `progress.step` to `last`, or to where all ranks agree to stop and why; leaves a checkpoint there."""
    engine, first = step.engine, progress.step
    metrics = Metrics(run, first) if distributed.is_main() else None
    meter, agreement = Meter(run, streams.sources, progress), Agreement(run, progress)
    engine.train()
    launches.stepping = True
    while progress.step < last and not agreement.asked:
        heartbeat.phase("waiting for data", progress.step, long=progress.step == first)
        ARRIVALS.begin(step.device)
        with meter.waiting():
            agreement.batch = found = streams.next()
        tensors = {name: tensor for part in found.values() for name, tensor in part.tensors.items()}
        shown = (progress.step + 1) % run.logging.every_steps == 0 or progress.step + 1 == last

        # The student's and the teacher's features, the losses over the global batch, one update.
        heartbeat.phase("forward", progress.step, long=progress.step == first)
        set_lr(engine, lr_at(progress.step, run.optim, run.steps))
        set_weights(engine, {name: weight_at(progress.step, term, run.steps) for name, term in run.losses.items()})
        with agreement.unless_skipped(engine.module):
            output = step.forward_backward(tensors, progress.step, check=agreement.check, observe=shown)
            heartbeat.phase("update", progress.step, long=progress.step == first)
            agreement.updated(update(engine))
        progress.step += 1
        meter.add(output, counts=not agreement.skipped)

        # What people see.
        if shown:
            values = meter.read(engine, progress.step, streams.skipped()) | {"checkpoint/waited_seconds": saver.waited}
            if metrics is not None:
                metrics.log(progress.step, values)
                metrics.show(progress.step, values)

        # Judge the student on the way, and keep it if it is the best so far.
        is_best = False
        if encoder and run.evaluation.every_steps and progress.step % run.evaluation.every_steps == 0:
            with meter.paused(), heartbeat.long_phase("evaluation", progress.step):
                is_best = evaluate_on_the_way(run, engine, progress, harness, encoder, teacher, metrics)
        due = run.checkpoint.every_steps and progress.step % run.checkpoint.every_steps == 0
        ends = progress.step == last or bool(agreement.asked)
        if due or is_best or ends:
            with meter.paused(), heartbeat.long_phase("checkpoint", progress.step):
                progress.seconds = meter.seconds()
                saver.save(engine, student, progress, last=ends)
    if metrics is not None:
        metrics.close()
    return agreement.asked


def evaluate_on_the_way(
    run: Run, engine: Any, progress: Progress, harness: Harness, encoder: StudentEncoder, teacher: Teacher | None, metrics: Metrics | None
) -> bool:  # fmt: skip
    """Log the student's metrics; True if `evaluation.best` improved."""
    engine.eval()
    distributed.average_buffers(engine.module.student)  # those of the losses are alike on all ranks
    sets = harness.judge({**({"teacher": teacher} if teacher is not None else {}), "student": encoder})
    if teacher is not None:
        teacher.release()
    engine.train()
    found = flat_metrics(sets, "student")
    if metrics is not None:
        metrics.log(progress.step, {f"eval/{name}": value for name, value in found.items()})
        metrics.write(f"step {progress.step} " + " ".join(f"{name} {value:.2f}" for name, value in found.items()))
    best = run.evaluation.best
    if not best:
        return False
    if best not in found:
        raise ConfigError(f"evaluation.best={best} is not measured; known here: {', '.join(found)}")
    if progress.best is not None and found[best] <= progress.best:
        return False
    progress.best, progress.best_step = found[best], progress.step
    return True


def finish(
    run: Run, engine: Any, student: Model, teacher: Teacher | None, progress: Progress, harness: Harness,
    encoder: StudentEncoder | None, device: torch.device,
) -> dict[str, Any]:  # fmt: skip
    """Judge teacher, student and the untrained student alike; write evaluation.json, samples.json and the report."""
    result: dict[str, Any] = {"units": "percent", "seconds": round(progress.seconds, 1), "sets": {}}
    samples: list[dict[str, Any]] = []
    if encoder is not None:
        engine.eval()
        distributed.seed_everything(run.seed)
        fresh = build_student(run.student, teacher)
        bare = (
            Distiller(fresh.module, LossSum({}, {}), fresh.preprocess, text_tower=run.student.text_tower)
            .to(device)
            .eval()
        )
        models: dict[str, Any] = {"teacher": teacher} if teacher is not None else {}
        models["student"] = encoder
        models["untrained"] = StudentEncoder(fresh, bare, device, text_tower=run.student.text_tower, teacher=teacher)
        result["sets"] = harness.judge(models)
        samples = harness.samples({who: model for who, model in models.items() if who != "untrained"})
    if distributed.is_main():
        folder = Path(run.out_dir)
        write_aside(folder / "evaluation.json", json.dumps(result, indent=1) + "\n")
        write_aside(folder / "samples.json", json.dumps(samples) + "\n")
        page = write_report(folder)
        print(f"{as_text(result['sets'])}\nreport: {page}", flush=True)
    distributed.barrier()
    return result


def imitated_teachers(run: Run, losses: LossSum, teacher: Teacher | None, device: torch.device) -> dict[str, Teacher]:
    """The teachers that the losses look at, the main one first."""
    if teacher is None or "teacher" not in losses.needs:
        return {}
    extra = {name: teacher_of(run, chosen, device) for name, chosen in run.extra_teachers.items()}
    return {MAIN: teacher, **extra}


def teacher_of(run: Run, chosen: config.Teacher, device: torch.device) -> Teacher:
    """The teacher itself, or what is known of it from its store where it is not to be in memory."""
    if chosen.in_memory:
        return build_teacher(chosen, run.precision, device)
    return stored_teacher(chosen, run.precision, device, bool(run.data.pairs or shards_of(run.data, "texts")))


def tokenizers(
    run: Run, student: Model, teachers: dict[str, Teacher], *, reads_text: bool, stores: Collection[str]
) -> dict[str, Any]:
    """Tokenizers of the tensors that this run needs, by tensor name; none for a teacher whose sentences are stored."""
    found: dict[str, Any] = {}
    if run.student.text_tower:
        assert student.tokenizer is not None
        found["student_tokens"] = build_tokenizer(student.tokenizer, student.context_length)
    for name, teacher in teachers.items():
        if reads_text and f"{name}_text_features" not in stores:
            found[f"{name}_tokens"] = teacher.tokenizer()
    if shards_of(run.data, "texts") and not reads_text:
        distributed.say("data.texts is set and no loss with a weight reads sentences: they are not loaded")
    return found
