"""How closely a student follows its teacher, right or wrong."""

from jaxtyping import Float
from torch import Tensor

from toolkit.evaluate.zero_shot import percent


def agreement_metrics(
    student: Float[Tensor, "n e"],
    teacher: Float[Tensor, "n d"],
    student_head: Float[Tensor, "k e"] | None,
    teacher_head: Float[Tensor, "k d"] | None,
) -> dict[str, float]:
    """`mean_cosine` of image embeddings (a fraction; only at equal width) and `agreement_top1` of predictions (percent)."""
    metrics: dict[str, float] = {}
    if student.shape == teacher.shape:
        metrics["mean_cosine"] = float((student * teacher).sum(-1).mean())
    if student_head is not None and teacher_head is not None:
        metrics["agreement_top1"] = percent(
            (student @ student_head.T).argmax(-1) == (teacher @ teacher_head.T).argmax(-1)
        )
    return metrics
