"""A model asked every question of a split: its answers, and its attention by token, as tables.

Nothing is judged here. What is hallucinated, the curves and the early warning are worked out from
these tables alone (`adapt/evaluation`), so that a changed metric or plot costs no generation.

    responses   a row per answer: arm, steered, split, id, image_id, kind, question, reference,
                response, tokens (how many), heats (for each picture, mean attention over tokens
                and layers to each cell of a grid over it) and grids (rows, columns of each)
    tokens      a row per generated token of a description or another free answer: arm, split, id,
                image_id, position, relative (0 first, 1 last), length (of its answer, in tokens),
                end (where it ends in the answer, in characters), fired (share of layers that were
                steered), the degradation signals, svar and logprob (nats), pas and prelim
                (attention to the answer so far: first layer, mean over layers), and similarity
                with the image tokens (`nearest_middle`, ...: `adapt/attention/similarity.py`)
    traces      a row per token of the longest descriptions: id, position, heats (as above, of one
                token)

A grid over a picture is that of its patches where these cover it, else a raster
(`adapt/attention/support.py`). A run that is interrupted goes on where it stopped (`kept.py`).
"""

import copy
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from adapt.data.schema import KINDS, Example
from adapt.generation.answer import Decoding
from adapt.generation.asked import AnsweredAs
from adapt.generation.crew import Crew
from adapt.generation.debias import Debias, Noise
from adapt.generation.hands import Away, Hands, Here, Longest, Met
from adapt.generation.kept import VERSION, Kept, question_key
from adapt.generation.said import Said, response_row, token_table
from adapt.generation.settings import Config, SteerConfig
from adapt.metrics.split import FREE
from adapt.models.device import generation_dtype, resolve
from adapt.models.load import load_model, load_processor
from adapt.models.prompts import prompt_version
from adapt.params import require
from adapt.progress import track


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tables:
    """The answers of one or several arms; see the module docstring."""

    responses: pd.DataFrame
    tokens: pd.DataFrame
    traces: pd.DataFrame

    @classmethod
    def joined(cls, parts: "Sequence[Tables]") -> "Tables":
        """The rows of all parts."""
        names = [field.name for field in dataclasses.fields(cls)]
        columns = {name: [getattr(part, name) for part in parts] for name in names}
        return cls(**{name: pd.concat(c, ignore_index=True) for name, c in columns.items()})

    def write(self, folder: Path) -> None:
        """`responses.parquet`, `tokens.parquet` and `traces.parquet`."""
        for field in dataclasses.fields(self):
            getattr(self, field.name).to_parquet(folder / f"{field.name}.parquet", index=False)


class Bench:
    """A model and the questions it is asked; debias masks are estimated once for all arms.

    `state` is the folder that keeps them (`debias/`) and answers (`answers/`); None keeps nothing.
    `longest`: the longest answer by kind of question, where not `config.max_new_tokens`. `crew`:
    who loads the model and answers, instead of this process. Raises InputError where there is no
    question.
    """

    def __init__(
        self,
        folder: Path | str,
        split: str,
        rows: Sequence[Example],
        config: Config,
        state: Path | None = None,
        longest: Mapping[str, int] | None = None,
        crew: Crew | None = None,
    ) -> None:
        self.processor, self.config, self._state = load_processor(folder), config, state
        self._hands = self._opened(folder, crew)
        self._seat(split, rows, longest)

    def _opened(self, folder: Path | str, crew: Crew | None) -> Hands:
        if crew is not None:
            return Away(crew, Path(folder), self.processor, self.config.batch)
        device = resolve(self.config.device)
        model = load_model(folder, device, generation_dtype(device))
        return Here(model, self.processor, self.config.batch)

    def turned_to(
        self, split: str, rows: Sequence[Example], longest: Mapping[str, int] | None = None
    ) -> "Bench":
        """The same model, which is not loaded again, before other questions."""
        other = copy.copy(self)
        other._seat(split, rows, longest)
        return other

    def _seat(self, split: str, rows: Sequence[Example], longest: Mapping[str, int] | None) -> None:
        require(bool(rows), split, "there is no question to ask")
        # Answers of one kind are about equally long: a batch of them pads little.
        by_kind = [sorted((r for r in rows if r.kind == k), key=lambda r: r.id) for k in KINDS]
        self.split, self.by_kind = split, by_kind
        # Names to keep answers by take every picture to work out; without a folder any name does.
        is_kept = self._state is not None
        keys = ((r.id, question_key(r, r.kind in FREE) if is_kept else r.id) for r in rows)
        self._keys = dict(keys)
        self._longest = dict.fromkeys(KINDS, self.config.max_new_tokens) | {**(longest or {})}
        # Noise is asked for descriptions, as pictures are; without any, what else is asked.
        config, questions = self.config, sorted({row.question for row in by_kind[0] or rows})
        self._asked_of_noise = questions[: config.anchor.noise_images]
        masks = self._state / "debias" if self._state is not None else None
        noise = Noise(tuple(questions), config.anchor, config.seed, config.batch)
        self.debias = self._hands.debias(noise, masks)

    def weights(self) -> str:
        """A name for the weights that answer, the same wherever they lie."""
        return self._hands.facts.weights

    def answered_as(self) -> AnsweredAs:
        """What decides its answers beside weights, prompt and steering."""
        return AnsweredAs(
            seed=self.config.seed,
            max_new_tokens=self.config.max_new_tokens,
            anchor=self.config.anchor,
            questions=tuple(self._asked_of_noise),
        )

    def prompt(self) -> str:
        """The version of the prompt in which they are asked."""
        return prompt_version(self.processor)

    def ask(self, arm: str, steer: SteerConfig | None, traces: int = 0) -> Tables:
        """Answer every question of the split as `arm`; `steer` None is plain decoding.

        `traces`: of how many descriptions, the longest, attention is kept token by token.
        """
        said: dict[str, Said] = {}
        for kind, rows in zip(KINDS, self.by_kind, strict=True):
            longest = Longest(traces if kind == "describe" else 0)
            said |= self._said(kind, rows, f"{arm} answers {self.split}, {kind}", steer, longest)
        rows = [row for of_kind in self.by_kind for row in of_kind]
        labels = {"arm": arm, "split": self.split}
        responses = pd.DataFrame([response_row(row, said[row.id]) for row in rows])
        return Tables(
            responses=responses.assign(**labels, steered=steer is not None),
            tokens=token_table(rows, said).assign(**labels),
            traces=self._traces(said, f"tracing {arm}", steer, traces),
        )

    def _traces(
        self, said: Mapping[str, Said], label: str, steer: SteerConfig | None, count: int
    ) -> pd.DataFrame:
        drawn = sorted(self.by_kind[0], key=lambda row: (-said[row.id].length, row.id))[:count]
        # An answer that was kept by a run with longer ones has no maps: it is made again.
        mapless, again = [row for row in drawn if said[row.id].maps is None], dict[str, Said]()
        if mapless:
            again = self._made("describe", mapless, label, steer, Longest(count), Kept(None))
        maps = {row.id: again.get(row.id, said[row.id]).maps for row in drawn}
        rows = [(i, t, heats) for i, of in maps.items() for t, heats in enumerate(of or ())]
        return pd.DataFrame(rows, columns=["id", "position", "heats"])

    def _said(
        self,
        kind: str,
        rows: Sequence[Example],
        label: str,
        steer: SteerConfig | None,
        longest: Longest,
    ) -> dict[str, Said]:
        """The answers to questions of one kind, by id: those that are kept, and the others."""
        if not rows:
            return {}
        store = self._store(kind, steer)
        kept = store.read([self._keys[row.id] for row in rows])
        said = {row.id: kept[self._keys[row.id]] for row in rows if self._keys[row.id] in kept}
        for identity, one in said.items():
            longest.takes(one.length, identity)
        left = [row for row in rows if row.id not in said]
        note = f"{label} ({len(said)} of {len(rows)} are kept)" if said and left else label
        meeting = _Meeting(self.debias, rows, said)
        made = self._made(kind, left, note, steer, longest, store, meeting.until) if left else {}
        meeting.until(None)
        return said | made

    def _made(
        self,
        kind: str,
        rows: Sequence[Example],
        label: str,
        steer: SteerConfig | None,
        longest: Longest,
        store: Kept,
        met: Met = lambda row: None,
    ) -> dict[str, Said]:
        """The rows' answers, generated; each batch is kept as soon as it is there."""
        decoding = Decoding(
            anchor_tokens=self.config.anchor.anchor_tokens,
            max_new_tokens=self._longest[kind],
            debias=self.debias,
            steer=steer,
            similarity=kind in FREE,
        )
        made: dict[str, Said] = {}
        parts = self._hands.made(rows, decoding, kind in FREE, longest, met)
        for batch, said in track(parts, label, len(rows), lambda part: len(part[0])):
            named = [self._keys[row.id] for row in batch]
            store.add(dict(zip(named, said, strict=True)))
            made |= {row.id: one for row, one in zip(batch, said, strict=True)}
        return made

    def _store(self, kind: str, steer: SteerConfig | None) -> Kept:
        """Where answers are kept that this model gives in this way."""
        if self._state is None:
            return Kept(None)
        steer = steer if steer is not None and steer.acts else None  # plain, whatever it is called
        facts = self._hands.facts
        weights = (facts.weights, facts.dtype, facts.device)
        asked = (self.prompt(), self._asked_of_noise, self.config.anchor, self.config.seed)
        settings = (VERSION, *weights, *asked, *facts.ends, self._longest[kind], steer)
        name = hashlib.blake2b(repr(settings).encode(), digest_size=16).hexdigest()
        return Kept(self._state / "answers" / f"{name}.jsonl")


class _Meeting:
    """Kept answers among rows that are asked: their grids are met where these rows stand.

    A grid has the mask of the first prompt that shows it. Whoever made some of the answers in an
    earlier run, perhaps not in this order, finds the same masks.
    """

    def __init__(self, debias: Debias, rows: Sequence[Example], kept: Mapping[str, Said]) -> None:
        self._debias, self._rows, self._kept = debias, iter(rows), kept

    def until(self, row: Example | None) -> None:
        """Meet those before a row; None: all that are left."""
        for other in self._rows:
            if row is not None and other.id == row.id:
                return
            if one := self._kept.get(other.id):
                self._debias.meet(one.views, one.sizes)
