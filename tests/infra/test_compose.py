"""infra/compose.yaml: every service is checked, bounded and restarted, on loopback, with passwords
from the environment; the table of infra/README.md has every service with its port.
"""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from adapt import environment
from flows.serve import services
from tests.support import workspace
from tests.support.compose import FILE, VARIABLE, content, filled

SERVICES = content()["services"]
README = (FILE.parent / "README.md").read_text(encoding="utf-8")
PORT = re.compile(r"127\.0\.0\.1:\$\{(\w+):-(\d+)\}:(\d+)$")
# What Compose takes in a service; those that are used here, so that a slip of the pen is seen.
KEYS = {
    "image",
    "build",
    "command",
    "entrypoint",
    "environment",
    "ports",
    "volumes",
    "depends_on",
    "healthcheck",
    "restart",
    "logging",
    "security_opt",
}
EACH = pytest.mark.parametrize("name", SERVICES)


def table() -> dict[str, list[tuple[str, ...]]]:
    """The rows of the table of services: port, bind address and starter by name."""
    text = README.split("## What listens, and where\n")[1].split("\n\n")[0]
    rows: dict[str, list[tuple[str, ...]]] = {}
    for line in text.splitlines()[2:]:
        name, *rest = (cell.strip() for cell in line.strip("|").split("|"))
        rows.setdefault(name.strip("`"), []).append(tuple(rest))
    return rows


@EACH
def test_every_service_is_checked_bounded_and_restarted(name: str) -> None:
    service = SERVICES[name]
    assert set(service) <= KEYS
    assert service["restart"] == "unless-stopped"
    assert service["logging"]["options"] == {"max-size": "5m", "max-file": "2"}
    check = service["healthcheck"]
    assert set(check) == {"test", "interval", "timeout", "retries", "start_period"}
    assert check["test"][0] == "CMD" and len(check["test"]) > 1
    assert re.search(r":\d[\w.]*$", service["image"]) or "build" in service, "a version of an image"
    for other, how in service.get("depends_on", {}).items():
        assert other in SERVICES and how == {"condition": "service_healthy"}


@EACH
def test_every_port_is_on_loopback_and_in_the_table(name: str) -> None:
    ports = SERVICES[name].get("ports", [])
    (row,) = [row for row in table()[name] if "compose.yaml" in row[2]]
    if not ports:
        assert row[:2] == ("none", "")
    for port in ports:
        found = PORT.match(port)
        assert found, f"{port}: bound to loopback, with a variable for the port"
        assert row[:2] == (f"`{found[1]}`, {found[2]}", "127.0.0.1")


def test_what_make_serve_starts_is_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", *variables()):
        monkeypatch.delenv(name, raising=False)
    for service in services.services(Path("/nowhere")):
        row = table()[service.name][0]
        assert "`make serve`" in row[2]
        port = f"`{service.variable}`, {service.port}" if service.port else "a free one"
        assert row[0].startswith(port) and row[1] == "127.0.0.1"
    assert set(services.NAMES) <= set(table())


def variables() -> set[str]:
    """The variables that the file asks for."""
    return {found[1] for found in VARIABLE.finditer(FILE.read_text(encoding="utf-8"))}


@EACH
def test_passwords_come_from_the_environment_and_go_into_no_command(name: str) -> None:
    service: dict[str, Any] = SERVICES[name]
    for key, value in service["environment"].items():
        if re.search("PASSWORD|SECRET|ACCESS_KEY", key):
            found = VARIABLE.fullmatch(str(value))
            assert found and found[2] == "?", f"{key} is given, and needed"
    words = [*service.get("command", []), *service["healthcheck"]["test"]]
    assert not [word for word in words if "$" in word or re.search(r"//[^/@]+:[^/@]+@", word)]


def test_a_missing_password_is_named() -> None:
    given = SERVICES["postgres"]["environment"]["POSTGRES_PASSWORD"]
    with pytest.raises(AssertionError, match="ADAPT_POSTGRES_PASSWORD is needed"):
        filled(given, {"ADAPT_POSTGRES_PASSWORD": ""})
    assert filled(given, {"ADAPT_POSTGRES_PASSWORD": "a$b"}) == "a$b"


def test_the_example_names_all_that_is_needed() -> None:
    example = (FILE.parent / "compose" / "example.env").read_text(encoding="utf-8")
    named = set(re.findall(r"^(\w+)=", example, re.M))
    needed = {f[1] for f in VARIABLE.finditer(FILE.read_text(encoding="utf-8")) if f[2] == "?"}
    assert named == needed
    ignored = ["git", "check-ignore", "--quiet", "infra/.env"]
    assert subprocess.run(ignored, cwd=workspace.ROOT, check=False).returncode == 0


def test_volumes_and_files_are_there() -> None:
    used = [
        one.split(":")[0] for service in SERVICES.values() for one in service.get("volumes", [])
    ]
    named = {one for one in used if not one.startswith(".")}
    assert named == set(content()["volumes"])
    assert all(volume["name"] == f"adapt-{name}" for name, volume in content()["volumes"].items())
    assert all((FILE.parent / one).is_file() for one in used if one.startswith("."))
    for name in ("prefect", "mlflow"):
        build = SERVICES[name]["build"]
        assert (FILE.parent / build["context"] / build["dockerfile"]).is_file()


def test_the_image_has_what_the_servers_import() -> None:
    """Everything that it installs has a pin, and the switches are those of the pipeline."""
    recipe = (FILE.parent / "compose" / "Dockerfile").read_text(encoding="utf-8")
    asked = recipe.split("-c constraints.txt")[1].split("&&")[0].replace("\\", "").split()
    pins = (workspace.ROOT / "constraints.txt").read_text(encoding="utf-8").lower()
    assert {"prefect", "mlflow", "psycopg2-binary", "boto3"} <= set(asked)
    assert not [name for name in asked if f"\n{name}==" not in pins]
    for name in ("prefect", "mlflow"):
        given = SERVICES[name]["environment"]
        assert all(
            given[key] == environment.SWITCHES[key]
            for key in set(given) & set(environment.SWITCHES)
        )
