"""The MASK rules of a CRDS context, evaluated by the `crds` package.

The mirror's configuration is read here and cached for `Rules.config_ttl`.
"""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from core import EQUALS_JWST
from core.errors import InputRejected, ReferenceUnavailable
from core.fits.hdus import Keywords
from core.mask import Mask
from handler.crds.lean_import import CRDS_VERSION, InvalidDatetimeError, rmap, timestamp, utils
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
    read_copy,
    write_copy,
)
from handler.crds.parameters import matching_parameters, unknown_words
from handler.s3.objects import ObjectStore, S3Location

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

log = logging.getLogger(__name__)

LATEST = "latest"  # the mirror's operational context
# The build context of the `jwst` version that our products equal: `jwst` uses it if CRDS_CONTEXT is
# not set (crds 14.0.3, crds.client.api.get_default_context).
BUILD = "build"
# Other spellings that `crds` accepts (crds 14.0.3, crds.core.heavy_client).
SYNONYMS = {"jwst-latest": LATEST, "jwst-operational": LATEST, "jwst-build": BUILD}

LARGEST_MAPPING = 250_000  # bytes; the largest of CRDS have 25,000, and `crds` parses this in 3 s
# Values separated by |; the time that `crds` takes grows with the square of their number.
_MOST_ALTERNATIVES = 2_000
_CLASSES = {
    ".pmap": rmap.PipelineContext,
    ".imap": rmap.InstrumentContext,
    ".rmap": rmap.ReferenceMapping,
}
# A catalogue of this age (seconds) that lacks a file is read again: the file may have been synced.
_OLD_CATALOGUE = 10
_DATE_AND_TIME = ("META.OBSERVATION.DATE", "META.OBSERVATION.TIME")


class RuleFiles(Protocol):
    """A source of the texts of CRDS mappings, such as a mirror."""

    def read(self, name: str) -> str:
        """Return a mapping's text, or raise `ReferenceUnavailable` if it cannot be read."""


@dataclass
class Mappings:
    """CRDS mappings, parsed; each is read once, because mappings are immutable."""

    files: RuleFiles
    _loaded: dict[str, Any] = field(default_factory=dict, repr=False)

    def load(self, name: str) -> Any:
        """Return a parsed mapping, or raise `ReferenceUnavailable` if it is missing or damaged."""
        if name not in self._loaded:
            check_mapping(name)
            text = self.files.read(name)
            for number, unit, limit in (
                (len(text), "characters", LARGEST_MAPPING),
                (text.count("|"), "alternatives (|)", _MOST_ALTERNATIVES),
            ):
                if number > limit:
                    raise ReferenceUnavailable(
                        f"{name}: has {number:,} {unit}, expected at most {limit:,}; use another "
                        "context"
                    )
            try:
                self._loaded[name] = _parse(text, name)
            except Exception as exc:  # crds can raise anything for a damaged file
                raise ReferenceUnavailable(
                    f"{name}: {str(exc)[:200] or type(exc).__name__}, expected a CRDS mapping; use "
                    "another context"
                ) from exc
        return self._loaded[name]

    def instruments(self, context: str) -> list[str]:
        """Return the names, in upper case, that a context has an imap for; SYSTEM may be one."""
        selector = self.load(check_context(context)).selector
        return sorted(
            check_instrument(name) for name, mapping in selector.items() if is_applicable(mapping)
        )

    def chain(self, context: str, instrument: str) -> Iterator[str]:
        """Yield the file names of pmap, imap and rmap for the MASK rules of an instrument.

        Ends early at a mapping that has no file for the instrument (upper case) or for MASK. Raises
        `ReferenceUnavailable` if pmap or imap cannot be used.
        """
        name = check_context(context)
        for key, suffix in ((instrument, ".imap"), ("MASK", ".rmap")):
            yield name
            following = self.load(name).selector.get(key)
            if following is None or not is_applicable(following):
                return
            if not following.endswith(suffix):
                raise ReferenceUnavailable(
                    f"{name}: names {following} for {key}, expected a name that ends in {suffix}; "
                    "use another context"
                )
            name = following
        yield name


def _parse(text: str, name: str) -> Any:
    mapping = _CLASSES[name[-5:]].from_string(text, name)
    if name.endswith(".rmap"):  # parsed now, so that damage is found here
        mapping.get_required_parkeys()
        mapping.todict()
        return mapping
    for found in mapping.selector.values():
        if not isinstance(found, str) or is_applicable(found):
            check_mapping(found)
    return mapping


def is_applicable(name: str) -> bool:
    """Say whether a value in a mapping names a file, in contrast to ``N/A`` and ``OMIT``."""
    return name.upper() not in {"N/A", "OMIT"}


@dataclass(frozen=True)
class MaskChoice:
    """The mask that applies to an exposure; without label, no mask applies.

    A mask that the rules chose is not read yet; one that the request named is in `requested`.
    """

    context: str
    mask: str | None = None  # file name in the mirror, if the rules chose it
    digest: FileDigest | None = None  # of that file
    warning: str | None = None  # requested mask of another detector, or `jwst` would choose another
    label: str | None = None  # R_MASK: crds://name or s3://bucket/key
    sha1: str = ""
    requested: Mask | None = None  # the mask itself, if the request names it
    crds_version: str = CRDS_VERSION


@dataclass
class Rules:
    """The MASK rules of a mirror; a local directory caches its mappings."""

    mirror: S3Location
    cache: Path
    client: "S3Client"
    # Not the monotonic clock, which can stand still while Lambda freezes the container.
    clock: Callable[[], float] = time.time
    config_ttl: float = 180  # seconds until the mirror's configuration is read again
    mappings: Mappings = field(init=False, repr=False)
    _config: MirrorConfig | None = field(default=None, repr=False)
    _read_at: float = field(default=0.0, repr=False)

    def __post_init__(self) -> None:
        self.mappings = Mappings(self)

    def best_reference(self, keywords: Keywords, context: str) -> MaskChoice:
        """Choose the mask for an exposure by a context's rules; do not read the mask file."""
        config, name = self._mirror_config(), self.context_name(context)
        instrument = keywords.word("INSTRUME")
        if not instrument:
            raise InputRejected(f"{keywords.name}: INSTRUME is missing, expected a JWST instrument")
        if config.instruments and instrument not in config.instruments:
            wanted = sorted({*config.instruments, instrument})
            raise ReferenceUnavailable(
                f"{self.mirror}: holds {', '.join(sorted(config.instruments))} only, expected also "
                f"{instrument} for {keywords.name}; run dq-init mirror sync {self.mirror} "
                f"{' '.join(f'--instrument {name}' for name in wanted)}"
            )
        chain = []
        for mapping in self.mappings.chain(name, instrument):
            _refuse_bad(mapping, config)
            chain.append(mapping)
        if len(chain) > 1:
            # crds refuses a context for an instrument if any mapping of its imap is bad.
            for mapping in filter(is_applicable, self.mappings.load(chain[1]).selector.values()):
                _refuse_bad(mapping, config, f", and named by {chain[1]}")
        if not chain[-1].endswith(".rmap"):
            key = "MASK" if len(chain) > 1 else instrument
            if key not in self.mappings.load(chain[-1]).selector:
                raise ReferenceUnavailable(
                    f"{chain[-1]}: has no rules for {key}; use another context"
                )
            return MaskChoice(name)
        mask = self._evaluate(chain[-1], keywords)
        warning = self._warning(chain[-1], keywords, mask)
        if mask is None:
            return MaskChoice(name, warning=warning)
        _refuse_bad(mask, config)
        digest = self.digest_of(mask)
        if digest is None:
            raise ReferenceUnavailable(
                f"{mask}: chosen by {chain[-1]} for {keywords.name}, but not in the catalogue of "
                f"the mirror; run dq-init mirror sync {self.mirror} --context {name}"
            )
        return MaskChoice(name, mask, digest, warning, f"crds://{mask}", digest.sha1)

    def prepare(self, context: str) -> str:
        """Read a context's pmap into the caches and return its name, such as jwst_1321.pmap."""
        name = self.context_name(context)
        self.mappings.load(name)
        return name

    def context_name(self, context: str) -> str:
        """Return a context's file name, given that name, ``latest``, ``build`` or a synonym."""
        context = SYNONYMS.get(context, context)
        if context == LATEST:
            return self._mirror_config().operational_context
        return self._build_context() if context == BUILD else check_context(context)

    def _build_context(self) -> str:
        build = self._mirror_config().builds.get(EQUALS_JWST)
        if build is None:
            raise ReferenceUnavailable(
                f"{self.mirror}: no build context of jwst {EQUALS_JWST}, expected one; run dq-init "
                f"mirror sync {self.mirror} --context build"
            )
        return build

    def digest_of(self, name: str) -> FileDigest | None:
        """Return size and SHA-1 of a file in the mirror's catalogue; None if it is not listed."""
        found = self._mirror_config().catalogue.get(name)
        if found is None and self.clock() - self._read_at > _OLD_CATALOGUE:
            self._config = None
            found = self._mirror_config().catalogue.get(name)
        return found

    def read(self, name: str) -> str:
        """Return the text of a mapping from the cache or the mirror, after checking its digest."""
        location, expected = self.mirror.below(mapping_key(name)), self.digest_of(name)
        if expected is None:
            raise ReferenceUnavailable(
                f"{location}: the mirror's catalogue does not list {name}; run dq-init mirror sync "
                f"{self.mirror} for the context that needs it"
            )
        content = read_copy(self.cache / name, expected)
        if content is None:
            content = _read(location, self.client, LARGEST_MAPPING)
            actual = FileDigest.of(content)
            if actual != expected:
                raise ReferenceUnavailable(
                    f"{location}: has {actual}, expected {expected}; run dq-init mirror sync "
                    f"{self.mirror}"
                )
            write_copy(self.cache / name, content)
        return text_of(content, location, "run dq-init mirror verify")

    def _mirror_config(self) -> MirrorConfig:
        now = self.clock()
        if self._config is None or now - self._read_at > self.config_ttl:
            self._config = read_config(self.mirror, self.client)
            self._read_at = now
        return self._config

    def _evaluate(self, name: str, keywords: Keywords) -> str | None:
        """Return the name of the mask that an rmap chooses; None if its rule says N/A."""
        rules = self.mappings.load(name)
        parameters = matching_parameters(keywords, rules.get_required_parkeys(), name)
        observed = " ".join(str(parameters[key]) for key in _DATE_AND_TIME if key in parameters)
        try:  # the exposure is at fault, not the rules
            if observed:
                timestamp.reformat_date(observed)
        except (InvalidDatetimeError, ValueError, LookupError) as exc:
            raise InputRejected(
                f"{keywords.name}: DATE-OBS and TIME-OBS are {observed!r}, expected ISO 8601: {exc}"
            ) from exc
        header = utils.condition_header(parameters)
        try:
            best = rules.get_best_ref(header)
        except Exception as exc:  # crds can raise anything for a damaged rule
            found = str(exc) or type(exc).__name__
            raise ReferenceUnavailable(
                f"{name}: damaged rule: {found}; use another context"
            ) from exc
        if best is None or best == "NOT FOUND n/a":
            return None
        # Two masks that tie are a tuple; no match is the text "NOT FOUND No match found."
        if not isinstance(best, str) or best.startswith("NOT FOUND"):
            values = ", ".join(f"{key}={value}" for key, value in header.items())
            found = best if isinstance(best, str) else " and ".join(map(str, best))
            raise ReferenceUnavailable(
                f"{name}: no mask for {keywords.name} ({values}): crds found {found}, expected one "
                "mask; use another context, or name a mask"
            )
        return check_reference(best) if is_applicable(best) else None

    def _warning(self, name: str, keywords: Keywords, mask: str | None) -> str | None:
        """Return a warning if `jwst` would not choose `mask`, too; otherwise None."""
        words = unknown_words(keywords, self.mappings.load(name).get_required_parkeys())
        if not words:
            return None
        header = keywords.header.copy()
        for keyword in words:
            del header[keyword]
        ours = mask or "N/A"
        try:
            theirs = self._evaluate(name, replace(keywords, header=header)) or "N/A"
        except ReferenceUnavailable:
            theirs = "no mask"
        if theirs == ours:
            return None
        unknown = ", ".join(f"{keyword} is {word[:80]!r}" for keyword, word in words.items())
        return (
            f"{keywords.name}: {unknown}, which jwst {EQUALS_JWST} does not know; {name} chooses "
            f"{ours}, jwst would choose {theirs}"
        )


def _refuse_bad(name: str, config: MirrorConfig, where: str = "") -> None:
    if name in config.bad_files:
        raise ReferenceUnavailable(
            f"{name}: on the CRDS server's list of bad files{where}; use another context"
        )


def read_config(mirror: S3Location, client: "S3Client") -> MirrorConfig:
    """Return a mirror's configuration: ``mirror.json`` or, without it, ``server_config``."""
    store = ObjectStore(client)
    for key, parse in ((STATE, MirrorConfig.parse_state), (CONFIG, MirrorConfig.parse)):
        location = mirror.below(key)
        # An error other than "missing" is raised: server_config may be older than mirror.json.
        found = store.get(location, LARGEST_CONFIG, ReferenceUnavailable)
        if found is not None:
            return parse(found[0], str(location))
    raise ReferenceUnavailable(
        f"{location}: no such object, expected the mirror's configuration; run dq-init mirror sync "
        f"{mirror}"
    )


def read_text(location: S3Location, client: "S3Client", limit: int = LARGEST_CONFIG) -> str:
    """Return the text of a file of a mirror in S3, or raise `ReferenceUnavailable`."""
    return text_of(_read(location, client, limit), location, "run dq-init mirror verify")


def _read(location: S3Location, client: "S3Client", limit: int) -> bytes:
    found = ObjectStore(client).get(location, limit, ReferenceUnavailable)
    if found is None:
        raise ReferenceUnavailable(
            f"{location}: no such object, expected a file of the mirror; run dq-init mirror sync"
        )
    return found[0]


def text_of(content: bytes, place: S3Location | Path, advice: str) -> str:
    """Return the text of a file, or raise `ReferenceUnavailable` if it is not UTF-8.

    `place` and `advice`, a sentence on what to do, are for the message.
    """
    try:
        return content.decode()
    except UnicodeDecodeError as exc:
        raise ReferenceUnavailable(
            f"{place}: is not UTF-8 text, so it is damaged ({exc}); {advice}"
        ) from exc
