"""Pictures that look alike although their bytes differ: found, named, and put into groups.

Two pictures are alike if they have nearly the same large patches of light and colour, and most of
their slopes of light run the same way and equally steep; `adapt/data/fingerprint.py` has the
numbers. The eight ways in which a picture can lie are tried. What was found is one of `KINDS`.

What may be believed (`python -m benchmarks.likeness`, 2026-11-26; its table is beside it):

* False alarms: none among 4,800 drawn scenes of 48 px, as many of 96 px, 2,400 made photographs
  and 1,200 pages of text in one layout. With 95 % confidence that is fewer than 3 in such a set:
  below 3e-7 of pairs of scenes, 1e-6 of photographs, 4e-6 of pages.
* Found and rightly named: all JPEG of quality 50 and 90 and WEBP of 50, one and a half times as
  large, 336 x 336, mirrored and turned, from 48 px on; half as large from 96 px on. Missed: a fifth
  of scenes of 48 px halved, all of them as JPEG of quality 50 besides; 15 % of them as JPEG of 30;
  of copies shrunk to 0.7 without smoothing all pages, 15 % of scenes of 48 px and 1 % of 96 px.
* Not looked for: cut by more than 1 % at each side, brighter or darker by 5 %, made grey.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from adapt.data.fingerprint import (
    FLAT,
    WAYS,
    hashed,
    lying,
    outline,
    patches,
    places,
    records,
    slopes,
)

FALSE_ALARMS = (
    "no false alarm among 11.5 million pairs of drawn scenes, 2.9 million of synthetic photographs"
    " and 0.7 million of pages of text: with 95 % confidence below 3e-7, 1e-6 and 4e-6 of pairs"
)
"""A sentence for reports, from `python -m benchmarks.likeness`."""
KINDS = ("identical", "re-encoded", "resized", "flipped", "turned")
"""The same bytes; the same width and height; another; a mirror image; turned by quarters."""
PATCH = 8.0
"""Levels of 256 by which the largest patches may differ, in 4 x 4 of light and 2 x 2 of colour."""
TINT = 24
"""Levels of 256 by which the colour of a cell may differ, of 8 x 8."""
STEADY = 0.8
"""Least share of slopes in common, a cosine."""
AS_IT_IS = 0.02
"""So much better has another way to be: a nearly symmetric picture was rather not mirrored."""

PAIRS = 1 << 20  # looked up at once, at some 100 bytes
BLOCK = 512  # pictures whose slopes are held at once, 8 kB each
DENSE = 32  # pairs of a whole block that take as long as one pair by itself
LEAF = 64  # pictures in a leaf of the tree

Pair = tuple[int, int, str]
Index = NDArray[np.int64]
Shares = NDArray[np.float32]


class _Side:
    """The fingerprints of one side of a comparison, and their patches, worked out once."""

    def __init__(self, found: NDArray[np.void]) -> None:
        self.found, self.patches = found, patches(found)


def near(fingerprints: Sequence[bytes], others: Sequence[bytes] | None = None) -> list[Pair]:
    """Pairs (i, j, kind) of pictures that are alike, sorted.

    Without `others` i < j, and each pair joins what the pairs before it have not joined: enough for
    `groups`, and at most one fewer than there are pictures, however many are alike. With them, i
    is of `fingerprints`, j of `others`, and every i that is alike any j comes once, with the one it
    is most like.

    100,000 pictures take 17 s of one processor and three times the memory of their fingerprints,
    350 MB. Where thousands are hardly told apart by their patches, as pages of text are, all pairs
    of these are compared, at 1 us each: about a minute for 10,000 pages.
    """
    if not len(fingerprints) or (others is not None and not len(others)):
        return []
    found = _Side(records(fingerprints))
    return sorted(_within(found) if others is None else _between(found, _Side(records(others))))


def groups(count: int, pairs: Sequence[Pair]) -> Index:
    """(count,): for each picture the first of its group, which is itself where it is alone."""
    first = np.arange(count)
    for i, j, _ in pairs:
        _join(first, i, j)
    return _roots(first)


def _within(side: _Side) -> Iterator[Pair]:
    # 1. The same bytes, and of what is left the same cells (blank pages), of which the first go on.
    first, kept = np.arange(len(side.found)), np.arange(len(side.found))
    for keys in (side.found["digest"], hashed(side.found)):
        _, firsts, same = np.unique(keys[kept], return_index=True, return_inverse=True)
        i, j = kept[firsts[same]], kept
        first[j], kept = i, np.sort(kept[firsts])
        kinds = _kinds(side, side, i, j, np.zeros_like(i))
        for at in np.flatnonzero(i != j):
            yield int(i[at]), int(j[at]), KINDS[kinds[at]]
    distinct = side if len(kept) == len(first) else _Side(side.found[kept])
    for i, j in _candidates(distinct, distinct):
        # 2. The others, by neighbourhood, unless they are in one group already.
        roots = _roots(first)
        is_news = (i < j) & (roots[kept[i]] != roots[kept[j]])
        i, j, kinds, _ = _alike(distinct, distinct, i[is_news], j[is_news])
        i, j = kept[i], kept[j]
        # 3. Of many pairs between two groups one is enough.
        while len(i):
            roots = _roots(first)
            is_news = roots[i] != roots[j]
            i, j, kinds, roots = i[is_news], j[is_news], kinds[is_news], roots[j][is_news]
            for at in np.unique(roots, return_index=True)[1]:
                if _join(first, int(i[at]), int(j[at])):
                    yield int(i[at]), int(j[at]), KINDS[kinds[at]]


def _between(ours: _Side, theirs: _Side) -> Iterator[Pair]:
    # 1. Of the others with the same bytes the first is enough.
    kept = np.sort(np.unique(theirs.found["digest"], return_index=True)[1])
    distinct = _Side(theirs.found[kept])
    for i, j in _candidates(ours, distinct):
        i, j, kinds, shares = _alike(ours, distinct, i, j)
        j = kept[j]
        # 2. The best of each i comes first: identical ones, then by the share of slopes.
        order = np.lexsort((j, -shares, kinds != 0, i))
        for at in order[np.unique(i[order], return_index=True)[1]]:
            yield int(i[at]), int(j[at]), KINDS[kinds[at]]


def _candidates(ours: _Side, theirs: _Side) -> Iterator[tuple[Index, Index]]:
    """Pairs whose outlines are near, at most about `PAIRS` at a time: no alike pair is left out."""
    points = outline(ours.patches)
    tree = cKDTree(outline(theirs.patches), LEAF, balanced_tree=False)
    # 1. Most pictures have no neighbour but themselves; counting needs no memory.
    counts = tree.query_ball_point(points, PATCH, np.inf, return_length=True)
    # 2. Neighbours are looked up together: they have the same neighbours.
    order = cKDTree(points).indices
    order = order[counts[order] > (1 if ours is theirs else 0)]
    parts = np.flatnonzero(np.diff(np.cumsum(counts[order]) // PAIRS)) + 1
    for part in np.split(order, parts) if len(order) else ():
        close = tree.query_ball_point(points[part], PATCH, np.inf)
        yield np.repeat(part, counts[part]), np.fromiter(chain.from_iterable(close), np.int64)


def _alike(ours: _Side, theirs: _Side, i: Index, j: Index) -> tuple[Index, Index, Index, Shares]:
    """Those of the pairs that are alike, with the number of their kind and share of slopes."""
    # 1. The way of lying with the largest share of slopes in common, for some j at a time.
    best, ways = np.zeros(len(i), np.float32), np.zeros(len(i), np.int8)
    order = np.argsort(j, kind="stable")
    starts = np.flatnonzero(np.diff(j[order], prepend=-1))[::BLOCK]
    for start, end in pairwise([*starts, len(order)]):
        at = order[start:end]
        best[at], ways[at] = _best_ways(ours, theirs, i[at], j[at])
    # 2. The colours of their cells in that way.
    at = np.flatnonzero(best >= STEADY)
    for way in range(WAYS):
        lie = at[ways[at] == way]
        their_colours = lying(theirs.found["colour"], way)[j[lie]].astype(np.int16)
        differences = np.abs(ours.found["colour"][i[lie]] - their_colours)
        best[lie[differences.max((1, 2, 3), initial=0) > TINT]] = 0
    at = np.flatnonzero(best >= STEADY)
    i, j, ways = i[at], j[at], ways[at]
    return i, j, _kinds(ours, theirs, i, j, ways), best[at]


def _kinds(
    ours: _Side, theirs: _Side, i: Index, j: Index, ways: NDArray[np.signedinteger]
) -> Index:
    """What alike pictures are of each other, as places in `KINDS`."""
    is_same_size = (ours.found["size"][i] == theirs.found["size"][j]).all(1)
    kinds = np.select([ways >= 4, ways > 0, ~is_same_size], [3, 4, 2], 1)
    kinds[ours.found["digest"][i] == theirs.found["digest"][j]] = 0
    return kinds


def _best_ways(
    ours: _Side, theirs: _Side, i: Index, j: Index
) -> tuple[Shares, NDArray[np.signedinteger]]:
    """For each pair its largest share of slopes, 0 where the patches fit in no way, and the way."""
    rows, one = np.unique(i, return_inverse=True)
    columns, other = np.unique(j, return_inverse=True)
    if len(i) * DENSE < len(rows) * len(columns):
        shares = np.stack([_of_pairs(ours, theirs, i, j, way) for way in range(WAYS)])
    else:
        our_slopes = slopes(ours.found["light"][rows])
        block = [_of_block(ours, theirs, rows, columns, way, our_slopes) for way in range(WAYS)]
        shares = np.stack([part[one, other] for part in block])
    shares[1:] -= AS_IT_IS
    ways = shares.argmax(0)
    return shares[ways, np.arange(len(i))], ways


def _of_block(
    ours: _Side, theirs: _Side, rows: Index, columns: Index, way: int, our_slopes: Shares
) -> Shares:
    """(rows, columns): shares of slopes where the patches fit in this way of lying, else 0."""
    their_patches = theirs.patches[columns][:, places(way)]
    fits = cdist(ours.patches[rows], their_patches, "chebyshev") <= PATCH
    if not fits.any():
        return np.zeros(fits.shape, np.float32)
    their_slopes = slopes(lying(theirs.found["light"], way)[columns])
    products = our_slopes @ their_slopes.T
    lengths = np.maximum.outer(np.square(our_slopes).sum(1), np.square(their_slopes).sum(1))
    return np.where(fits, (products + FLAT) / (lengths + FLAT), np.float32(0))


def _of_pairs(ours: _Side, theirs: _Side, i: Index, j: Index, way: int) -> Shares:
    """The same for single pairs.

    The share is a cosine with the longer one's length for both: a faint copy of a strong picture is
    not alike.
    """
    shares = np.zeros(len(i), np.float32)
    differences = np.abs(ours.patches[i] - theirs.patches[j][:, places(way)]).max(1)
    fitting = np.flatnonzero(differences <= PATCH)
    for start in range(0, len(fitting), BLOCK):
        at = fitting[start : start + BLOCK]
        a = slopes(ours.found["light"][i[at]])
        b = slopes(lying(theirs.found["light"], way)[j[at]])
        lengths = np.maximum(np.square(a).sum(1), np.square(b).sum(1))
        shares[at] = (np.einsum("nd,nd->n", a, b) + FLAT) / (lengths + FLAT)
    return shares


def _roots(first: Index) -> Index:
    """The end of each chain of `first`."""
    while (further := first[first] != first).any():
        first = np.where(further, first[first], first)
    return first


def _join(first: Index, i: int, j: int) -> bool:
    """Put two groups together under the earlier first; whether they were two."""
    while first[i] != i:
        i = first[i]
    while first[j] != j:
        j = first[j]
    first[max(i, j)] = min(i, j)
    return bool(i != j)
