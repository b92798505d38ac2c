"""What the server answers when it cannot do what was asked, in the form that OpenAI's clients read.

Entry point: `ApiError`, raised anywhere below a route; its `body` is the JSON.
"""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """A refusal with its HTTP status.

    Clients repeat 408, 409, 429 and all of 500 and above, so a wrong request is never one of those.

    Attributes:
        message: what is wrong and what to do about it.
        status: of HTTP.
        kind: the protocol's `type`, such as `invalid_request_error`.
        param: the field of the request that is wrong.
        code: a word for programs, such as `context_length_exceeded`.
        retry_after: seconds after which another try makes sense.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind
        self.param = param
        self.code = code
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """Return the JSON object of the answer."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": error}
