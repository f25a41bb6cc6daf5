"""The product: the headers and the layout of the output file."""

import warnings
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from astropy.io import fits
from astropy.io.fits.verify import VerifyError, VerifyWarning

from core import SOFTWARE, __version__
from core.errors import InputRejected
from core.exposure import Exposure, Kind
from core.hdus import Hdu, find, padding
from core.layout import Converted, Copied, Layout, Made, Merged, Repeated, Segment
from core.pixels import FLOAT32, PixelFormat, encode_uint32, format_of
from core.step import DataQuality, image_name, kept

__all__ = ["NO_MASK", "Encoding", "Provenance", "compose", "product_name"]

_DATA_MODELS = {
    Kind.RAMP: "RampModel",
    Kind.SUPERSTRIPE: "SuperstripeRampModel",
    Kind.GUIDER: "GuiderRawModel",
}
_FLOAT32_ARRAYS = {
    Kind.RAMP: frozenset({"SCI", "ZEROFRAME", "REFOUT"}),
    Kind.SUPERSTRIPE: frozenset({"SCI", "ZEROFRAME", "REFOUT"}),
    Kind.GUIDER: frozenset({"SCI", "ERR"}),
}
_UINT8, _UINT32 = PixelFormat(8), PixelFormat(32, unsigned=True)
NO_MASK = "N/A"
"""What jwst writes into R_MASK where CRDS has no mask for an exposure."""

HeaderCard = tuple[str, str, str]
"""Keyword, value and comment."""

_CHECKSUMS = ("CHECKSUM", "DATASUM")
_STRUCTURE = frozenset(
    {"XTENSION", "BITPIX", "PCOUNT", "GCOUNT", "BSCALE", "BZERO", "BLANK", "EXTNAME", "EXTVER"}
)


class Encoding(StrEnum):
    """How the science pixels are written."""

    NATIVE = "native"
    """SCI, ZEROFRAME and REFOUT keep the bytes they came with."""
    FLOAT32 = "float32"
    """They are written as `jwst` writes them."""


@dataclass(frozen=True)
class Provenance:
    """What the product's header says of how it was made.

    Attributes
    ----------
    filename : str
        The product's file name (FILENAME).
    date : str
        ISO 8601, UTC (DATE).
    crds_version, crds_context : str
        Version of the CRDS package and name of the context (CRDS_VER, CRDS_CTX).
    mask : str or None
        What R_MASK says, such as ``crds://jwst_nircam_mask_0033.fits``; None where there was no
        mask to apply.
    """

    filename: str
    date: str
    crds_version: str
    crds_context: str
    mask: str | None


def product_name(name: str) -> str:
    """Return the file name of the product of `name`: ``_uncal`` becomes ``_dq_init``."""
    stem = name.removesuffix(".fits")
    return f"{stem.removesuffix('_uncal')}_dq_init.fits"


def compose(
    exposure: Exposure, quality: DataQuality, provenance: Provenance, encoding: Encoding
) -> Layout:
    """Lay out the product.

    The data-quality HDUs follow SCI; every other HDU keeps its place and its bytes, except that
    the primary header is brought up to date and, in float32 encoding, the science arrays are
    converted.

    Parameters
    ----------
    exposure : `~core.exposure.Exposure`
        The exposure.
    quality : `~core.step.DataQuality`
        The planes that the step made.
    provenance : `Provenance`
        What the header says of how it was made.
    encoding : `Encoding`
        How the science pixels are written.

    Returns
    -------
    `~core.layout.Layout`
        The whole output file.

    Raises
    ------
    InputRejected
        If an array cannot be converted, or a card of a header cannot be kept.
    """
    segments: list[Segment] = [Made(_bytes(_primary_header(exposure, provenance), exposure.name))]
    primary = exposure.hdus[0]
    segments.append(Copied(primary.data_start, primary.end - primary.data_start))
    made = _made_names(exposure)
    for hdu in exposure.hdus[1:]:
        if hdu.name not in made:
            segments += _passed_on(hdu, exposure, encoding)
        if hdu.name == "SCI":
            segments += _quality_hdus(exposure, quality, encoding, provenance.mask is None)
    return Layout.of(segments)


def _made_names(exposure: Exposure) -> frozenset[str]:
    """EXTNAMEs whose place is after SCI, whatever the input has of them."""
    if exposure.kind is Kind.GUIDER:
        return frozenset({"ERR", "DQ"})
    return frozenset({"PIXELDQ", "GROUPDQ"})


def _primary_header(exposure: Exposure, provenance: Provenance) -> fits.Header:
    """The input's primary header, brought up to date; comments are those of `jwst`."""
    header = exposure.header.copy()
    for keyword in _CHECKSUMS:
        header.remove(keyword, ignore_missing=True)
    for card in (
        ("DATE", provenance.date, "UTC date file created"),
        ("FILENAME", provenance.filename, "Name of the file"),
        ("DATAMODL", _DATA_MODELS[exposure.kind], "Type of data model"),
    ):
        _set(header, card, exposure.name)
    reference: list[HeaderCard] = [
        ("CRDS_VER", provenance.crds_version, "Version of CRDS file selection software used"),
        ("CRDS_CTX", provenance.crds_context, "CRDS context (.pmap) used to select ref files"),
        ("R_MASK", provenance.mask or NO_MASK, "Mask reference file name"),
    ]
    status = "SKIPPED" if provenance.mask is None else "COMPLETE"
    step: list[HeaderCard] = [("S_DQINIT", status, "Data Quality Initialization")]
    _set_section(header, "Reference file information", reference, exposure.name)
    _set_section(header, "Calibration step information", step, exposure.name)
    header.add_history(f"dq_init by {SOFTWARE} {__version__}")
    return header


def _set_section(header: fits.Header, title: str, cards: list[HeaderCard], owner: str) -> None:
    """Set cards; where none of them is there yet, put them under a title at the end."""
    if not any(keyword in header for keyword, _, _ in cards):
        for line in ("", title, ""):
            header.append(("", line), end=True)
    for card in cards:
        _set(header, card, owner)


def _set(header: fits.Header, card: HeaderCard, owner: str) -> None:
    """Set a card where it is, or at the end."""
    keyword, value, comment = card
    if keyword not in header:
        header.append(card, end=True)
        return
    try:
        header[keyword] = (value, comment)
    except ValueError as exc:  # astropy keeps a card that is none, but does not change it
        raise InputRejected(f"{owner}: the card of {keyword} cannot be replaced: {exc}") from exc


def _bytes(header: fits.Header, owner: str) -> bytes:
    """A header as it lies in the file, END and padding included."""
    try:
        with warnings.catch_warnings():
            # A long value may leave no room for its comment.
            warnings.simplefilter("ignore", VerifyWarning)
            text: str = header.tostring()
    except (VerifyError, ValueError) as exc:
        raise InputRejected(f"{owner}: a header has a card that cannot be kept: {exc}") from exc
    return text.encode("ascii")


def _passed_on(hdu: Hdu, exposure: Exposure, encoding: Encoding) -> list[Segment]:
    """An HDU of the input, converted where the encoding asks for it."""
    if encoding is Encoding.FLOAT32 and hdu.name in _FLOAT32_ARRAYS[exposure.kind]:
        return _converted(hdu, exposure)
    return _unchanged(hdu, exposure)


def _unchanged(hdu: Hdu, exposure: Exposure) -> list[Segment]:
    """An HDU as it lies in the input (the last one may lack its padding there)."""
    length = hdu.data_start + hdu.data_length - hdu.start
    return [Copied(hdu.start, length), *_padding_after(hdu, exposure)]


def _padding_after(hdu: Hdu, exposure: Exposure) -> list[Segment]:
    """The padding of an HDU: the input's own, except after the last HDU."""
    end = hdu.data_start + hdu.data_length
    if hdu is exposure.hdus[-1]:
        return [Made(bytes(hdu.end - end))]
    return [Copied(end, hdu.end - end)]


def _converted(hdu: Hdu, exposure: Exposure) -> list[Segment]:
    """An array of the input, written as float32."""
    pixel_format = format_of(hdu.header, f"{exposure.name}, {hdu.name}")
    if pixel_format == FLOAT32:
        return _unchanged(hdu, exposure)
    pixels = hdu.data_length // pixel_format.itemsize
    header = _image_header(hdu.name, FLOAT32, hdu.shape, hdu.header)
    data = Converted(hdu.data_start, pixels, pixel_format)
    return [Made(_bytes(header, exposure.name)), data, Made(bytes(padding(data.length)))]


def _quality_hdus(
    exposure: Exposure, quality: DataQuality, encoding: Encoding, skipped: bool
) -> list[Segment]:
    """The HDUs that the step adds, in the order `jwst` has them.

    A step that is skipped leaves an array of another shape as it is.
    """
    name = image_name(exposure)
    misfit = _misfit(exposure, name, exposure.plane_shape) if skipped else None
    image = _unchanged(misfit, exposure) if misfit else _image_hdu(exposure, quality)
    if exposure.kind is Kind.GUIDER:
        return _error_hdu(exposure, encoding) + image
    misfit = _misfit(exposure, "GROUPDQ", exposure.shape) if skipped else None
    return image + (_unchanged(misfit, exposure) if misfit else _groups_hdu(exposure, quality))


def _misfit(exposure: Exposure, name: str, shape: tuple[int, ...]) -> Hdu | None:
    """An array of the input that has not the shape it should have."""
    hdu = find(exposure.hdus, name)
    return None if hdu is None or hdu.shape == shape else hdu


def _image_hdu(exposure: Exposure, quality: DataQuality) -> list[Segment]:
    """PIXELDQ or DQ."""
    name = image_name(exposure)
    header = _image_header(name, _UINT32, quality.image.shape, _present_header(exposure, name))
    data = encode_uint32(quality.image)
    return [Made(_bytes(header, exposure.name)), Made(data), Made(bytes(padding(len(data))))]


def _groups_hdu(exposure: Exposure, quality: DataQuality) -> list[Segment]:
    """GROUPDQ: the step's planes repeated, merged into the input's array where it has one."""
    integrations, groups = exposure.shape[:2]
    stripes = len(quality.groups)
    planes = quality.groups.reshape(stripes, -1)
    repeated = Repeated(planes, each=groups, count=integrations // stripes)
    data: Segment = repeated
    header = _image_header("GROUPDQ", _UINT8, exposure.shape, _present_header(exposure, "GROUPDQ"))
    present = kept(exposure, "GROUPDQ", exposure.shape)
    if present is not None:
        pixel_format = format_of(present.header, f"{exposure.name}, GROUPDQ")
        data = Merged(present.data_start, pixel_format, repeated)
    return [Made(_bytes(header, exposure.name)), data, Made(bytes(padding(data.length)))]


def _error_hdu(exposure: Exposure, encoding: Encoding) -> list[Segment]:
    """ERR of a guider exposure: zeros, unless the input has one."""
    present = find(exposure.hdus, "ERR")
    if present is not None:
        return _passed_on(present, exposure, encoding)
    integrations, groups = exposure.shape[:2]
    header = _image_header("ERR", FLOAT32, exposure.shape)
    image_bytes = int(np.prod(exposure.image_shape)) * FLOAT32.itemsize
    zeros = Repeated(np.zeros((1, image_bytes), np.uint8), each=groups, count=integrations)
    return [Made(_bytes(header, exposure.name)), zeros, Made(bytes(padding(zeros.length)))]


def _present_header(exposure: Exposure, name: str) -> fits.Header | None:
    present = find(exposure.hdus, name)
    return None if present is None else present.header


def _image_header(
    name: str, pixel_format: PixelFormat, shape: tuple[int, ...], present: fits.Header | None = None
) -> fits.Header:
    """Header of an image HDU; cards of `present` that say nothing of its structure are kept."""
    header = fits.Header()
    header["XTENSION"] = ("IMAGE", "Image extension")
    header["BITPIX"] = (pixel_format.bitpix, "array data type")
    header["NAXIS"] = (len(shape), "number of array dimensions")
    for axis, size in enumerate(reversed(shape), start=1):
        header[f"NAXIS{axis}"] = size
    header["PCOUNT"] = (0, "number of parameters")
    header["GCOUNT"] = (1, "number of groups")
    if pixel_format.unsigned:
        header["BSCALE"] = 1
        header["BZERO"] = 1 << (pixel_format.bitpix - 1)
    header["EXTNAME"] = (name, "extension name")
    header["EXTVER"] = (1, "extension value")
    for card in present.cards if present is not None else ():
        if not _is_structural(card.keyword):
            header.append(card, end=True)
    return header


def _is_structural(keyword: str) -> bool:
    return keyword in _STRUCTURE or keyword in _CHECKSUMS or keyword.startswith("NAXIS")
