"""Run dq_init on an exposure held in memory; AWS is not needed."""

import logging
from typing import Any

from numpy.typing import NDArray

from core.compat import check_asdf_agrees
from core.exposure import Exposure
from core.fits.hdus import locate, reader_of
from core.layout import Layout
from core.mask import Mask
from core.product import Encoding, HeaderValues, compose
from core.readout import detector_mismatch
from core.step import initialize

__all__ = ["dq_init", "read_exposure", "render"]

log = logging.getLogger(__name__)

_PIECE = 16 * 1024 * 1024


def read_exposure(content: bytes, name: str) -> Exposure:
    """Read what the headers say of an exposure.

    Parameters
    ----------
    content : bytes
        The FITS file.
    name : str
        What messages call it.

    Raises
    ------
    InputRejected
        If it is no exposure.
    """
    read = reader_of(content)
    hdus = locate(read, len(content), name)
    exposure = Exposure.from_hdus(hdus, name)
    check_asdf_agrees(hdus, read, name)
    return exposure


def render(layout: Layout, content: bytes) -> bytes:
    """Return the output file that a layout describes, given the input file."""
    out = bytearray(layout.length)
    position = 0
    for piece in layout.pieces(_PIECE):
        wanted = piece.source
        source = content[wanted.start : wanted.start + wanted.length] if wanted else b""
        piece.render(source, memoryview(out)[position : position + piece.length])
        position += piece.length
    return bytes(out)


def dq_init(
    content: bytes,
    mask: Mask | None,
    values: HeaderValues,
    encoding: Encoding = Encoding.NATIVE,
    user: NDArray[Any] | None = None,
) -> bytes:
    """Make the product of an exposure.

    Parameters
    ----------
    content : bytes
        The exposure, a FITS file.
    mask : `~core.mask.Mask` or None
        The mask; None where CRDS has none for the exposure.
    values : `~core.product.HeaderValues`
        What the product's header says of how it was made.
    encoding : `~core.product.Encoding`
        How the science pixels are written.
    user : ndarray or None
        User-supplied flags of the cut mask's shape, merged with the mask's.

    Returns
    -------
    bytes
        The product, a FITS file.

    Raises
    ------
    InputRejected
        If it is no exposure, or the mask cannot be cut to its readout.
    ReferenceUnavailable
        If the mask does not say what it covers.
    """
    exposure = read_exposure(content, values.filename)
    warning = mask and detector_mismatch(mask, exposure)
    if warning:
        log.warning("%s", warning)
    quality = initialize(exposure, mask, exposure.existing_image(reader_of(content)), user)
    return render(compose(exposure, quality, values, encoding), content)
