"""The HTTP door: what it costs per token, how much more many clients get done, and its memory.

    python -m benchmarks.serving_load --model FOLDER [--port 8123] [--requests 2000]
    python -m benchmarks.serving_load --parts token --sizes champion small

FOLDER is a version as it is registered. Three parts:

* token: `Answerer.answer`, with signals and risk, against encoding, plain `generate` and decoding
  of the same questions to the same length, by turns, in one process without a server. `champion` is
  the model of FOLDER; `small` has the decoder of 170 M weights of `benchmarks/decode_step.py` and
  576 image tokens, with random weights.
* load: a server of FOLDER as `make serve-model` starts it; 1 and 16 clients by turns, each of which
  asks again as soon as it is answered. Requests a second, and the times of single requests.
* memory: resident memory of the replica (its own pages) over so many requests of 16 clients.
"""

import argparse
import base64
import http.client
import io
import json
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image

from adapt.attention.settings import SIGNALS, AnchorConfig
from adapt.generation.asked import AnsweredAs
from adapt.generation.settings import SteerConfig
from adapt.metrics.detection import Detector
from adapt.models.prompts import prompt_inputs
from adapt.models.tiny import Shape, build_processor, build_tokenizer
from adapt.serving.answerer import Answerer
from adapt.serving.asked import Asked
from adapt.serving.bundle import Bundle, Served
from adapt.serving.spoken import Vocabulary
from benchmarks import decode_step
from benchmarks.sides import arguments, by_turns, progress, ratios, spread, write

QUESTION = "describe the picture."
BATCHES = (1, 8)
CLIENTS = (1, 16)
DETECTOR = Detector(
    features=(*SIGNALS, "logprob"),
    means=(0.0,) * 6,
    scales=(1.0,) * 6,
    weights=(-3.0, 0.5, 0.1, 1.0, 2.0, -0.4),
    intercept=0.2,
    strength=1.0,
)


def picture(seed: int, edge: int) -> Image.Image:
    """A picture of noise."""
    drawn = np.random.default_rng(seed).integers(0, 256, (edge, edge, 3), dtype=np.uint8)
    return Image.fromarray(drawn)


# ---- time per token ----------------------------------------------------------------------------


def small(options: argparse.Namespace) -> Answerer:
    """A LLaVA of 170 M weights at LLaVA-1.5's layout, served with a detector."""
    words = build_tokenizer([QUESTION, "a red car, a blue house and a green tree."])
    shape = Shape(width=64, vision_layers=2, text_layers=12, heads=2, patch_size=14, image_size=336)
    processor = build_processor(words, shape)
    given = argparse.Namespace(device=options.device, dtype="float32")
    model = decode_step.build(decode_step.SIZES["small"], given)
    model.config.image_token_id = words.convert_tokens_to_ids("<image>")
    model.config.text_config.eos_token_id = words.eos_token_id
    model.generation_config.eos_token_id = words.eos_token_id
    # Only words that the tokenizer knows.
    beyond = range(len(words), model.config.text_config.vocab_size)
    model.generation_config.suppress_tokens = [*range(7), *beyond]
    steer = SteerConfig(alpha=0.0, tau=0.9, trigger="mass", anchor_share=0.1, layers="all")
    anchor = AnchorConfig(anchor_tokens=5, noise_images=1)
    answered = AnsweredAs(
        seed=7, max_new_tokens=options.tokens, anchor=anchor, questions=(QUESTION,)
    )
    names = ("version", "weights", "prompt", "data", "answered", "steer", "warned_by")
    values = (1, "", "", "", answered, steer, "tuned")
    known = Bundle(
        served=Served(**dict(zip(names, values, strict=True))),
        detector=DETECTOR,
        vocabulary=Vocabulary({name: (name,) for name in ("car", "house", "tree")}),
        debias=Path(tempfile.gettempdir()) / "there-is-none.safetensors",
    )
    return Answerer(model, processor, known)


def champion(options: argparse.Namespace) -> Answerer:
    """The version of FOLDER, which does not end its answers before their time."""
    answerer = Answerer.open(options.model, options.device)
    ends = answerer.model.generation_config.eos_token_id
    kept = answerer.model.generation_config.suppress_tokens or []
    answerer.model.generation_config.suppress_tokens = [*kept, ends]
    return answerer


def per_token(size: str, batch: int, options: argparse.Namespace) -> dict[str, str]:
    """A row: milliseconds of a step, plainly and served, and their ratio."""
    answerer = {"champion": champion, "small": small}[size](options)
    tokens = min(options.tokens, answerer.max_new_tokens)
    edge = {"champion": 48, "small": 336}[size]
    images = [[picture(seed, edge)] for seed in range(batch)]
    named = {"question": QUESTION, "max_new_tokens": tokens}
    asked = [Asked(id=str(n), images=one, **named) for n, one in enumerate(images)]
    said: dict[str, Any] = {}

    def plain() -> float:
        start = time.perf_counter()
        model, processor = answerer.model, answerer.processor
        inputs = prompt_inputs(model, processor, images, [QUESTION] * batch)
        with torch.inference_mode():
            ids = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
        new = ids[:, inputs["input_ids"].shape[1] :]
        said["plain"] = processor.batch_decode(new, skip_special_tokens=True)
        return 1000 * (time.perf_counter() - start) / tokens

    def served() -> float:
        start = time.perf_counter()
        said["served"] = [one.text for one in answerer.answer(asked, lambda row, tokens: True)]
        return 1000 * (time.perf_counter() - start) / tokens

    label = f"{size}, batch {batch}"
    times = by_turns({"plain": plain, "served": served}, options.repeats, label)
    assert said["plain"] == said["served"], "the same answers"
    return {
        "model": size,
        "batch": str(batch),
        "tokens": str(tokens),
        "plain, ms a token": spread(times["plain"], 2),
        "served": spread(times["served"], 2),
        "ratio": spread(ratios(times, "served", "plain"), 2),
    }


# ---- load and memory ---------------------------------------------------------------------------


class Server:
    """A running server of the model."""

    def __init__(self, port: int, process: "subprocess.Popen[bytes]") -> None:
        self.port, self.process = port, process

    def replica(self) -> psutil.Process:
        """The process that answers."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        return next(one for one in below if "ServeReplica" in " ".join(one.cmdline()))

    def own_mib(self) -> float:
        """Memory of the replica that is its own."""
        return self.replica().memory_full_info().uss / 2**20


@contextmanager
def server(options: argparse.Namespace) -> Iterator[Server]:
    """Started as by hand, and ended by Ctrl-C."""
    words = ["adapt.serving", "start", "--model", str(options.model), "--port", str(options.port)]
    process = subprocess.Popen([sys.executable, "-m", *words], stdout=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", options.port), timeout=1).close()
                ask(options.port, bodies()[0])
                break
            except (OSError, AssertionError, http.client.HTTPException):
                time.sleep(1)
        assert process.poll() is None, "the server has ended"
        yield Server(options.port, process)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def bodies(count: int = 64) -> list[bytes]:
    """Requests about different pictures."""
    made = []
    for seed in range(count):
        buffer = io.BytesIO()
        picture(seed, 48).save(buffer, "PNG")
        url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
        parts = [{"type": "image_url", "image_url": {"url": url}}]
        content = [*parts, {"type": "text", "text": QUESTION}]
        messages = [{"role": "user", "content": content}]
        made.append(json.dumps({"model": "adapt", "messages": messages}).encode())
    return made


def ask(port: int, body: bytes, opened: http.client.HTTPConnection | None = None) -> None:
    """One request, which has to be answered."""
    opened = opened or http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    opened.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    reply = opened.getresponse()
    content = reply.read()
    assert reply.status == 200, content[:300]


def load(port: int, clients: int, requests: int) -> tuple[float, list[float]]:
    """Requests a second of so many clients, and the seconds that each took."""
    known, taken = bodies(), []

    def client(number: int) -> None:
        opened = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        for turn in range(requests // clients):
            start = time.perf_counter()
            ask(port, known[(number + 7 * turn) % len(known)], opened)
            taken.append(time.perf_counter() - start)

    threads = [threading.Thread(target=client, args=[n]) for n in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == requests // clients * clients, "every request was answered"
    return len(taken) / (time.perf_counter() - start), taken


def loads(found: Server, options: argparse.Namespace) -> list[dict[str, str]]:
    """Rows: clients by turns, and how much more the many get done."""
    taken: dict[int, list[float]] = {clients: [] for clients in CLIENTS}

    def side(clients: int) -> float:
        rate, seconds = load(found.port, clients, 40 if clients == 1 else 192)
        taken[clients] += seconds
        return rate

    sides = {str(clients): lambda clients=clients: side(clients) for clients in CLIENTS}
    rates = by_turns(sides, options.repeats, "load")
    rows = []
    for clients in CLIENTS:
        cuts = statistics.quantiles([1000 * one for one in taken[clients]], n=100)
        rows.append(
            {
                "clients": str(clients),
                "requests a second": spread(rates[str(clients)], 1),
                "to one client": spread(ratios(rates, str(clients), "1"), 2),
                "p50, ms": f"{cuts[49]:.0f}",
                "p95, ms": f"{cuts[94]:.0f}",
            }
        )
    return rows


def memory(found: Server, options: argparse.Namespace) -> list[dict[str, str]]:
    """Rows: the replica's own memory after each tenth of the requests."""
    load(found.port, 16, 320)
    rows = [{"requests": "0", "MiB of the replica": f"{found.own_mib():.1f}"}]
    for part in range(10):
        load(found.port, 16, options.requests // 10)
        done = f"{(part + 1) * options.requests // 10:,}"
        rows.append({"requests": done, "MiB of the replica": f"{found.own_mib():.1f}"})
        progress(f"{done} requests: {rows[-1]['MiB of the replica']} MiB")
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    description = __doc__.splitlines()[0]
    parser = arguments(description, ["champion", "small"], ["champion", "small"], 15)
    parser.add_argument("--model", type=Path, help="folder of a registered version")
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--tokens", type=int, default=32, help="of an answer, in part token")
    parser.add_argument("--requests", type=int, default=2000, help="in part memory")
    parts = ("token", "load", "memory")
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    if "token" in options.parts:
        rows = [per_token(size, batch, options) for size in options.sizes for batch in BATCHES]
        note = "Answers with signals and risk, against plain `generate`; encoding counts in both."
        write(
            "serving_token", "Time per token behind the door", [note], rows, options, "serving_load"
        )
    if {"load", "memory"} & {*options.parts}:
        with server(options) as found:
            if "load" in options.parts:
                note = "Each client asks again when it is answered; by turns, in one run."
                rows = loads(found, options)
                write(
                    "serving_load",
                    "Many clients at the door",
                    [note],
                    rows,
                    options,
                    "serving_load",
                )
            if "memory" in options.parts:
                note = "Its own pages (USS), 16 clients."
                rows = memory(found, options)
                write(
                    "serving_memory", "Memory of the replica", [note], rows, options, "serving_load"
                )


if __name__ == "__main__":
    main()
