"""Select the exposures that a new context affects, of a million.

``python -m tests.benchmark.archive FOLDER ENDPOINT`` selects in a process of its own; `rows` measures it
beside `crds`, which is asked for a sample of the same exposures one by one.
"""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3

from handler.crds.lean_import import utils
from handler.crds.mirror import FileDigest, MirrorConfig
from handler.crds.parameters import FITS_KEYWORDS
from handler.crds.rules import Rules
from handler.s3.objects import S3Location
from infra.demo.local_aws import MIRROR, local_aws
from infra.mirror.bucket import Mirror
from infra.mirror.contexts import Context, read_context
from infra.reprocess.catalogue import COLUMNS, database
from infra.reprocess.select import ContextMasks, Effect, Selection
from tests.benchmark.bench import Row
from tests.conftest import PROJECT, SHARED
from tests.jwst import Jwst
from tests.samples.mirror import RULES, write_rules, write_server_config

EXPOSURES, SETTINGS, SAMPLE = 1_000_000, 470, 1500
REAL = ("jwst_0362.pmap", "jwst_0541.pmap")
GENERATED = ("jwst_9001.pmap", "jwst_9002.pmap")
PATTERNS = {"NIRSPEC": ("NRSRAPID", "NRSIRS2RAPID"), "MIRI": ("FASTR1", "SLOWR1")}
TYPES = {"FGS": ("FGS_ID-STACK", "FGS_TRACK"), "NIRCAM": ("NRC_IMAGE",)}


class Files:
    """Rule files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()

    def discard(self, name: str) -> None:
        """Do nothing: no file is damaged."""


def write_cache(folder: Path) -> tuple[str, str]:
    """Write two contexts into a CRDS cache, real ones if available; return their names."""
    real = SHARED / "crds-contexts" / "mappings" / "jwst"
    mappings = folder / "mappings" / "jwst"
    if real.is_dir():
        shutil.copytree(real, mappings, copy_function=shutil.copyfile)
        for path in mappings.glob("*.imap"):  # the rules of other reference types are not available
            lines = path.read_text().splitlines(keepends=True)
            kept = [x for x in lines if ".rmap'" not in x or "_mask_" in x]
            unsigned = "".join(line for line in kept if "'sha1sum'" not in line)
            signature = f"    'sha1sum' : {utils.str_checksum(unsigned)!r},\n"
            path.write_text("".join(signature if "'sha1sum'" in x else x for x in kept))
        before, after = REAL
    else:
        before, after = GENERATED
        write_rules(folder)
        parameters, choices = RULES["nircam"]
        newer = dict.fromkeys(choices, 9001)
        write_rules(folder, context=after, rules={**RULES, "nircam": (parameters, newer)})
    masks = {name for c in (before, after) for name in read_context(c, Files(mappings)).masks}
    digests = {n: FileDigest(1, hashlib.sha1(n.encode()).hexdigest()) for n in masks}  # noqa: S324
    digests |= {path.name: FileDigest.of(path.read_bytes()) for path in mappings.iterdir()}
    write_server_config(folder)
    (folder / "of_mirror").write_bytes(MirrorConfig(after, frozenset(), digests).to_config())
    return before, after


def settings(context: Context, chance: random.Random) -> list[dict[str, Any]]:
    """Return rule parameters of as many settings as an archive has."""
    pairs = sorted({(rule.instrument.upper(), rule.value("DETECTOR")) for rule in context.rules})
    subarrays = sorted({rule.value("SUBARRAY.NAME") for rule in context.rules} | {"FULL", "SUB64P"})
    found: dict[str, dict[str, Any]] = {}
    while len(found) < SETTINGS:
        instrument, detector = chance.choice(pairs)
        one = {
            "META.INSTRUMENT.NAME": instrument,
            "META.INSTRUMENT.DETECTOR": detector,
            "META.SUBARRAY.NAME": chance.choice(subarrays),
            "META.EXPOSURE.READPATT": chance.choice(PATTERNS.get(instrument, ("RAPID",))),
            "META.EXPOSURE.TYPE": chance.choice(TYPES.get(instrument, ("MIR_IMAGE",))),
            "META.EXPOSURE.NGROUPS": chance.randint(1, 9),
            "META.SUBARRAY.XSTART": 1,
            "META.SUBARRAY.YSTART": 1,
            "META.SUBARRAY.XSIZE": 64,
            "META.SUBARRAY.YSIZE": 64,
        }
        found[json.dumps(one, sort_keys=True)] = one
    return list(found.values())


def write_archive(folder: Path, context: Context) -> None:
    """Write a catalogue of a million exposures."""
    some = settings(context, random.Random(1))
    lines = folder / "settings.jsonl"
    with lines.open("w") as file:
        for number, one in enumerate(some):
            text = json.dumps(one, sort_keys=True)
            named = {
                "number": number,
                "instrument": one["META.INSTRUMENT.NAME"],
                "parameters": text,
            }
            file.write(json.dumps(named) + "\n")
    made = {
        "product_bucket": "'products'",
        "product_key": "format('dq_init/2024/jw{:08d}_dq_init.fits', e)",
        "input_bucket": "'raw'",
        "input_key": "format('2024/jw{:08d}_uncal.fits', e)",
        "input_bytes": "92000000",
        "instrument": "instrument",
        "kind": "'ramp'",
        "integrations": "1",
        "groups": "5",
        "rows": "64",
        "columns": "64",
        "parameters": "parameters",
        "observed": "strftime(TIMESTAMP '2014-01-01' + INTERVAL (hash(e) % 394000000) SECOND, "
        "'%Y-%m-%d %H:%M:%S')",
        "mask": "'before'",
        "mask_sha1": "'before'",
        "planes_sha256": "format('{:064d}', number)",
        "requested_fields": "''",
    }
    columns = ", ".join(
        f"({made.get(name, 'NULL')})::{kind} AS {name}" for name, kind in COLUMNS.items()
    )
    with database(folder, "1GB") as connection:
        connection.execute(
            f"COPY (SELECT {columns} FROM range({EXPOSURES}) AS r(e) JOIN read_json('{lines}') AS s "
            f"ON s.number = hash(e, 1) % {SETTINGS} ORDER BY instrument, parameters) "
            f"TO '{folder / 'exposures.parquet'}' (FORMAT parquet, COMPRESSION zstd)"
        )


def select(folder: Path, endpoint: str) -> None:
    """Select; print time and memory."""
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_ENDPOINT_URL": endpoint,
    }
    s3 = boto3.client("s3", region_name="us-east-1")
    place = S3Location(MIRROR, "archive")
    before, after = json.loads((folder / "contexts.json").read_text())
    start = time.perf_counter()
    rules, mirror = Rules(place, folder / "rules", s3), Mirror(s3, place)
    masks = [ContextMasks(rules, mirror, name) for name in (after, before)]
    with database(folder) as connection:
        selection = Selection(connection, folder / "exposures.parquet", *masks)
        list(selection.decide())
        count = 0
        with (folder / "selected.txt").open("w") as file:
            for _, key, *_ in selection.inputs({Effect.NAME, Effect.CONTENT}):
                file.write(f"{key}\n")
                count += 1
    summary = {
        "seconds": time.perf_counter() - start,
        "selected": count,
        "evaluated": sum(context.evaluated for context in masks),
        "peak_mib": peak_mib(),
    }
    print(json.dumps(summary))


def peak_mib() -> float:
    """Return the peak memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def rows(folder: Path, jwst: Jwst) -> Iterator[Row]:
    """Measure; compare the selection with crds on a sample."""
    cache = folder / "cache"
    before, after = write_cache(cache)
    (folder / "contexts.json").write_text(json.dumps([before, after]))
    write_archive(folder, read_context(after, Files(cache / "mappings" / "jwst")))
    with local_aws() as aws:
        s3 = aws.client("s3")
        for path in (cache / "mappings" / "jwst").iterdir():
            s3.upload_file(str(path), MIRROR, f"archive/mappings/jwst/{path.name}")
        s3.upload_file(str(cache / "of_mirror"), MIRROR, "archive/config/jwst/server_config")
        command = [sys.executable, "-m", "tests.benchmark.archive", str(folder), aws.endpoint]
        runs = [
            json.loads(
                subprocess.run(
                    command, cwd=PROJECT, check=True, stdout=subprocess.PIPE, text=True
                ).stdout.splitlines()[-1]
            )
            for _ in range(3)
        ]
    best = sorted(runs, key=lambda run: run["seconds"])[1]
    rate, wrong = beside_crds(folder, replace(jwst, cache=cache), before, after)
    what = f"exposures that a new context affects, of {EXPOSURES:,}"
    remark = (
        f"{best['selected']:,} selected from {before} to {after}, {best['evaluated']} evaluations"
    )
    yield Row(f"{what}: time", "<= 2 s", f"{best['seconds']:.1f} s", remark)
    yield Row(f"{what}: peak memory", "<= 256 MiB", f"{best['peak_mib']:.0f} MiB", "of 3 runs")
    ratio = EXPOSURES / best["seconds"] / rate
    yield Row(
        f"{what}: throughput against crds's",
        ">= 100",
        f"{ratio:.0f}",
        f"crds.getrecommendations for two contexts: {rate:.0f} exposures a second",
    )
    yield Row(
        f"{what}: missed or too many", "0", str(wrong), f"of {SAMPLE} that crds was asked for"
    )


def beside_crds(folder: Path, jwst: Jwst, before: str, after: str) -> tuple[float, int]:
    """Return the exposures per second of crds, and the number of differing decisions."""
    with database(folder) as connection:
        sample = connection.execute(
            f"SELECT input_key, parameters, observed FROM '{folder / 'exposures.parquet'}' "
            f"USING SAMPLE {SAMPLE} (reservoir, 1)"
        ).fetchall()
    headers = []
    for _, text, observed in sample:
        date, _, clock = observed.partition(" ")
        known = {k: v for k, v in json.loads(text).items() if k in FITS_KEYWORDS}
        headers.append(known | {"META.OBSERVATION.DATE": date, "META.OBSERVATION.TIME": clock})
    asked = [{"context": c, "header": header} for header in headers for c in (before, after)]
    seconds = {}
    for number in (2, len(asked)):
        path = folder / f"asked-{number}.json"
        path.write_text(json.dumps(asked[:number]))
        start = time.perf_counter()
        jwst.run("choose", path)
        seconds[number] = time.perf_counter() - start
    answers = json.loads((folder / f"asked-{len(asked)}.answers").read_text())
    selected = set((folder / "selected.txt").read_text().split())
    wrong = 0
    for (key, _, _), old, new in zip(sample, answers[::2], answers[1::2], strict=True):
        both = not any(a.startswith("NOT FOUND") and "N/A" not in a.upper() for a in (old, new))
        wrong += (key in selected) != (both and _mask(old) != _mask(new))
    return SAMPLE / (seconds[len(asked)] - seconds[2]), wrong


def _mask(answer: str) -> str:
    return "N/A" if answer.upper() in {"N/A", "NOT FOUND N/A"} else answer


if __name__ == "__main__":
    select(Path(sys.argv[1]), sys.argv[2])
