"""The whole model of a run: built once, asked for any number of GPUs."""

from dataclasses import dataclass, replace
from typing import Any

from toolkit import config
from toolkit.config import Batch, Run, batch_arithmetic
from toolkit.config.ds_config import load_ds_config, zero_stage
from toolkit.config.validate import needs_of
from toolkit.errors import ConfigError
from toolkit.estimate import memory, network, speed, storage
from toolkit.estimate.hardware import Cluster
from toolkit.estimate.models import Frozen, Trained, empty_student, empty_teacher, measure_student, measure_teacher
from toolkit.estimate.network import Message, Sharding, feature_messages, state_messages
from toolkit.estimate.plan import Wishes
from toolkit.estimate.traffic import Traffic, traffic_of


@dataclass(frozen=True)
class Described:
    """Everything about a run that was found by looking at its models and losses."""

    run: Run
    batch: Batch
    student: Trained
    teachers: tuple[tuple[Frozen, config.Teacher], ...]
    traffic: Traffic
    sharding: Sharding
    offloaded: bool
    reads_text: bool

    @property
    def live(self) -> list[tuple[Frozen, bool]]:
        """Teachers, and whether each runs at every step."""
        return [(frozen, not cfg.store) for frozen, cfg in self.teachers]

    @property
    def teacher_precision(self) -> str:
        """In which the main teacher runs."""
        dtype = self.run.teacher.dtype
        return self.run.precision if dtype == "auto" else dtype

    @property
    def features_first(self) -> bool:
        """Accumulation that lets the losses see the global batch."""
        return self.run.data.accumulation == "global_batch"

    def messages(self) -> list[Message]:
        """All of a step."""
        k = self.batch.grad_accum_steps
        times = 1 if self.features_first else k
        twice = speed.passes(self.batch, global_batch=self.features_first) == 2
        return feature_messages(self.traffic, times) + state_messages(self.sharding, k, features_first=twice)

    def work(self) -> speed.Work:
        """FLOPs of a step on one rank."""
        return speed.work_of(
            self.batch, self.student, self.live, self.traffic, checkpointing=self.run.student.grad_checkpointing,
            global_batch=self.features_first,
        )  # fmt: skip

    def memories(self) -> dict[str, memory.Memory]:
        """By stage, and the run's own ds_config where that offloads."""
        chosen = self.student.plain
        if self.run.student.grad_checkpointing and self.student.checkpointed:
            chosen = self.student.checkpointed
        seen = [one for one, live in self.live if live]
        rest: dict[str, Any] = {
            "ranks": self.batch.world_size,
            "moments": 0 if self.run.optim.optimizer == "sgd" else 2,
            "teacher_weights": float(sum(one.weight_bytes for one, cfg in self.teachers if cfg.in_memory)),
            "teacher_peak": max(
                (max(one.images.peak_bytes, one.texts.peak_bytes if one.texts else 0.0) for one in seen), default=0.0
            ),
            "student_peak": chosen.peak_bytes,
            "losses": self.traffic.memory_bytes + memory.LOSS_WORKSPACE,
        }
        found = {str(one.stage): one for one in memory.all_stages(self.sharding, **rest)}
        if self.offloaded:
            found["run"] = memory.memory_at(self.sharding, offloaded=True, **rest)
        return found


def describe(run: Run, gpus: int) -> Described:
    """Look at the models and losses of a run on that many ranks. Raises ConfigError where they cannot be looked at."""
    ds_config = load_ds_config(run.deepspeed)
    zero = ds_config.get("zero_optimization", {})
    batch = batch_arithmetic(run, gpus)
    needs = needs_of_run(run)
    teacher = empty_teacher(run.teacher, run.precision) if run.teacher.name else None
    student_model = empty_student(run.student, teacher)
    reads_text = "text" in needs
    measured = []
    if teacher is not None and "teacher" in needs:
        for cfg in (run.teacher, *run.extra_teachers.values()):
            one = teacher if cfg is run.teacher else None
            measured.append((measure_teacher(cfg, run, batch, reads_text=reads_text, teacher=one), cfg))
    student = measure_student(student_model, run, batch, masked_view="masked_view" in needs)
    traffic = traffic_of(run, batch, student.embed_dim, tuple(one.embed_dim for one, _ in measured))
    offload = zero.get("offload_optimizer") or zero.get("offload_param")
    sharding = Sharding(
        zero_stage(ds_config),
        student.trainable + traffic.parameters,
        student.persistent + traffic.parameters,
        student.large_tensors,
        int(zero.get("reduce_bucket_size", network.BUCKET)),
    )
    return Described(
        run, batch, student, tuple(measured), traffic, sharding, bool(offload and sharding.stage), reads_text
    )


def needs_of_run(run: Run) -> set[str]:
    """What its losses cannot do without."""
    active = [term for term in run.losses.values() if term.weight or term.final_weight]
    return {need for term in active for need in needs_of(term)}


def respread(described: Described, gpus: int, *, batch_size_per_gpu: int | None = None) -> Described:
    """The same run on other ranks, with what was measured scaled by the micro-batch; a global batch may grow with them."""
    run = described.run
    if batch_size_per_gpu is not None:
        whole = batch_size_per_gpu * gpus
        run = replace(run, data=replace(run.data, global_batch_size=whole, text_batch_size=None))
    run = replace(run, data=replace(run.data, batch_size_per_gpu=None))
    batch = batch_arithmetic(run, gpus)
    share = batch.batch_size_per_gpu / described.batch.batch_size_per_gpu
    student = described.student
    checkpointed = student.checkpointed and scaled(student.checkpointed, share)
    student = replace(student, plain=scaled(student.plain, share), checkpointed=checkpointed)
    teachers = tuple(
        (replace(one, images=scaled(one.images, share), texts=one.texts and scaled(one.texts, share)), cfg)
        for one, cfg in described.teachers
    )
    widths = tuple(one.embed_dim for one, _ in teachers)
    traffic = traffic_of(run, batch, student.embed_dim, widths)
    return replace(described, run=run, batch=batch, student=student, teachers=teachers, traffic=traffic)


def scaled(one: Any, share: float) -> Any:
    """A pass of another micro-batch."""
    return replace(one, **{name: value * share for name, value in vars(one).items()})


def step_of(described: Described, cluster: Cluster, wishes: Wishes) -> dict[str, Any]:
    """Seconds of a step by part."""
    if described.batch.world_size != cluster.gpus:
        raise ConfigError(f"described for {described.batch.world_size} ranks, asked about {cluster.gpus}")
    images = described.batch.global_images / cluster.gpus
    if wishes.images_per_second is None:
        precision = described.run.precision
        parts = speed.compute_seconds(described.work(), cluster, precision, described.teacher_precision)
        parts["update"] = speed.update_seconds(described.sharding.parameters, described.sharding.stage, cluster)
    else:
        parts = {"measured": images / wishes.images_per_second}
    parts |= network.seconds_by_part(described.messages(), cluster)
    rate = storage.core_rate(wishes, any(live for _, live in described.live))
    return speed.step_seconds(parts, images, wishes.cores_per_gpu, rate)
