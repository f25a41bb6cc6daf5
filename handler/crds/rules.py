"""Which mask the rules of a CRDS context choose, evaluated by the `crds` package."""

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from botocore.exceptions import ClientError

from core import EQUALS_JWST
from core.errors import InputRejected, ReferenceUnavailable
from core.fits.hdus import Keywords
from handler.crds.lean_import import InvalidDatetimeError, rmap, timestamp, utils
from handler.crds.mirror import (
    CONFIG,
    LARGEST_CONFIG,
    STATE,
    FileDigest,
    MirrorConfig,
    check_context,
    check_instrument,
    check_mapping,
    check_reference,
    mapping_key,
)
from handler.crds.parameters import Value, matching_parameters, unknown_words
from handler.s3.errors import failures_of, is_missing
from handler.s3.objects import S3Location

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

__all__ = [
    "BUILD",
    "LARGEST_MAPPING",
    "LATEST",
    "BestReference",
    "Mappings",
    "NoRules",
    "RuleFiles",
    "Rules",
    "is_applicable",
]

LARGEST_MAPPING = 250_000
"""Bytes of a mapping; the largest of CRDS have 25,000. `crds` takes 3 s for so many rules."""
_MOST_ALTERNATIVES = 2_000
"""Values separated by | in a mapping; the time that `crds` takes grows with their square."""
_CLASSES = {
    ".pmap": rmap.PipelineContext,
    ".imap": rmap.InstrumentContext,
    ".rmap": rmap.ReferenceMapping,
}


class NoRules(ReferenceUnavailable):
    """A context says nothing of an instrument, or an instrument nothing of MASK."""


class RuleFiles(Protocol):
    """Where the text of rule files comes from."""

    def read(self, name: str) -> str:
        """Return a rule file.

        Raises
        ------
        ReferenceUnavailable
            If it cannot be had.
        """


@dataclass
class Mappings:
    """Rule files, as `crds` reads them. Contexts and rules never change: each is read once.

    Attributes
    ----------
    files : `RuleFiles`
        Where their text comes from.
    """

    files: RuleFiles
    _loaded: dict[str, Any] = field(default_factory=dict, repr=False)

    def load(self, name: str) -> Any:
        """Load one rule file.

        Raises
        ------
        ReferenceUnavailable
            If it cannot be had, or is damaged.
        """
        if name not in self._loaded:
            check_mapping(name)
            text = self.files.read(name)
            if len(text) > LARGEST_MAPPING:
                raise ReferenceUnavailable(
                    f"{name}: {len(text):,} characters, expected at most {LARGEST_MAPPING:,}"
                )
            if text.count("|") > _MOST_ALTERNATIVES:
                raise ReferenceUnavailable(
                    f"{name}: {text.count('|'):,} alternatives (|), expected at most "
                    f"{_MOST_ALTERNATIVES:,}"
                )
            try:
                self._loaded[name] = _parsed(text, name)
            except Exception as exc:  # crds raises almost anything for a damaged file
                raise ReferenceUnavailable(
                    f"{name}: is not a CRDS mapping: {str(exc)[:200] or type(exc).__name__}"
                ) from exc
        return self._loaded[name]

    def instruments(self, context: str) -> list[str]:
        """Return the instruments that a context has rules for, in upper case."""
        selector = self.load(check_context(context)).selector
        return sorted(
            check_instrument(name) for name, mapping in selector.items() if is_applicable(mapping)
        )

    def named_by(self, name: str) -> list[str]:
        """Return the rule files that a context or an instrument's mapping names."""
        return [found for found in self.load(name).selector.values() if is_applicable(found)]

    def chain(self, context: str, instrument: str) -> Iterable[str]:
        """Walk from a context to an instrument's rules for MASK.

        Parameters
        ----------
        context : str
            Name of a context.
        instrument : str
            In upper case.

        Yields
        ------
        str
            Names of the rule files, the context first; the rules for MASK come last, unless the
            context says that none apply to the instrument.

        Raises
        ------
        ReferenceUnavailable
            If a rule file cannot be had, or does not say what comes next (`NoRules`).
        """
        name = check_context(context)
        for key in (instrument, "MASK"):
            yield name
            following = self.load(name).selector.get(key)
            if following is None:
                raise NoRules(f"{name}: has no rules for {key}")
            if not is_applicable(following):
                return
            if not following.endswith(".rmap" if key == "MASK" else ".imap"):
                raise ReferenceUnavailable(f"{name}: names {following} for {key}")
            name = following
        yield name


def _parsed(text: str, name: str) -> Any:
    """Parse a mapping; the upper levels name mappings, the lowest has the rules."""
    mapping = _CLASSES[name[-5:]].from_string(text, name)
    if name.endswith(".rmap"):
        mapping.get_required_parkeys()
        mapping.todict()
        return mapping
    for found in mapping.selector.values():
        if not isinstance(found, str) or is_applicable(found):
            check_mapping(found)
    return mapping


def is_applicable(name: str) -> bool:
    """Say whether a rule names a file; ``N/A`` and ``OMIT`` say that none applies."""
    return name.upper() not in {"N/A", "OMIT"}


log = logging.getLogger(__name__)

LATEST = "latest"
"""Stands for the context that the mirror calls operational."""
_SYNONYMS = {"jwst-latest": LATEST, "jwst-operational": LATEST, "jwst-build": "build"}
"""Other spellings that `crds` accepts (crds 14.0.3, `crds.core.heavy_client`)."""
BUILD = "build"
"""Stands for the build context of the `jwst` version whose products ours equal: what `jwst` itself
uses where CRDS_CONTEXT is not set (crds 14.0.3, `crds.client.api.get_default_context`)."""

_SYNCED_MEANWHILE = 10
"""Seconds after which a catalogue that lacks a file is read again: it may have been synced."""
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
    digest : `~handler.crds.mirror.FileDigest` or None
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
    """The mappings of a mirror, verified; a directory caches them."""

    mirror: S3Location
    cache: Path
    client: "S3Client"
    digest_of: Callable[[str], FileDigest | None]

    def read(self, name: str) -> str:
        """Return a mapping, from the directory or the mirror."""
        location, expected = self.mirror.below(mapping_key(name)), self.digest_of(name)
        if expected is None:
            raise ReferenceUnavailable(
                f"{location}: the mirror's catalogue does not list {name}; sync that context"
            )
        path = self.cache / name
        try:
            content = path.read_bytes()
            if FileDigest.of(content) == expected:
                return _text(content, location)
        except OSError:  # not cached, or the directory cannot be read
            log.debug("%s: not cached in %s", name, self.cache)
        content = read_bytes(location, self.client, LARGEST_MAPPING, expected.size)
        if FileDigest.of(content) != expected:
            raise ReferenceUnavailable(
                f"{location}: {FileDigest.of(content)}; expected {expected}; sync the mirror"
            )
        temporary = path.with_name(f"{name}.{uuid.uuid4().hex}")
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content)
            temporary.replace(path)
        except OSError:  # the directory only saves reading it again
            log.warning("%s: cannot be kept in %s", name, self.cache, exc_info=True)
            with suppress(OSError):
                temporary.unlink()
        return _text(content, location)


@dataclass
class Rules:
    """The rules that a mirror holds.

    Attributes
    ----------
    mirror : `~handler.s3.objects.S3Location`
        Bucket and prefix of the mirror.
    mappings : `~handler.crds.rules.Mappings`
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
    _server_config: MirrorConfig | None = field(default=None, repr=False)
    _read_at: float = field(default=0.0, repr=False)

    @classmethod
    def of(cls, mirror: S3Location, cache: Path, client: "S3Client") -> "Rules":
        """Return the rules of a mirror; what is read of them is kept in a directory."""
        files = MirroredRules(mirror, cache, client, lambda name: rules.digest_of(name))  # noqa: PLW0108  # rules follows
        rules = cls(mirror, Mappings(files), client)
        return rules

    def best_reference(self, keywords: Keywords, context: str) -> BestReference:
        """Choose the mask for an exposure.

        Parameters
        ----------
        keywords : `~core.fits.hdus.Keywords`
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
        digest = self.digest_of(mask)
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
        context = _SYNONYMS.get(context, context)
        if context == LATEST:
            return self._server().operational_context
        if context != BUILD:
            return check_context(context)
        build = self._server().builds.get(EQUALS_JWST)
        if build is None:
            raise ReferenceUnavailable(
                f"{self.mirror}: records no build context of jwst {EQUALS_JWST}; sync it with "
                "--context build"
            )
        return build

    def digest_of(self, name: str) -> FileDigest | None:
        """Return the size and SHA-1 of a file in the mirror's catalogue.

        Raises
        ------
        ReferenceUnavailable
            If the mirror cannot be read.
        """
        found = self._server().catalogue.get(name)
        if found is None and self.clock() - self._read_at > _SYNCED_MEANWHILE:
            self._server_config = None
            found = self._server().catalogue.get(name)
        return found

    def _server(self) -> MirrorConfig:
        """Return the mirror's configuration; read it again after `believed_seconds`."""
        now = self.clock()
        if self._server_config is None or now - self._read_at > self.believed_seconds:
            self._server_config = read_config(self.mirror, self.client)
            self._read_at = now
        return self._server_config

    def _evaluate(self, name: str, keywords: Keywords) -> str | None:
        """Ask the rules for MASK; None if they say that none applies."""
        rules = self.mappings.load(name)
        parameters = matching_parameters(keywords, rules.get_required_parkeys(), name)
        _check_date(parameters, keywords.name)
        conditioned = utils.condition_header(parameters)
        try:
            best = rules.get_best_ref(conditioned)
        except Exception as exc:  # crds raises almost anything for a damaged rule
            raise ReferenceUnavailable(f"{name}: {str(exc) or type(exc).__name__}") from exc
        if best is None or best == "NOT FOUND n/a":
            return None
        # Two masks that tie come as a tuple; "NOT FOUND No match found." as text.
        if not isinstance(best, str) or best.startswith("NOT FOUND"):
            raise ReferenceUnavailable(
                f"{name}: no mask for {keywords.name} ({conditioned}): {best}"
            )
        return check_reference(best) if is_applicable(best) else None

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


def read_config(mirror: S3Location, client: "S3Client") -> MirrorConfig:
    """Read ``mirror.json``, or ``server_config`` of a plain copy of a CRDS cache.

    Raises
    ------
    ReferenceUnavailable
        If neither exists, or the one that does is damaged.
    TransientFailure
        If one of them may not be read: without ``mirror.json``, ``server_config`` may be outdated.
    """
    location = mirror.below(STATE)
    try:
        return MirrorConfig.parse_state(read_text(location, client), str(location))
    except ReferenceUnavailable as exc:
        if not isinstance(exc.__cause__, ClientError) or not is_missing(exc.__cause__):
            raise
        location = mirror.below(CONFIG)
        return MirrorConfig.parse(read_text(location, client), str(location))


def read_text(location: S3Location, client: "S3Client", most: int = LARGEST_CONFIG) -> str:
    """Read a small text file of the mirror.

    Raises
    ------
    ReferenceUnavailable
        If it does not exist, is too large, or is not text.
    """
    return _text(read_bytes(location, client, most), location)


def read_bytes(
    location: S3Location, client: "S3Client", most: int, expected: int | None = None
) -> bytes:
    """Read a small file of the mirror, if it has the expected size.

    Raises
    ------
    ReferenceUnavailable
        If it does not exist, or has another size.
    """
    with failures_of(f"{location}: reading it", ReferenceUnavailable):
        answer = client.get_object(**location.as_kwargs)
        size = answer["ContentLength"]
        if size > most or expected not in {None, size}:
            answer["Body"].close()
            wanted = f"at most {most:,}" if expected is None or size > most else f"{expected:,}"
            raise ReferenceUnavailable(f"{location}: has {size:,} bytes, expected {wanted}")
        return answer["Body"].read()


def _text(content: bytes, location: S3Location) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as exc:
        raise ReferenceUnavailable(f"{location}: is not UTF-8 text: {exc}") from exc


def _instrument(keywords: Keywords) -> str:
    instrument = keywords.word("INSTRUME")
    if not instrument:
        raise InputRejected(f"{keywords.name}: INSTRUME is missing")
    return instrument


def _refuse_bad(name: str, server: MirrorConfig, where: str = "") -> None:
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
