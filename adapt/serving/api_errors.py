"""OpenAI's form of an error: what was wrong, in which parameter, under which code.

Every refusal of the door is an `ApiError`; clients of OpenAI's make their own exceptions of it.
"""

from typing import Any

from adapt.names import one_line

INVALID = "invalid_request_error"
LONGEST = 400  # characters of a message


class ApiError(Exception):
    """A refusal: HTTP status, words, the parameter at fault and a code that programs can test."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str = "invalid_value",
        status: int = 400,
        kind: str = INVALID,
    ) -> None:
        super().__init__(message)
        self.message, self.param, self.code = message, param, code
        self.status, self.kind = status, kind

    def body(self) -> dict[str, Any]:
        """What is sent: one printable line, since parts of it may be the client's own."""
        error = {"message": one_line(self.message, LONGEST), "type": self.kind}
        param = one_line(self.param, 100) if self.param else None
        return {"error": {**error, "param": param, "code": self.code}}


def too_large(message: str, param: str | None = None) -> ApiError:
    """413: a body or a picture of too many bytes."""
    return ApiError(message, param=param, code="too_large", status=413)


def busy(message: str) -> ApiError:
    """429: as many questions wait as may; to be asked again."""
    return ApiError(message, code="rate_limit_exceeded", status=429, kind="rate_limit_error")


def too_slow(message: str) -> ApiError:
    """408: a body that does not come, or an answer that takes longer than it may."""
    return ApiError(message, code="timeout", status=408, kind="timeout_error")


def unsupported(param: str, why: str) -> ApiError:
    """400: an option of OpenAI's that this server does not have."""
    return ApiError(f"{param}: {why}", param=param, code="unsupported_parameter")
