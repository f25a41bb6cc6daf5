"""CRDS rules and masks: choices, damaged files, caches, and the mirror's configuration."""

import os
import random
import re
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from astropy.io import fits
from botocore.exceptions import ClientError

from core.errors import InputRejected, ReferenceUnavailable, TransientFailure
from core.fits.hdus import Keywords
from handler.crds.lean_import import utils
from handler.crds.masks import MaskCache, References
from handler.crds.mirror import FileDigest, MirrorConfig, key_of, mapping_key, reference_keys
from handler.crds.rules import Mappings, Rules, read_config
from handler.s3.objects import ObjectStore, S3Location
from infra.demo.local_aws import MIRROR, LocalAws
from tests.conftest import SHARED, Harness
from tests.samples.mirror import CONTEXT


class Text:
    """Mappings in memory."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files

    def read(self, name: str) -> str:
        return self.files[name]


def rules_of(files: dict[str, str], **fields: Any) -> Rules:
    """Return rules whose mappings are read from memory."""
    rules = Rules(S3Location(MIRROR, ""), Path("unused"), None, **fields)  # type: ignore[arg-type]
    rules.mappings = Mappings(Text(files))
    return rules


def keywords(**changes: Any) -> Keywords:
    header = {"INSTRUME": "NIRSPEC", "DETECTOR": "NRS1", "SUBARRAY": "N/A", "DATE-OBS": "2010-06-01", "TIME-OBS": "00:00:00"}  # fmt: skip
    return Keywords(fits.Header(header | changes), "x.fits")


@pytest.fixture
def real_rules(aws: LocalAws, tmp_path: Path) -> Iterator[Rules]:
    """Return the rules of eleven real contexts, in an embedded AWS."""
    folder = SHARED / "crds-contexts" / "mappings" / "jwst"
    if not folder.is_dir():
        pytest.skip(
            "the real CRDS rules are missing; test_two_masks_that_tie_are_rejected covers a tie"
        )
    s3 = aws.client("s3")
    for path in folder.iterdir():
        s3.upload_file(str(path), MIRROR, f"contexts/mappings/jwst/{path.name}")
    digests = {path.name: FileDigest.of(path.read_bytes()) for path in folder.iterdir()}
    config = MirrorConfig("jwst_0152.pmap", frozenset(), digests, {})
    s3.put_object(Bucket=MIRROR, Key="contexts/config/jwst/server_config", Body=config.to_config())
    return Rules(S3Location(MIRROR, "contexts"), tmp_path, s3)


@pytest.mark.slow
def test_two_real_masks_that_tie_are_rejected(real_rules: Rules) -> None:
    with pytest.raises(ReferenceUnavailable, match=r"mask_0004.*mask_0002|mask_0002.*mask_0004"):
        real_rules.best_reference(keywords(), "jwst_0152.pmap")


@pytest.mark.slow
def test_instrument_without_rules_in_a_real_context_fails(real_rules: Rules) -> None:
    """NIRSPEC has no rules for MASK in 0363."""
    with pytest.raises(ReferenceUnavailable, match=r"NIRSPEC|MASK"):
        real_rules.best_reference(keywords(), "jwst_0363.pmap")


def test_two_masks_that_tie_are_rejected() -> None:
    """`crds` returns both of them."""
    tied = SimpleNamespace(
        get_required_parkeys=lambda: ["META.INSTRUMENT.DETECTOR"],
        get_best_ref=lambda _: ("jwst_nirspec_mask_0001.fits", "jwst_nirspec_mask_0002.fits"),
    )
    rules = rules_of({})
    rules.mappings._loaded["jwst_nirspec_mask_0001.rmap"] = tied
    with pytest.raises(ReferenceUnavailable, match=r"jwst_nirspec_mask_0001\.fits"):
        rules._evaluate("jwst_nirspec_mask_0001.rmap", keywords())


@pytest.mark.parametrize("name", ["../../etc/passwd", "x.txt", "", "jwst 1.pmap", "a/b.rmap"])
def test_invalid_name_of_a_mapping_is_rejected(name: str) -> None:
    with pytest.raises(ReferenceUnavailable, match="expected the name of a CRDS mapping"):
        Mappings(Text({})).load(name)


def test_damaged_mapping_is_rejected() -> None:
    with pytest.raises(ReferenceUnavailable, match="expected a CRDS mapping"):
        Mappings(Text({"jwst_0001.pmap": "nonsense"})).load("jwst_0001.pmap")


@pytest.mark.parametrize("code", ["open({!r}, 'w')", "().__class__.__init__({!r})", "[open({!r}, 'w') for _ in 'x']"])  # fmt: skip
@pytest.mark.parametrize("place", ["selector", "header", "rmap_relevance", "rmap_omit"])
def test_code_in_a_mapping_is_not_run(
    place: str, code: str, sample_cache: Path, tmp_path: Path
) -> None:
    name = "jwst_nircam_mask_9001.rmap"
    text = (sample_cache / "mappings" / "jwst" / name).read_text()
    unsigned, code = re.sub(r".*'sha1sum'.*\n", "", text), code.format(str(tmp_path / "run"))
    if place == "selector":
        unsigned = unsigned.replace("Match(", f"Match({code} and ")
    else:
        value = code if place == "header" else repr(code)
        unsigned = unsigned.replace("header = {", f"header = {{ {place!r}: {value},")
    signature = f"    'sha1sum' : {utils.str_checksum(unsigned)!r},\n}}\n\nselector"
    mappings = Mappings(Text({name: unsigned.replace("}\n\nselector", signature)}))
    with pytest.raises(ReferenceUnavailable, match="expected a CRDS mapping"):
        mappings.load(name)
    assert not (tmp_path / "run").exists()


def test_unwritable_cache_does_not_fail_the_exposure(function: Harness, tmp_path: Path) -> None:
    """/tmp is full, or a file has the directory's name."""
    blocked = tmp_path / "blocked"
    blocked.write_bytes(b"not a directory")
    s3 = function.function.s3
    references = References.of(S3Location(MIRROR, ""), blocked, s3)
    best = references.rules.best_reference(
        keywords(
            INSTRUME="NIRCAM", DETECTOR="NRCB1", SUBARRAY="SUB64P", **{"DATE-OBS": "2023-01-01"}
        ),
        CONTEXT,
    )
    assert best.mask is not None
    assert best.digest is not None
    assert references.masks.load(best.mask, best.digest, "NIRCAM", ObjectStore(s3)).dq.any()


def test_configuration_survives_writing_and_parsing() -> None:
    config = MirrorConfig(
        "jwst_0002.pmap",
        frozenset({"bad.fits"}),
        {"jwst_0002.pmap": FileDigest(5, "a" * 40)},
        {"observatory": "jwst", "operational_context": "jwst_0001.pmap", "latest_context": "old"},
    )
    again = MirrorConfig.parse(config.to_config(), "server_config")
    assert (again.operational_context, again.bad_files) == ("jwst_0002.pmap", config.bad_files)
    assert again.catalogue == config.catalogue
    assert again.other["observatory"] == "jwst"


def test_keys_are_those_of_a_crds_cache() -> None:
    assert mapping_key("jwst_0001.pmap") == "mappings/jwst/jwst_0001.pmap"
    name = "jwst_nircam_mask_0001.fits"
    nested, flat = reference_keys(name, "NIRCAM")
    assert (nested, flat) == (f"references/jwst/nircam/{name}", f"references/jwst/{name}")
    assert key_of("jwst_0001.pmap", "") == mapping_key("jwst_0001.pmap")
    assert key_of(name, "nircam") == nested


@pytest.mark.parametrize("bad", ["jwst_nircam_dark_0001.rmap", "jwst_nircam_9001.imap", CONTEXT])
def test_bad_mapping_of_any_type_rejects_its_instrument(bad: str, sample_cache: Path) -> None:
    """As in `crds.core.heavy_client.get_bad_mappings_in_context`."""
    files = {path.name: path.read_text() for path in (sample_cache / "mappings/jwst").iterdir()}
    imap = files["jwst_nircam_9001.imap"].replace("'DARK': 'N/A'", "'DARK': 'jwst_nircam_dark_0001.rmap'")  # fmt: skip
    unsigned = re.sub(r".*'sha1sum'.*\n", "", imap)
    signature = utils.str_checksum(unsigned)
    files["jwst_nircam_9001.imap"] = re.sub(r"('sha1sum' : )'\w+'", rf"\1'{signature}'", imap)
    digests = dict.fromkeys(("jwst_nircam_mask_9001.fits", "jwst_niriss_mask_9001.fits"), FileDigest(1, "0"))  # fmt: skip
    rules = rules_of(files)
    header = keywords(INSTRUME="NIRCAM", DETECTOR="NRCA1", **{"DATE-OBS": "2023-01-01"})
    rules._config = MirrorConfig(CONTEXT, frozenset(), digests, {})
    rules._read_at = rules.clock()
    assert rules.best_reference(header, CONTEXT).mask == "jwst_nircam_mask_9001.fits"
    rules._config = MirrorConfig(CONTEXT, frozenset({bad}), digests, {})
    with pytest.raises(
        ReferenceUnavailable, match=f"{bad}: on the CRDS server's list of bad files"
    ):
        rules.best_reference(header, CONTEXT)
    if bad != CONTEXT:  # other instruments are not affected
        niriss = keywords(
            INSTRUME="NIRISS", DETECTOR="NIS", SUBARRAY="FULL", **{"DATE-OBS": "2023-01-01"}
        )
        assert rules.best_reference(niriss, CONTEXT).mask == "jwst_niriss_mask_9001.fits"


def test_word_that_is_not_in_upper_case_is_rejected(sample_cache: Path) -> None:
    files = {path.name: path.read_text() for path in (sample_cache / "mappings/jwst").iterdir()}
    rules = rules_of(files)
    rules._config = MirrorConfig(CONTEXT, frozenset(), {}, {})
    rules._read_at = rules.clock()
    for changes in ({"DETECTOR": "nrca1"}, {"SUBARRAY": " FULL"}, {"INSTRUME": " NIRCAM"}):
        header = {"INSTRUME": "NIRCAM", "DETECTOR": "NRCA1", "DATE-OBS": "2023-01-01"} | changes
        with pytest.raises(InputRejected, match="accepts upper case"):
            rules.best_reference(keywords(**header), CONTEXT)


def test_masks_beyond_two_are_dropped_from_memory(tmp_path: Path) -> None:
    masks = MaskCache(S3Location(MIRROR, ""), tmp_path)
    for number in range(5):
        masks._remember(str(number), None)  # type: ignore[arg-type]
    assert list(masks._in_memory) == ["3", "4"]


def test_oldest_masks_are_dropped_from_a_full_directory(tmp_path: Path) -> None:
    masks = MaskCache(S3Location(MIRROR, ""), tmp_path)
    for number in range(15):
        path = tmp_path / f"{number:02}.fits"
        masks._keep_on_disk(b"mask", path)
        os.utime(path, (number, number))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{n:02}.fits" for n in range(3, 15)
    ]


def test_operational_context_is_read_again_after_three_minutes() -> None:
    now, configs = [0.0], ["jwst_0001.pmap", "jwst_0002.pmap"]
    rules = rules_of({}, clock=lambda: now[0])
    rules._config = MirrorConfig(configs[0], frozenset(), {})
    with pytest.MonkeyPatch.context() as patch:
        later = MirrorConfig(configs[1], frozenset(), {})
        patch.setattr("handler.crds.rules.read_config", lambda *_: later)
        now[0] = 179
        assert rules.context_name("latest") == configs[0]
        now[0] = 181
        assert rules.context_name("latest") == configs[1]
        assert {rules.context_name(f"jwst-{n}") for n in ("latest", "operational")} == {configs[1]}


def test_catalogue_that_lacks_a_file_is_read_again_after_10_s() -> None:
    now, digest = [0.0], FileDigest(1, "0" * 40)
    rules = rules_of({}, clock=lambda: now[0])
    rules._config = MirrorConfig("jwst_0001.pmap", frozenset(), {})
    with pytest.MonkeyPatch.context() as patch:
        later = MirrorConfig("jwst_0001.pmap", frozenset(), {"synced.fits": digest})
        patch.setattr("handler.crds.rules.read_config", lambda *_: later)
        now[0] = 9
        assert rules.digest_of("synced.fits") is None
        now[0] = 11
        assert rules.digest_of("synced.fits") == digest


@pytest.mark.parametrize("where", ["mirror", "directory"])
def test_mapping_with_wrong_sha1_is_not_used(where: str, aws: LocalAws, tmp_path: Path) -> None:
    content, other, name = b"one", b"two", "jwst_0001.pmap"
    s3, prefix = aws.client("s3"), f"sha1-{where}"
    stored = other if where == "mirror" else content
    s3.put_object(Bucket=MIRROR, Key=f"{prefix}/mappings/jwst/{name}", Body=stored)
    (tmp_path / name).write_bytes(other)
    rules = Rules(S3Location(MIRROR, prefix), tmp_path, s3)
    rules._config = MirrorConfig(name, frozenset(), {name: FileDigest.of(content)})
    rules._read_at = rules.clock()
    if where == "directory":
        assert rules.read(name) == "one"
        return
    with pytest.raises(ReferenceUnavailable, match="SHA-1"):
        rules.read(name)


@pytest.mark.slow
def test_damaged_files_raise_only_reference_unavailable(sample_cache: Path) -> None:
    chance = random.Random(7)
    texts = {path.name: path.read_text() for path in (sample_cache / "mappings/jwst").iterdir()}
    config = MirrorConfig(CONTEXT, frozenset({"a"}), {"b": FileDigest(1, "a" * 40)})
    for _ in range(3000):
        name = chance.choice(sorted(texts))
        text = damaged(texts[name], chance)
        unsigned = re.sub(r".*'sha1sum'.*\n", "", text)
        signature = f"    'sha1sum' : {utils.str_checksum(unsigned)!r},\n}}\n\nselector"
        with suppress(ReferenceUnavailable):
            Mappings(Text({name: unsigned.replace("}\n\nselector", signature)})).load(name)
        with suppress(ReferenceUnavailable):
            MirrorConfig.parse(
                damaged(config.to_config().decode(), chance).encode(), "server_config"
            )
        with suppress(ReferenceUnavailable):
            MirrorConfig.parse_state(
                damaged(config.to_state().decode(), chance).encode(), "mirror.json"
            )


def test_state_without_the_fields_of_later_releases_is_read() -> None:
    old = b'{"operational_context": "jwst_9001.pmap", "bad_files": [], "catalogue": {}}'
    state = MirrorConfig.parse_state(old, "mirror.json")
    assert (state.operational_context, state.announced_context) == ("jwst_9001.pmap", "")
    with pytest.raises(ReferenceUnavailable, match="damaged"):
        MirrorConfig.parse_state(b'{"operational_context": "jwst_9001.pmap"}', "mirror.json")


def damaged(text: str, chance: random.Random) -> str:
    at, length = chance.randrange(len(text)), chance.choice((0, 1, 1, 5, 40))
    new = ["", "None", "5", "(", "'", "x", "[]", "{1: 2}", "()", "-" * 5000, "[" * 300, "\0", "N/A"]
    return text[:at] + chance.choice(new) + text[at + length :]


@pytest.mark.parametrize(
    ("alternatives", "rows", "message"),
    [(30_000, 1, "alternatives"), (1, 9_000, "characters"), (1_500, 1, ""), (1, 900, "")],
)
def test_mapping_that_takes_long_to_parse_is_rejected(
    alternatives: int, rows: int, message: str, sample_cache: Path
) -> None:
    name = "jwst_nircam_mask_9001.rmap"
    text = (sample_cache / "mappings" / "jwst" / name).read_text()
    values = "|".join(f"A{number}" for number in range(alternatives))
    rule = (
        "    ('{}', 'S{}') : UseAfter({{'1999-01-01 00:00:00' : 'jwst_nircam_mask_9001.fits'}}),\n"
    )
    more = "".join(rule.format(values, number) for number in range(rows))
    unsigned = re.sub(r".*'sha1sum'.*\n", "", text).replace("Match({", f"Match({{\n{more}")
    signature = f"    'sha1sum' : {utils.str_checksum(unsigned)!r},\n}}\n\nselector"
    mappings = Mappings(Text({name: unsigned.replace("}\n\nselector", signature)}))
    if not message:
        mappings.load(name)
        return
    with pytest.raises(ReferenceUnavailable, match=message):
        mappings.load(name)


def test_subarray_without_a_rule_names_the_exposure(sample_cache: Path) -> None:
    files = {path.name: path.read_text() for path in (sample_cache / "mappings/jwst").iterdir()}
    files["jwst_nircam_mask_9001.rmap"] = re.sub(
        r".*'(sha1sum|substitutions)'.*\n", "", files["jwst_nircam_mask_9001.rmap"]
    )
    unsigned = files["jwst_nircam_mask_9001.rmap"]
    signature = f"    'sha1sum' : {utils.str_checksum(unsigned)!r},\n}}\n\nselector"
    files["jwst_nircam_mask_9001.rmap"] = unsigned.replace("}\n\nselector", signature)
    rules = rules_of(files)
    rules._config = MirrorConfig(CONTEXT, frozenset(), {}, {})
    rules._read_at = rules.clock()
    header = keywords(INSTRUME="NIRCAM", DETECTOR="NRCA1", SUBARRAY="SUB64P")
    with pytest.raises(ReferenceUnavailable, match=r"no mask for x\.fits \(.*DETECTOR="):
        rules.best_reference(header, CONTEXT)


@pytest.mark.parametrize("name", ["..", "../x", "jwst_nircam_mask_0001.fits\n", "a/b.fits", ".", "/x", "jwst_nircam_mask_\u0661\u0661\u0661\u0661.fits"])  # fmt: skip
def test_name_that_is_not_crds_own_has_no_key(name: str) -> None:
    for key in (lambda: reference_keys(name, "NIRCAM"), lambda: key_of(name, "nircam")):
        with pytest.raises(ReferenceUnavailable):
            key()
    with pytest.raises(ReferenceUnavailable):
        reference_keys("jwst_nircam_mask_0001.fits", "NIRCAM/../..")


class Refusing:
    """An S3 client that refuses to return ``mirror.json``, but returns ``server_config``."""

    def __init__(self, code: str) -> None:
        self.code = code

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        if Key.endswith("mirror.json"):
            raise ClientError({"Error": {"Code": self.code, "Message": ""}}, "GetObject")
        content = MirrorConfig("jwst_0001.pmap", frozenset(), {}).to_config()
        return {"Body": BytesIO(content), "ContentLength": len(content), "ETag": '"etag"'}


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("AccessDenied", TransientFailure),
        ("KMS.DisabledException", TransientFailure),
        ("SlowDown", TransientFailure),
        ("InvalidObjectState", ReferenceUnavailable),
        ("PermanentRedirect", ReferenceUnavailable),
    ],
)
def test_unreadable_state_is_not_replaced_by_config(code: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"mirror\.json"):
        read_config(S3Location(MIRROR, ""), Refusing(code))  # type: ignore[arg-type]


def test_missing_state_is_replaced_by_config() -> None:
    config = read_config(S3Location(MIRROR, ""), Refusing("NoSuchKey"))  # type: ignore[arg-type]
    assert config.operational_context == "jwst_0001.pmap"
