"""Which loops benchmarks/step.py runs, and which of them it compares."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Machine:
    """What decides which variants make sense."""

    cuda: bool
    cores: int
    batch: int
    batches: tuple[int, ...] = ()
    """Further sizes, for the sweep."""


@dataclass(frozen=True)
class Variant:
    """One way to run the step, in processes of its own."""

    key: str
    group: str
    title: str
    kind: Literal["ours", "dimefm", "open_clip"] = "ours"
    words: tuple[str, ...] = ()
    """Settings of the run beyond those that all share."""
    options: tuple[str, ...] = ()
    """Of benchmarks/step_one.py."""
    ranks: int = 1
    copies: int = 1
    """Launches at the same time that know nothing of each other."""
    pinned: bool = False
    """A core and a thread for each rank."""
    batch: int = 0
    """Images per rank; 0: the machine's."""
    live: bool = False
    """Does the teacher work in the step."""
    pairs: bool = False
    """Is a text tower trained too, on captions."""
    student: str = ""
    """Type of its products, fp32 or bf16; empty: the machine's usual."""
    teacher: str = ""
    warmup: int = 0
    """Steps more than usual before any is counted."""
    rounds: int = 0
    """At most so many; 0: as many as asked for."""


@dataclass(frozen=True)
class Ratio:
    """Images per second of one against another's, times `times`."""

    title: str
    above: str
    below: str
    times: float = 1.0
    target: float | None = None


@dataclass(frozen=True)
class Plan:
    """What is run and compared."""

    variants: list[Variant] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)


STORED, LIVE = ("@stored",), ("@live",)
"""Words with @ stand for the folders of a run, which benchmarks/step.py fills in."""
PAIRS = (
    "@pairs", "student.text_tower=true", "losses.vl.weight=0", "losses.pvl.weight=0", "losses.contrastive.weight=1",
    "losses.open_clip_distil.weight=1",
)  # fmt: skip
"""What open_clip's distillation trains: InfoNCE and the teacher's similarities, one to one."""


def usual(cuda: bool) -> str:
    """Type of the student's products: what is bit for bit the same after a resume; on a CPU bf16 is not."""
    return "bf16" if cuda else "fp32"


def plan(machine: Machine) -> Plan:
    """All variants of a machine, group by group, with the comparisons between them."""
    found = Plan()
    for part in (core, pairs, ranks, zero, options, sweep):
        more = part(machine)
        found.variants.extend(more.variants)
        found.ratios.extend(more.ratios)
    return found


def core(machine: Machine) -> Plan:
    """The toolkit and DIME-FM's loop on the same batches, open_clip's on pairs."""
    autocast = ("--amp",) if machine.cuda else ()
    theirs = usual(machine.cuda)
    rows = [
        Variant("stored", "core", "ours, stored teacher", words=STORED),
        Variant("live", "core", "ours, live teacher", words=LIVE, live=True, teacher="bf16"),
        Variant(
            "dimefm", "core", "DIME-FM's loop, live teacher, our batches", "dimefm", LIVE, autocast, live=True, teacher=theirs
        ),
        Variant(
            "open_clip", "core", "open_clip's distillation loop, pairs, text tower trained", "open_clip", PAIRS,
            autocast, live=True, pairs=True, teacher=theirs,
        ),
    ]  # fmt: skip
    ratios = [
        Ratio("ours, live teacher, against DIME-FM's loop", "live", "dimefm", target=1.3),
        Ratio("ours, stored teacher, against DIME-FM's loop with its live teacher", "stored", "dimefm", target=2.0),
        Ratio("ours, stored teacher, against ours with a live one", "stored", "live"),
    ]
    if not machine.cuda:
        rows.insert(
            2, Variant("live_fp32", "core", "ours, live teacher in fp32", words=(*LIVE, "teacher.dtype=fp32"), live=True)
        )  # fmt: skip
        ratios.insert(1, Ratio("the same with our teacher in fp32 as theirs is", "live_fp32", "dimefm"))
    return Plan(rows, ratios)


def pairs(machine: Machine) -> Plan:
    """The rest of what is compared with the other loops."""
    rows = [
        Variant(
            "pairs", "pairs", "ours on pairs, text tower trained, live teacher", words=PAIRS, live=True, pairs=True,
            teacher="bf16",
        ),
        Variant(
            "dimefm_tsv", "loader", "DIME-FM's loop with its TSV loaders", "dimefm", LIVE,
            ("@tsv", *(("--amp",) if machine.cuda else ())), live=True, teacher=usual(machine.cuda),
        ),
    ]  # fmt: skip
    ratios = [
        Ratio("ours on pairs, live teacher, against open_clip's loop", "pairs", "open_clip"),
        Ratio("ours, live teacher, against DIME-FM's loop with its loaders", "live", "dimefm_tsv"),
        Ratio("ours, stored teacher, against DIME-FM's loop with its loaders", "stored", "dimefm_tsv"),
    ]
    if not machine.cuda:
        rows += [
            Variant(
                "dimefm_amp", "amp", "DIME-FM's loop, everything under bf16 autocast", "dimefm", LIVE, ("--amp",),
                live=True, student="bf16", teacher="bf16", rounds=1,
            ),
            Variant(
                "pairs_fp32", "pairs", "the same, teacher in fp32", words=(*PAIRS, "teacher.dtype=fp32"), live=True,
                pairs=True,
            ),
        ]  # fmt: skip
        ratios.append(Ratio("ours on pairs with the teacher in fp32, against open_clip's", "pairs_fp32", "open_clip"))
    return Plan(rows, ratios)


def ranks(machine: Machine) -> Plan:
    """Two ranks against twice one, each on one core with one thread; only where ranks are cores.

    Their heaps grow for three steps before the memory of one serves the next.
    """
    if machine.cuda or machine.cores < 2:
        return Plan()
    half, grown = max(1, machine.batch // 2), 2
    rows = [
        Variant("solo", "ranks", f"one rank, one core, {half} images", words=STORED, pinned=True, batch=half, warmup=grown),
        Variant(
            "side", "ranks", "two such runs side by side, unconnected", words=STORED, pinned=True, batch=half, copies=2,
            warmup=grown
        ),
        Variant("two", "ranks", f"two ranks, a core and {half} images each", words=STORED, pinned=True, batch=half, ranks=2, warmup=grown),
        Variant(
            "two_live", "ranks_live", "two ranks, live teacher", words=LIVE, pinned=True, batch=half, ranks=2, live=True,
            teacher="bf16",
        ),
        Variant(
            "solo_live", "ranks_live", "one rank, live teacher", words=LIVE, pinned=True, batch=half, live=True, teacher="bf16"
        ),
        Variant("dimefm_two", "ranks_live", "DIME-FM's loop on two ranks (DDP)", "dimefm", LIVE, pinned=True, batch=half,
                ranks=2, live=True),
        Variant("dimefm_solo", "ranks_live", "DIME-FM's loop on one rank", "dimefm", LIVE, pinned=True, batch=half, live=True),
    ]  # fmt: skip
    ratios = [
        Ratio("two ranks on two cores, of the ideal (twice one rank)", "two", "solo", times=2, target=0.9),
        Ratio("what the machine itself gives: two unconnected runs, of twice one", "side", "solo", times=2),
        Ratio("two ranks, of two unconnected runs", "two", "side"),
        Ratio("two ranks with a live teacher, of the ideal", "two_live", "solo_live", times=2),
        Ratio("DIME-FM's loop on two ranks, of the ideal", "dimefm_two", "dimefm_solo", times=2),
    ]
    return Plan(rows, ratios)


def zero(machine: Machine) -> Plan:
    """ZeRO 0, 2 and 3 against the usual 1; on two ranks where a machine has no GPUs, since one rank shares nothing."""
    two = (
        {}
        if machine.cuda or machine.cores < 2
        else {"ranks": 2, "pinned": True, "batch": max(1, machine.batch // 2), "warmup": 2}
    )
    base = "two" if two else "stored"
    rows = [
        Variant(
            f"zero{stage}", "zero", f"ZeRO {stage}{', two ranks' if two else ''}",
            words=(*STORED, f"deepspeed=ds_configs/zero{stage}.json"), rounds=1, **two,  # type: ignore[arg-type]
        )
        for stage in (0, 2, 3)
    ]  # fmt: skip
    ratios = [Ratio(f"ZeRO {stage} against ZeRO 1", f"zero{stage}", base) for stage in (0, 2, 3)]
    if two:
        rows.append(
            Variant("alone", "zero", "ZeRO 0, one rank", words=(*STORED, "deepspeed=ds_configs/zero0.json"), rounds=1)
        )
        ratios.append(Ratio("ZeRO 0 against ZeRO 1 on one rank", "alone", "stored"))
    return Plan(rows, ratios)


def options(machine: Machine) -> Plan:
    """Precision, micro-batches, compilation, kernels."""
    other = "fp32" if machine.cuda else "bf16"
    micro = max(1, machine.batch // 2)
    rows = [
        Variant(
            other, "precision", f"student in {other}", words=(*STORED, f"precision={other}"), student=other, rounds=1
        ),
        Variant(
            "micro", "micro", f"micro-batches of {micro}", words=(*STORED, f"data.batch_size_per_gpu={micro}"), rounds=1
        ),
        Variant("compile", "compile", "compiled", words=(*STORED, "compile=true"), warmup=2, rounds=1),
    ]
    ratios = [
        Ratio(f"student in {other} against {usual(machine.cuda)}", other, "stored"),
        Ratio("two micro-batches against one", "micro", "stored"),
        Ratio("compiled against not", "compile", "stored"),
    ]
    if machine.cuda:
        rows.append(Variant("tiles", "kernels", "losses in torch, no fused kernel", words=STORED, options=("--tiles",)))
        ratios.append(Ratio("fused loss kernels against torch", "stored", "tiles"))
    return Plan(rows, ratios)


def sweep(machine: Machine) -> Plan:
    """Other batch sizes, stored and live."""
    rows = []
    for size in machine.batches:
        rows += [
            Variant(f"stored_{size}", "batch", f"ours, stored teacher, {size} images", words=STORED, batch=size, rounds=1),
            Variant(
                f"live_{size}", "batch", f"ours, live teacher, {size} images", words=LIVE, batch=size, live=True,
                teacher="bf16", rounds=1,
            ),
        ]  # fmt: skip
    return Plan(rows, [])


DEFAULT_GROUPS = ("core", "ranks", "zero", "precision", "micro")
"""On a CPU; on a GPU all of them."""
