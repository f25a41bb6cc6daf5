"""Tests of reprocessing: exactly the products that a new context affects are rebuilt."""

import json
import random
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import cache as cache_calls
from io import BytesIO
from pathlib import Path
from typing import Any

import boto3
import duckdb
import numpy as np
import pytest
from astropy.io import fits
from botocore.exceptions import ClientError, IncompleteReadError
from botocore.response import StreamingBody

from core.errors import ReferenceUnavailable, TransientFailure
from handler.event import Bus
from handler.s3.objects import S3Location
from infra.__main__ import main
from infra.aws import job_in
from infra.demo.local_aws import MIRROR, PRODUCTS, RAW, LocalAws, copy_cache
from infra.jobs import follow
from infra.jobs.job import JobFile
from infra.jobs.runner import JobRunner
from infra.mirror.bucket import Mirror
from infra.mirror.sync import use
from infra.reprocess.audit import audit
from infra.reprocess.catalogue import COLUMNS, Catalogue, check_row
from infra.reprocess.freshen import Loop, lambda_handler
from tests.conftest import PROJECT, SMALL_MASKS, Harness
from tests.infra.kills import Killed, Kills
from tests.infra.stacks import stack_of_outputs
from tests.infra.template import load, permissions
from tests.infra.test_jobs import Worker, deliver_all, read_together, words, working
from tests.samples.exposures import write_exposure
from tests.samples.mirror import RULES, write_rules, write_sample_mirror, write_server_config
from tests.samples.modes import MODES
from tests.seeds import seeds

NAME, PREFIX = "archive", "reprocessing"
QUEUES = ("BackfillQueue", "UnfinishedQueue")
CATALOGUE, LEDGER = S3Location(PRODUCTS, "dq_catalogue"), S3Location(PRODUCTS, "dq_ledger")
CATALOGUE_KEY = "dq_catalogue/exposures.parquet"
NEWER, NEWEST = "jwst_9002.pmap", "jwst_9003.pmap"
MODE = {mode.name: mode for mode in MODES}
SMALL = MODE["nircam-sub64p"]
INSIDE = replace(SMALL, corner=(101, 201), size=(64, 64))
"""A window in which the newer mask of NRCB1 has other pixels."""
STRIPED = MODE["nircam-superstripe"]
FEW = {"nircam": RULES["nircam"]}
FOLDER = "references/jwst/nircam"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a CRDS cache; in its second context NRCB1 has a mask with other pixels.

    The third context chooses what the first one does.
    """
    root = tmp_path_factory.mktemp("cache")
    masks = [mask for mask in SMALL_MASKS if mask.instrument == "NIRCAM"]
    write_sample_mirror(root, masks)
    write_rules(root, rules=FEW)
    folder = root / FOLDER
    shutil.copy(folder / "jwst_nircam_mask_9002.fits", folder / "jwst_nircam_mask_9003.fits")
    with fits.open(folder / "jwst_nircam_mask_9003.fits", mode="update") as hdus:
        hdus["DQ"].data[210, 110:120] ^= 4  # HOT
    parameters, choices = FEW["nircam"]
    newer = {match: 9003 if match[0][0] == "NRCB1" else n for match, n in choices.items()}
    write_rules(root, context=NEWER, rules={"nircam": (parameters, newer)})
    write_rules(root, context=NEWEST, rules=FEW)
    write_server_config(root)
    return root


def fill_mirror(cache: Path, aws: LocalAws, mirrors: set[str]) -> None:
    """Upload the cache once; put its configuration back before every test."""
    s3, config = aws.client("s3"), "config/jwst/server_config"
    if PREFIX not in mirrors:
        copy_cache(cache, s3, MIRROR, f"{PREFIX}/")
        mirrors.add(PREFIX)
    s3.upload_file(str(cache / config), MIRROR, f"{PREFIX}/{config}")
    s3.delete_object(Bucket=MIRROR, Key=f"{PREFIX}/config/jwst/mirror.json")


@pytest.fixture
def archive(
    aws: LocalAws, cache: Path, make_function: Any, mirrors: set[str]
) -> Iterator["Archive"]:
    fill_mirror(cache, aws, mirrors)
    function = make_function(prefix=PREFIX, context="jwst_9001.pmap")
    with stack_of_outputs(aws, NAME, QUEUES, MirrorPrefix=PREFIX) as queues:
        yield Archive(function, queues)


class Archive:
    """Products of some windows, and the operator's commands."""

    def __init__(self, function: Harness, queues: dict[str, str]) -> None:
        self.function, self.queues = function, queues

    def of_latest(self, context: str) -> Harness:
        """The function of a stack with CrdsContext=latest, which this context is now."""
        return self.function.with_settings(context=context)

    def add(self, key: str, mode: Any, tmp_path: Path, **request: Any) -> dict[str, Any]:
        write_exposure(mode, tmp_path / "x.fits")
        self.function.upload(tmp_path / "x.fits", key)
        return self.function.run(key, **request)

    def run(self, *words: str, exit_code: int | None = None) -> None:
        command = ["reprocess", *words, "--stack", NAME]
        if exit_code is None:
            main(command)
            return
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert ended.value.code == exit_code

    def selected(self, tmp_path: Path, *words: str) -> set[str]:
        out = tmp_path / "selected.json"
        self.run("select", "--to", NEWER, "--out", str(out), *words)
        return {request["key"] for request in json.loads(out.read_text())}

    def pixels(self, key: str) -> Any:
        s3 = self.function.aws.client("s3")
        body = s3.get_object(Bucket=PRODUCTS, Key=f"dq_init/{key.replace('_uncal', '_dq_init')}")
        return fits.getdata(BytesIO(body["Body"].read()), "PIXELDQ")


def filled(archive: Archive, tmp_path: Path) -> None:
    """Add exposures that the newer context affects, and others."""
    archive.add("a/inside_uncal.fits", INSIDE, tmp_path)
    archive.add("a/outside_uncal.fits", SMALL, tmp_path)
    archive.add("b/striped_uncal.fits", STRIPED, tmp_path)
    archive.add("b/other_uncal.fits", replace(INSIDE, detector="NRCA1"), tmp_path)
    mask = f"s3://{MIRROR}/{PREFIX}/{FOLDER}/jwst_nircam_mask_9002.fits"
    archive.add("b/named_uncal.fits", INSIDE, tmp_path, mask=mask)
    archive.run("catalogue")


@pytest.mark.slow
def test_products_with_other_pixels_are_rebuilt(
    archive: Archive,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("infra.reprocess.show.exposure_usd", lambda *_: 2.5)
    filled(archive, tmp_path)
    assert archive.selected(tmp_path) == {"a/inside_uncal.fits"}
    relabelled = archive.selected(tmp_path, "--relabel")
    assert relabelled == {"a/inside_uncal.fits", "a/outside_uncal.fits", "b/striped_uncal.fits"}
    said = " ".join(capsys.readouterr().out.split())
    assert "NIRCAM NRCB1 2 1 1 1 +10 HOT 64 x 64 at 101,201" in said
    assert "1 product with other pixels; rebuilding costs about 2.50 USD." in said
    assert (
        "Left unchanged, because a request named the mask, user DQ or version: 1 product." in said
    )
    archive.run("select", "--to", NEWER, "--json")
    windows = json.loads(capsys.readouterr().out)["windows"]
    assert sum(window["by_change"].get("pixels", 0) for window in windows) == 1
    before = archive.pixels("a/inside_uncal.fits")
    with working(archive.function, archive.queues["BackfillQueue"]) as given:
        archive.run("submit", "--to", NEWER, "--yes", "--pause", "0.2", exit_code=0)
    assert [json.loads(body)["key"] for body in given] == ["a/inside_uncal.fits"]
    assert np.count_nonzero(archive.pixels("a/inside_uncal.fits") != before) == 10
    archive.run("catalogue")
    assert archive.selected(tmp_path) == set(), "a second selection selects nothing"
    archive.run("submit", "--to", NEWER, "--yes", exit_code=0)
    assert "No product needs to be rebuilt" in capsys.readouterr().out
    archive.run("submit", "--to", NEWER, "--yes", "--json", exit_code=0)
    assert json.loads(capsys.readouterr().out)["complete"] == 0


def test_option_from_compares_two_contexts(archive: Archive, tmp_path: Path) -> None:
    archive.add("a/inside_uncal.fits", INSIDE, tmp_path, context=NEWER)
    archive.run("catalogue")
    assert archive.selected(tmp_path) == set()
    assert archive.selected(tmp_path, "--from", "jwst_9001.pmap") == {"a/inside_uncal.fits"}
    by_content = archive.selected(tmp_path, "--from", "jwst_9001.pmap", "--by", "content")
    assert by_content == {"a/inside_uncal.fits"}


@pytest.mark.slow
def test_selection_by_content_compares_no_pixels(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive.add("a/inside_uncal.fits", INSIDE, tmp_path)
    archive.add("a/outside_uncal.fits", SMALL, tmp_path)
    archive.run("catalogue")
    assert len(archive.selected(tmp_path, "--by", "content")) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert "2 products with a mask of other content; pixels were not compared" in said
    assert "2 requests in" in said
    assert "all 2 2 2 -" in said


@pytest.mark.slow
def test_product_without_a_mask_is_selected_for_a_new_mask(
    archive: Archive, tmp_path: Path, aws: LocalAws
) -> None:
    archive.add("a/inside_uncal.fits", INSIDE, tmp_path)
    s3 = aws.client("s3")
    key = "dq_ledger/dq_init/a/inside_dq_init.fits.json"
    entry = json.loads(s3.get_object(Bucket=PRODUCTS, Key=key)["Body"].read())
    entry["result"]["reference"] |= {"mask": None, "sha1": None}
    entry["catalogue"]["planes_sha256"] = "0" * 64
    s3.put_object(Bucket=PRODUCTS, Key=key, Body=json.dumps(entry).encode())
    archive.run("catalogue")
    assert archive.selected(tmp_path) == {"a/inside_uncal.fits"}


@pytest.mark.slow
def test_mask_on_the_list_of_bad_files_selects_nothing(
    archive: Archive, tmp_path: Path, aws: LocalAws, capsys: pytest.CaptureFixture[str]
) -> None:
    filled(archive, tmp_path)
    s3, address = aws.client("s3"), {"Bucket": MIRROR, "Key": f"{PREFIX}/config/jwst/server_config"}
    text = s3.get_object(**address)["Body"].read().decode()
    bad = text.replace("'bad_files_list': []", "'bad_files_list': ['jwst_nircam_mask_9003.fits']")
    assert bad != text
    s3.put_object(**address, Body=bad.encode())
    assert archive.selected(tmp_path) == set()
    said = " ".join(capsys.readouterr().out.split())
    assert "cannot be decided" in said
    assert "bad files" in said


@pytest.mark.slow
def test_catalogue_reads_new_entries_and_fails_on_a_conflict(
    archive: Archive, tmp_path: Path, aws: LocalAws, capsys: pytest.CaptureFixture[str]
) -> None:
    filled(archive, tmp_path)
    archive.add("c/new_uncal.fits", SMALL, tmp_path)
    capsys.readouterr()
    archive.run("catalogue", "--json")
    counts = json.loads(capsys.readouterr().out)
    assert (counts["products"], counts["read"]) == (6, 1)
    with Catalogue.open(aws.client("s3"), CATALOGUE) as mine:
        archive.add("c/newer_uncal.fits", SMALL, tmp_path)
        archive.run("catalogue")
        with pytest.raises(TransientFailure, match="another command replaced it meanwhile"):
            list(mine.update(LEDGER))


@pytest.mark.slow
@pytest.mark.parametrize("problem", ["deleted", "throttled", "replaced"])
def test_catalogue_that_changes_while_it_is_read_is_retried(
    problem: str, archive: Archive, tmp_path: Path, aws: LocalAws
) -> None:
    archive.add("a/inside_uncal.fits", INSIDE, tmp_path)
    archive.run("catalogue")
    s3, others, requests = aws.client("s3"), aws.client("s3"), []
    key = CATALOGUE_KEY
    if problem == "replaced":  # it is read by ranges
        s3.put_object(Bucket=PRODUCTS, Key=key, Body=bytes(9 << 20))

    def interfere(**_: Any) -> None:
        requests.append(problem)
        if problem == "throttled":
            raise ClientError({"Error": {"Code": "SlowDown", "Message": "slow"}}, "GetObject")
        if len(requests) == 2 and problem == "deleted":
            others.delete_object(Bucket=PRODUCTS, Key=key)
        if len(requests) == 2 and problem == "replaced":
            others.put_object(Bucket=PRODUCTS, Key=key, Body=b"newer" * (2 << 20))

    operation = "HeadObject" if problem == "deleted" else "GetObject"
    s3.meta.events.register(f"before-call.s3.{operation}", interfere)
    with (
        pytest.raises(TransientFailure, match=f"{key}: reading it"),
        Catalogue.open(s3, CATALOGUE),
    ):
        pass


@pytest.mark.slow
def test_job_of_an_earlier_context_is_not_resumed(
    archive: Archive, tmp_path: Path, aws: LocalAws, capsys: pytest.CaptureFixture[str]
) -> None:
    """The requests name no context: those of the earlier job would count as complete."""
    archive.add("a/inside_uncal.fits", INSIDE, tmp_path)
    mirror, queue = Mirror(aws.client("s3"), S3Location(MIRROR, PREFIX)), archive.queues[QUEUES[0]]
    use(NEWER, mirror)
    archive.run("catalogue")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(JobRunner, "finish", interrupted)
        archive.run("submit", "--yes", exit_code=1)
    deliver_all(archive.of_latest(NEWER), queue)
    use(NEWEST, mirror)
    archive.run("catalogue")
    capsys.readouterr()
    with working(archive.of_latest(NEWEST), queue) as given:
        archive.run("submit", "--yes", "--pause", "0.2", exit_code=0)
    assert len(given) == 1
    assert "Resuming" not in capsys.readouterr().out


def interrupted(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_product_of_an_earlier_prefix_below_is_rebuilt_in_place(
    archive: Archive, tmp_path: Path
) -> None:
    archive.function = archive.function.with_settings(output_prefix="dq_init/v1/")
    archive.add("a/inside_uncal.fits", INSIDE, tmp_path)
    shortened = archive.function.with_settings(output_prefix="dq_init/")
    archive.run("catalogue")
    with working(shortened, archive.queues["BackfillQueue"]):
        archive.run("submit", "--to", NEWER, "--yes", "--pause", "0.2", exit_code=0)
    assert shortened.products() == {"dq_init/v1/a/inside_dq_init.fits"}
    archive.run("catalogue")
    assert archive.selected(tmp_path) == set()


@pytest.mark.slow
def test_manifest_leaves_out_products_of_another_prefix(
    archive: Archive, tmp_path: Path, aws: LocalAws, capsys: pytest.CaptureFixture[str]
) -> None:
    archive.add("a/inside_uncal.fits", INSIDE, tmp_path)
    archive.run("catalogue")
    moved = {"MirrorPrefix": PREFIX, "OutputPrefix": "dq_new/"}
    out = tmp_path / "manifest.json"
    with stack_of_outputs(aws, "moved", QUEUES, **moved):
        main(["reprocess", "select", "--to", NEWER, "--out", str(out), "--stack", "moved"])
    assert json.loads(out.read_text()) == []
    assert "Left out: 1 product outside OutputPrefix" in words(capsys.readouterr().out)


@pytest.mark.slow
def test_catalogue_with_damaged_pages_is_named(
    archive: Archive, tmp_path: Path, aws: LocalAws
) -> None:
    archive.add("a/inside_uncal.fits", INSIDE, tmp_path)
    archive.run("catalogue")
    s3, key = aws.client("s3"), CATALOGUE_KEY
    content = s3.get_object(Bucket=PRODUCTS, Key=key)["Body"].read()
    damaged = content[:8] + bytes(255 - byte for byte in content[8:1200]) + content[1200:]
    s3.put_object(Bucket=PRODUCTS, Key=key, Body=damaged)
    archive.add("a/more_uncal.fits", INSIDE, tmp_path)
    with pytest.raises(SystemExit, match=f"{key}: damaged .*; delete it, then run"):
        main(["reprocess", "catalogue", "--stack", NAME])


@pytest.mark.slow
def test_failed_exposure_has_a_row_but_is_not_a_product(
    archive: Archive, tmp_path: Path, aws: LocalAws, capsys: pytest.CaptureFixture[str]
) -> None:
    archive.function.upload(b"nothing", "bad_uncal.fits")
    archive.function.run_batch(json.dumps({"bucket": RAW, "key": "bad_uncal.fits"}))
    archive.add("a/inside_uncal.fits", INSIDE, tmp_path)
    archive.run("catalogue")
    assert "1 product, 1 failure in s3://" in " ".join(capsys.readouterr().out.split())
    with Catalogue.open(aws.client("s3"), CATALOGUE) as catalogue:
        rows = duckdb.read_parquet(str(catalogue.path)).select("failure_error").fetchall()
    assert sorted(rows, key=str) == [("InputRejected",), (None,)]


@pytest.mark.slow
def test_catalogue_of_other_columns_is_read_again(
    archive: Archive, tmp_path: Path, aws: LocalAws, capsys: pytest.CaptureFixture[str]
) -> None:
    archive.add("a/inside_uncal.fits", INSIDE, tmp_path)
    archive.run("catalogue")
    s3, key = aws.client("s3"), CATALOGUE_KEY
    path = str(tmp_path / "exposures.parquet")
    s3.download_file(PRODUCTS, key, path)
    rows = duckdb.read_parquet(path)
    rows.project("* RENAME (requested_fields AS expressly)").write_parquet(path)
    s3.upload_file(path, PRODUCTS, key)
    with pytest.raises(SystemExit, match="run reprocess catalogue first"):
        main(["reprocess", "select", "--to", NEWER, "--stack", NAME])
    archive.run("catalogue")
    assert archive.selected(tmp_path) == {"a/inside_uncal.fits"}


@pytest.mark.slow
def test_audit_finds_deleted_and_replaced_objects(
    archive: Archive, tmp_path: Path, aws: LocalAws, capsys: pytest.CaptureFixture[str]
) -> None:
    filled(archive, tmp_path)
    archive.run("audit", exit_code=0)
    with Catalogue.open(aws.client("s3"), CATALOGUE) as catalogue:  # after a change of OutputPrefix
        assert list(audit(catalogue, aws.client("s3"), PRODUCTS, "other/")) == []
    striped = next(d for d in archive.function.announcements() if "striped" in d["input"]["key"])
    s3 = aws.client("s3")
    s3.delete_object(Bucket=PRODUCTS, Key="dq_init/a/outside_dq_init.fits")
    s3.delete_object(Bucket=PRODUCTS, Key="dq_ledger/dq_init/b/striped_dq_init.fits.json")
    write_exposure(SMALL, tmp_path / "y.fits")
    archive.function.upload(tmp_path / "y.fits", "a/inside_uncal.fits")
    archive.run("catalogue")
    capsys.readouterr()
    archive.run("audit", "--json", exit_code=1)
    found = {
        row["product"].rpartition("/")[2]: row["what"]
        for row in json.loads(capsys.readouterr().out)
    }
    assert "was deleted" in found["outside_dq_init.fits"]
    assert "ledger entry is missing" in found["striped_dq_init.fits"]
    assert "its exposure was replaced" in found["inside_dq_init.fits"]
    assert len(found) == 3
    archive.run("audit", "--rebuild", exit_code=1)
    (message,) = aws.receive(archive.queues["BackfillQueue"])
    archive.function.announcements()
    assert archive.function.run_batch(message["Body"]) == []
    (event,) = archive.function.announcements()
    assert (event["status"], event["id"]) == ("Complete", striped["id"]), "the result keeps its id"
    archive.run("catalogue")
    capsys.readouterr()
    archive.run("audit", "--json", exit_code=1)
    assert "striped" not in capsys.readouterr().out


@pytest.mark.slow
def test_queries_in_the_docs_return_rows(
    archive: Archive, tmp_path: Path, aws: LocalAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.function.upload(b"nothing", "bad_uncal.fits")
    archive.function.run_batch(json.dumps({"bucket": RAW, "key": "bad_uncal.fits"}))
    filled(archive, tmp_path)
    text = (PROJECT / "docs" / "how-to" / "reprocess.md").read_text()
    used, by_month, failed = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    with Catalogue.open(aws.client("s3"), CATALOGUE) as catalogue:
        monkeypatch.chdir(catalogue.path.parent)
        used = used.replace("jwst_nircam_mask_0033", "jwst_nircam_mask_9002")
        keys = {key for key, _ in duckdb.sql(used).fetchall()}
        assert keys == {"a/inside_uncal.fits", "a/outside_uncal.fits", "b/striped_uncal.fits"}
        ((a, b), _) = (duckdb.sql(by_month).fetchall(), 0)
        assert [row[:3] for row in (a, b)] == [("NRCA1", "2023-03", 1), ("NRCB1", "2023-03", 4)]
        assert 0 < a[3] < 0.1
        ((error, number, reason),) = duckdb.sql(failed).fetchall()
        assert (error, number) == ("InputRejected", 1)
        assert "SIMPLE" in reason


def test_docs_describe_every_column() -> None:
    text = (PROJECT / "docs" / "how-to" / "reprocess.md").read_text()
    (listed,) = re.findall(r"Its columns: (.*?)\.\n\n", text, re.DOTALL)
    both, others = " ".join(listed.split()).split("), ", 1)
    prefixes, ends = both.split(" (")
    names = set(re.sub(r" \(.*?\)", "", others).split(", "))
    names |= {prefix + end for prefix in prefixes.split(" and ") for end in ends.split(", ")}
    assert names == COLUMNS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("submits", [False, True])
def test_closed_loop_submits_only_if_configured(
    submits: bool,
    archive: Archive,
    tmp_path: Path,
    aws: LocalAws,
    calls: set[tuple[str, str]],
) -> None:
    filled(archive, tmp_path)
    topic = aws.client("sns").create_topic(Name="alarms")["TopicArn"]
    queue = archive.queues["BackfillQueue"]
    mirror = Mirror(aws.client("s3"), S3Location(MIRROR, PREFIX))
    loop = Loop(mirror, PRODUCTS, queue if submits else None, topic=topic)
    use(NEWER, mirror)
    archive.add("c/new_uncal.fits", INSIDE, tmp_path)
    mail = aws.client("sqs").create_queue(QueueName=f"mail-{submits}")["QueueUrl"]
    arn = f"arn:aws:sqs:us-east-1:123456789012:mail-{submits}"
    aws.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    calls.clear()
    detail = loop.run()
    assert (detail["products"], detail["selected"], detail["submitted"]) == (6, 2, submits)
    assert [window["window"] for window in detail["windows"]] == ["64 x 64 at 101,201"]
    loop.run()  # the same event once more
    made = set(calls)
    first, _ = (json.loads(message["Body"]) for message in aws.receive(mail))
    assert first["Subject"].endswith(NEWER)
    assert f"{NEWER} changes 2 of 6 products in s3://{PRODUCTS}. " in first["Message"]
    assert ("being rebuilt" in first["Message"]) == submits
    assert ("Nothing was started" in first["Message"]) != submits
    waiting = [json.loads(message["Body"])["key"] for message in aws.receive(queue)]
    expected = {"a/inside_uncal.fits", "c/new_uncal.fits"} if submits else set()
    assert set(waiting) == expected
    assert len(waiting) == len(expected), "a request was sent twice"
    check_permissions(made, submits, queue, topic)


def check_permissions(made: set[tuple[str, str]], submits: bool, queue: str, topic: str) -> None:
    """Compare the calls with the role: each is allowed, and no other permission is granted."""
    named = {"ProductBucket": PRODUCTS, "BackfillQueue": queue, "AlarmTopic": topic}
    conditions = {"Submits": submits, "HasAlarmTopic": True}
    granted = permissions(load("infra/mirror.yaml"), "ReprocessingRole", named, **conditions)
    own = f"arn:aws:s3:::{MIRROR}/{PREFIX}/"
    made = {(action, resource.replace(own, f"arn:aws:s3:::{MIRROR}/")) for action, resource in made}
    allowed = [
        p
        for p in granted
        if p.sid not in {"Log", "Trace", "KeepFailedInvocations", "DistinguishMissingKeys"}
    ]
    for action, resource in sorted(made):
        assert any(p.allows(action, resource) for p in allowed), f"{action} on {resource}"
    assert [p for p in allowed if not any(p.allows(*call) for call in made)] == []


@pytest.mark.slow
def test_diff_writes_pages_of_masks(archive: Archive, tmp_path: Path) -> None:
    place = f"s3://{MIRROR}/{PREFIX}"
    main(["mirror", "diff", place, "jwst_9001.pmap", NEWER, "--look", str(tmp_path / "pages")])
    name = "jwst_nircam_mask_9002-to-jwst_nircam_mask_9003.html"
    assert f'href="./{name}"' in (tmp_path / "pages" / "index.html").read_text()
    assert (tmp_path / "pages" / name).stat().st_size > 10_000


@pytest.mark.slow
def test_hostile_key_and_folder_break_no_line_or_query(
    archive: Archive,
    tmp_path: Path,
    aws: LocalAws,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "it's [a] folder"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    archive.add("o'a\u2028FAKE/inside_uncal.fits", INSIDE, tmp_path)
    aws.client("s3").put_object(
        Bucket=PRODUCTS, Key="dq_ledger/dq_init/x\u2028FAKE.json", Body=b"{"
    )
    aws.client("s3").put_object(Bucket=PRODUCTS, Key="dq_init/y\u2028FAKE_dq_init.fits", Body=b"x")
    capsys.readouterr()
    archive.run("catalogue")
    archive.run("select", "--to", NEWER, "--out", str(tmp_path / "out.json"))
    archive.run("audit", exit_code=1)
    said = capsys.readouterr().out
    assert "x\\u2028FAKE" in said
    assert "y\\u2028FAKE" in said
    assert not [line for line in said.splitlines() if line.startswith("FAKE")]


@pytest.mark.slow
def test_submit_sends_its_selection_not_the_stored_list(
    archive: Archive, tmp_path: Path, aws: LocalAws
) -> None:
    archive.add("a/inside_uncal.fits", INSIDE, tmp_path)
    archive.run("catalogue")
    place = S3Location(PRODUCTS, f"dq_backfills/reprocess-{NEWER[:-5]}/job.jsonl.gz")
    request = {"bucket": RAW, "key": "a/inside_uncal.fits"}
    planted = {**request, "mask": "N/A", "onExisting": "replace"}
    other = {**request, "key": "a/other_uncal.fits", "context": NEWER}
    JobFile(aws.client("s3"), place).start([planted, other])
    archive.run("submit", "--to", NEWER, exit_code=2)  # asks, without a terminal
    archive.add("b/new_uncal.fits", INSIDE, tmp_path)
    archive.run("catalogue")
    with working(archive.function, archive.queues["BackfillQueue"]) as given:
        archive.run("submit", "--to", NEWER, "--yes", "--pause", "0.2", exit_code=0)
    sent = [json.loads(body) for body in given]
    assert {r["key"] for r in sent} == {"a/inside_uncal.fits", "b/new_uncal.fits"}
    assert all(set(r) == {"bucket", "key", "context", "form", "cause"} for r in sent)


@pytest.mark.slow
def test_submit_leaves_out_products_of_an_earlier_output_prefix(
    archive: Archive, tmp_path: Path, aws: LocalAws, capsys: pytest.CaptureFixture[str]
) -> None:
    archive.add("a/inside_uncal.fits", INSIDE, tmp_path)
    archive.add("a/other_uncal.fits", INSIDE, tmp_path, outputKey="dq_init/mine_dq_init.fits")
    archive.run("catalogue")
    words = ["reprocess", "submit", "--to", NEWER, "--yes", "--pause", "0.2", "--stack", "moved"]
    parameters = {"MirrorPrefix": PREFIX, "OutputPrefix": "dq_new/"}
    with stack_of_outputs(aws, "moved", QUEUES, **parameters) as queues:
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert aws.receive(queues["BackfillQueue"]) == []
    assert ended.value.code == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "Left out: 2 products outside OutputPrefix, dq_new/" in said


def test_select_without_a_catalogue_is_an_error(archive: Archive) -> None:
    select = ["reprocess", "select", "--to", NEWER, "--stack", NAME]
    with pytest.raises(SystemExit, match="run reprocess catalogue first"):
        main(select)
    archive.run("catalogue")
    with pytest.raises(SystemExit, match=r"contains no products$"):
        main(select)


@pytest.mark.slow
def test_damaged_catalogue_is_written_again(
    archive: Archive, tmp_path: Path, aws: LocalAws, caplog: pytest.LogCaptureFixture
) -> None:
    archive.add("a/inside_uncal.fits", INSIDE, tmp_path)
    archive.run("catalogue")
    s3, key = aws.client("s3"), CATALOGUE_KEY
    content = s3.get_object(Bucket=PRODUCTS, Key=key)["Body"].read()
    for damaged in (b"", b"garbage" * 100, content[: len(content) // 2]):
        s3.put_object(Bucket=PRODUCTS, Key=key, Body=damaged)
        caplog.clear()
        archive.run("catalogue")
        assert f"{key}: damaged" in caplog.text
        assert archive.selected(tmp_path) == {"a/inside_uncal.fits"}


@pytest.mark.slow
def test_broken_download_of_the_catalogue_is_one_line(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.add("a/inside_uncal.fits", INSIDE, tmp_path)
    archive.run("catalogue")
    read = StreamingBody.read

    def broken(body: StreamingBody, amt: int | None = None) -> bytes:
        if (content := read(body, amt)).startswith(b"PAR1"):
            raise IncompleteReadError(actual_bytes=1, expected_bytes=2)
        return content

    monkeypatch.setattr(StreamingBody, "read", broken)
    with pytest.raises(SystemExit, match=r"exposures\.parquet: reading it: .*; retry") as ended:
        main(["reprocess", "select", "--to", NEWER, "--stack", NAME])
    assert ended.value.code == 1


@pytest.mark.slow
def test_bad_ledger_entries_are_named_and_skipped(
    archive: Archive, tmp_path: Path, aws: LocalAws, capsys: pytest.CaptureFixture[str]
) -> None:
    archive.add("a/inside_uncal.fits", INSIDE, tmp_path)
    archive.add("a/evil_uncal.fits", INSIDE, tmp_path)
    s3, prefix = aws.client("s3"), "dq_ledger/dq_init/a/"
    key = f"{prefix}evil_dq_init.fits.json"
    entry = json.loads(s3.get_object(Bucket=PRODUCTS, Key=key)["Body"].read())
    entry["catalogue"]["parameters"]["EXTRA"] = 1
    text = json.dumps(entry)
    for name, value in {
        "huge": "1" + "0" * 400,
        "inf": "1E999",
        "nan": "NaN",
        "list": "[1]",
        "surrogate": '"\\ud800"',
    }.items():
        bad = text.replace('"EXTRA": 1', f'"EXTRA": {value}').replace("evil_dq", f"{name}_dq")
        s3.put_object(Bucket=PRODUCTS, Key=f"{prefix}{name}_dq_init.fits.json", Body=bad.encode())
    entry["result"]["input"]["bytes"] = 2**70
    s3.put_object(Bucket=PRODUCTS, Key=key, Body=json.dumps(entry).encode())
    s3.put_object(Bucket=PRODUCTS, Key=f"{prefix}text_dq_init.fits.json", Body=b"{nonsense")
    archive.run("catalogue")
    said = " ".join(capsys.readouterr().out.split())
    for name in ("evil", "text"):
        assert f"{prefix}{name}_dq_init.fits.json: " in said
    assert "a/inside_uncal.fits" in archive.selected(tmp_path)


@pytest.mark.slow
def test_entry_damaged_after_the_catalogue_is_rebuilt(
    archive: Archive, tmp_path: Path, aws: LocalAws, capsys: pytest.CaptureFixture[str]
) -> None:
    archive.add("a/inside_uncal.fits", INSIDE, tmp_path)
    archive.add("a/outside_uncal.fits", SMALL, tmp_path)
    archive.run("catalogue")
    key = "dq_ledger/dq_init/a/inside_dq_init.fits.json"
    aws.client("s3").put_object(Bucket=PRODUCTS, Key=key, Body=b"{")
    archive.run("audit", "--rebuild", exit_code=1)
    assert "delete the entry if its product does not exist" in words(capsys.readouterr().out)
    (message,) = aws.receive(archive.queues["BackfillQueue"])
    assert archive.function.run_batch(message["Body"]) == []
    archive.run("audit", exit_code=0)
    assert archive.selected(tmp_path) == {"a/inside_uncal.fits"}


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 2**63, "\ud800", [1]])
def test_row_with_an_unusable_parameter_is_refused(value: Any) -> None:
    row = dict.fromkeys(COLUMNS) | {"parameters": json.dumps({"X": value})}
    with pytest.raises(ValueError, match=r"^parameter X: found .*, expected text or a finite"):
        check_row(row)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("mask", 1, "found 1, expected text"),
        ("product_bytes", 2**63, "expected a 64-bit integer"),
        ("rows", 2**31, "expected a 32-bit integer"),
        ("rows", "64", 'found "64", expected a 32-bit integer'),
        ("rows", True, "found true, expected a 32-bit integer"),
    ],
)
def test_row_with_an_unusable_column_is_refused(name: str, value: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=f"^column {name}: .*{expected}$"):
        check_row(dict.fromkeys(COLUMNS) | {name: value})


@pytest.mark.slow
def test_rebuilt_ledger_keeps_pinned_products(
    archive: Archive, tmp_path: Path, aws: LocalAws
) -> None:
    mask = f"s3://{MIRROR}/{PREFIX}/{FOLDER}/jwst_nircam_mask_9002.fits"
    archive.add("a/mine_uncal.fits", INSIDE, tmp_path, mask=mask)
    archive.add("a/none_uncal.fits", INSIDE, tmp_path, mask="N/A")
    archive.add("a/usual_uncal.fits", INSIDE, tmp_path)
    s3 = aws.client("s3")
    for item in s3.list_objects_v2(Bucket=PRODUCTS, Prefix="dq_ledger/")["Contents"]:
        s3.delete_object(Bucket=PRODUCTS, Key=item["Key"])
    archive.run("audit", "--rebuild", exit_code=1)
    for message in aws.receive(archive.queues["BackfillQueue"]):
        assert archive.function.run_batch(message["Body"]) == []
    archive.run("audit", exit_code=0)
    assert archive.selected(tmp_path) == {"a/usual_uncal.fits"}


class World:
    """Containers, events and the closed loop, in random order."""

    def __init__(self, seed: int, archive: Archive, containers: list[Harness]) -> None:
        self.chance, self.containers = random.Random(seed), containers
        self.aws, self.queue = archive.function.aws, archive.queues["BackfillQueue"]
        self.mirror = Mirror(self.aws.client("s3"), S3Location(MIRROR, PREFIX))
        self.left: int | None = None
        self.mirror.client.meta.events.register("before-call.s3", self._count)
        self.loop = Loop(self.mirror, PRODUCTS, self.queue)
        self.uploaded = 0

    def _count(self, **_: Any) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed

    def change_context(self) -> None:
        use(self.chance.choice(["jwst_9001.pmap", NEWER, NEWEST]), self.mirror)

    def upload(self) -> None:
        self.uploaded += 1
        function = self.chance.choice(self.containers)
        key = f"w/{self.uploaded}_uncal.fits"
        function.upload(self.body, key)
        function.run(key)

    def event(self) -> None:
        """Run the loop; the content of an event, late or forged, does not matter."""
        self.loop.run()

    def event_and_kill(self) -> None:
        self.left = self.chance.randrange(12)
        try:
            self.loop.run()
        except (Killed, FileNotFoundError):  # a killed download leaves no file
            pass
        finally:
            self.left = None

    def deliver(self, function: Harness | None = None) -> int:
        """Let a container process the queue; it may use an earlier context."""
        messages = self.aws.receive(self.queue)
        for message in messages:
            one = function or self.chance.choice(self.containers)
            one.run_batch(message["Body"], identifier=message["MessageId"])
        return len(messages)

    body = b""


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds(4))
def test_closed_loop_ends_with_the_operational_context(
    seed: int,
    archive: Archive,
    make_function: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(boto3, "client", cache_calls(boto3.client))  # a client costs 50 ms of CPU
    containers = [make_function(prefix=PREFIX) for _ in range(2)]
    world = World(seed, archive, containers)
    write_exposure(INSIDE, tmp_path / "x.fits")
    world.body = (tmp_path / "x.fits").read_bytes()
    use("jwst_9001.pmap", world.mirror)
    world.upload()
    pinned = archive.add("p/pinned_uncal.fits", INSIDE, tmp_path, mask="N/A")["output"]
    steps = [
        world.change_context,
        world.upload,
        world.event,
        world.event_and_kill,
        world.deliver,
    ]
    for _ in range(6):
        world.chance.choice(steps)()
    fresh = make_fresh(containers[0])
    for _ in range(6):
        selected = world.loop.run(is_scheduled=True)["selected"]
        if not world.deliver(fresh) and not selected:
            break
    else:
        pytest.fail("the loop does not end")
    context = world.mirror.operational().operational_context
    expected = f"jwst_nircam_mask_{9003 if context == NEWER else 9002}.fits"
    s3 = archive.function.aws.client("s3")
    for key in archive.function.products("dq_init/w/"):
        made = s3.head_object(Bucket=PRODUCTS, Key=key)["Metadata"]["mask"]
        assert made.endswith(expected), (key, made, context)
    assert s3.head_object(Bucket=PRODUCTS, Key=pinned["key"])["ETag"] == pinned["etag"]


def make_fresh(function: Harness) -> Harness:
    """Return a container that reads the mirror's configuration again."""
    function.function.references.rules._read_at = 0.0
    return function


@pytest.mark.slow
def test_rebuilt_ledger_keeps_a_named_version(
    archive: Archive, tmp_path: Path, aws: LocalAws
) -> None:
    write_exposure(INSIDE, tmp_path / "x.fits")
    version = archive.function.upload(tmp_path / "x.fits", "a/old_uncal.fits")
    archive.add("a/usual_uncal.fits", INSIDE, tmp_path)
    archive.function.upload(tmp_path / "x.fits", "a/old_uncal.fits")
    archive.function.run("a/old_uncal.fits", versionId=version)
    s3 = aws.client("s3")
    for item in s3.list_objects_v2(Bucket=PRODUCTS, Prefix="dq_ledger/")["Contents"]:
        s3.delete_object(Bucket=PRODUCTS, Key=item["Key"])
    archive.run("audit", "--rebuild", exit_code=1)
    for message in aws.receive(archive.queues["BackfillQueue"]):
        assert archive.function.run_batch(message["Body"]) == []
    archive.run("catalogue")
    assert archive.selected(tmp_path) == {"a/usual_uncal.fits"}


def kill_at_each_call(
    archive: Archive,
    tmp_path: Path,
    worker: Worker,
    run: Callable[[], object],
    resume: Callable[[], object],
) -> int:
    """Kill a command before its first call, its second, ... and resume it; return the number."""
    for number in range(40):
        key = f"a/{number}_uncal.fits"
        archive.add(key, INSIDE, tmp_path)
        archive.function.announcements()
        was_killed = False
        try:
            with worker.kills.before(number):
                run()
        except (Killed, FileNotFoundError):  # a killed download leaves no file
            was_killed = True
            resume()
        worker.deliver()
        product = f"dq_init/{key.replace('_uncal', '_dq_init')}"
        assert {p: len(set(ids)) for p, ids in worker.complete().items()} == {product: 1}, number
        assert len(worker.causes[key]) == 1, number
        if not was_killed:
            return number
    pytest.fail("the command makes more than 40 calls")


@pytest.mark.slow
def test_submit_killed_at_any_call_is_resumed(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(archive.function, archive.queues["BackfillQueue"], Kills(monkeypatch))
    monkeypatch.setattr(follow, "depth", worker.depth)

    def submit() -> None:
        archive.run("submit", "--to", NEWER, "--yes", "--pause", "0.01", exit_code=0)

    def run() -> None:
        archive.run("catalogue")
        submit()

    assert kill_at_each_call(archive, tmp_path, worker, run, submit) >= 5
    archive.run("catalogue")
    assert archive.selected(tmp_path) == set()


def newer_loop(archive: Archive, aws: LocalAws, prefix: str = "dq_init/") -> tuple[Loop, str]:
    """Make NEWER operational; return the closed loop, and BackfillQueue, which it fills."""
    mirror = Mirror(aws.client("s3"), S3Location(MIRROR, PREFIX))
    queue = archive.queues["BackfillQueue"]
    use(NEWER, mirror)
    return Loop(mirror, PRODUCTS, queue, prefix=prefix), queue


@pytest.mark.slow
def test_closed_loop_killed_at_any_call_is_resumed(
    archive: Archive, tmp_path: Path, aws: LocalAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, queue = newer_loop(archive, aws)
    kills = Kills(monkeypatch, start="/exposures.parquet")
    worker = Worker(archive.function.with_settings(context=NEWER), queue, kills)
    assert kill_at_each_call(archive, tmp_path, worker, loop.run, loop.run) >= 8
    assert loop.run(is_scheduled=True)["selected"] == 0


@pytest.mark.slow
def test_two_submits_at_once_share_the_job(
    archive: Archive,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    keys = [f"a/{number}_uncal.fits" for number in range(3)]
    for key in keys:
        archive.add(key, INSIDE, tmp_path)
    archive.run("catalogue")

    def submit() -> Any:
        with pytest.raises(SystemExit) as ended:
            main(["reprocess", "submit", "--to", NEWER, "--stack", NAME, "--yes", "--pause", "0.2"])
        return ended.value.code

    caplog.set_level("WARNING", "core")  # restored afterwards: `main` sets it in both threads
    read_together(monkeypatch, 60)
    archive.function.announcements()
    queue = archive.queues["BackfillQueue"]
    with working(archive.function, queue) as given, ThreadPoolExecutor(2) as operators:
        codes = [one.result() for one in [operators.submit(submit) for _ in range(2)]]
    assert codes == [0, 0]
    assert sorted(json.loads(body)["key"] for body in set(given)) == keys
    events = [e for e in archive.function.announcements() if e["status"] == "Complete"]
    assert len({event["id"] for event in events}) == 3


@pytest.mark.slow
def test_closed_loop_fails_if_five_selections_change_nothing(
    archive: Archive, tmp_path: Path, aws: LocalAws
) -> None:
    archive.add("a/inside_uncal.fits", INSIDE, tmp_path)
    loop, queue = newer_loop(archive, aws)
    file = JobFile(
        loop.mirror.client, S3Location(PRODUCTS, "dq_backfills/closed-loop/job.jsonl.gz")
    )
    for _ in range(5):
        loop.run(is_scheduled=True)
        deliver_all(archive.function, queue)  # by a stack whose CrdsContext is not latest
        job, _ = file.read()
        assert job is not None
        file.write(replace(job, began=job.began - timedelta(hours=1)))
    with pytest.raises(ReferenceUnavailable, match="set CrdsContext of their stack to latest"):
        loop.run(is_scheduled=True)
    assert aws.receive(queue) == []


@pytest.mark.slow
def test_closed_loop_does_not_repeat_rejected_exposures(
    archive: Archive, tmp_path: Path, aws: LocalAws
) -> None:
    archive.add("a/gone_uncal.fits", INSIDE, tmp_path)
    aws.client("s3").delete_object(Bucket=RAW, Key="a/gone_uncal.fits")
    loop, queue = newer_loop(archive, aws)
    assert loop.run()["selected"] == 1
    archive.function.announcements()
    (message,) = aws.receive(queue)
    archive.function.run_batch(message["Body"], identifier="m1")
    assert [event["error"] for event in archive.function.announcements()] == ["InputRejected"]
    archive.add("a/good_uncal.fits", INSIDE, tmp_path)
    asked = {"bucket": RAW, "key": "a/good_uncal.fits", "userSuppliedDq": f"s3://{RAW}/typo.fits"}
    archive.function.run_batch(json.dumps(asked))
    detail = loop.run(is_scheduled=True)
    assert (detail["selected"], detail["undecided"]) == (1, 1), "another request was rejected"
    (message,) = aws.receive(queue)
    assert json.loads(message["Body"])["key"] == "a/good_uncal.fits"
    detail = loop.run(is_scheduled=True)
    assert (detail["selected"], detail["undecided"], aws.receive(queue)) == (1, 1, [])
    archive.run("catalogue")
    assert "a/gone_uncal.fits" in archive.selected(tmp_path), "an operator may try again"


@pytest.mark.slow
def test_closed_loop_waits_for_requests_that_sqs_retries(
    archive: Archive, tmp_path: Path, aws: LocalAws
) -> None:
    archive.add("a/inside_uncal.fits", INSIDE, tmp_path)
    loop, queue = newer_loop(archive, aws)
    assert loop.run()["selected"] == 1
    (message,) = aws.receive(queue)
    broken = archive.function.with_services(references=None)
    assert broken.run_batch(message["Body"], identifier="m1") == ["m1"]
    aws.client("sqs").send_message(QueueUrl=queue, MessageBody=message["Body"], DelaySeconds=60)
    loop.run(is_scheduled=True)
    assert aws.receive(queue) == [], "the same request waits in the queue"
    file = JobFile(loop.mirror.client, job_in(PRODUCTS, "closed-loop"))
    for hours, number in ((11, 0), (2, 1)):  # it is lost 12 h after it was sent
        job, _ = file.read()
        assert job is not None
        file.write(replace(job, began=job.began - timedelta(hours=hours)))
        loop.run(is_scheduled=True)
        assert len(aws.receive(queue)) == number


@pytest.mark.slow
def test_scheduled_run_that_selects_nothing_is_not_published(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.add("a/outside_uncal.fits", SMALL, tmp_path)
    published: list[tuple[str, str]] = []
    monkeypatch.setattr(Bus, "put", lambda bus, *event: published.append((bus.name, event[1])))
    monkeypatch.setenv("CRDS_MIRROR", f"s3://{MIRROR}/{PREFIX}")
    monkeypatch.setenv("PRODUCT_BUCKET", PRODUCTS)
    monkeypatch.setenv("REPROCESS", "select")
    monkeypatch.setenv("EVENT_BUS", "science")
    assert lambda_handler({"source": "aws.events"}, None)["selected"] == 0
    assert published == []
    assert lambda_handler({"source": "jwst.crds_mirror"}, None)["selected"] == 0
    assert published == [("science", "Reprocessing Selected")]


@pytest.mark.slow
def test_closed_loop_leaves_out_products_that_may_not_be_built(
    archive: Archive, tmp_path: Path, aws: LocalAws, caplog: pytest.LogCaptureFixture
) -> None:
    archive.add("a/inside_uncal.fits", INSIDE, tmp_path)
    archive.add("a/also_uncal.fits", INSIDE, tmp_path, outputKey="dq_init/else/x_dq_init.fits")
    archive.add("a/earlier_uncal.fits", INSIDE, tmp_path, outputKey="dq_init/a/x_dq_init.fits")
    loop, _ = newer_loop(archive, aws, "dq_init/a/x")
    for _ in range(2):
        detail = loop.run()
        assert (detail["selected"], detail["undecided"]) == (1, 2)
    assert "2 products outside dq_init/a/x not rebuilt" in caplog.text


def test_closed_loop_reads_the_prefix_of_the_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    template = load("infra/mirror.yaml")["Resources"]["Reprocessing"]["Properties"]
    variables = template["Environment"]["Variables"]
    assert variables["OUTPUT_PREFIX"] == {"Ref": "OutputPrefix"}
    given = {"CRDS_MIRROR": "s3://m", "REPROCESS": "select", "PRODUCT_BUCKET": PRODUCTS}
    loop = Loop.from_environment(given | {"OUTPUT_PREFIX": "level1b/"})
    assert loop.product_of({"bucket": RAW, "key": "a/x_uncal.fits"}) == S3Location(
        PRODUCTS, "level1b/a/x_dq_init.fits"
    )
