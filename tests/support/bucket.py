"""A real S3 server for tests, moto's, with one bucket; credentials come from the environment alone.

with bucket(folder) as variables:       # for whoever may read and write there
    ...
"""

import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3

from tests.support import limits, ports

NAME = "adapt-test"


@contextmanager
def bucket(folder: Path) -> Iterator[dict[str, str]]:
    """Start the server, which logs into `folder`; yields the variables of its clients."""
    (port,) = ports.free()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (folder / "s3.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    variables = {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        limits.until(lambda: _answers(address, server), "S3 server", limits.SERVER_START_S)
        client(variables).create_bucket(Bucket=NAME)
        yield variables
    finally:
        server.kill()
        server.wait()


def client(variables: Mapping[str, str]) -> Any:
    """A client that takes nothing from this process's environment."""
    return boto3.client(
        "s3",
        endpoint_url=variables["AWS_ENDPOINT_URL"],
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        region_name=variables["AWS_DEFAULT_REGION"],
    )


def keys(variables: Mapping[str, str], prefix: str = "") -> list[str]:
    """The names of all objects below a prefix."""
    pages = client(variables).get_paginator("list_objects_v2")
    found = pages.paginate(Bucket=NAME, Prefix=prefix)
    return [one["Key"] for page in found for one in page.get("Contents", [])]


def _answers(address: str, server: subprocess.Popen[bytes]) -> bool:
    assert server.poll() is None, "the S3 server has ended"
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
