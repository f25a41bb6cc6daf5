"""Backfill commands: jobs that are sent, followed, left, resumed and shared."""

import gzip
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError

from core.errors import InputRejected, ReferenceUnavailable, TransientFailure
from core.product import Encoding
from handler.event import Status
from handler.events import ExposureRequest
from handler.s3.objects import S3Location
from infra.__main__ import main
from infra.aws import Stack
from infra.cli import UserError
from infra.demo.local_aws import PRODUCTS, RAW, LocalAws
from infra.jobs import __main__ as command
from infra.jobs import follow
from infra.jobs import job as sending
from infra.jobs.follow import RequestResult, Watch
from infra.jobs.job import Job, JobFile, join
from infra.jobs.targets import archive_location, digest_of_list, find
from infra.operate.messages import EMPTY, depth
from tests.conftest import Harness
from tests.infra.kills import Killed, Kills
from tests.infra.stacks import stack_of_outputs

NAME = "filling"
QUEUES = ("BackfillQueue", "UnfinishedQueue")
FOLDER = f"s3://{RAW}/2023/"
ARCHIVED = "jw02733001001_02101_00001_nrca1_uncal.fits"


@pytest.fixture
def queues(aws: LocalAws) -> Iterator[dict[str, str]]:
    with stack_of_outputs(aws, NAME, QUEUES) as urls:
        yield urls


@contextmanager
def working(function: Harness, queue: str) -> Iterator[list[str]]:
    """Run the function on the messages of a queue; yield the list of the bodies it received."""
    sqs, stop, given = function.aws.client("sqs"), threading.Event(), []

    def poll() -> None:
        while not stop.is_set():
            found = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=1, WaitTimeSeconds=1)
            for message in found.get("Messages", []):
                given.append(message["Body"])
                if not function.run_batch(message["Body"], identifier=message["MessageId"]):
                    sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield given
    finally:
        stop.set()
        thread.join()


@contextmanager
def delivered_late(function: Harness, queue: str, seconds: float) -> Iterator[None]:
    """Run the function on the messages that the `with` block sends, this long after the first."""

    def deliver() -> None:
        sqs, name = function.aws.client("sqs"), "ApproximateNumberOfMessages"
        end = time.monotonic() + 60
        while time.monotonic() < end:
            found = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=[name])
            if int(found["Attributes"][name]):
                break
            time.sleep(0.05)
        time.sleep(seconds)
        deliver_all(function, queue)

    thread = threading.Thread(target=deliver, daemon=True)
    thread.start()
    yield
    thread.join()


def deliver_all(function: Harness, queue: str) -> None:
    """Run the function once on each message of a queue; none is delivered again."""
    for message in function.aws.receive(queue):
        function.run_batch(message["Body"], identifier=message["MessageId"])


def read_together(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let two commands read the stored job before either of them writes it."""
    both, original, first_two = threading.Barrier(2), JobFile.read, iter([True, True])

    def read(file: JobFile) -> Any:
        found = original(file)
        if next(first_two, False):
            both.wait(seconds)
        return found

    monkeypatch.setattr(JobFile, "read", read)


def backfill(*words: str, capsys: pytest.CaptureFixture[str], exit_code: int = 0) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["backfill", *words, "--stack", NAME, "--yes", "--pause", "0.2"])
    assert ended.value.code == exit_code
    return capsys.readouterr().out


def words(said: str) -> str:
    return " ".join(said.split())


def test_backfill_counts_complete_skipped_and_failed(
    function: Harness, queues: dict[str, str], exposure: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(5):
        function.upload(exposure, f"2023/jw{number}_uncal.fits")
    function.upload(b"nothing", "2023/jw5_uncal.fits")
    function.upload(b"", "2023/notes.txt")
    function.run("2023/jw0_uncal.fits")
    with working(function, queues["BackfillQueue"]):
        said = backfill(FOLDER, "--json", capsys=capsys, exit_code=1)
    result = json.loads(said[said.index("{\n") :])
    assert (result["complete"], result["skipped"], result["failed"]) == (4, 1, 1)
    assert result["errors"] == {"InputRejected": 1}
    ((product, reason),) = result["reasons"].items()
    assert product.endswith("2023/jw5_dq_init.fits")
    assert "SIMPLE" in reason
    assert len(function.products()) == 5


@pytest.mark.slow
def test_failed_backfill_names_the_command_that_shows_why(
    function: Harness, queues: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    function.upload(b"nothing", "2023/jw0_uncal.fits")
    with working(function, queues["BackfillQueue"]):
        said = words(backfill(FOLDER, capsys=capsys, exit_code=1))
    assert "1 failed" in said
    assert f"Failures: dq-init queues show --stack {NAME}" in said


def test_backfill_prints_size_and_cost_and_asks_first(
    function: Harness,
    queues: dict[str, str],
    exposure: bytes,
    capsys: pytest.CaptureFixture[str],
) -> None:
    function.upload(exposure, "2023/jw0_uncal.fits")
    main(["backfill", FOLDER, "--stack", NAME, "--dry-run"])
    said = words(capsys.readouterr().out)
    size = f"{len(exposure) / 1e6:,.1f} MB"
    assert f"1 exposure, {size}; less than 0.01 USD without storage; about " in said
    assert said.endswith(", at most 20 at a time")
    main(["backfill", FOLDER, "--stack", NAME, "--dry-run", "--json"])
    estimate = json.loads(capsys.readouterr().out)
    assert (estimate["exposures"], estimate["bytes"], estimate["warnings"]) == (
        1,
        len(exposure),
        [],
    )
    with pytest.raises(SystemExit, match="a terminal or --yes is needed"):
        main(["backfill", FOLDER, "--stack", NAME])
    sqs = function.aws.client("sqs")
    assert "Messages" not in sqs.receive_message(QueueUrl=queues["BackfillQueue"])


@pytest.mark.slow
def test_backfill_longer_than_sqs_retention_is_warned_of(
    aws: LocalAws,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(command, "_USUAL_SIZE", 10**12)  # instead of a list of millions
    name, said = tmp_path / "names.txt", {}
    parameters = {"ScienceEncoding": "float32", "BackfillConcurrency": "2"}
    with stack_of_outputs(aws, NAME, QUEUES, **parameters):
        for number in (1, 99):
            listed = (ARCHIVED.replace("_00001_", f"_{n:05}_") for n in range(1, number + 1))
            name.write_text("\n".join(listed))
            main(["backfill", str(name), "--stack", NAME, "--dry-run"])
            said[number] = words(capsys.readouterr().out)
    assert "1 exposure, 1,000.0 GB (sizes are assumed); about " in said[1]
    assert "h, at most 2 at a time" in said[1]
    assert "SQS deletes" not in said[1]
    assert "SQS deletes messages after 14 days: submit the exposures in several parts." in said[99]


@pytest.mark.slow
def test_interrupted_backfill_resumes_without_sending_twice(
    function: Harness,
    queues: dict[str, str],
    exposure: bytes,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sending, "_SAVE_EVERY", 10)
    for number in range(25):
        function.upload(exposure, f"2023/jw{number:02}_uncal.fits")
    original, sent = sending.send_batch, []

    def interrupted(lines: Any, *arguments: Any) -> None:
        if len(sent) == 1:
            sent.append("stop")
            raise KeyboardInterrupt
        sent.append(lines)
        original(lines, *arguments)

    monkeypatch.setattr(sending, "send_batch", interrupted)
    backfill(FOLDER, capsys=capsys, exit_code=1)
    function.upload(exposure, "2023/jw99_uncal.fits")
    with working(function, queues["BackfillQueue"]) as given:
        said = backfill(FOLDER, capsys=capsys)
    assert "10 of 26 requests were sent" in words(said)
    assert "26 complete: the product was built" in words(said)
    keys = [json.loads(body)["key"] for body in given]
    assert len(keys) == len(set(keys)) == 26, "what was sent is not sent again"
    with working(function, queues["BackfillQueue"]) as given:
        said = backfill(FOLDER, capsys=capsys)
    assert "0 complete: the product was built 26 skipped" in words(said)


@pytest.mark.slow
def test_context_and_replace_are_in_the_request(
    function: Harness, queues: dict[str, str], exposure: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    function.upload(exposure, "2023/jw0_uncal.fits")
    with working(function, queues["BackfillQueue"]) as given:
        backfill(FOLDER, "--context", "jwst_9001.pmap", "--replace", capsys=capsys)
    assert json.loads(given[0])["context"] == "jwst_9001.pmap"
    assert json.loads(given[0])["onExisting"] == "replace"


def watch_of(function: Harness, cause: str) -> Watch:
    """Follow a request of this cause for x_uncal.fits, sent an hour ago."""
    request = ExposureRequest.from_direct({"bucket": RAW, "key": "x_uncal.fits", "cause": cause})
    return Watch(
        function.aws.client("s3"), S3Location(PRODUCTS, "dq_ledger"),
        {request.target(PRODUCTS, "dq_init/"): request}, datetime.now(UTC) - timedelta(hours=1),
        function.aws.client("sqs"), (), lambda *_: None, "native",
    )  # fmt: skip


def test_failure_that_a_later_attempt_cleared_is_not_counted(
    function: Harness, exposure: bytes
) -> None:
    function.upload(exposure, "x_uncal.fits")
    function.run("x_uncal.fits")
    watch = watch_of(function, "job")
    with pytest.raises(ReferenceUnavailable):
        function.run("x_uncal.fits", cause="job", context="jwst_7777.pmap")
    assert watch.poll().failed == 1
    assert function.run("x_uncal.fits", cause="job")["status"] == "Skipped"
    assert (watch.poll().failed, watch.poll().left) == (0, 1)


def test_failure_of_another_request_leaves_no_request_missing(
    function: Harness, exposure: bytes
) -> None:
    """An upload event may fail after the backfill, or instead of it."""
    function.upload(b"bad", "x_uncal.fits")
    for cause in ("job", "lost"):
        watch = watch_of(function, cause)
        for failing in ("job", "upload"):
            with pytest.raises(InputRejected):
                function.run("x_uncal.fits", cause=failing)
            progress = watch.poll()
        assert progress.left == (0 if cause == "job" else 1)
        found = watch.result()
        assert (found.failed, found.missing, found.errors) == (1, (), {"InputRejected": 1})


@pytest.mark.parametrize("few", [0, 100])
def test_failure_replaces_what_the_product_seemed_to_say(
    few: int, function: Harness, exposure: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "_FEW", few)
    function.upload(exposure, "x_uncal.fits")
    detail = function.run("x_uncal.fits", mask="N/A")  # pinned: the request would be skipped
    watch = watch_of(function, "job")
    assert watch.poll(reads_products=True).skipped == 1, detail["status"]
    with pytest.raises(ReferenceUnavailable):
        function.run("x_uncal.fits", cause="job", context="jwst_7777.pmap")
    assert (watch.poll().failed, watch.poll().skipped) == (1, 0)


@pytest.mark.parametrize("error", ["ReferenceUnavailable", "InputRejected"])
def test_published_failure_is_final(error: str) -> None:
    assert RequestResult(Status.FAILED, error, "r", is_published=True).is_final
    assert RequestResult(Status.FAILED, error, "r").is_final == (error == "InputRejected")


def test_job_of_another_stack_or_release_is_not_resumed() -> None:
    outputs = {"BackfillQueue": "https://sqs/1"}
    stack = Stack("dq", outputs, {})
    others = [
        Stack("dq", {"BackfillQueue": "https://sqs/2"}, {}),
        Stack("dq", outputs, {"OutputPrefix": "dq_new/"}),
        Stack("dq", outputs, {"ProductForm": "virtual"}),
    ]
    assert len({one.digest("x") for one in (stack, *others)} | {stack.digest("y")}) == 5


def test_job_is_not_resumed_after_the_retention_of_sqs(aws: LocalAws) -> None:
    file = JobFile(aws.client("s3"), S3Location(PRODUCTS, "dq_backfills/old/job.jsonl.gz"))
    for days, is_kept in ((13, True), (15, False)):
        sent = {"bucket": "b", "key": "k", "cause": f"{days}"}
        stored, now = file.read()
        etag = stored.etag if stored else None
        file.write(Job(now - timedelta(days=days), (sent,), sent=1, etag=etag))
        job = file.start([{"bucket": "b", "key": "k"}])
        assert (job.requests[0]["cause"] == f"{days}", job.sent) == (is_kept, int(is_kept))


def test_time_of_an_edited_job_may_lack_a_zone(aws: LocalAws) -> None:
    file = JobFile(aws.client("s3"), S3Location(PRODUCTS, "dq_backfills/edited/job.jsonl.gz"))
    file.write(Job(datetime(2026, 11, 1), ()))
    job, now = file.read()
    assert job is not None
    assert job.began < now


def test_messages_that_sqs_refuses_are_sent_again() -> None:
    accepted: list[str] = []

    class Sqs:
        def send_message_batch(self, **batch: Any) -> dict[str, Any]:
            first, *others = batch["Entries"]
            done = others or [first]  # the first of several is refused
            accepted.extend(entry["MessageBody"] for entry in done)
            return {"Failed": [{"Id": first["Id"]}] if others else []}

    sending.send_batch(["a", "b", "c"], Sqs(), "queue")  # type: ignore[arg-type]
    assert sorted(accepted) == ["a", "b", "c"]


def test_messages_that_sqs_keeps_refusing_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    class Sqs:
        def send_message_batch(self, **batch: Any) -> dict[str, Any]:
            sizes.append(len(batch["Entries"]))
            return {"Failed": [{"Id": "1", "Message": "too many"}]}

    monkeypatch.setattr(time, "sleep", lambda _: None)
    with pytest.raises(TransientFailure, match=r"refused 1 message .*too many.*run the same"):
        sending.send_batch(["a", "b"], Sqs(), "queue")  # type: ignore[arg-type]
    assert sizes == [2, 1, 1, 1, 1, 1]


def test_archive_names_become_locations_in_the_archive(tmp_path: Path, aws: LocalAws) -> None:
    folder = "s3://stpubdata/jwst/public/jw02733/jw02733001001"
    assert str(archive_location(ARCHIVED)) == f"{folder}/{ARCHIVED}"
    assert str(archive_location(f"mast:JWST/product/{ARCHIVED}")) == f"{folder}/{ARCHIVED}"
    listed = tmp_path / "mine.txt"
    listed.write_text(
        f"# of July\n{ARCHIVED}\n\n{folder}/{ARCHIVED}  # again\ns3://b/x_uncal.fits\n"
    )
    found = [str(item.location) for item in find([str(listed)], aws.client("s3"))]
    assert found == [f"{folder}/{ARCHIVED}", "s3://b/x_uncal.fits"]


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("nowhere", "nowhere: "),
        ("jw02733001001_nrca1_cal.fits", "jw02733001001_nrca1_cal.fits: "),
        ("s3://", "'s3://': expected s3://bucket"),
    ],
)
def test_invalid_target_is_one_line(
    word: str, reason: str, queues: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["backfill", word, "--stack", NAME])
    assert len(str(ended.value).splitlines()) == 1
    assert reason in str(ended.value)


def test_job_left_when_sent_is_followed_by_a_new_one(
    function: Harness, queues: dict[str, str], exposure: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    for night in range(2):
        function.upload(exposure, f"2023/jw{night}_uncal.fits")
        capsys.readouterr()
        main(["backfill", FOLDER, "--stack", NAME, "--yes", "--leave", "--json"])
        assert json.loads(capsys.readouterr().out)["sent"] == night + 1
        bodies = [m["Body"] for m in function.aws.receive(queues["BackfillQueue"])]
        assert {json.loads(body)["key"] for body in bodies} == {
            f"2023/jw{number}_uncal.fits" for number in range(night + 1)
        }


def test_malformed_context_sends_nothing(
    function: Harness, queues: dict[str, str], exposure: bytes
) -> None:
    function.upload(exposure, "2023/jw0_uncal.fits")
    with pytest.raises(SystemExit, match=r"expected latest, build or jwst_N\.pmap"):
        main(["backfill", FOLDER, "--stack", NAME, "--yes", "--context", "jwst_1321"])
    assert function.aws.receive(queues["BackfillQueue"]) == []


@pytest.mark.slow
def test_lost_request_is_missing(
    function: Harness,
    queues: dict[str, str],
    exposure: bytes,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(follow, "_QUIET", 3)
    function.upload(exposure, "2023/jw0_uncal.fits")
    main(["backfill", FOLDER, "--stack", NAME, "--yes", "--leave"])
    function.aws.receive(queues["BackfillQueue"])  # and not processed
    said = backfill(FOLDER, capsys=capsys, exit_code=1)
    assert "1 missing" in words(said)
    assert f"dq-init queues show --stack {NAME} --queue UndeliveredQueue" in words(said)


@pytest.mark.slow
def test_backfill_ends_while_others_use_the_queues(
    function: Harness,
    queues: dict[str, str],
    exposure: bytes,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(follow, "_LOOK", 1)
    function.aws.client("sqs").send_message(QueueUrl=queues["UnfinishedQueue"], MessageBody="{}")
    function.upload(exposure, "2023/jw0_uncal.fits")
    function.run("2023/jw0_uncal.fits")
    with working(function, queues["BackfillQueue"]):
        assert "1 skipped" in words(backfill(FOLDER, capsys=capsys))


@pytest.mark.slow
@pytest.mark.parametrize("change", ["encoding", "software version"])
def test_waiting_request_that_rebuilds_is_not_skipped(
    change: str,
    function: Harness,
    queues: dict[str, str],
    exposure: bytes,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(follow, "_LOOK", 0.5)
    function.upload(exposure, "2023/jw0_uncal.fits")
    if change == "encoding":
        function.with_settings(encoding=Encoding.FLOAT32).run("2023/jw0_uncal.fits")
    else:
        product = function.run("2023/jw0_uncal.fits")["output"]
        place = {"Bucket": PRODUCTS, "Key": product["key"]}
        found = function.aws.client("s3").get_object(**place)
        metadata = found["Metadata"] | {"software-version": "0.0.1"}
        content = found["Body"].read()
        function.aws.client("s3").put_object(**place, Body=content, Metadata=metadata)
        time.sleep(1.1)  # the product must be older than the job

    with delivered_late(function, queues["BackfillQueue"], 4):
        assert "1 complete" in words(backfill(FOLDER, capsys=capsys))


@pytest.mark.slow
def test_fast_polls_wait_for_a_late_result(
    function: Harness,
    queues: dict[str, str],
    exposure: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(follow, "depth", lambda *_: EMPTY)  # the counts of SQS lag
    function.upload(exposure, "2023/jw0_uncal.fits")
    with (
        delivered_late(function, queues["BackfillQueue"], 2),
        pytest.raises(SystemExit) as ended,
    ):
        main(["backfill", FOLDER, "--stack", NAME, "--yes", "--pause", "0"])
    assert ended.value.code == 0


def test_list_digest_is_of_its_content_exposure_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aws: LocalAws
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ARCHIVED).write_bytes(b"\xff\xfe")
    (found,) = find([ARCHIVED], aws.client("s3"))
    assert found.location == archive_location(ARCHIVED)
    (tmp_path / "list").write_text("s3://b/x_uncal.fits")
    first = digest_of_list("list")
    (tmp_path / "list").write_text("s3://b/y_uncal.fits")
    assert None is not first != digest_of_list("list")
    (tmp_path / "list").write_bytes(b"\xff")
    with pytest.raises(UserError, match="one exposure per line"):
        list(find(["list"], aws.client("s3")))


@pytest.mark.slow
def test_lost_replacement_is_missing_not_skipped(
    function: Harness,
    queues: dict[str, str],
    exposure: bytes,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(follow, "_QUIET", 3)
    for number in range(2):
        function.upload(exposure, f"2023/jw{number}_uncal.fits")
        function.run(f"2023/jw{number}_uncal.fits")
    original = sending.send_batch

    def losing(lines: Any, sqs: Any, queue: str) -> None:
        original(lines, sqs, queue)
        function.aws.receive(queue)

    monkeypatch.setattr(sending, "send_batch", losing)
    said = backfill(FOLDER, "--replace", "--json", capsys=capsys, exit_code=1)
    result = json.loads(said[said.index("{\n") :])
    assert (result["complete"], result["skipped"], len(result["missing"])) == (0, 0, 2)


@pytest.mark.slow
def test_failure_without_ledger_is_missing(
    function: Harness,
    queues: dict[str, str],
    exposure: bytes,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(follow, "_QUIET", 3)
    function.upload(exposure, "2023/jw0_uncal.fits")
    function.run("2023/jw0_uncal.fits")
    function.upload(b"damaged", "2023/jw0_uncal.fits")
    blind = function.with_services(ledger=type(function.function.ledger)(None))
    with working(blind, queues["BackfillQueue"]):
        said = backfill(FOLDER, "--json", capsys=capsys, exit_code=1)
    assert json.loads(said[said.index("{\n") :])["skipped"] == 0


@pytest.mark.slow
def test_repeated_backfill_is_skipped_without_delay(
    function: Harness, queues: dict[str, str], exposure: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    function.upload(exposure, "2023/jw0_uncal.fits")
    with working(function, queues["BackfillQueue"]):
        assert "1 complete" in words(backfill(FOLDER, capsys=capsys))
        assert "0 complete: the product was built 1 skipped" in words(
            backfill(FOLDER, capsys=capsys)
        )


@pytest.mark.slow
def test_product_of_another_context_is_not_skipped(
    function: Harness,
    queues: dict[str, str],
    exposure: bytes,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(follow, "_QUIET", 3)
    function.upload(exposure, "2023/jw0_uncal.fits")
    mask = f"s3://{RAW}/mask.fits"
    function.run("2023/jw0_uncal.fits", mask="N/A")
    product = "dq_init/2023/jw0_dq_init.fits"
    s3 = function.aws.client("s3")
    head = s3.head_object(Bucket=PRODUCTS, Key=product)["Metadata"] | {"pinned": "false"}
    body = s3.get_object(Bucket=PRODUCTS, Key=product)["Body"].read()
    s3.put_object(Bucket=PRODUCTS, Key=product, Body=body, Metadata=head)
    time.sleep(1.1)
    main(["backfill", FOLDER, "--stack", NAME, "--yes", "--leave"])
    function.aws.receive(queues["BackfillQueue"])
    assert "1 missing" in words(backfill(FOLDER, capsys=capsys, exit_code=1)), mask


@pytest.mark.slow
def test_denied_ledger_is_an_error_that_names_it(
    function: Harness, queues: dict[str, str], exposure: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = command.boto3.client

    def client(service: str, *words: Any, **more: Any) -> Any:
        made = original(service, *words, **more)

        def deny(params: Any, **_: Any) -> None:
            if params.get("Key", "").startswith("dq_ledger/"):
                denied = {"Error": {"Code": "AccessDenied", "Message": "no policy allows it"}}
                raise ClientError(denied, "GetObject")  # type: ignore[arg-type]

        if service == "s3":
            made.meta.events.register("before-parameter-build.s3.GetObject", deny)
        return made

    function.upload(b"no FITS", "2023/jw0_uncal.fits")
    with working(function, queues["BackfillQueue"]):
        monkeypatch.setattr(command.boto3, "client", client)
        with pytest.raises(SystemExit, match=r"dq_ledger/.*s3:GetObject"):
            main(["backfill", FOLDER, "--stack", NAME, "--yes", "--pause", "0.2"])


def test_context_not_in_the_mirror_is_refused(
    function: Harness, queues: dict[str, str], exposure: bytes
) -> None:
    function.upload(exposure, "2023/jw0_uncal.fits")
    with pytest.raises(SystemExit, match=r"jwst_1\.pmap: not in s3://"):
        main(["backfill", FOLDER, "--stack", NAME, "--yes", "--context", "jwst_1.pmap"])
    assert function.aws.receive(queues["BackfillQueue"]) == []


def test_dry_run_warns_of_what_will_fail(
    function: Harness, queues: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    targets = [f"s3://{RAW}/none_uncal.fits", ARCHIVED]
    main(["backfill", *targets, "--stack", NAME, "--dry-run"])
    said = words(capsys.readouterr().out)
    assert f"s3://{RAW}/none_uncal.fits: no such object" in said
    assert f"s3://stpubdata: not a bucket that stack {NAME} may read" in said
    main(
        [
            "backfill",
            *(f"s3://{RAW}/{n}_uncal.fits" for n in range(7)),
            "--stack",
            NAME,
            "--dry-run",
        ]
    )
    said = words(capsys.readouterr().out)
    assert said.count("no such object") == 5
    assert "2 more of the first 100 named exposures have problems" in said


def test_exposures_outside_the_input_prefix_are_warned_of(
    function: Harness, aws: LocalAws, exposure: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    for year in ("2022", "2023"):
        function.upload(exposure, f"{year}/jw0_uncal.fits")
    with stack_of_outputs(aws, NAME, QUEUES, InputPrefix="2023/"):
        main(["backfill", f"s3://{RAW}/", "--stack", NAME, "--dry-run"])
    said = words(capsys.readouterr().out)
    assert "1 exposure, such as 2022/jw0_uncal.fits, not below" in said
    assert "InputPrefix (2023/)" in said


def test_two_exposures_of_one_product_are_refused(
    function: Harness, aws: LocalAws, exposure: bytes
) -> None:
    function.upload(exposure, "2023/jw0_uncal.fits")
    copy = f"s3://{PRODUCTS}/2023/jw0_uncal.fits"
    aws.client("s3").put_object(Bucket=PRODUCTS, Key="2023/jw0_uncal.fits", Body=exposure)
    with (
        stack_of_outputs(aws, NAME, QUEUES, ReadBuckets=PRODUCTS),
        pytest.raises(
            SystemExit, match=f"{FOLDER}jw0_uncal.fits and {copy}: have the same"
        ) as ended,
    ):
        main(["backfill", FOLDER, copy, "--stack", NAME, "--yes", "--leave"])
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("s3://raw/folder", "line 2: found s3://raw/folder, expected a key that ends in _uncal"),
        ("s3://", "line 2: "),
        ("nonsense", "line 2: nonsense"),
    ],
)
def test_bad_line_names_file_and_number(
    line: str, reason: str, tmp_path: Path, aws: LocalAws
) -> None:
    (tmp_path / "list").write_text(f"# July\n{line}\n")
    with pytest.raises(UserError, match=reason):
        list(find([str(tmp_path / "list")], aws.client("s3")))
    with pytest.raises(UserError, match=r"^missing\.txt: no such file, expected a text file"):
        list(find(["missing.txt"], aws.client("s3")))


def test_hash_in_a_key_is_part_of_it(tmp_path: Path, aws: LocalAws) -> None:
    uri = f"s3://{RAW}/2023/run#3/jw1_uncal.fits"
    (tmp_path / "list").write_text(f"{uri}\n", encoding="utf-8-sig")  # with a BOM
    s3 = aws.client("s3")
    for key in ("2023/run#3/jw1_uncal.fits", "2023/run/jw2_uncal.fits"):
        s3.put_object(Bucket=RAW, Key=key, Body=b"")
    for target in (tmp_path / "list", f"s3://{RAW}/2023/run#3/"):
        assert [str(found.location) for found in find([str(target)], s3)] == [uri]


NOW = datetime(2026, 1, 1, tzinfo=UTC)
REQUESTS = [{"bucket": "b", "key": f"{n}_uncal.fits"} for n in range(3)]


def test_job_keeps_causes_and_drops_what_is_not_wanted() -> None:
    first = join(None, REQUESTS, NOW)
    planted = {"bucket": "b", "key": "0_uncal.fits", "mask": "N/A", "cause": "evil"}
    found = Job(NOW, (planted, *first.requests[:2]), sent=2)
    job = join(found, REQUESTS, NOW)
    assert job.requests[:2] == first.requests[:2]
    assert job.sent == 1
    assert len({request["cause"] for request in job.requests}) == 3
    assert planted not in job.requests


def test_job_is_replaced_only_if_it_is_the_one_read(aws: LocalAws) -> None:
    file = JobFile(aws.client("s3"), S3Location(PRODUCTS, "dq_backfills/two/job.jsonl.gz"))
    mine = file.start(REQUESTS)
    theirs = file.start(REQUESTS)
    assert [r["cause"] for r in mine.requests] == [r["cause"] for r in theirs.requests]
    file.save(theirs)
    file.write(file.start([*REQUESTS, {"bucket": "b", "key": "9_uncal.fits"}]))
    assert file.write(mine) is None
    stored, _ = file.read()
    assert stored is not None
    assert len(stored.requests) == 4, "the job of the other command"


def test_damaged_job_is_named(aws: LocalAws) -> None:
    file = JobFile(aws.client("s3"), S3Location(PRODUCTS, "dq_backfills/bad/job.jsonl.gz"))
    file.start(REQUESTS)
    content = file.s3.get_object(**file.location.as_kwargs)["Body"].read()
    endless = gzip.decompress(content).replace(b'"sent": 0', b'"sent": Infinity')
    flipped = content[:15] + bytes(255 - byte for byte in content[15:18]) + content[18:]
    for damaged in (gzip.compress(b"[]"), gzip.compress(endless), flipped, content[:40], b""):
        file.s3.put_object(**file.location.as_kwargs, Body=damaged)
        with pytest.raises(UserError, match="not a job"):
            file.read()


class Worker:
    """Delivers the waiting messages whenever the command polls the queue."""

    def __init__(self, function: Harness, queue: str, kills: Kills) -> None:
        self.function, self.queue, self.kills = function, queue, kills
        self.causes: dict[str, set[str]] = {}

    def depth(self, sqs: Any, address: str) -> Any:
        with self.kills.paused():
            self.deliver()
        return depth(sqs, address)

    def deliver(self) -> None:
        for message in self.function.aws.receive(self.queue):
            request = json.loads(message["Body"])
            self.causes.setdefault(request["key"], set()).add(request["cause"])
            self.function.run_batch(message["Body"], identifier=message["MessageId"])

    def complete(self) -> dict[str, list[str]]:
        """Return the ids of the Complete events by product."""
        found: dict[str, list[str]] = {}
        for event in self.function.announcements():
            if event["status"] == "Complete":
                found.setdefault(event["output"]["key"], []).append(event["id"])
        return found


@pytest.mark.slow
def test_backfill_killed_at_any_call_is_resumed(
    function: Harness,
    queues: dict[str, str],
    exposure: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sending, "_SAVE_EVERY", 1)
    kills = Kills(monkeypatch)
    worker = Worker(function, queues["BackfillQueue"], kills)
    monkeypatch.setattr(follow, "depth", worker.depth)
    function.announcements()
    for number in range(40):
        folder = f"killed/{number}/"
        for name in "ab":
            function.upload(exposure, f"{folder}{name}_uncal.fits")
        words = ["backfill", f"s3://{RAW}/{folder}", "--stack", NAME, "--yes", "--pause", "0.01"]
        try:
            with kills.before(number), pytest.raises(SystemExit):
                main(words)
        except Killed:
            with pytest.raises(SystemExit) as ended:
                main(words)
            assert ended.value.code == 0, number
            was_killed = True
        else:
            was_killed = False
        worker.deliver()
        ids = worker.complete()
        assert set(ids) == {f"dq_init/{folder}{name}_dq_init.fits" for name in "ab"}
        assert all(len(set(some)) == 1 for some in ids.values()), (number, ids)
        assert all(len(causes) == 1 for causes in worker.causes.values()), (number, worker.causes)
        if not was_killed:
            break
    else:
        pytest.fail("the command makes more than 40 calls")
    assert number >= 8, "too few calls: are they counted?"


@pytest.mark.slow
def test_two_backfills_at_once_share_the_job(
    function: Harness,
    queues: dict[str, str],
    exposure: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for number in range(3):
        function.upload(exposure, f"2023/jw{number}_uncal.fits")

    def run() -> Any:
        try:
            main(["backfill", FOLDER, "--stack", NAME, "--yes", "--pause", "0.2"])
        except SystemExit as ended:
            return ended.code

    caplog.set_level("WARNING", "core")  # restored afterwards: `main` sets it in both threads
    read_together(monkeypatch, 20)
    function.announcements()
    with working(function, queues["BackfillQueue"]) as given, ThreadPoolExecutor(2) as people:
        codes = [person.result() for person in [people.submit(run) for _ in range(2)]]
    assert codes == [0, 0]
    requests = set(given)
    assert sorted(json.loads(body)["key"] for body in requests) == [
        f"2023/jw{number}_uncal.fits" for number in range(3)
    ]
    events = [e for e in function.announcements() if e["status"] == "Complete"]
    assert len({event["id"] for event in events}) == 3


@pytest.mark.parametrize("denied", [RAW, PRODUCTS])
def test_denied_listing_names_action_and_bucket(
    denied: str,
    function: Harness,
    queues: dict[str, str],
    exposure: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(follow, "_FEW", 0)
    function.upload(exposure, "2023/jw0_uncal.fits")
    original = BaseClient._make_api_call  # type: ignore[attr-defined]

    def call(client: Any, operation: str, given: dict[str, Any]) -> Any:
        if operation == "ListObjectsV2" and given["Bucket"] == denied:
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, operation)
        return original(client, operation, given)

    monkeypatch.setattr(BaseClient, "_make_api_call", call)
    with pytest.raises(SystemExit, match=rf"s3://{denied}/.*: s3:ListBucket is denied") as ended:
        main(["backfill", FOLDER, "--stack", NAME, "--yes", "--pause", "0.2"])
    assert ended.value.code == 1
