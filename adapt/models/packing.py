"""Rows about one picture as one sequence: what they have in common is computed once.

In the default world two thirds of a question's tokens are its picture, and four rows ask about each
picture. So a sequence is the rows' common beginning, up to the last image token, and after it the
rest of one row after the other. A mask keeps a row from seeing the others, and its positions go on
from the beginning's: every row is computed as it would be alone, for less than half the time.

Shapes: B sequences, one for each picture; R rows of a picture, at most; S sequence; L layers; N
image tokens; Q = 2 R observed tokens; M = N + 2 R columns.
"""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from adapt.attention.layout import image_columns
from adapt.models.grounding import Place

IGNORED = -100  # the label of a position without a loss


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A training row in tokens: prompt and answer, and where the answer starts.

    `image`: which one of the distinct images; `place`: where the question's noun and the answer's
    deciding token should look; `weight`: in the mean over rows.
    """

    ids: list[int]
    answer: int
    image: int
    place: Place
    weight: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Packed:
    """Rows of some pictures in one batch.

    Attributes:
        inputs: `input_ids`, `position_ids` and a boolean `attention_mask`, [B, 1, S, S].
        labels_BS: answers alone, `IGNORED` elsewhere.
        owner_BS: whose token it is, 0 to R - 1; R of the common beginning and of padding.
        starts_BR: what to add to a row's position to find it in its sequence; 0 without a row.
        rows: B lists of at most R rows.
    """

    inputs: dict[str, Tensor]
    labels_BS: Tensor
    owner_BS: Tensor
    starts_BR: Tensor
    rows: Sequence[Sequence[Row]]

    def weights(self) -> Tensor:
        """Each row's weight, 0 without a row, [B, R]."""
        weights_BR = torch.zeros(self.starts_BR.shape)
        for b, rows in enumerate(self.rows):
            weights_BR[b, : len(rows)] = torch.tensor([row.weight for row in rows])
        return weights_BR

    def looks(self, image_token_id: int) -> "Looks":
        """Whose attention shows where the rows look, and the attention to what."""
        image_BN = image_columns(self.inputs["input_ids"], image_token_id)
        nowhere = Place(token=-1, patches_N=torch.zeros(image_BN.shape[1], dtype=torch.bool))
        (B, R), places = self.starts_BR.shape, list[Place]()
        tokens_BR4 = torch.full((B, R, 4), -1)
        for b, rows in enumerate(self.rows):
            for r, row in enumerate(rows):
                p = row.place
                at = torch.tensor([p.token, p.deciding, p.token, p.repeated])
                tokens_BR4[b, r] = torch.where(at >= 0, at + self.starts_BR[b, r], -1)
            places += [row.place for row in rows] + [nowhere] * (R - len(rows))
        rows_BQ = tokens_BR4[..., :2].transpose(1, 2).flatten(1)
        columns_BM = torch.cat([image_BN, tokens_BR4[..., 2:].flatten(1)], 1)
        return Looks(rows_BQ=rows_BQ, columns_BM=columns_BM, places=places)

    def means(self, losses_BS: Tensor) -> Tensor:
        """Mean loss of each row over its answer's tokens, [B, R]; `losses_BS` is 0 elsewhere."""
        B, R = self.starts_BR.shape
        sums, counts = losses_BS.new_zeros(B, R + 1), losses_BS.new_zeros(B, R + 1)
        sums = sums.scatter_add(1, self.owner_BS, losses_BS)
        said = (self.labels_BS != IGNORED).to(losses_BS)
        return (sums / counts.scatter_add(1, self.owner_BS, said).clamp_min(1))[:, :R]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Looks:
    """Which tokens of a batch are observed, and their attention to what.

    Attributes:
        rows_BQ: the R nouns, then the R deciding tokens; -1 for none.
        columns_BM: the image, then each row's noun in the question and in the answer.
        places: of all B * R rows, also of those that there are not.
    """

    rows_BQ: Tensor
    columns_BM: Tensor
    places: list[Place]

    def maps(self, maps_BLQM: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Attention of nouns and of deciding tokens to the image, of the latter to their nouns.

        [B * R, L, N] twice and [B * R, L, 2].
        """
        R = self.rows_BQ.shape[1] // 2
        image_BLQN, nouns_BLQ = maps_BLQM[..., : -2 * R], maps_BLQM[..., -2 * R :]
        nouns, deciding = image_BLQN.transpose(1, 2).unflatten(1, (2, R)).unbind(1)
        own_BL2R = nouns_BLQ[:, :, R:].unflatten(3, (R, 2)).diagonal(dim1=2, dim2=3)
        at_nouns = own_BL2R.permute(0, 3, 1, 2).flatten(0, 1)
        return nouns.flatten(0, 1), deciding.flatten(0, 1), at_nouns


def packed(groups: Sequence[Sequence[Row]], shared: int, pad: int) -> Packed:
    """One sequence for each group, the rows of a picture, which have `shared` tokens in common."""
    # 1. As long as the longest, with as many rows as the picture with most.
    lengths = [shared + sum(len(row.ids) - shared for row in rows) for rows in groups]
    B, S, R = len(groups), max(lengths), max(len(rows) for rows in groups)
    ids_BS, labels_BS = torch.full((B, S), pad), torch.full((B, S), IGNORED)
    positions_BS, owner_BS = torch.zeros(B, S, dtype=torch.long), torch.full((B, S), R)
    starts_BR = torch.zeros(B, R, dtype=torch.long)
    is_shared = (torch.arange(S) < shared)[None]
    # 2. The common beginning, then every row's rest, whose positions go on from there.
    for b, rows in enumerate(groups):
        ids_BS[b, :shared] = torch.tensor(rows[0].ids[:shared])
        positions_BS[b, :shared], at = torch.arange(shared), shared
        for r, row in enumerate(rows):
            own, starts_BR[b, r] = slice(at, at + len(row.ids) - shared), at - shared
            ids_BS[b, own] = torch.tensor(row.ids[shared:])
            positions_BS[b, own] = torch.arange(shared, len(row.ids))
            owner_BS[b, own] = r
            labels_BS[b, at - shared + row.answer : own.stop] = torch.tensor(row.ids[row.answer :])
            at = own.stop
    # 3. A token sees what is before it: of the beginning, and of its own row.
    is_own = owner_BS[:, :, None] == owner_BS[:, None]
    mask_BSS = torch.ones(S, S, dtype=torch.bool).tril() & (is_own | is_shared[:, None])
    inputs = {"input_ids": ids_BS, "position_ids": positions_BS}
    inputs["attention_mask"] = mask_BSS[:, None]
    facts = {"labels_BS": labels_BS, "owner_BS": owner_BS, "starts_BR": starts_BR}
    return Packed(inputs=inputs, **facts, rows=groups)
