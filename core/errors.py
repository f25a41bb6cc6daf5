"""The three classes of expected failure; each says whether the caller should retry."""


class InputRejected(Exception):
    """A failure that the exposure or the request causes: never retry.

    Examples: the exposure does not exist, is damaged, lacks a needed keyword, contradicts itself or
    read out pixels that the mask lacks; the request is malformed, or its user DQ does not fit.
    """


class ReferenceUnavailable(Exception):
    """A failure that the mirror, a rule or a mask causes: retry, then alert an operator.

    Examples: the mirror lacks a file, no rule matches the exposure or two masks tie, a checksum is
    wrong, a mask cannot be used. A rule that says N/A is not a failure.
    """


class TransientFailure(Exception):
    """A failure that the network or an AWS service causes: retry.

    Examples: throttling, timeouts, conflicting writes; also a denied permission or KMS key, for
    which retries succeed only after an operator has allowed the access.
    """


EXPECTED = (InputRejected, ReferenceUnavailable, TransientFailure)
"""The classes of expected failures; an exception of any other class is a bug."""


def error_class(error: BaseException) -> type[BaseException]:
    """Return the class in `EXPECTED` that an error is an instance of, else its type."""
    return next((known for known in EXPECTED if isinstance(error, known)), type(error))
