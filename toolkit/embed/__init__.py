"""The teacher over every shard once, into a store that training reads instead of running it."""

from toolkit.embed.pool import ROWS, Pool, Reader, pools, weight_hash
from toolkit.embed.prepare import prepare_stores, store_of, stored_teacher

__all__ = ["ROWS", "Pool", "Reader", "pools", "prepare_stores", "store_of", "stored_teacher", "weight_hash"]
