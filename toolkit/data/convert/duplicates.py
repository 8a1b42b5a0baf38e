"""Which of many samples repeat an earlier one: equal 64-bit hashes, or hashes that differ in a few bits."""

import hashlib

import numpy as np
from PIL import Image

from toolkit.data.convert.pictures import upright_rgb

FLAT = 2.0
"""Grey levels of deviation below which a picture has no structure to compare: only equal bytes make it a duplicate."""
_TILE = 2048
_N = np.arange(32)
_DCT = np.cos(np.pi * (2 * _N[None, :] + 1) * np.arange(8)[:, None] / 64)
"""The 8 lowest frequencies of 32 points."""


def hash_bytes(data: bytes) -> int:
    """64 bits; among 40 million samples the chance that any two different ones meet is 1 in 20,000."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def look_of(image: Image.Image, data: bytes) -> int:
    """Perceptual hash: signs of the 64 lowest DCT coefficients of the 32 x 32 grey picture against their median."""
    image.draft(None, (128, 128))  # a JPEG is decoded smaller
    grey = upright_rgb(image).convert("L").resize((32, 32), Image.Resampling.BILINEAR, reducing_gap=2.0)
    pixels = np.asarray(grey, dtype=np.float64)
    if pixels.std() < FLAT:
        return hash_bytes(data)
    low = (_DCT @ pixels @ _DCT.T).reshape(-1)
    low[0] = np.median(low[1:])  # the mean brightness does not count
    bits = low > np.median(low[1:])
    return int(np.packbits(bits).view(">u8")[0])


def repeats(hashes: np.ndarray) -> np.ndarray:
    """[n] bool: is an equal hash further to the front. 17 bytes per sample beside the hashes."""
    order = np.argsort(hashes, kind="stable")
    again = np.zeros(len(hashes), dtype=bool)
    again[order[1:]] = hashes[order[1:]] == hashes[order[:-1]]
    return again


def near_repeats(looks: np.ndarray, distance: int) -> np.ndarray:
    """[n] bool: does a hash further to the front that itself stays differ in at most `distance` bits.

    Two such hashes agree in at least one of `distance + 1` bands of bits, so only samples of one band value are compared.
    """
    gone = repeats(looks)
    left = np.flatnonzero(~gone)
    kept = looks[left]
    edges = [found for band in range(distance + 1) for found in _pairs_in_band(kept, band, distance)]
    if edges:
        pairs = np.unique(np.concatenate(edges), axis=0)
        pairs = pairs[
            np.lexsort((pairs[:, 0], pairs[:, 1]))
        ]  # by the later one: whether the earlier stays is known then
        dropped = np.zeros(len(kept), dtype=bool)
        for earlier, later in pairs.tolist():
            if not dropped[earlier]:
                dropped[later] = True
        gone[left[dropped]] = True
    return gone


def _pairs_in_band(looks: np.ndarray, band: int, distance: int) -> list[np.ndarray]:
    """[p, 2] positions, earlier first, of hashes that agree in the band and differ in at most `distance` bits."""
    first, end = 64 * band // (distance + 1), 64 * (band + 1) // (distance + 1)
    values = (looks >> np.uint64(first)) & np.uint64((1 << (end - first)) - 1)
    order = np.argsort(values, kind="stable")
    bounds = np.flatnonzero(np.diff(values[order])) + 1
    found = []
    for start, stop in zip([0, *bounds.tolist()], [*bounds.tolist(), len(order)], strict=True):
        if stop - start < 2:
            continue
        group = order[start:stop]
        for top in range(0, len(group), _TILE):
            for left in range(0, top + 1, _TILE):
                rows, columns = group[top : top + _TILE], group[left : left + _TILE]
                near = np.bitwise_count(looks[rows][:, None] ^ looks[columns][None, :]) <= distance
                later, earlier = np.nonzero(near)
                pairs = np.stack([columns[earlier], rows[later]], axis=1)
                found.append(pairs[pairs[:, 0] < pairs[:, 1]])
    return found
