"""The mirror commands, on a local S3 with a simulated CRDS server."""

import hashlib
import json
import os
import random
import re
import shutil
import socket
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import patch

import boto3
import numpy as np
import pytest
from astropy.io import fits
from botocore.exceptions import ClientError
from botocore.response import StreamingBody
from jsonschema import Draft202012Validator

from core import EQUALS_JWST
from core.errors import ReferenceUnavailable, TransientFailure
from core.fits.hdus import Keywords
from handler.crds.lean_import import utils
from handler.crds.mirror import CONFIG, STATE, FileDigest, MirrorConfig
from handler.crds.rules import Mappings, Rules, is_applicable
from handler.s3.objects import S3Location
from infra.__main__ import main
from infra.demo.local_aws import MIRROR, LocalAws
from infra.mirror import contexts, freshen, sources
from infra.mirror.bucket import Mirror, contexts_of
from infra.mirror.changes import delete_unneeded, unneeded_keys
from infra.mirror.contexts import read_context
from infra.mirror.freshen import keep_fresh
from infra.mirror.sources import Cache, Server, Source
from infra.mirror.sync import copy, plan_sync, use, write_config
from infra.mirror.verify import verify
from tests.conftest import PROJECT, SHARED, SMALL_MASKS, Harness
from tests.infra.crds_server import CrdsServer, crds_server
from tests.infra.program import run_program
from tests.infra.template import load, permissions
from tests.samples.exposures import write_exposure
from tests.samples.masks import SampleMask, write_mask
from tests.samples.mirror import (
    CONTEXT,
    RULES,
    write_rules,
    write_sample_mirror,
    write_server_config,
)
from tests.samples.modes import MODES
from tests.seeds import seeds

NEWER = "jwst_9002.pmap"
FEW = {instrument: RULES[instrument] for instrument in ("nircam", "miri")}
CHANGED = ("NRCB1", "GENERIC")
MASK = "references/jwst/nircam/jwst_nircam_mask_9002.fits"
IMAP, RMAP = "mappings/jwst/jwst_miri_9001.imap", "mappings/jwst/jwst_miri_mask_9001.rmap"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CRDS cache with two contexts; in the newer one a detector has another mask."""
    root = tmp_path_factory.mktemp("cache")
    write_sample_mirror(root, [m for m in SMALL_MASKS if m.instrument.lower() in FEW])
    write_rules(root, rules=FEW)
    parameters, choices = FEW["nircam"]
    newer = {match: 9001 if match[0] == CHANGED else number for match, number in choices.items()}
    write_rules(root, context=NEWER, rules={**FEW, "nircam": (parameters, newer)})
    write_server_config(root)
    return root


@pytest.fixture(autouse=True)
def _same_timeout_of_sockets() -> Iterator[None]:
    """Restore the timeout that a sync from a server sets for the whole process."""
    before = socket.getdefaulttimeout()
    yield
    socket.setdefaulttimeout(before)


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    return f"mirror-{abs(hash(request.node.name))}"


@pytest.fixture
def place(aws: LocalAws, prefix: str) -> str:
    return f"s3://{MIRROR}/{prefix}"


@pytest.fixture
def server(cache: Path) -> Iterator[CrdsServer]:
    with crds_server(cache) as running:
        yield running


@pytest.fixture
def bucket(aws: LocalAws, prefix: str) -> "Bucket":
    return Bucket(aws.client("s3"), prefix)


class Bucket:
    def __init__(self, client: Any, prefix: str) -> None:
        self.client, self.prefix = client, prefix

    def as_kwargs(self, key: str) -> dict[str, str]:
        return {"Bucket": MIRROR, "Key": f"{self.prefix}/{key}"}

    def get(self, key: str) -> bytes:
        return self.client.get_object(**self.as_kwargs(key))["Body"].read()

    def put(self, key: str, body: bytes) -> None:
        self.client.put_object(**self.as_kwargs(key), Body=body)

    def delete(self, key: str) -> None:
        self.client.delete_object(**self.as_kwargs(key))

    def listed(self) -> set[str]:
        found = self.client.list_objects_v2(Bucket=MIRROR, Prefix=f"{self.prefix}/")
        return {item["Key"].removeprefix(f"{self.prefix}/") for item in found.get("Contents", [])}


def run(*arguments: str, fails: bool = False) -> str:
    """Run a mirror command; return its output."""
    done = run_program("mirror", *arguments, COLUMNS="200")
    assert (done.exit_code != 0) == fails, done.out + done.err
    return done.out + done.err


@pytest.mark.slow
def test_sync_from_a_cache_gives_a_verified_mirror(cache: Path, place: str, bucket: Bucket) -> None:
    said = run("sync", place, "--from", str(cache), "--dry-run")
    assert "to copy: 10" in said
    assert MASK in said
    assert bucket.listed() == set()
    run("sync", place, "--from", str(cache))
    assert "4 masks." in run("verify", place)
    assert "to copy: 0" in run("sync", place, "--from", str(cache))
    assert run("contexts", place).split() == [CONTEXT, "operational"]


@pytest.mark.slow
def test_sync_downloads_from_the_server_through_crds(
    server: CrdsServer, place: str, bucket: Bucket
) -> None:
    run("sync", place, "--server", server.url)
    assert "Complete: " in run("verify", place)
    assert bucket.get(MASK) == server.content(Path(MASK).name)


@pytest.mark.slow
def test_scheduled_sync_copies_and_verifies(
    server: CrdsServer, cache: Path, prefix: str, bucket: Bucket, aws: LocalAws
) -> None:
    mirror = Mirror(bucket.client, S3Location(MIRROR, prefix))
    said = keep_fresh(mirror, server.url)
    assert (said["operational"], said["masks"], len(said["copied"])) == (CONTEXT, 4, 10)
    assert keep_fresh(mirror, server.url)["copied"] == []
    bucket.put("mappings/jwst/jwst_0001.pmap", b"of a sync that was interrupted")
    assert keep_fresh(mirror, server.url)["copied"] == []
    synced(cache, mirror, NEWER)
    bucket.put(f"mappings/jwst/{NEWER}", b"nonsense")
    mirror.update(lambda config: replace(config, announced_context="jwst_0001.pmap"))
    message = r"1 fault, .* the first is: context jwst_9002"
    with changed_contexts(aws) as announced:
        with pytest.raises(ReferenceUnavailable, match=message):
            keep_fresh(mirror, server.url)
        assert announced() == [], "consumers would rebuild products with a wrong mirror"


@pytest.mark.slow
def test_download_that_is_cut_short_is_repeated(
    server: CrdsServer, prefix: str, bucket: Bucket
) -> None:
    name = Path(MASK).name
    server.stumbles.add(name)
    keep_fresh(Mirror(bucket.client, S3Location(MIRROR, prefix)), server.url)
    assert (server.sent[name], server.stumbles) == (2, set())


@pytest.mark.slow
@pytest.mark.parametrize(
    "answer", ["<html>", "null", "[]", "{}", '{"error": "x"}', '{"error": {}}']
)
def test_malformed_answer_about_the_build_is_one_line(
    answer: str, server: CrdsServer, place: str
) -> None:
    server.build_answer = answer.encode()
    said = run("sync", place, "--server", server.url, "--context", "build", fails=True)
    assert f"{server.url}: does not name the build context" in said


@pytest.mark.slow
@pytest.mark.parametrize("operation", ["HeadObject", "PutObject"])
def test_denied_call_in_a_mirror_names_action_and_object(
    operation: str, server: CrdsServer, prefix: str, aws: LocalAws
) -> None:
    def deny(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, operation)

    client = aws.client("s3")
    client.meta.events.register(f"before-call.s3.{operation}", deny)
    action = {"HeadObject": "s3:GetObject", "PutObject": "s3:PutObject"}[operation]
    with pytest.raises(TransientFailure, match=f"s3://{MIRROR}/{prefix}/.*: {action} is denied"):
        keep_fresh(Mirror(client, S3Location(MIRROR, prefix)), server.url)


@pytest.mark.slow
@pytest.mark.usefixtures("aws")
def test_scheduled_sync_runs_again_in_its_container(server: CrdsServer, prefix: str) -> None:
    settings = {"CRDS_SERVER": server.url, "CRDS_MIRROR": f"s3://{MIRROR}/{prefix}"}
    buses: list[str] = []
    with (
        patch.dict(os.environ, settings | {"EVENT_BUS": "science"}),
        patch.object(freshen.Bus, "put", lambda bus, *_: buses.append(bus.name)),
    ):
        copied = [freshen.lambda_handler({}, None)["copied"] for _ in range(2)]
    assert [len(names) for names in copied] == [10, 0]
    assert buses == ["science"]


@pytest.mark.slow
def test_new_context_is_published_once_with_its_changes(
    server: CrdsServer,
    prefix: str,
    bucket: Bucket,
    aws: LocalAws,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mirror = Mirror(bucket.client, S3Location(MIRROR, prefix))
    with changed_contexts(aws) as announced:
        keep_fresh(mirror, server.url)
        keep_fresh(mirror, server.url)
        ((first,), second) = (announced(), announced())
        assert (first["before"], first["after"], second) == (None, CONTEXT, [])
        shutil.copytree(cache, newer := cache.parent / f"newer-{prefix}")
        write_server_config(newer, NEWER)
        with crds_server(newer) as other:
            monkeypatch.setattr(freshen.Bus, "put", failing)
            with pytest.raises(RuntimeError, match="down"):
                keep_fresh(mirror, other.url)
            monkeypatch.undo()
            keep_fresh(mirror, other.url)
        (event,) = announced()
    assert (event["before"], event["after"]) == (CONTEXT, NEWER)
    mirror.update(
        lambda config: replace(config, announced_context="jwst_0001.pmap")
    )  # and pruned since
    with changed_contexts(aws) as announced:
        keep_fresh(mirror, server.url)
        (after_pruning,) = announced()
    assert (after_pruning["before"], after_pruning["changes"]) == ("jwst_0001.pmap", 0)
    (change,) = event["changedMasks"]
    assert change["before"] == "jwst_nircam_mask_9002.fits"
    assert change["after"] == "jwst_nircam_mask_9001.fits"
    assert change["parameters"]["META.INSTRUMENT.DETECTOR"] == "NRCB1"


def failing(*_: Any) -> None:
    raise RuntimeError("the bus is down")


@contextmanager
def changed_contexts(aws: LocalAws) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Collect the details of context events, each validated with the schema."""
    schema = Draft202012Validator(
        json.loads(
            (PROJECT / "infra" / "contracts" / "crds-context-changed-1.0.schema.json").read_text()
        )
    )
    sqs, events = aws.client("sqs"), aws.client("events")
    queue = sqs.create_queue(QueueName="contexts")["QueueUrl"]
    arn = "arn:aws:sqs:us-east-1:123456789012:contexts"
    events.put_rule(Name="contexts", EventPattern='{"source": ["jwst.crds_mirror"]}')
    events.put_targets(Rule="contexts", Targets=[{"Id": "queue", "Arn": arn}])

    def announced() -> list[dict[str, Any]]:
        found = [json.loads(message["Body"])["detail"] for message in aws.receive(queue)]
        for detail in found:
            schema.validate(detail)
        return found

    yield announced
    events.remove_targets(Rule="contexts", Ids=["queue"])
    events.delete_rule(Name="contexts")
    sqs.delete_queue(QueueUrl=queue)


@pytest.mark.slow
def test_role_of_the_scheduled_sync_allows_exactly_its_calls(
    server: CrdsServer, aws: LocalAws, calls: set[tuple[str, str]]
) -> None:
    client = aws.client("s3")
    client.create_bucket(Bucket="fresh-mirror")
    calls.clear()
    keep_fresh(Mirror(client, S3Location("fresh-mirror", "")), server.url)
    made = set(calls)
    allowed = [
        p
        for p in permissions(
            load("infra/mirror.yaml"), "FreshenRole", {"MirrorBucket": "fresh-mirror"}
        )
        if p.sid not in {"Log", "Trace", "KeepFailedInvocations"}  # Lambda's own calls
    ]
    for action, resource in sorted(made):
        assert any(p.allows(action, resource) for p in allowed), f"{action} on {resource}"
    assert [p for p in allowed if not any(p.allows(*call) for call in made)] == []


@pytest.mark.slow
def test_sync_copies_only_missing_and_wrong_files(
    server: CrdsServer, place: str, bucket: Bucket
) -> None:
    run("sync", place, "--server", server.url)
    bucket.delete(MASK)
    damaged = MASK.replace("9002", "9001")
    bucket.put(damaged, bucket.get(damaged)[:-1] + b"?")
    server.sent.clear()
    said = " ".join(run("sync", place, "--server", server.url).split())
    size = sum(len(server.content(Path(name).name)) for name in (MASK, damaged)) / 1e6
    assert f"to copy: 2 (1 wrong in the mirror), {size:.1f} MB" in said
    assert {name for name in server.sent if name.endswith("fits")} == {
        Path(MASK).name,
        Path(damaged).name,
    }
    run("verify", place)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["lies", "stalls", "goes_away"])
def test_failing_server_publishes_nothing_and_sync_resumes(
    fault: str, server: CrdsServer, place: str, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_TIMEOUT", 1)
    getattr(server, fault).add(Path(MASK).name)
    said = run("sync", place, "--server", server.url, fails=True)
    assert Path(MASK).name in said
    assert CONFIG not in bucket.listed()
    assert MASK not in bucket.listed()
    copied = bucket.listed()
    assert copied
    getattr(server, fault).clear()
    server.sent.clear()
    run("sync", place, "--server", server.url)
    assert not {Path(key).name for key in copied if key.endswith("fits")} & server.sent.keys()
    run("verify", place)


def test_folder_that_is_not_a_cache_is_rejected(place: str, tmp_path: Path) -> None:
    said = run("sync", place, "--from", str(tmp_path), fails=True)
    assert f"{tmp_path}: has no {CONFIG} and no mappings/jwst/, expected a CRDS cache" in said


def test_damaged_cache_is_rejected(cache: Path, place: str, tmp_path: Path, bucket: Bucket) -> None:
    copied = tmp_path / "cache"
    shutil.copytree(cache, copied)
    (copied / MASK).write_bytes((copied / MASK).read_bytes()[:-1] + b"?")
    assert "expected " in run("sync", place, "--from", str(copied), fails=True)
    assert CONFIG not in bucket.listed()
    (copied / CONFIG).write_bytes(b"\xff")
    assert "server_config: damaged" in run("sync", place, "--from", str(copied), fails=True)


def test_sync_replaces_server_config_that_is_not_text(
    cache: Path, place: str, bucket: Bucket
) -> None:
    run("sync", place, "--from", str(cache))
    bucket.put(CONFIG, b"\xff")
    run("sync", place, "--from", str(cache))
    assert "Complete: " in run("verify", place)
    assert MirrorConfig.parse(bucket.get(CONFIG), CONFIG).operational_context == CONTEXT


@pytest.mark.slow
def test_mirror_holds_two_contexts_until_one_is_pruned(
    cache: Path, place: str, bucket: Bucket
) -> None:
    run("sync", place, "--from", str(cache), "--context", NEWER)
    assert run("contexts", place).split() == [NEWER, "operational"], "the only one that is whole"
    run("sync", place, "--from", str(cache))
    assert run("contexts", place).split() == [CONTEXT, "operational", NEWER]
    said = run("diff", place, CONTEXT, NEWER)
    assert "NRCB1" in said
    assert "2022-01-01" in said
    assert 0 < said.index("mask_9002") < said.index("mask_9001"), "before, after"
    assert "NRCA1" not in said
    forgetting = ("prune", place, "--forget-previous")
    assert "to delete: mappings/jwst/jwst_9002.pmap" in run(*forgetting, "--dry-run")
    assert "0 files to delete; kept" in run("prune", place), "what was operational before stays"
    run(*forgetting, "--keep", NEWER, "--yes")
    assert "a terminal or --yes is needed" in run(*forgetting, fails=True), "not confirmed"
    assert "2 contexts" in run("verify", place)
    assert "to delete: mappings/jwst/jwst_9002.pmap" in run(*forgetting, "--yes")
    assert "1 context, " in run("verify", place)


@pytest.mark.slow
def test_prune_keeps_the_announced_context(
    cache: Path, place: str, prefix: str, bucket: Bucket
) -> None:
    run("sync", place, "--from", str(cache), "--context", NEWER)
    run("sync", place, "--from", str(cache))
    contexts = {"previous_context": "", "announced_context": NEWER}
    mirror = Mirror(bucket.client, S3Location(MIRROR, prefix))
    mirror.update(lambda config: replace(config, **contexts))
    assert f"0 files to delete; kept: {CONTEXT}, {NEWER}" in run("prune", place)


def test_sync_lists_all_files_that_the_cache_lacks(cache: Path, place: str, tmp_path: Path) -> None:
    copied = tmp_path / "cache"
    shutil.copytree(cache, copied)
    masks = sorted((copied / "references").rglob("*.fits"))[:3]
    for mask in masks:
        mask.unlink()
    said = run("sync", place, "--from", str(copied), "--dry-run", fails=True).replace("\n", "")
    assert "3 files" in said
    for mask in masks:
        assert mask.name in said


def test_use_changes_the_context_and_syncs_keep_it(cache: Path, place: str) -> None:
    run("sync", place, "--from", str(cache), "--context", NEWER)
    run("sync", place, "--from", str(cache))
    assert f"operational is {NEWER}, was {CONTEXT}" in run("use", place, NEWER)
    run("sync", place, "--from", str(cache))
    assert run("contexts", place).split() == [
        CONTEXT,
        NEWER,
        "operational,",
        "held",
        "by",
        "hand",
    ], "a sync keeps to it"
    assert f"operational is {CONTEXT}, was {NEWER}" in run("use", place, "latest")
    run("sync", place, "--from", str(cache))
    assert run("contexts", place).split() == [CONTEXT, "operational", NEWER]
    assert "jwst_0001.pmap" in run("use", place, "jwst_0001.pmap", fails=True)
    assert "1 context, " not in run("verify", place)


@pytest.mark.slow
def test_interrupted_sync_adds_no_context(
    cache: Path, place: str, prefix: str, aws: LocalAws
) -> None:
    run("sync", place, "--from", str(cache))
    mirror, source = Mirror(aws.client("s3"), S3Location(MIRROR, prefix)), Cache(cache)
    next(copy(plan_sync(source, mirror, NEWER), source, mirror))
    assert run("contexts", place).split() == [CONTEXT, "operational"]
    said = run("verify", place)
    assert f"{NEWER}: incomplete and unused" in said
    assert "Complete: 1 context" in said
    assert f"{NEWER}: not in {place}" in run("use", place, NEWER, fails=True)


def test_contexts_are_sorted_by_age() -> None:
    digest = FileDigest(1, "0" * 40)
    files = dict.fromkeys(("jwst_10000.pmap", "jwst_9999.pmap", "jwst_nircam_0001.imap"), digest)
    config = MirrorConfig(CONTEXT, frozenset(), files)
    assert contexts_of(config) == ["jwst_9999.pmap", "jwst_10000.pmap"]


@pytest.mark.slow
def test_extended_mirror_names_contexts_that_lack_files(cache: Path, place: str) -> None:
    for context in (CONTEXT, NEWER):
        sync = ("sync", place, "--from", str(cache), "--context", context)
        run(*sync, "--instrument", "MIRI")
    command = f"run dq-init mirror sync {place} --context {CONTEXT}"
    assert f"{CONTEXT} lacks files of the added instruments; {command}" in run(
        *sync, "--instrument", "ALL"
    )
    assert command in run("verify", place, fails=True)
    assert command in run("prune", place, "--keep", CONTEXT, "--dry-run", fails=True)
    assert command in run("use", place, CONTEXT, fails=True)
    assert "lacks" not in run(*sync[:-1], CONTEXT, "--instrument", "ALL")
    assert "Complete: 2 contexts" in run("verify", place)


@pytest.mark.slow
def test_commands_accept_the_same_names_of_contexts(cache: Path, place: str) -> None:
    for context in (NEWER, CONTEXT):
        run("sync", place, "--from", str(cache), "--context", context)
    assert f"kept: {CONTEXT}, {NEWER}" in run("prune", place, "--keep", "latest", "--dry-run")
    assert "mask_9002" in run("diff", place, "latest", NEWER)
    for words in (("prune", place, "--keep"), ("diff", place, CONTEXT), ("use", place)):
        done = run_program("mirror", *words, "build")
        assert done.exit_code == 2
        assert f"run dq-init mirror sync {place} --context build" in done.err
    build = ("--context", "build", "--build", f"{EQUALS_JWST}={NEWER}")
    run("sync", place, "--from", str(cache), *build)
    assert f"operational is {NEWER}" in run("use", place, "build")


@pytest.mark.slow
def test_restricted_mirror_stays_restricted_until_all(
    cache: Path, place: str, prefix: str, aws: LocalAws, tmp_path: Path
) -> None:
    said = run("sync", place, "--from", str(cache), "--instrument", "MIRI")
    assert "restricted to MIRI" in said
    assert "restricted to MIRI" in run("contexts", place)
    assert "nircam" not in run("verify", place)
    assert "restricted to MIRI" in run("sync", place, "--from", str(cache)), "it stays so"
    rules = Rules(S3Location(MIRROR, prefix), tmp_path, aws.client("s3"))
    header = {"INSTRUME": "MIRI", "DETECTOR": "MIRIMAGE", "DATE-OBS": "2023-01-01", "TIME-OBS": "00:00:00"}  # fmt: skip
    assert rules.best_reference(Keywords(fits.Header(header), "x"), "latest").mask
    other = Keywords(fits.Header(header | {"INSTRUME": "NIRCAM"}), "x")
    with pytest.raises(
        ReferenceUnavailable, match="holds MIRI only, expected also NIRCAM"
    ) as raised:
        rules.best_reference(other, "latest")
    run(*str(raised.value).partition("dq-init mirror ")[2].split(), "--from", str(cache))
    assert "restricted to MIRI, NIRCAM" in run("contexts", place), "the advice keeps MIRI"
    assert "restricted" not in run("sync", place, "--from", str(cache), "--instrument", "ALL")
    assert "nircam" in run("verify", place)
    assert "'hst' is not one of" in run("sync", place, "--instrument", "hst", fails=True)


@pytest.mark.slow
def test_build_context_comes_from_the_server_or_the_operator(
    server: CrdsServer, cache: Path, place: str, prefix: str, aws: LocalAws, tmp_path: Path
) -> None:
    server.builds["jwst", EQUALS_JWST] = NEWER
    run("sync", place, "--server", server.url)
    rules = Rules(S3Location(MIRROR, prefix), tmp_path, aws.client("s3"))
    with pytest.raises(ReferenceUnavailable, match="no build context of jwst"):
        rules.context_name("build")
    run("sync", place, "--server", server.url, "--context", "build")
    assert f"{NEWER}  build of jwst 3.0.0" in run("contexts", place)
    run("sync", place, "--server", server.url)  # keeps what is recorded
    rules._read_at = 0
    assert (rules.context_name("build"), rules.context_name("latest")) == (NEWER, CONTEXT)
    assert f"--build {EQUALS_JWST}=jwst_N.pmap" in run(
        "sync", place, "--from", str(cache), "--context", "build", fails=True
    )
    assert "expected 3.0.0=jwst_N.pmap" in run("sync", place, "--build", "1.0=x", fails=True)
    run("sync", place, "--from", str(cache), "--context", "build", "--build", f"3.0={CONTEXT}")
    rules._read_at = 0
    assert rules.context_name("build") == CONTEXT


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keyword", "value", "message"),
    [
        (
            "DETECTOR",
            "NRCB1",
            "its DETECTOR is 'NRCB1', expected NRCA1, for which the rules select it",
        ),
        (
            "INSTRUME",
            "MIRI",
            "its INSTRUME is 'MIRI', expected NIRCAM, for which the rules select it",
        ),
        ("REFTYPE", "DARK", "its REFTYPE is 'DARK', expected MASK, for which the rules select it"),
    ],
)
def test_verify_finds_a_mask_for_another_purpose(
    keyword: str, value: str, message: str, cache: Path, place: str, tmp_path: Path
) -> None:
    copied = tmp_path / "cache"
    shutil.copytree(cache, copied)
    fits.setval(copied / MASK.replace("9002", "9001"), keyword, value=value)
    write_server_config(copied)
    run("sync", place, "--from", str(copied))
    assert message in run("verify", place, fails=True)


@pytest.mark.slow
def test_verify_counts_pixels_with_unnamed_bits(cache: Path, place: str, tmp_path: Path) -> None:
    copied = tmp_path / "cache"
    shutil.copytree(cache, copied)
    with fits.open(copied / MASK, mode="update") as hdus:
        dq = hdus["DQ"].data.astype(np.uint32)
        dq[100, 100:107] |= 1 << 20
        hdus["DQ"].data, flagged = dq, int(np.count_nonzero(dq))
    write_server_config(copied)
    run("sync", place, "--from", str(copied))
    said = " ".join(run("verify", place).split())
    assert f"jwst_nircam_mask_9002.fits: 7 of {flagged:,} flagged pixels carry bits" in said
    assert "ignored" not in said, "the table lists them already"


def missing(bucket: Bucket) -> None:
    bucket.delete(MASK)


def truncated(bucket: Bucket) -> None:
    bucket.put(MASK, bucket.get(MASK)[:-2880])


def flipped(bucket: Bucket) -> None:
    content = bytearray(bucket.get(MASK))
    content[len(content) // 2] ^= 1
    bucket.put(MASK, bytes(content))


def absent_from_the_rules(bucket: Bucket) -> None:
    """The rules name a mask that is not in the catalogue; their own signature is right."""
    text = bucket.get(RMAP).decode()
    bucket.put(RMAP, text.replace("jwst_miri_mask_9002.fits", "jwst_miri_mask_9999.fits").encode())


def without_imap(bucket: Bucket) -> None:
    bucket.delete(IMAP)


def without_config(bucket: Bucket) -> None:
    bucket.delete(CONFIG)
    bucket.delete(STATE)


@pytest.mark.parametrize(
    ("damage", "named"),
    [(missing, "nircam_mask_9002"), (truncated, "nircam_mask_9002"), (flipped, "nircam_mask_9002"), (absent_from_the_rules, "miri_mask_9001.rmap"), (without_imap, "miri_9001.imap"), (without_config, "mirror.json")],
)  # fmt: skip
def test_verify_finds_each_kind_of_damage(
    damage: Any, named: str, cache: Path, place: str, bucket: Bucket
) -> None:
    run("sync", place, "--from", str(cache))
    damage(bucket)
    said = run("verify", place, fails=True)
    (fault,) = (line for line in said.splitlines() if line.startswith("FAULT") and named in line)
    assert fault


def test_verify_of_an_empty_mirror_names_one_fault(place: str) -> None:
    said = run("verify", place, fails=True)
    assert said.count("FAULT") == 1
    assert "no such object, expected a mirror; run dq-init mirror sync s3://" in said


def test_verify_reads_masks_as_the_step_does(cache: Path, place: str, tmp_path: Path) -> None:
    """A blank file with the right SHA-1 is a fault; unknown flags are listed."""
    copied = tmp_path / "cache"
    shutil.copytree(cache, copied)
    fits.PrimaryHDU().writeto(copied / MASK, overwrite=True)
    small = copied / MASK.replace("9002", "9001")
    with fits.open(small, mode="update") as hdus:
        hdus["DQ"].data = hdus["DQ"].data[:64, :64]
    write_server_config(copied)
    run("sync", place, "--from", str(copied))
    said = run("verify", place, fails=True)
    assert "no DQ array among its HDUs" in said
    assert "its array has 64 x 64 pixels" in said
    assert "NOISY" in said


@pytest.mark.slow
def test_function_follows_the_operational_context(
    cache: Path, place: str, prefix: str, bucket: Bucket, make_function: Any, tmp_path: Path
) -> None:
    run("sync", place, "--from", str(cache))
    function: Harness = make_function(prefix)
    path = tmp_path / "x_uncal.fits"

    write_exposure(next(mode for mode in MODES if mode.name == "nircam-sub64p"), path)
    function.upload(path, "jw_uncal.fits")
    first = function.run("jw_uncal.fits")
    assert first["reference"]["context"] == CONTEXT
    newer = tmp_path / "newer"
    shutil.copytree(cache, newer)
    write_server_config(newer, context=NEWER)
    run("sync", place, "--from", str(newer))
    rules = function.function.references.rules
    assert rules.clock is time.time, "time.monotonic stands still while Lambda freezes a container"
    grow_old(rules)
    second = function.run("jw_uncal.fits")
    assert second["reference"]["context"] == NEWER
    assert second["reference"]["mask"] != first["reference"]["mask"]
    bucket.delete(CONFIG)
    bucket.delete(STATE)
    grow_old(rules)
    with pytest.raises(ReferenceUnavailable, match="server_config"):
        function.run("jw_uncal.fits")


def grow_old(rules: Any) -> None:
    """Advance the clock until the mirror's configuration is read again."""
    later = rules.clock() + rules.config_ttl + 1
    rules.clock = lambda: later


class Killed(Exception):
    pass


class Store:
    """Objects in memory, with conditional writes; each call gives way to another writer."""

    def __init__(self, before_call: Callable[[], None]) -> None:
        self.objects: dict[str, bytes] = {}
        self.before_call = before_call

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        content = self._found(Key, "GetObject")
        body = StreamingBody(BytesIO(content), len(content))
        return {"Body": body, "ETag": str(hash(content)), "ContentLength": len(content)}

    def head_object(self, *, Key: str, **_: str) -> dict[str, Any]:  # noqa: N803
        content = self._found(Key, "HeadObject")
        sha1 = b64encode(hashlib.sha1(content, usedforsecurity=False).digest()).decode()
        return {"ContentLength": len(content), "ChecksumSHA1": sha1}

    def get_paginator(self, _: str) -> Any:
        def paginate(Bucket: str, Prefix: str) -> Iterator[dict[str, Any]]:  # noqa: N803
            self.before_call()
            yield {"Contents": [{"Key": k} for k in sorted(self.objects) if k.startswith(Prefix)]}

        return SimpleNamespace(paginate=paginate)

    def put_object(self, *, Key: str, Body: Any, **condition: str) -> dict[str, str]:  # noqa: N803
        self.before_call()
        now = str(hash(self.objects[Key])) if Key in self.objects else None
        if condition.get("IfMatch", now) != now or ("IfNoneMatch" in condition and now):
            raise ClientError({"Error": {"Code": "PreconditionFailed"}}, "PutObject")
        self.objects[Key] = Body if isinstance(Body, bytes) else Body.read()
        return {"ETag": str(hash(self.objects[Key]))}

    def delete_object(self, Bucket: str, Key: str) -> None:  # noqa: N803
        self.before_call()
        self.objects.pop(Key, None)

    def _found(self, key: str, operation: str) -> bytes:
        self.before_call()
        if key not in self.objects:
            raise ClientError({"Error": {"Code": "NoSuchKey"}}, operation)
        return self.objects[key]


@pytest.mark.parametrize("seed", seeds(10))
def test_interleaved_writers_lose_no_update(seed: int) -> None:
    """A second writer, or a kill, comes between any two calls of the first."""
    chance, asleep = random.Random(seed), [False]
    intended: set[str] = set()

    def before_call() -> None:
        if asleep[0]:
            return
        if chance.random() < 0.05:
            raise Killed
        if chance.random() < 0.3:
            asleep[0] = True
            write()
            asleep[0] = False

    store = Store(before_call)
    mirror = Mirror(store, S3Location("mirror", ""))

    def write() -> None:
        name = f"jwst_nircam_mask_{len(intended):04}.fits"
        intended.add(name)

        def added(config: MirrorConfig) -> MirrorConfig:
            return replace(config, bad_files=config.bad_files | {name})

        try:
            mirror.update(added, MirrorConfig(CONTEXT, frozenset(), {}))
        except Killed:
            killed.add(name)

    killed: set[str] = set()
    for _ in range(8):
        write()
    asleep[0] = True
    write()
    state = MirrorConfig.parse_state(store.objects[STATE], STATE)
    config = MirrorConfig.parse(store.objects[CONFIG], CONFIG)
    assert intended - killed <= state.bad_files
    assert (config.bad_files, config.other["mirror_serial"]) == (state.bad_files, state.serial)


def test_older_source_keeps_the_list_of_bad_files(
    cache: Path, prefix: str, aws: LocalAws, tmp_path: Path
) -> None:
    mirror = Mirror(aws.client("s3"), S3Location(MIRROR, prefix))
    shutil.copytree(cache, copied := tmp_path / "cache")
    write_server_config(copied, NEWER, ("jwst_nircam_mask_9001.fits",))
    synced(copied, mirror, "latest")
    synced(cache, mirror, CONTEXT)
    assert mirror.operational().bad_files == {"jwst_nircam_mask_9001.fits"}


def synced(cache: Path, mirror: Mirror, context: str) -> None:
    synced_from(Cache(cache), mirror, context)


def synced_from(source: Source, mirror: Mirror, context: str) -> None:
    plan = plan_sync(source, mirror, context)
    list(copy(plan, source, mirror))
    write_config(plan, source, mirror)


@pytest.mark.slow
def test_use_and_build_survive_a_sync_in_progress(cache: Path, prefix: str, aws: LocalAws) -> None:
    mirror = Mirror(aws.client("s3"), S3Location(MIRROR, prefix))
    synced(cache, mirror, NEWER)
    source = Cache(cache)
    plan = plan_sync(source, mirror, "latest")
    list(copy(plan, source, mirror))
    operator = Cache(cache, NEWER)
    build = plan_sync(operator, mirror, "build")
    write_config(build, operator, mirror)
    use(NEWER, mirror)
    write_config(plan, source, mirror)
    config = mirror.operational()
    assert (config.operational_context, config.held_by_hand) == (NEWER, True)
    assert config.builds == {EQUALS_JWST: NEWER}
    assert config.catalogue.keys() >= plan.context.keys.keys()


def test_read_context_finds_all_mappings_of_real_contexts() -> None:
    folder = SHARED / "crds-contexts" / "mappings" / "jwst"
    names = sorted(path.name for path in folder.glob("*.pmap")) if folder.is_dir() else []
    if not names:
        pytest.skip(
            "the real CRDS rules are not here: the sample contexts name a SYSTEM mapping, too"
        )

    for name in names:
        files = Folder(folder.parent.parent)
        context = read_context(name, files)
        assert set(context.mappings) == files.names
        assert any(mapping.startswith("jwst_system") for mapping in context.mappings) == (
            "SYSTEM" in (folder / name).read_text()
        )


UP = "../" * 12


def hostile_mask(root: Path, victim: Path) -> None:
    """The rules choose a file outside the folder of references."""
    path = root / "mappings" / "jwst" / "jwst_miri_mask_9001.rmap"
    name = f"{UP}{str(victim).lstrip('/')}"
    path.write_text(signed(path.read_text().replace("jwst_miri_mask_9002.fits", name)))


def hostile_instrument(root: Path, victim: Path) -> None:
    """The context has an instrument whose folder is outside."""
    path = root / "mappings" / "jwst" / CONTEXT
    name = f"MIRI/{UP}{str(victim.parent).lstrip('/')}"
    path.write_text(signed(path.read_text().replace("'MIRI'", repr(name))))
    rules = root / "mappings" / "jwst" / "jwst_miri_mask_9001.rmap"
    rules.write_text(signed(rules.read_text().replace("jwst_miri_mask_9002.fits", victim.name)))


def hostile_mapping(root: Path, victim: Path) -> None:
    """An instrument's rules are outside the folder of mappings."""
    path = root / "mappings" / "jwst" / "jwst_miri_9001.imap"
    name = f"{UP}{str(victim).lstrip('/')}.rmap"
    path.write_text(signed(path.read_text().replace("jwst_miri_mask_9001.rmap", name)))


def signed(text: str) -> str:
    """Return a mapping with the signature that its text needs."""
    unsigned = re.sub(r".*'sha1sum'.*\n", "", text)
    signature = f"    'sha1sum' : {utils.str_checksum(unsigned)!r},\n}}\n\nselector"
    return unsigned.replace("}\n\nselector", signature)


@pytest.mark.parametrize("make_source", ["server", "cache"])
@pytest.mark.parametrize("hostile", [hostile_mask, hostile_instrument, hostile_mapping])
def test_name_outside_the_folder_touches_no_file(
    hostile: Callable[[Path, Path], None],
    make_source: str,
    small_caches: dict[str, Path],
    prefix: str,
    aws: LocalAws,
    tmp_path: Path,
) -> None:
    shutil.copytree(small_caches[CONTEXT], root := tmp_path / "cache")
    (tmp_path / "home").mkdir()
    victim = tmp_path / "home" / "jwst_miri_mask_0001.fits"
    victim.write_text("the operator's own file")
    hostile(root, victim)
    write_server_config(root)
    mirror = Mirror(aws.client("s3"), S3Location(MIRROR, prefix))
    with crds_server(root) as server:
        source = Cache(root) if make_source == "cache" else Server(server.url, tmp_path / "files")
        with pytest.raises(ReferenceUnavailable, match="expected "):
            synced_from(source, mirror, CONTEXT)
    assert victim.read_text() == "the operator's own file"
    assert list(victim.parent.iterdir()) == [victim]
    assert list(mirror.list_keys()) == []


def test_mask_named_outside_the_folder_is_rejected(cache: Path) -> None:
    class Files:
        def read(self, name: str) -> str:
            text = (cache / "mappings" / "jwst" / name).read_text()
            return signed(text.replace("jwst_nircam_mask_9002.fits", "../../precious.fits"))

    with pytest.raises(ReferenceUnavailable, match="expected the name of a CRDS reference file"):
        read_context(CONTEXT, Files())


def complete_cache(root: Path, context: str) -> None:
    """Write masks of ours for all rules of a context, and the server's configuration."""
    rules = read_context(context, Folder(root)).rules
    written: dict[tuple[str, str], Path] = {}
    for rule in rules:
        if not is_applicable(rule.mask):
            continue
        path = root / "references" / "jwst" / rule.instrument / rule.mask
        kind = (rule.instrument.upper(), rule.value("DETECTOR").partition("|")[0])
        size, rows = ((1032, 1024), 1024) if kind[0] == "MIRI" else ((2048, 2048), 2048)
        if kind not in written:
            write_mask(SampleMask(rule.mask, *kind, size=size, rows=rows, dtype="u1"), path)
            written[kind] = path
        elif not path.exists():
            os.link(written[kind], path)
    write_server_config(root, context)


@dataclass
class Folder:
    """Rule files in a CRDS cache, and the names that were read."""

    root: Path
    names: set[str] = field(default_factory=set)

    def read(self, name: str) -> str:
        self.names.add(name)
        return (self.root / "mappings" / "jwst" / name).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("context", [CONTEXT, "jwst_0541.pmap"])
def test_verify_finds_no_fault_after_a_sync(
    context: str, prefix: str, aws: LocalAws, tmp_path: Path
) -> None:
    real = SHARED / "crds-contexts" / "mappings" / "jwst"
    if context == CONTEXT:
        write_rules(tmp_path, rules=FEW)
    elif real.is_dir():
        shutil.copytree(real, tmp_path / "mappings" / "jwst")
    else:
        pytest.skip("the real CRDS rules are not here: the sample contexts stand in, above")
    complete_cache(tmp_path, context)
    mirror = Mirror(aws.client("s3"), S3Location(MIRROR, prefix))
    synced(tmp_path, mirror, "latest")
    report = verify(mirror)
    assert report.faults == []
    assert [found.name for found in report.contexts] == [context]
    assert any(name.startswith("jwst_system_") for name in report.contexts[0].mappings)
    for key in list(mirror.list_keys()):
        mirror.delete(key)


@pytest.fixture(scope="module")
def small_caches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """CRDS caches with two contexts, by the one that is operational; masks of a few bytes."""
    caches = {}
    for context in (CONTEXT, NEWER):
        root = tmp_path_factory.mktemp("small")
        write_rules(root, rules={"miri": FEW["miri"]})
        parameters, _ = FEW["miri"]
        match = (("MIRIMAGE", "GENERIC"), "1999-01-01 00:00:00")
        write_rules(root, context=NEWER, rules={"miri": (parameters, {match: 9003})})
        for number in (9001, 9002, 9003):
            path = root / "references" / "jwst" / "miri" / f"jwst_miri_mask_{number}.fits"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"mask {number}".encode())
        write_server_config(root, context)
        caches[context] = root
    return caches


@pytest.mark.parametrize("seed", seeds(10))
def test_commands_between_any_two_calls_leave_whole_contexts(
    seed: int, small_caches: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """sync, sync --context build, use and prune run between the calls of one another, or die."""
    chance, depth = random.Random(seed), [0]
    recorded: dict[str, str] = {}
    monkeypatch.setattr(contexts, "Mappings", cached_mappings())

    def before_call() -> None:
        check_whole(store)
        if depth[0] and chance.random() < 0.02:
            raise Killed
        if depth[0] == 1 and chance.random() < 0.15:
            command()

    def command() -> None:
        name = chance.choice(["sync", "build", "use", "latest", "prune"])
        if name == "prune" and running == ["prune"]:
            return  # the second of two prunes is rejected
        depth[0] += 1
        running.append(name)
        try:
            commands[name]()
        except (Killed, ReferenceUnavailable, TransientFailure):
            pass
        finally:
            running.pop()
            depth[0] -= 1

    def sync(build: str = "") -> None:
        source = Cache(small_caches[chance.choice([CONTEXT, NEWER])], build)
        wanted = "build" if build else chance.choice(["latest", CONTEXT, NEWER])
        plan = plan_sync(source, mirror, wanted)
        list(copy(plan, source, mirror))
        write_config(plan, source, mirror)
        recorded.update({EQUALS_JWST: build} if build else {})

    def prune() -> None:
        config = mirror.operational()
        names = {config.operational_context, *config.builds.values()}
        kept = [mirror.context(name) for name in sorted(names)]
        delete_unneeded(mirror, kept, unneeded_keys(mirror, kept), config)

    running: list[str] = []
    commands: dict[str, Callable[[], Any]] = {
        "sync": sync,
        "build": lambda: sync(CONTEXT),
        "use": lambda: use(chance.choice([CONTEXT, NEWER]), mirror),
        "latest": lambda: use("latest", mirror),
        "prune": prune,
    }
    store = Store(before_call)
    mirror = Mirror(store, S3Location("mirror", ""))
    for _ in range(12):
        command()
    depth[0] = 0
    store.before_call = lambda: None
    if STATE in store.objects:
        prune()
    sync()
    state = MirrorConfig.parse_state(store.objects[STATE], STATE)
    config = MirrorConfig.parse(store.objects[CONFIG], CONFIG)
    assert (config.catalogue, config.other["mirror_serial"]) == (state.catalogue, state.serial)
    assert config.operational_context == state.operational_context
    assert state.builds.items() >= recorded.items()


def test_interrupted_prune_is_completed_by_the_next(
    small_caches: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    mirror = Mirror(Store(lambda: None), S3Location("mirror", ""))
    synced(small_caches[CONTEXT], mirror, NEWER)
    synced(small_caches[CONTEXT], mirror, CONTEXT)
    arguments = ["mirror", "prune", "s3://mirror", "--forget-previous", "--yes"]
    monkeypatch.setattr(boto3, "client", lambda _: mirror.client)
    with monkeypatch.context() as patch:
        patch.setattr(Mirror, "delete", failing)
        with pytest.raises(RuntimeError):
            main(arguments)
    with pytest.raises(ReferenceUnavailable, match="run dq-init mirror prune again"):
        synced(small_caches[CONTEXT], mirror, CONTEXT)
    main(arguments)
    assert "this one completes it" in capsys.readouterr().out
    synced(small_caches[CONTEXT], mirror, CONTEXT)
    assert mirror.contexts() == [CONTEXT]


def cached_mappings() -> type[Mappings]:
    """Return a class of mappings that parses each text once for all tests."""

    class Cached(Mappings):
        parsed: ClassVar[dict[str, Any]] = {}

        def load(self, name: str) -> Any:
            text = self.files.read(name)
            if text not in self.parsed:
                self.parsed[text] = Mappings(SimpleNamespace(read=lambda _: text)).load(name)  # type: ignore[arg-type]
            return self.parsed[text]

    return Cached


def check_whole(store: Store) -> None:
    """Check that operational and build contexts are complete and that no file is missing."""
    if STATE not in store.objects:
        return
    state = MirrorConfig.parse_state(store.objects[STATE], STATE)
    files = {key.rpartition("/")[2]: content for key, content in store.objects.items()}
    for name, digest in state.catalogue.items():
        assert FileDigest.of(files[name]) == digest
    for context in {state.operational_context, *state.builds.values()}:
        number = context[5:9]
        masks = {
            f"jwst_miri_mask_{n}.fits" for n in {CONTEXT: (9001, 9002), NEWER: (9003,)}[context]
        }
        rules = {
            f"jwst_miri_{number}.imap",
            f"jwst_system_{number}.imap",
            f"jwst_miri_mask_{number}.rmap",
        }
        assert state.catalogue.keys() >= {context, *rules, *masks}
