"""The function on an embedded AWS, for comparison with jwst."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from core.errors import InputRejected, ReferenceUnavailable
from core.in_memory import render
from core.product import NO_MASK, Encoding, Form
from core.virtual import unpack
from handler.crds.masks import References
from handler.event import Bus
from handler.events import Attempt, ExposureRequest, OnExisting
from handler.ledger import Ledger
from handler.process import process
from handler.s3.blocks import Blocks
from handler.s3.objects import S3Location
from handler.services import Services
from handler.settings import Settings
from infra.demo.local_aws import MIRROR, PRODUCTS, RAW, LocalAws
from tests.conformance.cases import Case
from tests.conftest import empty_moto
from tests.products import undated
from tests.samples.mirror import CONTEXT

__all__ = ["Ours"]


@dataclass
class Ours:
    """The function on an embedded AWS, one set of services for both encodings."""

    aws: LocalAws
    function: Services

    @classmethod
    def of(cls, aws: LocalAws, scratch: Path, prefix: str = "") -> "Ours":
        """Return the function with the mirror at a prefix of the mirrors' bucket."""
        mirror = S3Location(MIRROR, prefix)
        s3, bus = aws.client("s3"), Bus("default", aws.client("events"))
        references = References.of(mirror, scratch, s3)
        settings = Settings(PRODUCTS, "", mirror, CONTEXT)
        sqs = partial(aws.client, "sqs")
        return cls(aws, Services(settings, s3, references, Blocks(None), Ledger(None), bus, sqs))

    def product(self, folder: Path, case: Case, encoding: Encoding) -> bytes | str:
        """Process a case; return the product or the message of the rejection.

        The product is built in both forms: the virtual one must expand to the assembled one.
        """
        empty_moto()  # it would keep every exposure and product in memory
        s3 = self.aws.client("s3")
        key = f"{case.name}_uncal.fits"
        s3.upload_file(str(folder / "exposure_uncal.fits"), RAW, key)
        more: dict[str, Any] = {"none": {"mask": NO_MASK}, "rules": {}, "mask": {"mask": None}}[
            case.by
        ]
        for field_name, name in (("mask", "mask.fits"), ("user_dq", "user_dq.fits")):
            if (folder / name).exists():
                s3.upload_file(str(folder / name), RAW, f"{case.name}/{name}")
                more[field_name] = S3Location(RAW, f"{case.name}/{name}")
        settings = replace(self.function.settings, output_prefix=f"{encoding}/", encoding=encoding)
        request = ExposureRequest(S3Location(RAW, key), on_existing=OnExisting.REPLACE, **more)
        products = []
        for form in Form:
            function = replace(self.function, settings=replace(settings, form=form))
            try:
                event = process(request, function, Attempt(case.name, case.name))
            except (InputRejected, ReferenceUnavailable) as exc:
                return str(exc)
            output = event.findings.output
            assert output is not None
            products.append(s3.get_object(Bucket=PRODUCTS, Key=output.key)["Body"].read())
        assembled, virtual = products
        exposure = (folder / "exposure_uncal.fits").read_bytes()
        if undated(render(unpack(virtual, case.name)[0], exposure)) != undated(assembled):
            raise AssertionError(f"{case.name}: the virtual product expands to another file")
        return assembled
