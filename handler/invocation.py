"""What Lambda says of the invocation that is going on."""

import time
from dataclasses import dataclass, replace

from aws_lambda_powertools.utilities.typing import LambdaContext

__all__ = ["Invocation"]


@dataclass(frozen=True)
class Invocation:
    """One invocation of the function.

    Attributes
    ----------
    request_id : str
        AWS's identifier.
    ends_at : float
        Time by which Lambda has ended it, in seconds since 1970.
    is_last : bool
        Whether nobody tries again after a failure: then the failure is announced.
    is_repeated : bool
        Whether the same message was delivered before: a result that is known then is no news.
    """

    request_id: str
    ends_at: float
    is_last: bool = True
    is_repeated: bool = False

    @classmethod
    def from_context(cls, context: LambdaContext) -> "Invocation":
        """Read what Lambda passes to the handler."""
        remaining = context.get_remaining_time_in_millis() / 1000
        return cls(context.aws_request_id, time.time() + remaining)

    def attempt(self, delivery: int, attempts: int) -> "Invocation":
        """Return the invocation, for one of several deliveries of a message."""
        return replace(self, is_last=delivery >= attempts, is_repeated=delivery > 1)
