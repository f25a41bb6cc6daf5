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
    """Read the headers of an exposure; `name` is its file name, for messages.

    Raises
    ------
    InputRejected
        If the file is not a raw exposure that `jwst` could process.
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
        Header values of the product.
    encoding : `~core.product.Encoding`
        Pixel type of the science arrays in the product.
    user : ndarray or None
        User-supplied flags, merged with the mask's; shape (ny, nx), or (SSTR_NST, ny, nx) for
        superstripes.

    Returns
    -------
    bytes
        The product, a FITS file.

    Raises
    ------
    InputRejected
        If the exposure is invalid, or the mask cannot be cut to its readout.
    ReferenceUnavailable
        If the mask does not declare the area that it covers.
    """
    exposure = read_exposure(content, values.filename)
    warning = mask and detector_mismatch(mask, exposure)
    if warning:
        log.warning("%s", warning)
    quality = initialize(exposure, mask, exposure.existing_image(reader_of(content)), user)
    return render(compose(exposure, quality, values, encoding), content)
