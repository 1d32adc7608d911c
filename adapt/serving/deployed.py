"""The server on a Ray cluster that stays up: what a Ray Serve configuration names.

    applications:
      - name: adapt
        route_prefix: /
        import_path: adapt.serving.deployed:application
        args: {model: "models:/adapt@champion", serve: {replicas: 2, gpus: 1}}

`infra/ray/rayservice.yaml` is one for KubeRay. The workspace, with its params.yaml, is named by
ADAPT_WORKSPACE on every node; `args` may change keys of section `serve`. The registry is that of
MLFLOW_TRACKING_URI. Ray's proxies are told what stands before them by Ray's own variable
`RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`, which is `adapt.serving.guard:callbacks`. The key that
clients send is ADAPT_API_KEY in their environment; without it they answer loopback alone.
"""

from collections.abc import Mapping
from typing import Any

from adapt import params
from adapt.params import InputError, require
from adapt.serving import guard
from adapt.serving.settings import ServeConfig
from adapt.serving.source import source_of
from adapt.tracking.store import TrackingConfig
from adapt.watching.settings import WatchConfig

ARGUMENTS = ("model", "serve")


def application(args: Mapping[str, Any]) -> Any:
    """Called by Ray Serve with the `args` of its configuration; InputError for what is wrong."""
    unknown = ", ".join(name for name in args if name not in ARGUMENTS)
    require(not unknown, "args", f"unknown {unknown}; known are {', '.join(ARGUMENTS)}")
    root = guard.workspace()
    content = params.read(root / "params.yaml")
    changed = args.get("serve", {})
    if not isinstance(changed, Mapping):
        raise InputError(f"args: serve: expected keys of section serve, got {changed!r}")
    config = ServeConfig.of(content, changed)
    name = params.load(content, "tracking", TrackingConfig).model
    source = str(args.get("model", f"models:/{name}@champion"))
    source_of(source, root)  # said before anything is started
    from adapt.serving.replica import application as built

    return built(config, name, source, root, params.load(content, "watch", WatchConfig))
