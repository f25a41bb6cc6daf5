"""Rules and masks for the step on this machine: of a CRDS cache or server, or of a mirror."""

import fcntl
import logging
import os
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, cast

from core import EQUALS_JWST
from core.errors import InputRejected, ReferenceUnavailable
from core.exposure import Exposure
from core.fits.pixels import user_dq_image
from core.mask import Mask
from core.product import NO_MASK
from core.readout import detector_mismatch
from handler.crds.masks import MaskCache, References
from handler.crds.mirror import CONFIG, FileDigest, MirrorConfig, check_context
from handler.crds.rules import BUILD, LATEST, SYNONYMS, MaskChoice, Rules
from handler.s3.objects import ObjectStore, S3Location
from infra.local.inputs import is_s3, open_input, s3_client
from infra.mirror.sources import Cache, Server, Source

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReferenceSettings:
    """The source of references (a mirror, else a CRDS cache, else none), and the context."""

    mirror: S3Location | None = None
    crds_path: Path | None = None
    server: str | None = None  # URL of the CRDS server that completes the CRDS cache
    context: str | None = None  # a name, latest or build; None: as `resolve_context` says


class _SourceRules(Rules):
    """The MASK rules of a CRDS cache or server."""

    def __init__(self, source: Source, where: Path) -> None:
        # The mirror is only named in messages, because every read is overridden.
        super().__init__(cast("S3Location", where), where, cast("Any", None))
        self._source = source

    def read(self, name: str) -> str:
        return self._source.read(name)

    def digest_of(self, name: str) -> FileDigest:
        # The server_config of a cache may be older than its files, such as jwst_nircam_mask_0033.
        instrument = name.removeprefix("jwst_").partition("_")[0]
        return super().digest_of(name) or self._source.digest(name, instrument)

    def _build_context(self) -> str:
        return self._source.build()

    def _mirror_config(self) -> MirrorConfig:
        return self._source.config


class _SourceMasks(MaskCache):
    """The masks of a CRDS cache or server, kept in memory only: the source has the files."""

    def __init__(self, source: Source, where: Path) -> None:
        super().__init__(cast("S3Location", where), where)
        self._source = source

    def _fetch(self, name: str, digest: FileDigest, instrument: str, store: ObjectStore) -> bytes:  # noqa: ARG002
        return self._source.file(name, instrument).read_bytes()

    def _keep_on_disk(self, content: bytes, path: Path) -> None:
        pass


def open_references(settings: ReferenceSettings) -> References | None:
    """Open the rules and masks, once for each source; None if the settings name no source."""
    return _open(settings.mirror, settings.crds_path, settings.server)


@cache
def _open(mirror: S3Location | None, path: Path | None, server: str | None) -> References | None:
    if mirror is not None:
        return References.of(mirror, _cache_folder() / "dq-init", s3_client())
    if path is None:
        return None
    source = _complete(path, server) if server else Cache(path)
    return References(_SourceRules(source, path), _SourceMasks(source, path))


def _cache_folder() -> Path:
    """Return the user's folder for caches; that for temporary files if the user has no home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return Path(tempfile.gettempdir())


class _SharedServer(Server):
    """A CRDS server whose downloads several processes keep in one CRDS cache."""

    def file(self, name: str, instrument: str) -> Path:
        """Return the path of a file as `Server.file` does, while other processes wait."""
        with ExitStack() as lock:
            wanted, advice = "read from", "correct its permissions"
            if not self.read_only:
                wanted, advice = "kept in", "make the folder writable, or add the file"
                folder = os.open(self.folder, os.O_RDONLY)
                lock.callback(os.close, folder)
                with suppress(OSError):  # a file system without locks
                    fcntl.flock(folder, fcntl.LOCK_EX)
            try:
                return super().file(name, instrument)
            except OSError as exc:
                raise ReferenceUnavailable(
                    f"{name}: cannot be {wanted} the CRDS cache {self.folder} ({exc.strerror}); "
                    f"{advice}"
                ) from exc


def _complete(path: Path, url: str) -> Source:
    """Return the CRDS cache at `path`, to which the CRDS server at `url` adds missing files.

    If the server does not answer, return the cache alone, or raise `ReferenceUnavailable` if the
    cache has no server_config. Nothing is added if CRDS_READONLY_CACHE is set.
    """
    from crds.core import config, heavy_client  # noqa: PLC0415

    try:
        server = _SharedServer(url, path, config.get_cache_readonly())
    except ReferenceUnavailable as exc:
        if not (path / CONFIG).exists():
            raise
        log.warning("%s; continuing with the CRDS cache %s", exc, path)
        return Cache(path)
    if not server.read_only:
        path.mkdir(parents=True, exist_ok=True)
    heavy_client.update_config_info("jwst")  # into the cache, unless it is read-only
    return server


def is_context(name: str) -> bool:
    """Return whether a name is ``latest``, ``build``, a synonym, or like jwst_1321.pmap."""
    try:
        check_context(name)
    except ReferenceUnavailable:
        return name in {LATEST, BUILD, *SYNONYMS}
    return True


def resolve_context(settings: ReferenceSettings) -> ReferenceSettings:
    """Return the settings with the file name of the context that they name.

    None stands for the build context or, with a warning if that is not available, the operational
    one. Without a source of references, a named context stays and None becomes ``N/A``.
    """
    references, name = open_references(settings), settings.context or NO_MASK
    if references is not None and settings.context:
        name = references.rules.prepare(settings.context)
    elif references is not None:
        try:
            name = references.rules.prepare(BUILD)
        except ReferenceUnavailable:  # a cache does not record it: get_final_context, crds 14.0.3
            name = references.rules.prepare(LATEST)
            log.warning(
                "the build context of jwst %s is not known here; using %s, the operational one",
                *(EQUALS_JWST, name),
            )
    return replace(settings, context=name)


def choose_mask(
    exposure: Exposure, named: str | None, settings: ReferenceSettings
) -> tuple[MaskChoice, Mask | None]:
    """Return the choice and the mask, by the rules or as `named`: path, S3 URI or ``N/A``.

    The mask is None if `named` is ``N/A``, or if the rules say that none applies. `settings` must
    come from `resolve_context`.
    """
    context = settings.context or NO_MASK
    if named == NO_MASK:
        return MaskChoice(context), None
    if named is not None:
        mask, sha1 = read_mask(named)
        if warning := detector_mismatch(mask, exposure):
            log.warning("%s", warning)
        return MaskChoice(context, label=_label(named), sha1=sha1), mask
    references = open_references(settings)
    assert references is not None
    store = ObjectStore(s3_client() if settings.mirror else cast("Any", None))
    choice = references.resolve(exposure, context, None, store)
    return choice, references.load(choice, exposure, store)


def _label(name: str) -> str:
    """Return R_MASK for the mask at a path or S3 URI; `InputRejected` if it is not ASCII."""
    label = name if is_s3(name) else os.path.abspath(name)  # noqa: PTH100  # as jwst
    if not label.isascii():
        raise InputRejected(
            f"{label}: R_MASK cannot hold this name, expected ASCII; copy the mask to a path of "
            "ASCII characters"
        )
    return label


@cache
def read_mask(name: str) -> tuple[Mask, str]:
    """Return the mask at a path or S3 URI, and the SHA-1 of the file."""
    _label(name)  # a name that R_MASK cannot hold would fail every exposure
    with open_input(name) as file:
        content = file.read(0, file.size)
    return Mask.from_bytes(content, name), FileDigest.of(content).sha1


@cache
def read_user_dq(name: str) -> Any:
    """Return the user DQ at a path or S3 URI; each is read once per process."""
    with open_input(name) as file:
        return user_dq_image(file.read(0, file.size), name)
