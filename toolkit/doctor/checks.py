"""All checks, in the order in which they are made: quick ones first, what needs the models last."""

from toolkit.doctor import clock, compute, devices, disk, limits, models, network, shards, stores, versions

ALL = (
    versions.CHECK, devices.CHECK, clock.CHECK, shards.CHECK, shards.EVALUATION, disk.CHECK, disk.SHARED, models.RESUME,
    compute.CHECK, network.CHECK, models.BUILD, limits.CHECK, stores.CHECK, models.BATCH, models.ROOM,
)  # fmt: skip
CHECKS = {check.name: check for check in ALL}
