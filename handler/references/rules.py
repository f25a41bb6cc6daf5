"""Which mask the rules of a CRDS context choose, evaluated by the `crds` package.

CRDS keeps its rules in three levels of files: a pipeline mapping (the context), an instrument
mapping and a mapping per reference type. Asked in the ordinary way, `crds` loads every file of the
instrument; the three that lead to the mask are enough. They are put into its cache directory here:
`crds` can read S3 by itself, but makes a client anew for each file. No CRDS server is contacted.
"""

import ast
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astropy.io import fits

from core import keywords
from core.errors import InputRejected, ReferenceUnavailable
from handler.references.lean_crds import without_tools
from handler.references.parameters import matching_parameters
from handler.s3.errors import failures_of
from handler.s3.locations import S3Location
from handler.s3.objects import address
from handler.settings import LATEST

with without_tools():
    import crds
    import crds.jwst  # which crds itself imports when it meets the first rule
    from crds.client import proxy
    from crds.core import config, rmap, timestamp, utils
    from crds.core.exceptions import CrdsError, InvalidDatetimeError

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

__all__ = ["CRDS_VERSION", "Choice", "Rules"]

CRDS_VERSION = str(crds.__version__)
"""Of the package that evaluates the rules; CRDS_VER of the product."""

_OBSERVATORY = "jwst"
_CONFIG_SECONDS = 180
"""How long the mirror's idea of the operational context is believed."""
_DATE_AND_TIME = ("META.OBSERVATION.DATE", "META.OBSERVATION.TIME")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Choice:
    """What the rules say.

    Attributes
    ----------
    context : str
        Name of the context that was asked.
    mask : str or None
        File name of the MASK reference; None where the rules say that none applies.
    size, sha1 : int and str
        What the server's catalogue says of it; zero and empty where there is none.
    """

    context: str
    mask: str | None
    size: int = 0
    sha1: str = ""


@dataclass(frozen=True)
class ServerConfig:
    """What the mirror's copy of the CRDS server's configuration says."""

    operational_context: str
    bad_files: frozenset[str]
    catalogue: Mapping[str, Mapping[str, str]]

    @classmethod
    def parse(cls, text: str) -> "ServerConfig":
        """Read ``config/jwst/server_config`` (a Python literal, as `crds` writes it)."""
        info = ast.literal_eval(text)
        return cls(
            operational_context=info.get("latest_context") or info["operational_context"],
            bad_files=frozenset(info["bad_files_list"]),
            catalogue=proxy.crds_decode(info["download_metadata"]),
        )


@dataclass
class Rules:
    """The rules that a mirror holds. Caches what it has read: contexts and rules never change.

    Attributes
    ----------
    mirror : `~handler.s3.locations.S3Location`
        Bucket and prefix of the mirror.
    cache : `pathlib.Path`
        Directory for `crds` to find rules in.
    client : boto3 S3 client
        How to reach the mirror.
    clock : callable
        Seconds, for the age of the server's configuration: of the wall clock, for the monotonic
        one may stand still while Lambda keeps a container frozen.
    """

    mirror: S3Location
    cache: Path
    client: "S3Client"
    clock: Callable[[], float] = time.time
    _contexts: dict[str, Any] = field(default_factory=dict, repr=False)
    _server_config: ServerConfig | None = field(default=None, repr=False)
    _read_at: float = field(default=0.0, repr=False)

    def choose(self, header: fits.Header, context: str, owner: str) -> Choice:
        """Choose the mask for an exposure.

        Parameters
        ----------
        header : `~astropy.io.fits.Header`
            The exposure's primary header.
        context : str
            Name of a context, or ``latest`` for the one that the mirror calls operational.
        owner : str
            The exposure's name, for messages.

        Returns
        -------
        `Choice`
            The mask and what is known of it.

        Raises
        ------
        InputRejected
            If the exposure does not say when it was taken, or with which instrument.
        ReferenceUnavailable
            If the mirror lacks a file, a rule is damaged or marked bad, or no rule matches.
        """
        server = self._server()
        name = self.context_name(context)
        with _failures_of_crds(f"context {name} of {self.mirror}"):
            rules = self._mask_rules(name, _instrument(header, owner), server)
            if rules is None:
                return Choice(name, None)
            found = _best_reference(rules, header, owner)
        if found is None:
            return Choice(name, None)
        _refuse_bad(found, server)
        facts = server.catalogue.get(found)
        if facts is None:
            raise ReferenceUnavailable(
                f"{found}: chosen by {rules.name} for {owner}, but the catalogue in "
                f"{self.mirror.below('config', _OBSERVATORY, 'server_config')} does not know it"
            )
        return Choice(name, found, int(facts["size"]), facts["sha1sum"])

    def prepare(self, context: str) -> None:
        """Read what every exposure needs: the server's configuration and the context.

        Parameters
        ----------
        context : str
            As `choose` takes it.

        Raises
        ------
        ReferenceUnavailable, TransientFailure
            As `choose` does.
        """
        server = self._server()
        name = self.context_name(context)
        with _failures_of_crds(f"context {name} of {self.mirror}"):
            self._load(name, server)

    def context_name(self, context: str) -> str:
        """Return the name of a context: what the mirror calls operational for ``latest``."""
        return self._server().operational_context if context == LATEST else context

    def _point_crds_here(self) -> None:
        """`crds` takes its configuration from the environment, each time it looks."""
        os.environ.update(
            CRDS_OBSERVATORY=_OBSERVATORY,
            CRDS_PATH=str(self.cache),
            CRDS_SERVER_URL="https://crds-serverless-mode.invalid",
        )

    def _read(self, location: S3Location) -> str:
        """Read a small file of the mirror."""
        with failures_of(f"{location}: reading it", ReferenceUnavailable):
            answer = self.client.get_object(**address(location))
            return answer["Body"].read().decode()

    def _server(self) -> ServerConfig:
        """The server's configuration, read again when it has become old."""
        self._point_crds_here()
        now = self.clock()
        if self._server_config is None or now - self._read_at > _CONFIG_SECONDS:
            place = self.mirror.below("config", _OBSERVATORY, "server_config")
            try:
                self._server_config = ServerConfig.parse(self._read(place))
            except (SyntaxError, ValueError, KeyError, TypeError, AttributeError) as exc:
                raise ReferenceUnavailable(f"{place}: cannot be read: {exc!r}") from exc
            self._read_at = now
        return self._server_config

    def _mask_rules(self, context: str, instrument: str, server: ServerConfig) -> Any | None:
        """Follow context and instrument to the rules for MASK; None where they say N/A."""
        pipeline = self._load(context, server)
        by_instrument = pipeline.selector.get(instrument)
        if by_instrument is None:
            raise ReferenceUnavailable(f"{context}: has no rules for instrument {instrument}")
        if _is_not_applicable(by_instrument):
            return None
        name = self._load(by_instrument, server).selector.get("MASK")
        if name is None:
            raise ReferenceUnavailable(f"{by_instrument}: has no rules for MASK")
        return None if _is_not_applicable(name) else self._load(name, server)

    def _load(self, name: str, server: ServerConfig) -> Any:
        """Load one rule file, from memory, the cache directory or the mirror."""
        _refuse_bad(name, server)
        if name not in self._contexts:
            path = self._cached(name)
            try:
                self._contexts[name] = rmap.load_mapping(name)
            except CrdsError:
                path.unlink(missing_ok=True)  # what is damaged must be fetched again
                raise
        return self._contexts[name]

    def _cached(self, name: str) -> Path:
        """Fetch a rule file from the mirror into the directory where `crds` looks for it."""
        if not _FILE_NAME.fullmatch(name):
            raise ReferenceUnavailable(f"{self.mirror}: {name!r} is no name of a rule file")
        path = Path(config.locate_mapping(name, _OBSERVATORY))
        if not path.exists():
            text = self._read(self.mirror.below("mappings", _OBSERVATORY, name))
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f"{name}.{uuid.uuid4().hex}")
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        return path


@contextmanager
def _failures_of_crds(what: str) -> Iterator[None]:
    """Turn what `crds` raises into `ReferenceUnavailable`."""
    try:
        yield
    except CrdsError as exc:
        raise ReferenceUnavailable(f"{what}: {exc}") from exc


def _instrument(header: fits.Header, owner: str) -> str:
    instrument = keywords.text(header, "INSTRUME", owner)
    if not instrument:
        raise InputRejected(f"{owner}: INSTRUME is missing")
    return instrument.upper()


def _refuse_bad(name: str, server: ServerConfig) -> None:
    if name in server.bad_files:
        raise ReferenceUnavailable(f"{name}: on the server's list of bad files")


def _is_not_applicable(name: str) -> bool:
    return name.upper() in {"N/A", "OMIT"}


def _best_reference(rules: Any, header: fits.Header, owner: str) -> str | None:
    """Ask the rules for MASK; None where they say that none applies."""
    wanted = rules.get_required_parkeys()
    parameters = matching_parameters(header, wanted, rules.name)
    _check_date(parameters, owner)
    parameters = utils.condition_header(parameters)
    found = rules.get_best_ref(parameters)
    if found is None or found == "NOT FOUND n/a":
        return None
    if found.startswith("NOT FOUND") or not _FILE_NAME.fullmatch(found):
        raise ReferenceUnavailable(f"{rules.name}: no mask for {owner} ({parameters}): {found}")
    return str(found)


def _check_date(parameters: Mapping[str, object], owner: str) -> None:
    """An exposure that does not say when it was taken is at fault, not the rules."""
    moment = " ".join(str(parameters[name]) for name in _DATE_AND_TIME if name in parameters)
    try:
        if moment:
            timestamp.reformat_date(moment)
    except (InvalidDatetimeError, ValueError, LookupError) as exc:
        raise InputRejected(f"{owner}: DATE-OBS and TIME-OBS are {moment!r}: {exc}") from exc
