"""Reading FITS keywords whose values are not trusted to be of the right type."""

from astropy.io import fits

from core.errors import InputRejected

__all__ = ["integer", "text"]


def integer(
    header: fits.Header, keyword: str, owner: str, error: type[Exception] = InputRejected
) -> int | None:
    """Return the integer that `keyword` holds, or None where it is absent or undefined.

    Parameters
    ----------
    header : `~astropy.io.fits.Header`
        Where to look.
    keyword : str
        FITS keyword.
    owner : str
        The object that the header belongs to, for the message.
    error : type
        What to raise: `InputRejected` for an exposure, `ReferenceUnavailable` for a mask.

    Raises
    ------
    Exception
        `error`, if the keyword holds anything but an integer.
    """
    value = _value(header, keyword)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise error(f"{owner}: {keyword} is {value!r}, expected an integer")


def text(
    header: fits.Header, keyword: str, owner: str, error: type[Exception] = InputRejected
) -> str | None:
    """Return the string that `keyword` holds, or None where it is absent or undefined.

    Parameters and errors are those of `integer`.
    """
    value = _value(header, keyword)
    if value is None or isinstance(value, str):
        return value
    raise error(f"{owner}: {keyword} is {value!r}, expected a string")


def _value(header: fits.Header, keyword: str) -> object:
    value = header.get(keyword)
    return None if isinstance(value, fits.card.Undefined) else value
