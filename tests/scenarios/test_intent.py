"""The product at a key follows the decision table, for requests in any order."""

import json
import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from core.errors import TransientFailure
from core.product import Form
from handler.event import Bus
from infra.demo.local_aws import PRODUCTS, RAW
from tests.conftest import Harness, created
from tests.seeds import seeds

KEY = "2023/jw01_uncal.fits"
MASKS = {
    None: "crds://jwst_nircam_mask_9002.fits",
    "s3://crds-mirror/references/jwst/nircam/jwst_nircam_mask_9001.fits": (
        "s3://crds-mirror/references/jwst/nircam/jwst_nircam_mask_9001.fits"
    ),
    "N/A": "N/A",
}
STEPS = 20


@dataclass(frozen=True)
class Product:
    """The product that the model expects at the key."""

    version: str
    mask: str
    pinned: bool


@dataclass
class Model:
    """The design's table of decisions, in a few lines, and everything that was done so far."""

    function: Harness
    exposure: bytes
    choose: random.Random
    versions: list[str] = field(default_factory=list)
    product: Product | None = None
    requests: list[tuple[str, dict[str, Any], str]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    def upload(self) -> None:
        content = self.exposure[:-1] + bytes([len(self.versions)])
        self.versions.append(self.function.upload(content, KEY))
        self.log.append(f"upload {len(self.versions)}")

    def decide(self, version: str, mask: str | None, on_existing: str) -> Product | None:
        """Return the product that should be there afterwards; None if the request is rejected."""
        wanted, there = Product(version, MASKS[mask], mask is not None), self.product
        if there is None:
            return wanted
        if on_existing == "error":
            return None
        if on_existing == "replace":
            return wanted
        if there.version != version:
            is_newer = self.versions.index(there.version) > self.versions.index(version)
            return there if is_newer else wanted
        return there if there.pinned else wanted

    def decide_event(self, version: str) -> Product | None:
        """An event is one of the current version, unless that has its product (superseded)."""
        current = self.versions[-1]
        if version != current and self.product and self.product.version == current:
            return self.product
        return self.decide(current, None, "skip")

    def event(self) -> None:
        """An upload event arrives: of any version, once more, or after its attempts are over."""
        version = self.choose.choice(self.versions)
        identifier = f"m-{self.versions.index(version)}-{self.choose.randrange(2)}"
        self.deliver(created(KEY, version), identifier, version, is_event=True)

    def request(self) -> None:
        version = self.choose.choice([None, *self.versions])
        mask = self.choose.choice(list(MASKS))
        on_existing = self.choose.choice(["skip", "skip", "replace", "error"])
        fields = {"versionId": version, "mask": mask, "onExisting": on_existing}
        asked = {name: value for name, value in fields.items() if value is not None}
        body = json.dumps({"bucket": RAW, "key": KEY, **asked})
        identifier = f"r-{len(self.requests)}"
        self.deliver(body, identifier, version or self.versions[-1], mask, on_existing)

    def deliver(
        self,
        body: str,
        identifier: str,
        version: str,
        mask: str | None = None,
        on_existing: str = "skip",
        *,
        is_event: bool = False,
    ) -> None:
        expected = self.decide(version, mask, on_existing)
        if is_event:
            expected = self.decide_event(version)
        function = self.function
        is_silent = self.choose.random() < 0.2
        self.log.append(f"{identifier} {body}{' (the bus is down)' * is_silent}")
        if is_silent:
            assert function.with_services(bus=DownBus("default", None)).run_batch(body, identifier=identifier)  # type: ignore[arg-type]  # fmt: skip
            if self.product is None or expected not in {None, self.product}:
                self.product = expected
            self.check()
        if self.choose.random() < 0.3:
            assert function.run_unfinished(body, identifier=identifier) == []
        else:
            assert function.run_batch(body, identifier=identifier) == []
            if expected is not None:
                self.product = expected
        self.requests.append((body, identifier, version))  # type: ignore[arg-type]
        self.check()

    def repeat(self) -> None:
        """The last message is delivered again: nothing changes, unless an upload came between."""
        if self.requests:
            body, identifier, version = self.requests[-1]
            if (
                json.loads(body).get("onExisting") is None
            ):  # of an own cause those change nothing, too
                self.log.append(f"again {identifier}")
                self.product = self.decide_event(version)  # type: ignore[arg-type]
                self.function.run_batch(body, identifier=identifier, deliveries=2)  # type: ignore[arg-type]
                self.check()

    def forget_ledger(self) -> None:
        self.log.append("the ledger's entry is deleted")
        self.function.aws.client("s3").delete_object(
            Bucket=PRODUCTS, Key=f"dq_ledger/{self.function.product_key()}.json"
        )

    def check(self) -> None:
        assert self.found() == self.product, "\n".join([*self.log, *self.versions])

    def found(self) -> Product | None:
        if not self.function.products():
            return None
        head = self.function.aws.client("s3").head_object(
            Bucket=PRODUCTS, Key=self.function.product_key()
        )
        found = head["Metadata"]
        return Product(found["input-version"], found["mask"], found["pinned"] == "true")


class DownBus(Bus):
    """A bus that rejects every event."""

    def send(self, event: object) -> None:
        raise TransientFailure("the bus is down")


@pytest.mark.slow
@pytest.mark.parametrize("form", list(Form))
@pytest.mark.parametrize("seed", seeds(2))
def test_product_follows_the_table_in_any_order(
    seed: int, form: Form, function: Harness, exposure: bytes
) -> None:
    """Versions follow one another within a second: LastModified does not order them."""
    model = Model(function.with_settings(form=form), exposure, random.Random(seed))
    model.upload()
    steps = [model.event, model.request, model.repeat, model.upload, model.forget_ledger]
    for step in model.choose.choices(steps, weights=[5, 5, 2, 1, 1], k=STEPS):
        step()
    versions = function.aws.client("s3").list_object_versions(
        Bucket=PRODUCTS, Prefix=model.function.product_key()
    )
    complete = [d for d in function.announcements() if d["status"] == "Complete"]
    ids = {(d["id"], d["output"]["versionId"]) for d in complete}
    found = {version["VersionId"] for version in versions.get("Versions", [])}
    assert {version for _, version in ids} == found, "each product was published"
    assert len(ids) == len({name for name, _ in ids}) == len(found), "under one id"
