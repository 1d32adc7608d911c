"""Splits that a source does not give, cut from its training rows, a group of pictures at a time.

Where a group goes follows from a hash of its first picture, the split's name and the seed: a share
is the groups below it, whatever others there are, so that rows which are added move no others. Of
whole numbers it is the groups with the lowest hashes, of which those at the margin go back to
training when others come.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from adapt.data.importing.rows import Verdict
from adapt.data.schema import SPLITS
from adapt.data.settings import Size

RANK = {split: rank for rank, split in enumerate(SPLITS)}
"""Of two given splits, the rows of a picture that have none go to the higher one."""
USUAL = 16  # pictures that look alike: so many may go to any split, however small it is


def placed(
    verdicts: Sequence[Verdict],
    groups: Sequence[Sequence[int]],
    given: Sequence[str],
    sizes: Mapping[str, Size],
    seed: int,
) -> Iterable[tuple[int, str]]:
    """Every row of the groups with its split; `sizes` are of the splits that are cut."""
    free, found = [], []
    for rows in groups:
        # A training row may become one of a split that is cut; any other given split is kept.
        kept = [given[row] for row in rows if given[row] and not (sizes and given[row] == "train")]
        if kept:
            best = max(kept, key=RANK.__getitem__)
            found += [(row, given[row] or best) for row in rows]
        else:
            free.append(rows)
    for rows, split in zip(free, _cut(verdicts, free, sizes, seed), strict=True):
        found += [(row, split) for row in rows]
    return found


def _cut(
    verdicts: Sequence[Verdict],
    groups: Sequence[Sequence[int]],
    sizes: Mapping[str, Size],
    seed: int,
) -> list[str]:
    """A split for each group: by its hash below a share, or the so many lowest hashes.

    A group that is much larger than the split, as of the pages of one book, stays in training.
    """
    splits = ["train"] * len(groups)
    left, share_left = list(range(len(groups))), 1.0
    counts = [len({p for row in rows for p in verdicts[row].pictures}) for rows in groups]

    def most(size: Size) -> float:
        return max(USUAL, 2 * (size * sum(counts) if isinstance(size, float) else size))

    wanted = [split for split in reversed(SPLITS[1:]) if sizes.get(split)]  # test first
    for later, split in zip(reversed(range(len(wanted))), wanted, strict=True):
        size = sizes[split]
        places = {group: _hash(verdicts, groups[group], split, seed) for group in left}
        order = sorted((g for g in left if counts[g] <= most(size)), key=places.__getitem__)
        if isinstance(size, float):
            taken = [group for group in order if places[group] < size / share_left]
            share_left -= size
        else:
            taken = _lowest(verdicts, groups, order, size)
        room = len(left) - later - 1  # of a small source, each split has a group, also training
        for group in (taken or order[:1])[: max(room, 0)]:
            splits[group] = split
        left = [group for group in left if splits[group] == "train"]
    return splits


def _hash(verdicts: Sequence[Verdict], rows: Sequence[int], split: str, seed: int) -> float:
    """A number in 0..1 that the group's first picture, the split's name and the seed decide."""
    first = verdicts[rows[0]]
    picture = first.pictures[0] if first.pictures else first.said
    digest = hashlib.sha256(f"{seed} {split} ".encode() + picture).digest()
    return int.from_bytes(digest[:7], "big") / (1 << 56)


def _lowest(
    verdicts: Sequence[Verdict], groups: Sequence[Sequence[int]], order: Sequence[int], size: int
) -> list[int]:
    """As many groups as it takes to have `size` pictures."""
    taken, pictures = [], set[bytes]()
    for group in order:
        if len(pictures) >= size:
            break
        taken.append(group)
        pictures.update(one for row in groups[group] for one in verdicts[row].pictures)
    return taken
