"""Section `serve`: where the champion answers, how many at once, and what a request may cost."""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, field_validator

from adapt.models.settings import Device
from adapt.params import (
    Content,
    Count,
    InputError,
    NonNegative,
    Positive,
    Settings,
    Share,
    Shared,
    load,
)
from adapt.serving.asked import Policy

MIB = 1 << 20
_ORIGIN = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:\d{1,5})?")
Host = Annotated[str, Field(pattern=r"^[0-9A-Za-z.:-]+$", description="an address to listen at")]
Port = Annotated[int, Field(ge=1, lt=2**16)]


class Limits(Settings):
    """`serve.limits`: what is above one of them is answered with 4xx and the reason.

    `body_mib` of a request and `picture_mib` of a picture's file are MiB; `pixels` and
    `held_pixels` are of one picture and of all that wait, decoded, in a replica. `waiting` requests
    are taken at once and answered within `seconds`, in which a slow client's body has to come, too.
    """

    body_mib: Count
    picture_mib: Count
    pixels: Count
    held_pixels: Count
    pictures: Count
    question_chars: Count
    turns: Count
    max_new_tokens: Count
    waiting: Count
    seconds: Positive


class ServeConfig(Settings):
    """Section `serve`; `gpus` and `cpus` are of each replica, `urls` origins of pictures."""

    policy: Policy
    threshold: Share
    host: Host
    port: Port
    replicas: Count
    cpus: NonNegative
    gpus: NonNegative
    batch: Count
    wait_ms: NonNegative
    pace_ms: NonNegative
    follow_s: Positive
    urls: tuple[str, ...]
    limits: Limits
    device: Shared[Device]

    @classmethod
    def of(cls, content: Content, changes: Mapping[str, Any] | None = None) -> "ServeConfig":
        """From a params.yaml, with keys of the section changed; InputError names what is wrong."""
        section = content.get("serve")
        if not isinstance(section, dict):
            raise InputError("params.yaml: missing section serve")
        return load({**content, "serve": {**section, **(changes or {})}}, "serve", cls)

    @field_validator("urls")
    @classmethod
    def _origins(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            if not _ORIGIN.fullmatch(url):
                raise ValueError(f"expected origins such as https://pictures.example, got {url!r}")
        return urls
