"""The three classes of expected failure; each says whether the caller should retry."""


class InputRejected(Exception):
    """The exposure or the request is at fault: never retry.

    Raised when the input is not FITS, is truncated, lacks a keyword or contradicts itself, was
    read out where the mask has no pixels, or comes with a user-supplied DQ image that does not fit.
    """


class ReferenceUnavailable(Exception):
    """The reference side is at fault: retry, then page somebody.

    Raised when the mirror lacks a file, the rules choose no mask, a checksum is wrong, or a mask
    cannot be used. The exposure itself may be perfectly good.
    """


class TransientFailure(Exception):
    """The network or a service is at fault: retry.

    Raised for throttling, timeouts and conflicts that resolve themselves.
    """


EXPECTED = (InputRejected, ReferenceUnavailable, TransientFailure)
"""Any other exception is a bug and is not caught."""
