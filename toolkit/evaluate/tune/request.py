"""What may be asked of a fine-tuning."""

from collections.abc import Sequence

from toolkit.errors import ConfigError, DataError
from toolkit.evaluate.probe.features import check_labels
from toolkit.evaluate.tune.pictures import TunedImages
from toolkit.evaluate.tune.training import TuneSettings

LABELS = {
    "elevater": "ELEVATER's fine-tuning: the epoch is chosen on the TEST set",
    "clean": "clean fine-tuning: everything is chosen on validation pictures, the test set is read once",
}


def check_request(
    images: TunedImages,
    classes: int,
    settings: TuneSettings,
    protocol: str,
    train_rows: Sequence[int] | None,
    search_rows: Sequence[int] | None,
    merge_validation: bool,
) -> None:
    """Raise ConfigError or DataError for what does not fit together."""
    if protocol not in LABELS:
        raise ConfigError(f"no fine-tuning protocol {protocol!r}; known: {', '.join(LABELS)}")
    settings.check()
    multi_label = images.train.multi_label
    if settings.metric.multi_label != multi_label:
        kind = "several classes" if multi_label else "one class"
        raise ConfigError(f"fine-tune: {settings.metric.name} is not for pictures of {kind}; choose another metric")
    if search_rows is not None and not (merge_validation and train_rows is None):
        raise ConfigError(
            "fine-tune: search_rows goes with neither train_rows nor merge_validation=False; leave it out"
        )
    for name, part in (("training", images.train), ("test", images.test)):
        count = len(part.views) if part.rows is None else len(part.rows)
        if count < 2:
            raise DataError(f"fine-tune: {count} {name} pictures; give 2 or more")
        check_labels(f"fine-tune: {name}", part.labels, count, classes, multi_label)
    for name, rows in (("train_rows", train_rows), ("search_rows", search_rows)):
        if rows is not None and (len(rows) < 2 or min(rows) < 0 or max(rows) >= len(images.train)):
            raise DataError(
                f"fine-tune: {name} must be 2 or more numbers in 0..{len(images.train) - 1}; found {len(rows)} numbers"
                + (f" from {min(rows)} to {max(rows)}" if len(rows) else "")
            )
