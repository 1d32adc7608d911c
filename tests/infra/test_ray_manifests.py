"""The shipped Ray manifests are valid: the launcher's by Ray's own schema, RayJob and RayService by
the keys of their resources, and what Ray Serve is told by its own schema.
"""

import copy
import importlib
import logging
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from adapt.params import InputError
from adapt.serving import guard
from adapt.serving.running import SWITCHES

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


CLUSTER = {
    path.removeprefix("spec.rayClusterSpec"): keys
    for path, keys in KEYS.items()
    if path.startswith("spec.rayClusterSpec")
}
SERVICE = {
    "": KEYS[""],
    "spec": {
        "serveConfigV2",
        "rayClusterConfig",
        "serveService",
        "upgradeStrategy",
        "excludeHeadPodFromServeSvc",
        "rayClusterDeletionDelaySeconds",
        "suspend",
    },
    **{f"spec.rayClusterConfig{path}": keys for path, keys in CLUSTER.items()},
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


# ---- the service -------------------------------------------------------------------------------


@pytest.fixture(params=["as shipped", "with the GPU workers"])
def service(request: pytest.FixtureRequest) -> dict[str, Any]:
    return yaml.safe_load(text("rayservice.yaml", request.param == "with the GPU workers"))


def test_the_service_has_only_keys_that_kuberay_knows(service: dict[str, Any]) -> None:
    assert (service["apiVersion"], service["kind"]) == ("ray.io/v1", "RayService")
    for path, known in SERVICE.items():
        for node in at(service, path):
            assert set(node) <= known, path
    cluster = service["spec"]["rayClusterConfig"]
    assert cluster["rayVersion"] == version("ray") and cluster["authOptions"] == {"mode": "token"}
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    containers = [c for group in groups for c in group["template"]["spec"]["containers"]]
    shared = {(c["image"], str(c["envFrom"]), str(c["env"])) for c in containers}
    assert len(shared) == 1, "every pod runs one image, and knows the same"


def test_proxies_of_the_service_are_guarded(service: dict[str, Any]) -> None:
    pods = at(service, "spec.rayClusterConfig.workerGroupSpecs.template.spec.containers")
    known = {one["name"]: one["value"] for one in pods[0]["env"]}
    assert {name: known[name] for name in SWITCHES} == SWITCHES
    assert not [name for name in known if re.search("KEY|SECRET|TOKEN|PASSWORD", name)]
    assert pods[0]["envFrom"] == [{"secretRef": {"name": "adapt-credentials"}}]


def test_ray_serve_knows_what_the_service_tells_it(
    service: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.serve.schema import ServeDeploySchema

    told = ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
    (one,) = told.applications
    module, _, name = one.import_path.partition(":")
    monkeypatch.setenv("ADAPT_WORKSPACE", str(RAY.parents[1]))
    built = getattr(importlib.import_module(module), name)(one.args)
    deployment = built._bound_deployment
    assert (deployment.name, deployment.num_replicas) == ("adapt", 2)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"modle": "x"}, "args: unknown modle"),
        ({"serve": {"replica": 2}}, "serve.replica"),
        ({"serve": 3}, "args: serve: expected keys of section serve, got 3"),
        ({"model": "models:/adapt"}, "expected models:/NAME@ALIAS"),
    ],
)
def test_a_mistake_in_the_arguments_is_named(
    args: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adapt.serving.deployed import application

    monkeypatch.setenv("ADAPT_WORKSPACE", str(RAY.parents[1]))
    with pytest.raises(InputError, match=words):
        application(args)


def test_a_proxy_knows_its_rules_from_the_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(guard.VARIABLE, raising=False)
    monkeypatch.setenv(guard.WORKSPACE, str(RAY.parents[1]))
    monkeypatch.setenv(guard.KEY, "a-key-of-twenty-signs")
    (layer,) = guard.callbacks()
    rules = layer.args[0]
    assert rules.key == guard.digest("a-key-of-twenty-signs") and rules.waiting == 64
    monkeypatch.delenv(guard.WORKSPACE)
    with pytest.raises(InputError, match="ADAPT_WORKSPACE: name the workspace"):
        guard.callbacks()
