"""S3 URIs: the bucket up to the first slash, the rest is the key, verbatim."""

import pytest

from core.errors import InputRejected, TransientFailure
from handler.s3.objects import ObjectStore, S3Location
from infra.demo.local_aws import RAW
from tests.conftest import PROJECT, Harness, imported_names

KEYS = [
    "a",
    "/2023/a",
    "x//b",
    "//",
    "a/",
    "run#3/a?b=c&d",
    "a%2Fb+c",
    "s3://b/c",
    " a ",
    "日本",
    "a\nb",
]


@pytest.mark.parametrize("key", KEYS)
def test_key_of_a_uri_is_taken_verbatim(key: str) -> None:
    uri = f"s3://bucket/{key}"
    assert S3Location.parse(uri) == S3Location("bucket", key)
    assert str(S3Location.parse(uri)) == uri


@pytest.mark.parametrize(
    ("uri", "prefix", "below"),
    [
        ("s3://bucket", "", "x"),
        ("s3://bucket/", "", "x"),
        ("s3://bucket/a/b/", "a/b", "a/b/x"),
        ("s3://bucket//a", "/a", "/a/x"),
        ("s3://bucket/a//", "a/", "a//x"),
        ("s3://bucket/a#b?c", "a#b?c", "a#b?c/x"),
    ],
)
def test_prefix_loses_one_slash_at_its_end(uri: str, prefix: str, below: str) -> None:
    place = S3Location.parse_prefix(uri)
    assert (place.key, place.below("x").key) == (prefix, below)


@pytest.mark.parametrize(
    "uri", ["", "bucket/key", "s3:/bucket/key", "s3:///key", "xs3://b/k", "S3://b/k"]
)
def test_text_that_is_not_an_s3_uri_is_refused(uri: str) -> None:
    for parse in (S3Location.parse, S3Location.parse_prefix):
        with pytest.raises(ValueError, match=r"expected s3://bucket"):
            parse(uri)


def test_missing_key_or_prefix_of_slashes_is_refused() -> None:
    for parse, uri in ((S3Location.parse, "s3://b/"), (S3Location.parse_prefix, "s3://b//")):
        with pytest.raises(ValueError, match=r"expected s3://bucket"):
            parse(uri)


def test_no_module_imports_a_url_parser() -> None:
    """`urlsplit` would end a key at `#` or `?`."""
    names = {"urllib", *(f"urllib.parse{end}" for end in ("", ".urlparse", ".urlsplit"))}
    for package in ("core", "handler", "infra"):
        for path in (PROJECT / package).rglob("*.py"):
            assert not imported_names(path) & names, path


@pytest.mark.parametrize("replacement", [b"newer", None])
def test_object_that_changes_while_it_is_read_is_retried(
    replacement: bytes | None, function: Harness
) -> None:
    """A retry finds the new exposure, or reports that there is none."""
    s3, location = function.aws.client("s3"), S3Location(RAW, "2023/jw01_uncal.fits")
    s3.put_object(Bucket=RAW, Key=location.key, Body=bytes(100))
    reader = ObjectStore(s3).begin(location, 10, InputRejected)
    if replacement is None:
        s3.delete_object(Bucket=RAW, Key=location.key)
    else:
        s3.put_object(Bucket=RAW, Key=location.key, Body=replacement)
    for read in (reader.read, reader.read_ahead):
        with pytest.raises(TransientFailure, match=r"bytes 10 to 100: the object was .*; retry"):
            read(0, 100)
