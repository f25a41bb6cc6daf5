"""Reading FITS keywords whose values are not trusted to be of the right type."""

from dataclasses import dataclass, field

from astropy.io import fits

from core.errors import InputRejected

__all__ = ["Keywords"]


@dataclass(frozen=True)
class Keywords:
    """The keywords of one header.

    Attributes
    ----------
    header : `~astropy.io.fits.Header`
        Where to look.
    name : str
        The object that the header belongs to, for messages.
    error : type
        What to raise: `InputRejected` for an exposure, `ReferenceUnavailable` for a mask.
    """

    header: fits.Header = field(repr=False)
    name: str
    error: type[Exception] = InputRejected

    def integer(self, keyword: str) -> int | None:
        """Return the integer that a keyword holds, or None where it is absent or undefined.

        Raises
        ------
        Exception
            `error`, if the keyword holds anything but an integer.
        """
        value = self._value(keyword)
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        raise self.error(f"{self.name}: {keyword} is {value!r}, expected an integer")

    def required_integer(self, keyword: str) -> int:
        """Return the integer that a keyword holds.

        Raises
        ------
        Exception
            `error`, if the keyword is absent, undefined, or holds anything but an integer.
        """
        value = self.integer(keyword)
        if value is None:
            raise self.error(f"{self.name}: {keyword} is missing or has no value")
        return value

    def text(self, keyword: str) -> str | None:
        """Return the string that a keyword holds, or None where it is absent or undefined.

        Raises
        ------
        Exception
            `error`, if the keyword holds anything but a string.
        """
        value = self._value(keyword)
        if value is None or isinstance(value, str):
            return value
        raise self.error(f"{self.name}: {keyword} is {value!r}, expected a string")

    def word(self, keyword: str) -> str | None:
        """Return the word that a keyword holds, or None where it is absent or undefined.

        The schemas of the data models list words in capitals, without blanks before them; `jwst`
        drops a value that is written otherwise, and so chooses otherwise.

        Raises
        ------
        Exception
            `error`, if the keyword holds anything but such a word.
        """
        value = self.text(keyword)
        if value is not None and value != value.strip().upper():
            raise self.error(
                f"{self.name}: {keyword} is {value!r}, expected {value.strip().upper()!r}: jwst "
                "knows it in capitals only"
            )
        return value

    def _value(self, keyword: str) -> object:
        value = self.header.get(keyword)
        return None if isinstance(value, fits.card.Undefined) else value
