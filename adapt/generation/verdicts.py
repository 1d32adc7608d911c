"""Verdicts of a language model on answers: from a file, or from an OpenAI-compatible endpoint.

The endpoint is one that the user names, and is asked for nothing else; its key is read from the
environment variable that `judge.key` names, and stands in no message. A verdict is kept by the
content of what was asked, so that nothing is asked twice.
"""

import hashlib
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adapt.benchmarks import hallusion
from adapt.benchmarks.settings import Benchmark, Judge
from adapt.benchmarks.suite import Suite, fingerprint
from adapt.files import whole_file
from adapt.params import InputError, require
from adapt.progress import track
from adapt.score import forms, rows
from adapt.score.content import read_text
from adapt.score.layout import Layout
from adapt.score.rows import Row

ATTEMPTS, WAIT = 5, 2.0  # how often an endpoint is asked, and seconds before the second time
TIMEOUT = 120.0  # seconds
_CHECKS = ("gpt4v_output_gpt_check", "same")
_MMHAL = Layout("", "judge", ("choices", "judge", "model_answer"))
_HALLUSION = Layout("", "", (*hallusion.KEY, *_CHECKS, "model_prediction"))
_BUSY = {408, 409, 425, 429, 500, 502, 503, 504}
_BLANKS = ("image_content", "question", "standard_answer", "model_answer")
PROMPT = """\
You judge whether an assistant's answer about a picture is informative and free of hallucination. \
You do not see the picture; these objects are in it: {image_content}

Question: {question}
A human's answer: {standard_answer}
The assistant's answer: {model_answer}

A hallucination is anything in the assistant's answer that contradicts the objects or the human's \
answer, or that neither supports. Give one rating:
6: no hallucination, very informative and insightful
5: no hallucination, very informative
4: no hallucination, somewhat informative
3: no hallucination, not informative
2: hallucination, very informative
1: hallucination, somewhat informative
0: hallucination, not informative
Explain briefly, then end with a line "Rating: " and the number.
"""


def files(benchmark: Benchmark, arms: Sequence[str]) -> dict[str, str]:
    """The SHA-256 of each file of verdicts that the arms of a benchmark are judged by."""
    return dict(fingerprint([_file(benchmark, arm) for arm in arms])["files"])


def _file(benchmark: Benchmark, arm: str) -> Path:
    assert benchmark.verdicts is not None
    return Path(benchmark.verdicts.replace("{arm}", arm))


def verdicts(
    benchmark: Benchmark, suite: Suite, answers: Mapping[str, str], arm: str, kept: Path
) -> dict[str, str]:
    """What a judge says of each answer, by question id; empty where none is configured.

    `kept` is the folder of verdicts that an endpoint has given before.
    """
    if benchmark.verdicts is not None:
        return _from_file(benchmark, suite, answers, _file(benchmark, arm))
    if benchmark.judge is None:
        return {}
    template = _template(benchmark.judge)
    asked = {i: filled(template, suite.records[i], answers[i]) for i in answers}
    named = track(asked.items(), f"judging {benchmark.called} of {arm}", len(asked))
    return {i: judged(benchmark.judge, text, kept) for i, text in named}


def _from_file(
    benchmark: Benchmark, suite: Suite, answers: Mapping[str, str], path: Path
) -> dict[str, str]:
    if benchmark.name == "hallusion":
        table = rows.read(path, layout=_HALLUSION)
        named = {"_".join(map(row.id, hallusion.KEY)): row for row in table}
        _require_about(named, answers)
        return {i: _checks(row) for i, row in named.items()}
    table, replies = rows.read(path, layout=_MMHAL), forms.replies(forms.File(path, {}))
    problem = f"has {len(replies)} verdicts, and there are {len(suite.records)} questions"
    require(len(replies) == len(suite.records), str(path), problem)
    _require_about(dict(zip(suite.records, table, strict=True)), answers)
    return dict(zip(suite.records, replies, strict=True))


def _checks(row: Row) -> str:
    """HallusionBench's two verdicts on an answer."""
    return " ".join(row.id(name) for name in _CHECKS if row.has(name))


def _require_about(judged: Mapping[str, Row], answers: Mapping[str, str]) -> None:
    """Verdicts that carry the answer are about these answers, not about those of another model."""
    for i, text in answers.items():
        for name in ("model_answer", "model_prediction"):
            if i in judged and judged[i].has(name) and judged[i].text(name) != text:
                raise judged[i].error(f"{name} is not the answer that was given; judge it anew")


def filled(template: str, record: Mapping[str, Any], answer: str) -> str:
    """The judge's prompt for one answer.

    >>> record = {"image_content": ["cat"], "question": "What is it?", "gt_answer": "A cat."}
    >>> filled("{image_content}: {question} {standard_answer} {model_answer}", record, "A {dog}")
    'cat: What is it? A cat. A {dog}'
    >>> filled("{}; {}; {}; {}", record, "A dog")
    'cat; What is it?; A cat.; A dog'
    """
    content = record.get("image_content", "")
    objects = content if isinstance(content, str) else ", ".join(map(str, content))
    values = (objects, record["question"], record["gt_answer"], answer)
    named = all(f"{{{name}}}" in template for name in _BLANKS)
    blanks = [f"{{{name}}}" for name in _BLANKS] if named else ["{}"] * len(_BLANKS)
    text, rest = "", template
    # From left to right, so that nothing is filled into what was filled in.
    for blank, value in sorted(zip(blanks, values, strict=True), key=lambda one: _place(one, rest)):
        before, _, rest = rest.partition(blank)
        text += before + str(value)
    return text + rest


def _place(blank: tuple[str, Any], template: str) -> int:
    return template.index(blank[0])


def _template(judge: Judge) -> str:
    if judge.prompt is None:
        return PROMPT
    text = read_text(Path(judge.prompt))
    good = text.count("{}") == len(_BLANKS) or all(f"{{{name}}}" in text for name in _BLANKS)
    blanks = ", ".join(f"{{{name}}}" for name in _BLANKS)
    require(good, judge.prompt, f"has not {blanks}, nor four {{}}")
    return text


def as_replies(texts: Mapping[str, str], suite: Suite) -> str:
    """The judge's texts in the order of the questions, a file as `verdicts` takes it."""
    return json.dumps([texts[one.id] for one in suite.questions], indent=1) + "\n"


# ---- the endpoint ------------------------------------------------------------------------------


def judged(judge: Judge, prompt: str, kept: Path) -> str:
    """The judge's text, kept or asked for."""
    key = hashlib.sha256(json.dumps([judge.url, judge.model, prompt]).encode()).hexdigest()[:32]
    path = kept / f"{key}.json"
    if path.is_file():
        return str(json.loads(path.read_text(encoding="utf-8")))
    text = _asked(judge, prompt)
    with whole_file(path) as partial:
        partial.write_text(json.dumps(text), encoding="utf-8")
    return text


def _asked(judge: Judge, prompt: str) -> str:
    address = judge.url.rstrip("/") + "/chat/completions"
    body = {"model": judge.model, "messages": [{"role": "user", "content": prompt}]}
    content = json.dumps(body | {"temperature": 0}).encode()
    headers = {"Content-Type": "application/json"}
    if judge.key:
        secret = os.environ.get(judge.key, "").strip()
        require(bool(secret), f"judge.key: {judge.key}", "this environment variable is not set")
        is_key = secret.isascii() and secret.isprintable()
        require(is_key, f"judge.key: {judge.key}", "this environment variable holds no key")
        headers["Authorization"] = f"Bearer {secret}"
    try:
        request = urllib.request.Request(address, content, headers)
    except ValueError as error:
        raise InputError(f"judge.url: {judge.url}: {error}") from None
    reply = _sent(request, address)
    try:
        text = reply["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise InputError(f"{address}: the reply has no choices[0].message.content") from None
    if not isinstance(text, str):
        raise InputError(f"{address}: the judge's reply is no text")
    return text


def _sent(request: urllib.request.Request, address: str) -> Any:
    """The reply; a busy or absent endpoint is asked again, each time after twice as long."""
    problem = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(WAIT * 2 ** (attempt - 1))
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            problem = f"answers {error.code} {error.reason}"
            if error.code not in _BUSY:
                break
        except (json.JSONDecodeError, UnicodeDecodeError):
            problem = "does not answer in JSON"
            break
        except (OSError, http.client.HTTPException) as error:
            problem = f"cannot be reached ({getattr(error, 'reason', error)})"
    raise InputError(f"{address}: {problem}")
