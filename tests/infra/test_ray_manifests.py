"""The shipped Ray manifests are valid: the launcher's by Ray's own schema, the RayJob by the keys
of its resource.
"""

import copy
import logging
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

RAY = Path(__file__).parents[2] / "infra" / "ray"

# KubeRay's RayJob, v1: what may stand where (its CRD is no Python package, so the part in use is
# written down here).
KEYS = {
    "": {"apiVersion", "kind", "metadata", "spec"},
    "spec": {
        "submissionMode",
        "entrypoint",
        "runtimeEnvYAML",
        "jobId",
        "metadata",
        "clusterSelector",
        "rayClusterSpec",
        "submitterPodTemplate",
        "submitterConfig",
        "entrypointNumCpus",
        "entrypointNumGpus",
        "entrypointResources",
        "backoffLimit",
        "activeDeadlineSeconds",
        "shutdownAfterJobFinishes",
        "ttlSecondsAfterFinished",
        "suspend",
    },
    "spec.rayClusterSpec": {
        "rayVersion",
        "authOptions",
        "headGroupSpec",
        "workerGroupSpecs",
        "enableInTreeAutoscaling",
        "autoscalerOptions",
    },
    "spec.rayClusterSpec.authOptions": {"mode", "secretName", "enableK8sTokenAuth"},
    "spec.rayClusterSpec.headGroupSpec": {
        "rayStartParams",
        "template",
        "serviceType",
        "headService",
        "resources",
    },
    "spec.rayClusterSpec.workerGroupSpecs": {
        "groupName",
        "replicas",
        "minReplicas",
        "maxReplicas",
        "idleTimeoutSeconds",
        "numOfHosts",
        "suspend",
        "rayStartParams",
        "template",
        "resources",
        "scaleStrategy",
    },
}


def at(node: Any, path: str) -> list[dict[str, Any]]:
    """The mappings at a dotted path; a list on the way stands for each of its items."""
    nodes = [node]
    for key in filter(None, path.split(".")):
        found = [n[key] for n in nodes]
        nodes = [
            item for value in found for item in (value if isinstance(value, list) else [value])
        ]
    return nodes


@pytest.fixture
def cluster() -> dict[str, Any]:
    return yaml.safe_load((RAY / "cluster.yaml").read_text())


@pytest.fixture(params=["as shipped", "with the GPU workers"])
def job(request: pytest.FixtureRequest) -> dict[str, Any]:
    return yaml.safe_load(text("rayjob.yaml", request.param == "with the GPU workers"))


def text(name: str, gpu: bool) -> str:
    """A manifest, with its commented GPU part taken in or left out."""
    content = (RAY / name).read_text()
    if not gpu:
        return content
    head, mark, tail = re.split(
        r"^( *)# (?=(?:- groupName: )?gpu)", content, maxsplit=1, flags=re.MULTILINE
    )
    block = re.match(rf"[^\n]*\n(?:{mark}#[^\n]*\n)*", tail)
    assert block
    return (
        head
        + re.sub(r"^( *)# ", r"\1", f"{mark}# {block[0]}", flags=re.MULTILINE)
        + tail[block.end() :]
    )


def prepared(config: dict[str, Any]) -> dict[str, Any]:
    """`config` as `ray up` sees it, after Ray's own validation."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    logging.getLogger("ray").setLevel(logging.WARNING)
    full = prepare_config(copy.deepcopy(config))
    validate_config(full)
    return full


@pytest.mark.parametrize("gpu", [False, True])
def test_the_launcher_accepts_the_cluster(gpu: bool) -> None:
    full = prepared(yaml.safe_load(text("cluster.yaml", gpu)))
    nodes = full["available_node_types"]
    assert set(nodes) == {"head", "worker"} | ({"gpu"} if gpu else set())
    assert nodes["head"]["max_workers"] == 0
    assert all(nodes[name]["max_workers"] <= full["max_workers"] for name in nodes)


def test_the_launcher_would_notice_a_typo(cluster: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_minute"):
        prepared(cluster | {"idle_timeout_minute": 1})


def test_the_cluster_is_closed_to_strangers(cluster: dict[str, Any]) -> None:
    start = cluster["head_start_ray_commands"][-1]
    assert "--dashboard-host=127.0.0.1" in start and "--disable-usage-stats" in start
    assert "--env=RAY_AUTH_MODE=token" in cluster["docker"]["run_options"]
    assert "~/.ray/auth_token" in cluster["file_mounts"]


def test_the_job_has_only_keys_that_kuberay_knows(job: dict[str, Any]) -> None:
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    for path, known in KEYS.items():
        for node in at(job, path):
            assert set(node) <= known, path
    spec = job["spec"]
    assert spec["submissionMode"] in {"K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"}
    for key in ("backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"):
        assert type(spec[key]) is int
    for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
        assert all(type(group[key]) is int for key in ("replicas", "minReplicas", "maxReplicas"))
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_the_job_matches_the_pinned_ray_and_has_a_token(job: dict[str, Any]) -> None:
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == version("ray")
    assert cluster["authOptions"] == {"mode": "token"}


def test_every_pod_runs_one_image_with_the_same_access(job: dict[str, Any]) -> None:
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert len({group.get("groupName", "head") for group in groups}) == len(groups)
    containers = [c for group in groups for c in group["template"]["spec"]["containers"]]
    assert len({(c["image"], str(c["envFrom"])) for c in containers}) == 1
    assert all(type(value) is str for group in groups for value in group["rayStartParams"].values())
    for container in containers:
        assert set(container["resources"]) == {"requests", "limits"}


def test_the_job_runs_the_train_stage_and_carries_no_secret(job: dict[str, Any]) -> None:
    spec = job["spec"]
    assert "dvc repro --pull --single-item train &&" in spec["entrypoint"]
    assert "\n" not in spec["entrypoint"]
    variables = yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]
    assert all(type(value) is str for value in variables.values())
    assert not [name for name in variables if re.search("KEY|SECRET|TOKEN|PASSWORD", name)]


def test_dvc_knows_the_options_of_the_job() -> None:
    from dvc.cli import parse_args

    arguments = parse_args(["repro", "--pull", "--single-item", "train"])
    assert (arguments.pull, arguments.single_item, arguments.targets) == (True, True, ["train"])
    assert parse_args(["push", "train"]).targets == ["train"]
