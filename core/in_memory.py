"""The step on an exposure held in memory; AWS is not needed."""

import logging
from typing import Any

from numpy.typing import NDArray

from core.exposure import Exposure
from core.fits.hdus import reader_of
from core.layout import Layout
from core.mask import Mask
from core.product import Encoding, HeaderValues, compose
from core.readout import detector_mismatch
from core.step import initialize

__all__ = ["dq_init", "read_exposure", "render"]

log = logging.getLogger(__name__)


def read_exposure(content: bytes, name: str) -> Exposure:
    """Read the headers and ASDF of an exposure; `name` is its file name, for messages.

    Raises
    ------
    InputRejected
        If the file is damaged, lacks an SCI image of 4 axes, or the `jwst` data models cannot open
        it. Keywords of the subarray and the stripes are not checked.
    """
    return Exposure.read(reader_of(content), len(content), name)


def render(layout: Layout, content: bytes) -> bytes:
    """Return the output file that a layout describes, given the content of the input file."""
    out = bytearray(layout.length)
    layout.render(reader_of(content), memoryview(out))
    return bytes(out)


def dq_init(
    content: bytes,
    mask: Mask | None,
    values: HeaderValues,
    encoding: Encoding = Encoding.NATIVE,
    user: NDArray[Any] | None = None,
) -> bytes:
    """Run the step on an exposure and return the product.

    Parameters
    ----------
    content : bytes
        The raw exposure, a FITS file.
    mask : `~core.mask.Mask` or None
        The mask; None if CRDS has none for the exposure (``N/A``).
    values : `~core.product.HeaderValues`
        Header values of the product; `values.mask` must be None if, and only if, `mask` is None.
        Messages call the exposure `values.filename`.
    encoding : `~core.product.Encoding`
        How the product stores science pixels: as in the exposure, or as float32.
    user : ndarray or None
        User-supplied flags, merged with the mask's and ignored without a mask; shape (ny, nx), or
        (SSTR_NST, ny, nx) for superstripes.

    Returns
    -------
    bytes
        The product, a FITS file.

    Raises
    ------
    InputRejected
        If `read_exposure` or `core.readout.cut` rejects the exposure, an array of it cannot be
        merged or converted, a header value is not ASCII, or `user`, with a mask, has another shape
        or floats that are not whole numbers from 0 to 2**32 - 1.
    ReferenceUnavailable
        If the mask is not a full frame and does not declare the area that it covers; the area is
        not needed for superstripes with MSTR_RD1.
    ValueError
        If `encoding` is not a value of `Encoding`, or only one of `mask` and `values.mask` is None.
    """
    encoding = Encoding(encoding)  # compose() compares by identity, which fails for a plain str
    if (mask is None) != (values.mask is None):
        raise ValueError(
            f"{values.filename}: values.mask is {values.mask!r} "
            f"{'without' if mask is None else 'with'} a mask, expected None if, and only if, mask "
            "is None"
        )
    exposure = read_exposure(content, values.filename)
    warning = mask and detector_mismatch(mask, exposure)
    if warning:
        log.warning("%s", warning)
    quality = initialize(exposure, mask, exposure.existing_image(reader_of(content)), user)
    return render(compose(exposure, quality, values, encoding), content)
