"""Stages `pairs` and `answer` on a cluster, with files that lie outside of `results/`."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapt.data.tables import write_split
from adapt.params import as_params
from tests.stages.conftest import ANSWER, written
from tests.support import benchmark_folders as made
from tests.support import bucket, limits, oracle, preferences
from tests.support.ray_head import RayHead, ray_head, without_ray

pytestmark = [pytest.mark.slow, pytest.mark.timeout(limits.WHOLE_TEST_S)]

# What the launcher does around a stage, without MLflow's run.
RUN = """
import sys
from pathlib import Path
from adapt import command, environment, params
from adapt.launch import road, stage_module
from adapt.progress import unlogged

stage, out = sys.argv[1], Path(sys.argv[2])
environment.prepare(Path.cwd())
with command.edge(f"adapt {stage}"):
    content = params.read(Path(f"{stage}.yaml"))
    config = params.load(content, stage, stage_module(stage).Config)
    out.mkdir()
    road(stage, config)(config, Path("results").resolve(), out, unlogged)
"""
SECRET = "hunter2"


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with bucket.bucket(tmp_path_factory.mktemp("s3")) as s3:
        yield s3


@pytest.fixture(scope="module")
def head(exchange: dict[str, str]) -> Iterator[RayHead]:
    with ray_head(variables={**exchange, "RAY_worker_niceness": "0"}) as running:
        yield running
    assert running.processes() == []


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with two models, and files of the user's in it and elsewhere."""
    root = tmp_path_factory.mktemp("workspace") / "ws"
    written(root / "results", speaks=True)
    rows = [preferences.known(number, id=f"{number}") for number in range(4)]
    preferences.workspace(root, rows)
    kept = [
        dataclasses.replace(
            preferences.known(number, chosen="a house.").asked(), kind="exists", id=f"kept {number}"
        )
        for number in range(10, 14)
    ]
    write_split(root / "own.parquet", kept)
    (root / "own").mkdir()
    write_split(root / "own" / "test.parquet", kept)
    made.amber(root / "AMBER")
    made.pope(root.parent / "elsewhere" / "POPE")
    benchmarks = [
        {"name": "amber", "path": "AMBER/data", "max_new_tokens": 4},
        {
            "name": "pope",
            "path": str(root.parent / "elsewhere/POPE/coco_pope_random.json"),
            "images": "../elsewhere/POPE/val2014",
            "limit": 4,
        },
        {"name": "own", "path": "own"},
    ]
    answer = as_params("answer", ANSWER)
    answer["answer"] |= {"benchmarks": benchmarks, "questions": 3}
    keep = {"kinds": ["exists"], "images": 3, "path": "own.parquet"}
    pairs = as_params("pairs", preferences.config(source="given", keep=keep))
    for stage, content in (("answer", answer), ("pairs", pairs)):
        (root / f"{stage}.yaml").write_text(yaml.safe_dump(content))
    return root


def run(root: Path, stage: str, out: str, env: Mapping[str, str] = {}) -> tuple[str, Any]:
    """What a stage says, and the files it writes."""
    own = {"ADAPT_STATE": str(root / f"state-{out}"), "OMP_NUM_THREADS": "1", "SECRET": SECRET}
    done = subprocess.run(
        [sys.executable, "-c", RUN, stage, out],
        cwd=root,
        env={**without_ray(**own), **env},
        capture_output=True,
        text=True,
        timeout=limits.COMMAND_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr, {p.name: p.read_bytes() for p in (root / out).iterdir()}


@pytest.mark.parametrize("stage", ["pairs", "answer"])
def test_a_stage_writes_on_a_cluster_what_it_writes_at_home(
    stage: str,
    root: Path,
    head: RayHead,
    exchange: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To the byte; the cluster shares nothing with the workspace but an object store."""
    oracle.use_nltk_data(monkeypatch)
    folder = Path(oracle.FOLDER.parent / "nltk_data")
    nltk = {"NLTK_DATA": str(folder)} if folder.is_dir() else {}  # the cluster has none
    there = {**head.env, **exchange, **nltk, "ADAPT_RAY_STORAGE": f"s3://{bucket.NAME}/{stage}"}
    _, home = run(root, stage, f"{stage}-home", nltk)
    said, sent = run(root, stage, f"{stage}-sent", there)
    assert f"job adapt-{stage}-" in said and "it runs here" not in said
    assert sent.keys() == home.keys()
    assert [name for name in home if sent[name] != home[name]] == []
    assert "outside-of-results" not in said
    # Nodes know neither where the files lie at home nor what else is there.
    (key,) = (key for key in bucket.keys(exchange, f"{stage}/jobs/") if key.endswith("job.json"))
    s3 = bucket.client(exchange)
    job = s3.get_object(Bucket=bucket.NAME, Key=key)["Body"].read().decode()
    assert str(root.parent) not in job and SECRET not in job and "AMBER" not in job
    if stage == "pairs":
        assert json.loads(sent["report.json"])["keep"]["path"] == "own.parquet"
    # For a day the result is there for whoever asks for the same.
    again, _ = run(root, stage, f"{stage}-again", there)
    assert "the result is there already" in again
