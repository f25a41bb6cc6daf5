"""Backfills, as a person types them: told, sent, followed, left and gone on with."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from infra.__main__ import main
from infra.backfill import __main__ as command
from infra.backfill.targets import archive_location, digest_of_list, find
from infra.campaign import submit as sending
from infra.demo.local_aws import RAW, LocalAws
from infra.terminal import Mistake
from tests.conftest import Harness
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
    """Let the function be driven by a queue, as Lambda's poller does; yields what it was given."""
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
    yield given
    stop.set()
    thread.join()


def backfill(*words: str, capsys: pytest.CaptureFixture[str], exit_code: int = 0) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["backfill", *words, "--stack", NAME, "--yes", "--pause", "0.2"])
    assert ended.value.code == exit_code
    return capsys.readouterr().out


def words(said: str) -> str:
    return " ".join(said.split())


def test_good_bad_and_done_exposures_are_told_apart(
    function: Harness, queues: dict[str, str], exposure: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(5):
        function.upload(exposure, f"2023/jw{number}_uncal.fits")
    function.upload(b"nothing", "2023/jw5_uncal.fits")
    function.upload(b"", "2023/notes.txt")
    function.run("2023/jw0_uncal.fits")
    with working(function, queues["BackfillQueue"]):
        said = backfill(FOLDER, "--json", capsys=capsys, exit_code=1)
    told = json.loads(said[said.index("{\n") :])
    assert (told["complete"], told["skipped"], told["failed"]) == (4, 1, 1)
    assert told["errors"] == {"InputRejected": 1}
    ((product, reason),) = told["reasons"].items()
    assert product.endswith("2023/jw5_dq_init.fits")
    assert "SIMPLE" in reason
    assert len(function.products()) == 5


def test_it_says_how_many_how_large_and_what_it_costs_and_asks(
    function: Harness,
    queues: dict[str, str],
    exposure: bytes,
    capsys: pytest.CaptureFixture[str],
) -> None:
    function.upload(exposure, "2023/jw0_uncal.fits")
    main(["backfill", FOLDER, "--stack", NAME, "--dry-run"])
    assert "1 exposures, 0.00 GB; some 0.00 USD" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="nothing was started"):
        main(["backfill", FOLDER, "--stack", NAME])
    sqs = function.aws.client("sqs")
    assert "Messages" not in sqs.receive_message(QueueUrl=queues["BackfillQueue"])


def test_it_says_when_a_queue_would_drop_what_waits_too_long(
    aws: LocalAws,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(command, "_USUAL_SIZE", 10**12)  # for want of a list of millions
    name, said = tmp_path / "names.txt", {}
    parameters = {"ScienceEncoding": "float32", "BackfillConcurrency": "2"}
    with stack_of_outputs(aws, NAME, QUEUES, **parameters):
        for number in (1, 99):
            listed = (ARCHIVED.replace("_00001_", f"_{n:05}_") for n in range(1, number + 1))
            name.write_text("\n".join(listed))
            main(["backfill", str(name), "--stack", NAME, "--dry-run"])
            said[number] = words(capsys.readouterr().out)
    assert "h, at most 2 at a time" in said[1]
    assert "SQS drops" not in said[1]
    assert said[99].endswith("SQS drops what waits for 14 days: send them in parts.")


def test_it_is_left_and_gone_on_with(
    function: Harness,
    queues: dict[str, str],
    exposure: bytes,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sending, "_STRETCH", 10)
    for number in range(25):
        function.upload(exposure, f"2023/jw{number:02}_uncal.fits")
    original, sent = sending._send, []

    def interrupted(lines: Any, *arguments: Any) -> None:
        if len(sent) == 1:
            sent.append("stop")
            raise KeyboardInterrupt
        sent.append(lines)
        original(lines, *arguments)

    monkeypatch.setattr(sending, "_send", interrupted)
    backfill(
        FOLDER,
        capsys=capsys,
        exit_code="stopped; what was done stays done, and the same command goes on",
    )  # type: ignore[arg-type]
    function.upload(exposure, "2023/jw99_uncal.fits")  # belongs to the next one
    with working(function, queues["BackfillQueue"]) as given:
        said = backfill(FOLDER, capsys=capsys)
    assert "Going on with what began" in said
    assert "10 of 25 were sent" in said
    assert "25 complete: the product was made" in words(said)
    keys = [json.loads(body)["key"] for body in given]
    assert len(keys) == len(set(keys)) == 25, "what was sent is not sent again"
    with working(function, queues["BackfillQueue"]) as given:
        said = backfill(FOLDER, capsys=capsys)
    assert "1 complete: the product was made 25 skipped" in words(said)


def test_another_context_is_another_backfill(
    function: Harness, queues: dict[str, str], exposure: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    function.upload(exposure, "2023/jw0_uncal.fits")
    with working(function, queues["BackfillQueue"]) as given:
        backfill(FOLDER, "--context", "jwst_9001.pmap", "--replace", capsys=capsys)
    assert json.loads(given[0])["context"] == "jwst_9001.pmap"
    assert json.loads(given[0])["onExisting"] == "replace"


def test_messages_that_sqs_does_not_take_are_sent_again() -> None:
    taken: list[str] = []

    class Sqs:
        def send_message_batch(self, **batch: Any) -> dict[str, Any]:
            first, *others = batch["Entries"]
            done = others or [first]  # the first one of several is not taken
            taken.extend(entry["MessageBody"] for entry in done)
            return {"Failed": [{"Id": first["Id"]}] if others else []}

    sending._send(["a", "b", "c"], Sqs(), "queue")  # type: ignore[arg-type]
    assert sorted(taken) == ["a", "b", "c"]


def test_names_of_the_archive_are_found_in_it(tmp_path: Path, aws: LocalAws) -> None:
    folder = "s3://stpubdata/jwst/public/jw02733/jw02733001001"
    assert str(archive_location(ARCHIVED)) == f"{folder}/{ARCHIVED}"
    assert str(archive_location(f"mast:JWST/product/{ARCHIVED}")) == f"{folder}/{ARCHIVED}"
    listed = tmp_path / "mine.txt"
    listed.write_text(
        f"# of July\n{ARCHIVED}\n\n{folder}/{ARCHIVED}  # again\ns3://b/x_uncal.fits\n"
    )
    found = [str(item.location) for item in find([str(listed)], aws.client("s3"))]
    assert found == [f"{folder}/{ARCHIVED}", "s3://b/x_uncal.fits"]


@pytest.mark.parametrize("word", ["nowhere", "jw02733001001_nrca1_cal.fits", "s3://"])
def test_words_that_mean_nothing_are_one_line(
    word: str, queues: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["backfill", word, "--stack", NAME])
    assert len(str(ended.value.code).splitlines()) == 1


def test_what_was_left_for_good_is_followed_by_the_next_one(
    function: Harness, queues: dict[str, str], exposure: bytes
) -> None:
    for night in range(2):
        function.upload(exposure, f"2023/jw{night}_uncal.fits")
        main(["backfill", FOLDER, "--stack", NAME, "--yes", "--leave"])
        bodies = [m["Body"] for m in function.aws.receive(queues["BackfillQueue"])]
        assert {json.loads(body)["key"] for body in bodies} == {
            f"2023/jw{number}_uncal.fits" for number in range(night + 1)
        }


def test_a_context_of_no_such_name_sends_nothing(
    function: Harness, queues: dict[str, str], exposure: bytes
) -> None:
    function.upload(exposure, "2023/jw0_uncal.fits")
    with pytest.raises(SystemExit, match=r"expected latest, build or jwst_N\.pmap"):
        main(["backfill", FOLDER, "--stack", NAME, "--yes", "--context", "jwst_1321"])
    assert function.aws.receive(queues["BackfillQueue"]) == []


def test_what_nobody_has_heard_of_is_not_called_skipped(
    function: Harness, queues: dict[str, str], exposure: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    function.upload(exposure, "2023/jw0_uncal.fits")
    main(["backfill", FOLDER, "--stack", NAME, "--yes", "--leave"])
    function.aws.receive(queues["BackfillQueue"])  # lost, to whatever queue
    said = backfill(FOLDER, capsys=capsys, exit_code=1)
    assert "1 unknown" in words(said)


def test_a_list_is_known_by_its_content_and_an_exposure_is_no_list(
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
    with pytest.raises(Mistake, match="line by line"):
        list(find(["list"], aws.client("s3")))
