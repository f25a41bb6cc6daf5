"""The three classes of expected failure; each says whether the caller should retry."""


class InputRejected(Exception):
    """A failure that the exposure or the request causes: never retry.

    Raised when the input is not FITS, is truncated, lacks a keyword or contradicts itself, was
    read out where the mask has no pixels, or comes with a user-supplied DQ image that does not fit.
    """


class ReferenceUnavailable(Exception):
    """A failure that the mirror, a rule or a mask causes: retry, then alert an operator.

    Raised when the mirror lacks a file, the rules choose no mask, a checksum is wrong, or a mask
    cannot be used. The exposure itself may be perfectly good.
    """


class TransientFailure(Exception):
    """A failure that the network or an AWS service causes: retry.

    Raised for throttling, timeouts and conflicts that resolve themselves.
    """


EXPECTED = (InputRejected, ReferenceUnavailable, TransientFailure)
"""The classes of expected failures; an exception of any other class is a bug."""


def error_class(error: BaseException) -> type[BaseException]:
    """Return the class in `EXPECTED` that an error belongs to; its own class if it is a bug."""
    return next((known for known in EXPECTED if isinstance(error, known)), type(error))
