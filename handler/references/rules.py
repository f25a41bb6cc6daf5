"""Which mask the rules of a CRDS context choose, evaluated by the `crds` package."""

import logging
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from core import EQUALS_JWST
from core.errors import InputRejected, ReferenceUnavailable
from core.keywords import Keywords
from handler.references.keys import CONFIG, mapping_key
from handler.references.lean_crds import CrdsError, InvalidDatetimeError, timestamp, utils
from handler.references.mappings import FILE_NAME, Mappings, is_applicable
from handler.references.parameters import Value, matching_parameters, unknown_words
from handler.references.server import FileDigest, ServerConfig
from handler.s3.errors import failures_of
from handler.s3.locations import S3Location

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

__all__ = ["BUILD", "LATEST", "BestReference", "Rules"]

log = logging.getLogger(__name__)

LATEST = "latest"
"""Stands for the context that the mirror calls operational."""
BUILD = "build"
"""Stands for the build context of the `jwst` version whose products ours equal: what `jwst` itself
uses where CRDS_CONTEXT is not set (crds 14.0.3, `crds.client.api.get_default_context`)."""

_DATE_AND_TIME = ("META.OBSERVATION.DATE", "META.OBSERVATION.TIME")


@dataclass(frozen=True)
class BestReference:
    """What the rules say.

    Attributes
    ----------
    context : str
        Name of the context that was asked.
    mask : str or None
        File name of the MASK reference; None where the rules say that none applies.
    digest : `~handler.references.server.FileDigest` or None
        What the mirror's catalogue says of it.
    warning : str or None
        Why jwst would choose another mask, although the rules are the same.
    """

    context: str
    mask: str | None
    digest: FileDigest | None = None
    warning: str | None = None


@dataclass(frozen=True)
class MirroredRules:
    """The rule files of a mirror; what was read is kept in a directory."""

    mirror: S3Location
    cache: Path
    client: "S3Client"

    def read(self, name: str) -> str:
        """Return a rule file, from the directory or the mirror."""
        path = self.cache / name
        if path.exists():
            return path.read_text(encoding="utf-8")
        text = read_text(self.mirror.below(mapping_key(name)), self.client)
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f"{name}.{uuid.uuid4().hex}")
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        except OSError:  # the directory only saves reading it again
            log.warning("%s: cannot be kept in %s", name, self.cache, exc_info=True)
        return text

    def discard(self, name: str) -> None:
        """Forget a rule file that turned out to be damaged."""
        (self.cache / name).unlink(missing_ok=True)


@dataclass
class Rules:
    """The rules that a mirror holds.

    Attributes
    ----------
    mirror : `~handler.s3.locations.S3Location`
        Bucket and prefix of the mirror.
    mappings : `~handler.references.mappings.Mappings`
        Its rule files.
    client : boto3 S3 client
        How to reach the mirror.
    clock : callable
        Seconds, for the age of the server's configuration: of the wall clock, for the monotonic
        one may stand still while Lambda keeps a container frozen.
    believed_seconds : float
        How long the mirror's idea of the operational context is believed.
    """

    mirror: S3Location
    mappings: Mappings
    client: "S3Client"
    clock: Callable[[], float] = time.time
    believed_seconds: float = 180
    _server_config: ServerConfig | None = field(default=None, repr=False)
    _read_at: float = field(default=0.0, repr=False)

    @classmethod
    def of(cls, mirror: S3Location, cache: Path, client: "S3Client") -> "Rules":
        """Return the rules of a mirror; what is read of them is kept in a directory."""
        return cls(mirror, Mappings(MirroredRules(mirror, cache, client)), client)

    def best_reference(self, keywords: Keywords, context: str) -> BestReference:
        """Choose the mask for an exposure.

        Parameters
        ----------
        keywords : `~core.keywords.Keywords`
            Those of the exposure's primary header.
        context : str
            Name of a context, or ``latest`` or ``build``.

        Returns
        -------
        `BestReference`
            The mask and what is known of it.

        Raises
        ------
        InputRejected
            If the exposure does not say when it was taken, or with which instrument.
        ReferenceUnavailable
            If the mirror lacks a file, a rule is damaged or marked bad, or no rule matches.
        """
        server = self._server()
        name, instrument = self.context_name(context), _instrument(keywords)
        if server.instruments and instrument not in server.instruments:
            raise ReferenceUnavailable(
                f"{self.mirror}: is restricted to {', '.join(sorted(server.instruments))}, and "
                f"{keywords.name} is of {instrument}: sync it with --instrument {instrument}"
            )
        chain = []
        for mapping in self.mappings.chain(name, instrument):
            _refuse_bad(mapping, server)
            chain.append(mapping)
        # crds refuses a context for an instrument that has a bad rule file of whatever type.
        for mapping in self.mappings.named_by(chain[1]) if len(chain) > 1 else ():
            _refuse_bad(mapping, server, f", and named by {chain[1]}")
        if not chain[-1].endswith(".rmap"):
            return BestReference(name, None)
        mask = self._evaluate(chain[-1], keywords)
        warning = self._warning(chain[-1], keywords, mask)
        if mask is None:
            return BestReference(name, None, warning=warning)
        _refuse_bad(mask, server)
        digest = server.catalogue.get(mask)
        if digest is None:
            raise ReferenceUnavailable(
                f"{mask}: chosen by {chain[-1]} for {keywords.name}, but the catalogue in "
                f"{self.mirror.below(CONFIG)} does not know it"
            )
        return BestReference(name, mask, digest, warning)

    def prepare(self, context: str) -> None:
        """Read what every exposure needs: the server's configuration and the context.

        Parameters and errors are those of `best_reference`.
        """
        self.mappings.load(self.context_name(context))

    def context_name(self, context: str) -> str:
        """Return the name of a context: what the mirror says for ``latest`` and ``build``.

        Raises
        ------
        ReferenceUnavailable
            If the mirror cannot be read, or records no build context.
        """
        if context == LATEST:
            return self._server().operational_context
        if context != BUILD:
            return context
        build = self._server().builds.get(EQUALS_JWST)
        if build is None:
            raise ReferenceUnavailable(
                f"{self.mirror}: records no build context of jwst {EQUALS_JWST}; sync it with "
                "--context build"
            )
        return build

    def digest_of(self, mask: str) -> FileDigest | None:
        """Return what the mirror's catalogue says of a mask.

        Raises
        ------
        ReferenceUnavailable
            If the mirror cannot be read.
        """
        return self._server().catalogue.get(mask)

    def _server(self) -> ServerConfig:
        """The server's configuration, read again when it has become old."""
        now = self.clock()
        if self._server_config is None or now - self._read_at > self.believed_seconds:
            location = self.mirror.below(CONFIG)
            self._server_config = ServerConfig.parse(
                read_text(location, self.client), str(location)
            )
            self._read_at = now
        return self._server_config

    def _evaluate(self, name: str, keywords: Keywords) -> str | None:
        """Ask the rules for MASK; None where they say that none applies."""
        rules = self.mappings.load(name)
        parameters = matching_parameters(keywords, rules.get_required_parkeys(), name)
        _check_date(parameters, keywords.name)
        conditioned = utils.condition_header(parameters)
        try:
            best = rules.get_best_ref(conditioned)
        except CrdsError as exc:
            raise ReferenceUnavailable(f"{name}: {exc}") from exc
        if best is None or best == "NOT FOUND n/a":
            return None
        # Two masks that tie come as a tuple.
        if not isinstance(best, str) or not FILE_NAME.fullmatch(best):
            raise ReferenceUnavailable(
                f"{name}: no mask for {keywords.name} ({conditioned}): {best}"
            )
        return best if is_applicable(best) else None

    def _warning(self, name: str, keywords: Keywords, mask: str | None) -> str | None:
        """Return a warning if jwst, which drops unknown words, would choose another mask."""
        parameters = self.mappings.load(name).get_required_parkeys()
        words = unknown_words(keywords, parameters)
        if not words:
            return None
        header = keywords.header.copy()
        for keyword in words:
            del header[keyword]
        try:
            theirs = self._evaluate(name, replace(keywords, header=header)) or "N/A"
        except ReferenceUnavailable:
            theirs = "no mask"
        ours = mask or "N/A"
        if theirs == ours:
            return None
        unknown = ", ".join(f"{keyword} is {word[:80]!r}" for keyword, word in words.items())
        return (
            f"{keywords.name}: {unknown}, which jwst {EQUALS_JWST} does not know; {name} chooses "
            f"{ours}, jwst would choose {theirs}"
        )


def read_text(location: S3Location, client: "S3Client") -> str:
    """Read a small file of the mirror.

    Raises
    ------
    ReferenceUnavailable
        If it is not there, or is no text.
    """
    with failures_of(f"{location}: reading it", ReferenceUnavailable):
        content = client.get_object(**location.address)["Body"].read()
    try:
        return content.decode()
    except UnicodeDecodeError as exc:
        raise ReferenceUnavailable(f"{location}: is no text: {exc}") from exc


def _instrument(keywords: Keywords) -> str:
    instrument = keywords.word("INSTRUME")
    if not instrument:
        raise InputRejected(f"{keywords.name}: INSTRUME is missing")
    return instrument


def _refuse_bad(name: str, server: ServerConfig, where: str = "") -> None:
    if name in server.bad_files:
        raise ReferenceUnavailable(f"{name}: on the server's list of bad files{where}")


def _check_date(parameters: Mapping[str, Value], name: str) -> None:
    """An exposure that does not say when it was taken is at fault, not the rules."""
    moment = " ".join(str(parameters[key]) for key in _DATE_AND_TIME if key in parameters)
    try:
        if moment:
            timestamp.reformat_date(moment)
    except (InvalidDatetimeError, ValueError, LookupError) as exc:
        raise InputRejected(f"{name}: DATE-OBS and TIME-OBS are {moment!r}: {exc}") from exc
