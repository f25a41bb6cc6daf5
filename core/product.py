"""The product: what the output file is made of."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from astropy.io import fits

from core import SOFTWARE, __version__
from core.compat import Kind
from core.exposure import Exposure
from core.fits.cards import CHECKSUMS, HeaderCard, header_bytes, image_header, set_card, set_section
from core.fits.hdus import Hdu, find, padding
from core.fits.pixels import FLOAT32, PixelFormat, encode_uint32, format_of
from core.layout import Converted, Copied, Layout, Literal, Merged, Repeated, Segment
from core.step import DataQuality

__all__ = ["NO_MASK", "SUFFIXES", "Encoding", "HeaderValues", "compose", "product_name"]

_UINT8, _UINT32 = PixelFormat(8), PixelFormat(32, offset=True)
NO_MASK = "N/A"
"""What jwst writes into R_MASK where CRDS has no mask for an exposure."""

_SUFFIXES = (
    "adaptive_trace_model adaptivetracemodelstep align_refs alignrefsstep ami ami-oi ami3pipeline "
    "ami_analyze ami_normalize amianalyzestep aminorm aminorm-oi aminormalizestep assign_mtwcs "
    "assign_wcs assignmtwcsstep assignwcsstep backgroundstep badpixselfcalstep barshadowstep "
    "bkg_subtract blot bsub bsubints c1d cal calints cat chargemigrationstep clean_flicker_noise "
    "cleanflickernoisestep combine1dstep combine_1d coron3pipeline crf crfints cube_build "
    "cubebuildstep dark dark_current darkcurrentstep darkpipeline detector1pipeline dq_init "
    "dqinitstep emicorr emicorrstep engdblog extract1dstep extract2dstep extract_1d extract_2d "
    "firstframe firstframestep flat_field flatfieldstep fringe fringestep gain_scale "
    "gainscalestep group_scale groupscalestep guider_cds guidercdsstep guiderpipeline hlsp "
    "hlspstep i2d image2pipeline image3pipeline imprint imprintstep ipc ipcstep jump jumpstep "
    "klip klipstep lastframe lastframestep linearity linearitystep master_background "
    "masterbackgroundmosstep masterbackgroundstep mbsub median msaflagopenstep outlier_detection "
    "outlierdetectionstep pathloss pathlossstep persistence persistencestep phot photom "
    "photomstep picture_frame pictureframestep pixelreplacestep psfalign psfstack psfsub ramp "
    "ramp_fit rampfitstep rate rateints refpix refpixstep resample resample_spec resamplespecstep "
    "resamplestep reset resetstep residual_fringe residualfringestep rscd rscdstep s2d s3d "
    "saturation saturationstep skymatch skymatchstep snr source_catalog sourcecatalogstep "
    "sourcetypestep spec2nrslamp spec2pipeline spec3pipeline spectral_leak spectralleakstep "
    "srctype stackrefs stackrefsstep straylight straylightstep superbias superbiasstep "
    "targ_centroid targcentroidstep tso3pipeline tsophotometrystep tweakreg tweakregstep uncal "
    "wavecorrstep wfscmb wfscombine wfscombinestep wfsscontamstep white_light whitelightstep "
    "whtlt x1d x1dints"
)
SUFFIXES = frozenset(_SUFFIXES.split())
"""Suffixes that a step of `jwst` 3.0.0 replaces with its own; ``make conformance`` checks them."""


class Encoding(StrEnum):
    """How the science pixels are written."""

    NATIVE = "native"
    """SCI, ZEROFRAME and REFOUT keep the bytes they came with."""
    FLOAT32 = "float32"
    """They are written as `jwst` writes them."""


@dataclass(frozen=True)
class HeaderValues:
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
    """Return the file name of the product of `name`, as `jwst` names it.

    ``x_uncal.fits`` becomes ``x_dq_init.fits``, and so do ``x_ramp.fits`` and every other name
    with a suffix of `SUFFIXES`; after a hyphen, a hyphen stays: ``x-uncal.fits`` becomes
    ``x-dq_init.fits``. To any other name, ``_dq_init`` is added.
    """
    stem = name.removesuffix(".fits")
    separator, root = "_", stem
    # jwst takes the shortest name that one suffix completes, so the longest suffix wins.
    for end in sorted((s + e for s in "_-" for e in SUFFIXES if stem.endswith(s + e)), key=len):
        if end != stem:
            separator, root = end[0], stem.removesuffix(end)
    return f"{root}{separator}dq_init.fits"


def compose(
    exposure: Exposure, quality: DataQuality, values: HeaderValues, encoding: Encoding
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
    values : `HeaderValues`
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
    header, primary = _primary_header(exposure, values), exposure.hdus[0]
    segments: list[Segment] = [
        Literal(header_bytes(header, exposure.name)),
        Copied(primary.data_start, primary.end - primary.data_start),
    ]
    for hdu in exposure.hdus[1:]:
        if hdu.name not in exposure.spec.adds:
            segments += _passed_on(hdu, exposure, encoding)
        if hdu.name == "SCI":
            segments += _quality_hdus(exposure, quality, encoding, values.mask is None)
    return Layout.of(segments)


def _primary_header(exposure: Exposure, values: HeaderValues) -> fits.Header:
    """The input's primary header, brought up to date; comments are those of `jwst`."""
    header = exposure.header.copy()
    for keyword in CHECKSUMS:
        header.remove(keyword, ignore_missing=True)
    for card in (
        ("DATE", values.date, "UTC date file created"),
        ("FILENAME", values.filename, "Name of the file"),
        ("DATAMODL", exposure.spec.data_model, "Type of data model"),
    ):
        set_card(header, card, exposure.name)
    reference: list[HeaderCard] = [
        ("CRDS_VER", values.crds_version, "Version of CRDS file selection software used"),
        ("CRDS_CTX", values.crds_context, "CRDS context (.pmap) used to select ref files"),
        ("R_MASK", values.mask or NO_MASK, "Mask reference file name"),
    ]
    status = "SKIPPED" if values.mask is None else "COMPLETE"
    step: list[HeaderCard] = [("S_DQINIT", status, "Data Quality Initialization")]
    set_section(header, "Reference file information", reference, exposure.name)
    set_section(header, "Calibration step information", step, exposure.name)
    header.add_history(f"dq_init by {SOFTWARE} {__version__}")
    return header


def _passed_on(hdu: Hdu, exposure: Exposure, encoding: Encoding) -> list[Segment]:
    """An HDU of the input, converted where the encoding asks for it."""
    if encoding is Encoding.FLOAT32 and hdu.name in exposure.spec.converts:
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
        return [Literal(bytes(hdu.end - end))]
    return [Copied(end, hdu.end - end)]


def _converted(hdu: Hdu, exposure: Exposure) -> list[Segment]:
    """An array of the input, written as float32."""
    pixel_format = format_of(hdu.header, f"{exposure.name}, {hdu.name}")
    if pixel_format == FLOAT32 and hdu.header.get("EXTVER") != 0:  # jwst writes 1 instead of 0
        return _unchanged(hdu, exposure)
    pixels = hdu.data_length // pixel_format.itemsize
    header = image_header(hdu.name, FLOAT32, hdu.shape, hdu.header)
    data = Converted(hdu.data_start, pixels, pixel_format)
    return _hdu(header, data, exposure.name)


def _hdu(header: fits.Header, data: Segment, name: str) -> list[Segment]:
    """An HDU that is written anew."""
    return [Literal(header_bytes(header, name)), data, Literal(bytes(padding(data.length)))]


def _quality_hdus(
    exposure: Exposure, quality: DataQuality, encoding: Encoding, skipped: bool
) -> list[Segment]:
    """The HDUs that the step adds, in the order `jwst` has them.

    A step that is skipped leaves an array of another shape as it is.
    """
    name = exposure.spec.image
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
    name = exposure.spec.image
    header = image_header(name, _UINT32, quality.image.shape, _existing_header(exposure, name))
    return _hdu(header, Literal(encode_uint32(quality.image)), exposure.name)


def _groups_hdu(exposure: Exposure, quality: DataQuality) -> list[Segment]:
    """GROUPDQ: the step's planes repeated, merged into the input's array where it has one."""
    integrations, groups = exposure.shape[:2]
    stripes = len(quality.groupdq_planes)
    planes = quality.groupdq_planes.reshape(stripes, -1)
    repeated = Repeated(planes, each=groups, count=integrations // stripes)
    data: Segment = repeated
    header = image_header("GROUPDQ", _UINT8, exposure.shape, _existing_header(exposure, "GROUPDQ"))
    existing = exposure.existing_array("GROUPDQ", exposure.shape)
    if existing is not None:
        pixel_format = format_of(existing.header, f"{exposure.name}, GROUPDQ")
        data = Merged(existing.data_start, pixel_format, repeated)
    return _hdu(header, data, exposure.name)


def _error_hdu(exposure: Exposure, encoding: Encoding) -> list[Segment]:
    """ERR of a guider exposure: zeros, unless the input has one."""
    existing = find(exposure.hdus, "ERR")
    if existing is not None:
        return _passed_on(existing, exposure, encoding)
    integrations, groups = exposure.shape[:2]
    header = image_header("ERR", FLOAT32, exposure.shape)
    image_bytes = int(np.prod(exposure.image_shape)) * FLOAT32.itemsize
    zeros = Repeated(np.zeros((1, image_bytes), np.uint8), each=groups, count=integrations)
    return _hdu(header, zeros, exposure.name)


def _existing_header(exposure: Exposure, name: str) -> fits.Header | None:
    existing = find(exposure.hdus, name)
    return None if existing is None else existing.header
