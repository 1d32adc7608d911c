"""A judge's verdicts: MMHal-Bench (arXiv 2309.14525) and HallusionBench (arXiv 2310.14566).

A language model has judged each answer; here its verdicts become the official metrics. Nothing
asks a judge.

MMHal, as https://github.com/RLHF-V/RLHF-V, eval/summarize_gpt_mmhal_review.py, has it: 96 questions
in their order, of which the type is the number modulo 8. A judge's text scores 0 to 6 when exactly
one of "rating: 0" .. "rating: 6" occurs in it, and else 0: a judge that says nothing, or "rating:
4, at most rating: 5", makes a hallucination. `strict` leaves such answers out, and reads "Rating:
10" as none. Below 3 is a hallucination; informativeness is the score, less 3 from 3 on, in percent
of 3.

HallusionBench, as https://github.com/tianyi-lab/HallusionBench, utils.py, has it: a verdict is 1
correct, 0 incorrect, 2 unclear; unclear is right where the question comes without its figure
(category VS, figure 0). aAcc counts questions, qAcc questions with all their figures right, fAcc
figures with all their questions right (without VS's figure 0). LH, VI and Mix attribute errors to
language, vision, or both. There is nothing to mend: `strict` is the same.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from adapt.params import InputError
from adapt.score.scored import Mode, Ratio, Scored, pooled, ratio

_TYPES = "attribute adversarial comparison counting relation environment holistic other"
TYPES = tuple(_TYPES.split())
_HALLUCINATED = 3  # scores below
# Whether language, and whether vision, is to blame.
_CAUSES = {(True, False): "LH", (False, True): "VI", (True, True): "Mix"}

Key = tuple[str, ...]
Groups = dict[Key, list[bool]]


def rating(text: str, mode: Mode) -> int | None:
    """The score in a judge's text, None when there is none or more than one.

    >>> texts = ("Rating: 4", "RATING: 2, low", "none", "rating: 1 or rating: 2")
    >>> [rating(text, "official") for text in texts]
    [4, 2, None, None]
    >>> rating("Rating: 10", "official"), rating("Rating: 10", "strict")
    (1, None)
    """
    digit = r"rating: ([0-6])" if mode == "official" else r"rating:\W*([0-6])(?![\d.]*\d)"
    scores = set(re.findall(digit, text.lower()))
    return int(scores.pop()) if len(scores) == 1 else None


def mmhal(verdicts: Sequence[str], mode: Mode) -> Scored:
    """MMHal's metrics with two decimals, as printed; `score_<type>` for each question type.

    Four judged answers: 6, 2, 3, and one without a rating, which is 0 (left out in strict mode).

    >>> judged = ["Rating: 6", "Rating: 2", "Rating: 3", "A fine answer."]
    >>> scored = mmhal(judged, "official")
    >>> [scored.metrics[name] for name in ("average_score", "hallucination_rate")]
    [2.75, 0.5]
    >>> mmhal(judged, "strict").metrics["hallucination_rate"]
    0.33
    """
    ratings = [rating(text, mode) for text in verdicts]
    # 1. A judge without a rating counts as the worst score, or in strict mode not at all.
    filled = [0 if score is None and mode == "official" else score for score in ratings]
    kept = [(place % len(TYPES), score) for place, score in enumerate(filled) if score is not None]
    if not kept:
        raise InputError('no judge\'s text has a rating such as "Rating: 4"')
    scores = [score for _, score in kept]
    # 2. Informativeness takes no account of hallucination: 3 to 6 are worth 0 to 3, as 0 to 3 are.
    informative = [score - 3 if score >= _HALLUCINATED else score for score in scores]
    hallucinated, ones = [int(score < _HALLUCINATED) for score in scores], [1] * len(scores)
    ratios = {
        "informativeness": ratio([100 * value for value in informative], [3] * len(scores)),
        "average_score": ratio(scores, ones),
        "hallucination_rate": ratio(hallucinated, ones),
    }
    # 3. A question's type follows from its place.
    for number, name in enumerate(TYPES[: len(verdicts)]):
        asked = [int(kind == number) for kind, _ in kept]
        of_type = [score * flag for score, flag in zip(scores, asked, strict=True)]
        ratios[f"score_{name}"] = ratio(of_type, asked)
    metrics = pooled(ratios)
    # In the official order of operations, for its rounding.
    metrics["informativeness"] = sum(informative) / len(scores) / 3 * 100
    counts = {"judged": len(verdicts), "without_rating": ratings.count(None)}
    counts["hallucinated"] = sum(hallucinated)
    rounded = {name: round(value, 2) for name, value in metrics.items()}
    return Scored(rounded, counts, ratios, {"benchmark": "mmhal", "mode": mode})


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One question of HallusionBench.

    `check` is the judge's 0, 1 or 2, `same` whether the answer was that to figure 0;
    `visual_input`: 0 no figure, 1 the original, 2 an edited one.
    """

    category: str
    subcategory: str
    set_id: str
    figure_id: str
    question_id: str
    visual_input: str
    truth: bool
    check: str
    same: bool

    @property
    def correct(self) -> bool:
        """Whether the answer counts as right."""
        return self.check == "1" or (self.check == "2" and not self.sees)

    @property
    def sees(self) -> bool:
        """Whether the question comes with a figure."""
        return not (self.category == "VS" and self.figure_id == "0")

    @property
    def unit(self) -> Key:
        """The set: figures and questions that belong together, which the bootstrap draws whole."""
        return self.category, self.subcategory, self.set_id

    @property
    def pair(self) -> Key:
        """The question, whatever the figure."""
        return *self.unit, self.question_id


def hallusion(verdicts: Sequence[Verdict], mode: Mode) -> Scored:
    """Percentages without rounding, the two measures of a bias to yes, and the official counters.

    One set, one question with two figures: right about the original, wrong about the edited one,
    with the same answer.

    >>> of = {"category": "VD", "subcategory": "math", "set_id": "0", "question_id": "0"}
    >>> original = Verdict(**of, figure_id="0", visual_input="1", truth=True, check="1", same=False)
    >>> edited = Verdict(**of, figure_id="1", visual_input="2", truth=False, check="0", same=True)
    >>> scored = hallusion([original, edited], "official")
    >>> names = ("aAcc", "qAcc", "fAcc", "easy_pair_acc", "hard_pair_acc")
    >>> [scored.metrics[name] for name in names]
    [50.0, 0.0, 50.0, 100.0, 0.0]
    >>> scored.counts["pair_Mix"]
    1
    """
    easy = [v for v in verdicts if v.visual_input != "2"]
    hard = [v for v in verdicts if v.visual_input == "2"]
    # All answers of a group must be right: one answer, a question about all its figures, a figure
    # with all its questions, and questions about original and about edited figures alone.
    pairs = _groups(verdicts, lambda v: v.pair)
    figures = _groups([v for v in verdicts if v.sees], lambda v: (*v.unit, v.figure_id))
    percentages = {
        "aAcc": _groups(verdicts, lambda v: (*v.pair, v.figure_id)),
        "qAcc": pairs,
        "fAcc": figures,
        "easy_pair_acc": _groups(easy, lambda v: v.pair),
        "hard_pair_acc": _groups(hard, lambda v: v.pair),
    }
    units = list(dict.fromkeys(v.unit for v in verdicts))
    ratios = {name: _by_unit(groups, units) for name, groups in percentages.items()}
    # The mean over figures of the share of right answers, as a fraction.
    shares = [sum(rights) / len(rights) for rights in figures.values()]
    consistency = {"figure_score": sum(shares) / len(shares) if shares else 0.0}
    metrics = pooled(ratios) | _bias(verdicts) | consistency
    counts = _question_counts(verdicts) | _pair_counts(verdicts, pairs) | _figure_counts(figures)
    return Scored(metrics, counts, ratios, {"benchmark": "hallusion", "mode": mode})


def _groups(verdicts: Iterable[Verdict], key: Callable[[Verdict], Key]) -> Groups:
    """Rights and wrongs of each group; a group is right when all of it is."""
    groups: Groups = {}
    for verdict in verdicts:
        groups.setdefault(key(verdict), []).append(verdict.correct)
    return groups


def _by_unit(groups: Groups, units: Sequence[Key]) -> Ratio:
    """Right groups, in hundredths, and groups of each set; a group's key begins with its set's."""
    right, total = Counter[Key](), Counter[Key]()
    for key, rights in groups.items():
        right[key[:3]] += 100 * all(rights)
        total[key[:3]] += 1
    return ratio([right[unit] for unit in units], [total[unit] for unit in units])


def _bias(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """How much more often than the truth answers say yes; the share of errors that are a wrong yes.

    The official code takes an answer for yes, also an unclear one, when being right equals truth.
    """
    yes = sum(v.correct == v.truth for v in verdicts) / len(verdicts)
    wrong = [v for v in verdicts if not v.correct]
    return {
        "yes_no_diff": yes - sum(v.truth for v in verdicts) / len(verdicts),
        "yes_no_fp": sum(not v.truth for v in wrong) / len(wrong) if wrong else 0.0,
    }


def _question_counts(verdicts: Sequence[Verdict]) -> dict[str, int]:
    correct = sum(v.correct for v in verdicts)
    counts = {"total": len(verdicts), "correct": correct, "wrong": len(verdicts) - correct}
    return _prefixed("question", counts | _causes(map(_question_cause, verdicts)))


def _pair_counts(verdicts: Sequence[Verdict], pairs: Groups) -> dict[str, int]:
    """Pairs by their causes, and with `_cg` single questions by the cause that their pair gives."""
    original = {v.pair: v.check for v in verdicts if v.figure_id == "0"}
    language, vision, single = Counter[Key](), Counter[Key](), Counter[str | None]()
    for verdict in verdicts:
        if verdict.pair not in original:
            problem = "has no answer to figure 0, which the others are compared with"
            raise InputError(f"{'_'.join(verdict.pair)}: {problem}")
        by_language, by_vision = _pair_cause(verdict, original[verdict.pair])
        language[verdict.pair] += by_language
        vision[verdict.pair] += by_vision
        single[_CAUSES.get((by_language, by_vision))] += 1
    correct = sum(all(rights) for rights in pairs.values())
    counts = {"total": len(pairs), "total_q": len(verdicts)}
    counts |= {"correct": correct, "wrong": len(pairs) - correct}
    counts |= _causes(_CAUSES.get((language[pair] > 0, vision[pair] > 0)) for pair in pairs)
    counts |= {f"{name}_cg": single[name] for name in _CAUSES.values()}
    return _prefixed("pair", counts)


def _figure_counts(figures: Groups) -> dict[str, int]:
    right = sum(all(rights) for rights in figures.values())
    wrong = sum(not any(rights) for rights in figures.values())
    mixed = len(figures) - right - wrong
    counts = {"total": len(figures), "correct": right, "wrong": wrong, "inconsistent": mixed}
    return _prefixed("figure", counts)


def _prefixed(unit: str, counts: Mapping[str, int]) -> dict[str, int]:
    return {f"{unit}_{name}": count for name, count in counts.items()}


def _question_cause(verdict: Verdict) -> str | None:
    """LH, VI, Mix or None from one answer alone."""
    blind = verdict.category == "VS" and verdict.visual_input == "0"
    if verdict.check == "1" or (verdict.check == "2" and blind):
        return None
    if verdict.check == "2" or (verdict.category == "VD" and verdict.figure_id == "0"):
        return "VI"
    return "LH" if blind else "Mix"


def _pair_cause(verdict: Verdict, original: str) -> tuple[bool, bool]:
    """Whether language, and whether vision, is to blame, given the verdict on figure 0."""
    wrong, repeated = verdict.check == "0", verdict.check == "0" and verdict.same
    if verdict.check == "1":
        return False, False
    if verdict.figure_id == "0":
        return (False, True) if verdict.category == "VD" else (wrong, False)
    if verdict.category == "VD":
        return original == "1" and repeated, True
    if original == "0":
        return True, not repeated
    if original == "1" and repeated and verdict.visual_input == "2":
        return True, False
    return False, True


def _causes(causes: Iterable[str | None]) -> dict[str, int]:
    counted = Counter(causes)
    return {name: counted[name] for name in _CAUSES.values()}
