"""Every loss at its default options in plain loops, from the formulas in the docstrings."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from losses.cases import CLASSES, SECOND_SCALE, STUDENT_BIAS, STUDENT_SCALE, TEACHER_BIAS, TEACHER_SCALE
from torch import Tensor

Rows = list[list[float]]


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def unit_rows(rows: Rows) -> Rows:
    return [[x / math.sqrt(dot(row, row)) for x in row] for row in rows]


def log_softmax(scores: list[float]) -> list[float]:
    top = max(scores)
    norm = top + math.log(sum(math.exp(score - top) for score in scores))
    return [score - norm for score in scores]


def log_probabilities(query: list[float], keys: Rows, factor: float) -> list[float]:
    return log_softmax([factor * dot(query, key) for key in keys])


def mean_kl(teacher: tuple[Rows, Rows], student: tuple[Rows, Rows], factor: float, own: float | None = None) -> float:
    """Mean over rows of sum p_T (log p_T - log p_S), the student at the factor `own` if it has another."""
    total = 0.0
    for row in range(len(teacher[0])):
        target = log_probabilities(teacher[0][row], teacher[1], factor)
        found = log_probabilities(student[0][row], student[1], factor if own is None else own)
        total += sum(math.exp(p) * (p - q) for p, q in zip(target, found, strict=True))
    return total / len(teacher[0])


def mean_ensemble_kl(teachers: list[tuple[Rows, Rows, float]], student: tuple[Rows, Rows], own: float) -> float:
    """The same against the mean of several teachers' probabilities."""
    total = 0.0
    for row in range(len(student[0])):
        each = [log_probabilities(rows[row], columns, factor) for rows, columns, factor in teachers]
        target = [sum(math.exp(p) for p in column) / len(each) for column in zip(*each, strict=True)]
        found = log_probabilities(student[0][row], student[1], own)
        total += sum(p * (math.log(p) - q) for p, q in zip(target, found, strict=True))
    return total / len(student[0])


def mean_cross_entropy(queries: Rows, keys: Rows, factor: float) -> float:
    return -sum(log_probabilities(query, keys, factor)[i] for i, query in enumerate(queries)) / len(queries)


def mean_square(a: Rows, b: Rows) -> float:
    """Over rows and width."""
    return sum((x - y) ** 2 for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True)) / (
        len(a) * len(a[0])
    )


def infonce_gradients(anchors: Rows, keys: Rows, factor: float) -> tuple[Rows, Rows]:
    """By each anchor of its own cross-entropy; by each key of the sum of all of them."""
    n, e = range(len(anchors)), range(len(anchors[0]))
    q = [[math.exp(p) for p in log_probabilities(anchor, keys, factor)] for anchor in anchors]
    excess = [[q[i][j] - (i == j) for j in n] for i in n]
    by_anchors = [[factor * sum(excess[i][j] * keys[j][d] for j in n) for d in e] for i in n]
    by_keys = [[factor * sum(excess[i][j] * anchors[i][d] for i in n) for d in e] for j in n]
    return by_anchors, by_keys


def moments(rows: Rows) -> tuple[list[float], list[float]]:
    """Mean and variance of each dimension."""
    mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    return mean, [sum((x - m) ** 2 for x in column) / len(rows) for column, m in zip(zip(*rows), mean, strict=True)]  # noqa: B905


def smooth_l1(difference: float, beta: float) -> float:
    size = abs(difference)
    return size**2 / (2 * beta) if size < beta else size - beta / 2


def cos_smooth_l1(z: Rows, v: Rows, weights: tuple[float, float] = (0.9, 0.1), beta: float = 1.0) -> float:
    cosine = sum(1 - dot(a, b) for a, b in zip(unit_rows(z), unit_rows(v), strict=True)) / len(z)
    distance = sum(smooth_l1(x - y, beta) for a, b in zip(z, v, strict=True) for x, y in zip(a, b, strict=True))
    return weights[0] * cosine + weights[1] * distance / (len(z) * len(z[0]))


def standardised(rows: Rows, mean: list[float], variance: list[float]) -> Rows:
    return [[(x - m) / math.sqrt(s + 1e-6) for x, m, s in zip(row, mean, variance, strict=True)] for row in rows]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@dataclass
class Given:
    """Unit rows of everything, and the two logit scales; `y` is the teacher's where the student has no texts."""

    z: Rows
    y: Rows
    m: Rows
    v: Rows
    t: Rows
    v2: Rows
    t2: Rows
    parameters: dict[str, Any]
    own: float = STUDENT_SCALE
    their: float = TEACHER_SCALE

    @classmethod
    def of(cls, raw: dict[str, Tensor], text: bool, loss: torch.nn.Module) -> "Given":
        rows = {letter: unit_rows(value.tolist()) for letter, value in raw.items()}
        if not text:
            rows["y"] = rows["t"]
        return cls(**rows, parameters={name: p.tolist() for name, p in loss.named_parameters()})

    def learnt_scale(self) -> float:
        """1/0.07 as long as nothing was learnt, but for its rounding to fp32."""
        found = math.exp(self.parameters["scale.log_scale"][0])
        assert abs(found - 1 / 0.07) < 1e-5
        return found


def by_hand(name: str, x: Given) -> float:
    """The value of a loss."""
    z, y, v, t, s, s_t = x.z, x.y, x.v, x.t, x.own, x.their
    match name:
        case "vl":
            return mean_kl((v, t), (z, y), 100.0) + mean_kl((t, v), (y, z), 100.0)
        case "pvl":
            return 2 * mean_kl((v, v), (z, v), 100.0 / 3)
        case "udist":
            return 2 * mean_kl((v, v), (z, z), 100.0 / 7)
        case "feature":
            return sum(1 - dot(a, b) for a, b in zip(z, v, strict=True)) / len(z)
        case "fd":
            return mean_square(z, v)
        case "mfd":
            return mean_square(x.m, v)
        case "contrastive":
            return (mean_cross_entropy(z, y, s) + mean_cross_entropy(y, z, s)) / 2
        case "crd" | "open_clip_distil":
            return (mean_kl((v, t), (z, y), s_t, s) + mean_kl((t, v), (y, z), s_t, s)) / 2
        case "affinity":
            return (mean_kl((v, t), (z, y), 50.0) + mean_kl((t, v), (y, z), 50.0)) / 2
        case "ensemble_kl":
            to_texts = mean_ensemble_kl([(v, t, s_t), (x.v2, x.t2, SECOND_SCALE)], (z, y), s)
            return (to_texts + mean_ensemble_kl([(t, v, s_t), (x.t2, x.v2, SECOND_SCALE)], (y, z), s)) / 2
        case "icl":
            c = x.learnt_scale()
            return (mean_cross_entropy(z, t, c) + mean_cross_entropy(y, v, c)) / 2
        case "cross_kd":
            return (mean_kl((v, t), (z, t), s_t, s) + mean_kl((t, v), (y, v), s_t, s)) / 2
        case "gd":
            own = (*infonce_gradients(z, y, s), *infonce_gradients(y, z, s))
            their = (*infonce_gradients(v, t, s_t), *infonce_gradients(t, v, s_t))
            return sum(mean_square(a, b) for a, b in zip(own, their, strict=True))
        case "afd":
            fused = []
            for weight, student, teacher in ((x.parameters["image.weight"], z, v), (x.parameters["text.weight"], y, t)):
                joined = [[*a, *b] for a, b in zip(student, teacher, strict=True)]
                fused.append(unit_rows([[dot(line, row) for line in weight] for row in joined]))
            image, text = fused
            c = x.learnt_scale()
            return (mean_cross_entropy(image, text, c) + mean_cross_entropy(text, image, c)) / 2
        case "siglip_soft":
            total = 0.0
            for i in range(len(z)):
                for j in range(len(y)):
                    label = 2 * sigmoid(s_t * dot(v[i], t[j]) + TEACHER_BIAS) - 1
                    total -= math.log(sigmoid(label * (s * dot(z[i], y[j]) + STUDENT_BIAS)))
            return total / len(z)
        case "queue_pvl":
            return mean_kl((v, v), (z, v), 1 / 0.07)
        case "cos_smooth_l1":
            statistics = moments(v)
            return cos_smooth_l1(standardised(z, *statistics), standardised(v, *statistics))
        case "phi_s":
            return mean_square(z, v) * len(v[0]) / sum(moments(v)[1])
        case "dual_head":
            classes = unit_rows(CLASSES.tolist())
            return 2.0**2 * mean_kl((v, classes), (z, classes), 100.0 / 2)
    raise AssertionError(f"write the formula of {name} here")
