"""A bucket of another account that allows only reads of objects.

So is the public archive, ``stpubdata``: no versions, no listing of them; without ``s3:ListBucket`` a
key that is not there is answered 403 (Amazon S3 API Reference, HeadObject, "Permissions"). Where the
requester pays, requests without the header are refused (User Guide, "Using Requester Pays buckets").
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

__all__ = ["ForeignBucket"]


@dataclass
class ForeignBucket:
    """Permissions that the other account grants.

    Attributes
    ----------
    is_listed : bool
        Whether it may be listed, too.
    requester_pays : bool
        Whether it answers only those who say that they pay.
    refused : list of str
        What was asked beyond that.
    """

    is_listed: bool = False
    requester_pays: bool = False
    refused: list[str] = field(default_factory=list)

    def refuses(self, method: str, path: str, headers: Mapping[str, str]) -> bool:
        """Return whether a request is refused, and record it."""
        url = urlsplit(path)
        query = parse_qs(url.query, keep_blank_values=True)
        source = headers.get("x-amz-copy-source")
        is_read = source is not None or (
            method in {"GET", "HEAD"} and url.path.strip("/").count("/") > 0
        )
        is_listing = method == "GET" and self.is_listed and query.get("list-type") == ["2"]
        names_version = "versionId" in query or "versionId=" in (source or "")
        pays = not self.requester_pays or headers.get("x-amz-request-payer") == "requester"
        granted = (is_read or is_listing) and not names_version and pays
        if not granted:
            self.refused.append(f"{method} {path}")
        return not granted
