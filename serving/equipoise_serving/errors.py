"""The one error a client sees: a status, a stable code and a sentence."""

from __future__ import annotations


class RequestError(Exception):
    """A request that is answered with an error.

    Args:
        status: HTTP status.
        code: stable, machine-readable name of the fault; clients may branch on it.
        message: one sentence for a person; carries nothing of the server's insides.
        headers: extra response headers, lower-case names.
        param: path of the field that is wrong, where OpenAI's errors name one.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers
        self.param = param

    def body(self) -> dict[str, dict[str, str]]:
        """The JSON that is sent."""
        return {"error": {"code": self.code, "message": self.message}}


def bad_request(message: str, code: str = "invalid_request") -> RequestError:
    """A 400: the body is not of the documented shape."""
    return RequestError(400, code, message)
