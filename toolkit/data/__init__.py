"""Shards, the two unpaired streams, decoding and tokenising."""
