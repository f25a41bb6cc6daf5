"""CPU time of a warm invocation compared with jwst, and equality of the products."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

from tests.benchmark.bench import PRODUCTS, Bench, Row, fill, served, spread, upload
from tests.benchmark.material import LongExposure
from tests.benchmark.servers import CountingProxy, moto
from tests.jwst import Jwst
from tests.products import undated

_ROUNDS, _EACH = 5, 3
"""Number of alternating processes of each side; warm invocations per process."""


def rows(bench: Bench, jwst: Jwst, exposure: LongExposure, local: Path) -> Iterator[Row]:
    """Yield the rows of both encodings; `local` is the exposure as a file."""
    theirs = bench.folder / "jwst.fits"
    cpu: dict[str, list[float]] = {"native": [], "float32": [], "jwst": []}
    with served(bench, jwst.cache, exposure) as (there, _):
        for _ in range(_ROUNDS):
            costs = jwst.answer("step", local, theirs, _EACH + 1)
            cpu["jwst"] += [cost["cpu"] for cost in costs[1:]]
            for encoding in ("native", "float32"):
                with there.worker(encoding, counted=False) as worker:
                    answers = [worker.run(exposure.key) for _ in range(_EACH + 1)]
                cpu[encoding] += [answer["cost"]["cpu"] for answer in answers[1:]]
    for encoding, goal in (("native", 1 / 7), ("float32", 2 / 5)):
        yield Row(
            f"CPU time, {exposure.name}, warm, {encoding}, against jwst",
            f"<= {goal:.2f}",
            f"{median(cpu[encoding]) / median(cpu['jwst']):.3f}",
            f"{spread(cpu[encoding])} against {spread(cpu['jwst'])}",
        )
        yield from compared(bench, jwst, encoding, exposure)


def compared(bench: Bench, jwst: Jwst, encoding: str, exposure: LongExposure) -> Iterator[Row]:
    """Compare the product of assembly, of streaming and on moto, and with that of jwst."""
    digests = {}
    with bench.worker(encoding) as worker:
        worker.run(exposure.key)
    assembled = fetched(bench, exposure, "assembled.fits")
    digests["assembled"] = digest(assembled)
    with bench.worker(encoding, blocks=False) as worker:
        worker.run(exposure.key)
    digests["without blocks"] = digest(fetched(bench, exposure, "streamed.fits"))
    with moto() as port:
        proxy = CountingProxy(port)
        proxy.start()
        other = replace(bench, port=port, proxy=proxy)
        fill(other.s3, jwst.cache)
        upload(other.s3, exposure)
        with other.worker(encoding) as worker:
            worker.run(exposure.key)
        digests["on moto"] = digest(fetched(other, exposure, "moto.fits"))
    different = jwst.answer("compare", assembled, bench.folder / "jwst.fits")
    same = len(set(digests.values())) == 1
    yield Row(
        f"products of {exposure.name}, {encoding}: {', '.join(digests)}",
        "the same bytes",
        "the same" if same else "DIFFERENT",
        "MiniStack and moto, DATE left out",
    )
    yield Row(
        f"product of {exposure.name}, {encoding}, opened by jwst",
        "arrays and metadata equal",
        "equal" if not different else f"DIFFERENT: {', '.join(different)}",
        "against jwst's own product",
    )


def fetched(bench: Bench, exposure: LongExposure, name: str) -> Path:
    """Download the exposure's product."""
    key = exposure.key.replace("_uncal", "_dq_init")
    bench.s3.download_file(PRODUCTS, f"dq_init/{key}", str(bench.folder / name))
    return bench.folder / name


def digest(path: Path) -> str:
    """Return the SHA-256 of a product without DATE."""
    return hashlib.sha256(undated(path.read_bytes())).hexdigest()
