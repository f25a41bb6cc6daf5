"""The product: the layout of the output file."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from astropy.io import fits

from core import SOFTWARE, __version__
from core.compat import Kind
from core.errors import InputRejected
from core.exposure import Exposure
from core.fits.cards import CHECKSUMS, HeaderCard, header_bytes, image_header, set_card, set_section
from core.fits.hdus import Hdu, find, find_all, padding
from core.fits.pixels import FLOAT32, PixelFormat, format_of
from core.layout import (
    Converted,
    Copied,
    FlagImage,
    Layout,
    Literal,
    Merged,
    Repeated,
    Segment,
)
from core.step import DataQuality

_UINT8, _UINT32 = PixelFormat(8), PixelFormat(32, offset=True)
_VIRTUAL_END = "_virtual.fits"
NO_MASK = "N/A"
"""R_MASK of a product without a mask, as `jwst` writes it."""

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
    "whtlt x1d x1dints "
)
SUFFIXES = frozenset(_SUFFIXES.split())
"""Suffixes that a step of `jwst` 3.0.0 replaces with its own; ``make conformance`` checks them."""


class Encoding(StrEnum):
    """Whether the product keeps the science arrays as they are, or converts their pixels."""

    NATIVE = "native"
    """SCI, ZEROFRAME and REFOUT keep the bytes of the input."""
    FLOAT32 = "float32"
    """SCI, ZEROFRAME and REFOUT are converted to float32, as `jwst` writes them."""


class Form(StrEnum):
    """Whether a product is a complete file or virtual; the end of its key decides it (`of_key`)."""

    ASSEMBLED = "assembled"
    """A complete file."""
    VIRTUAL = "virtual"
    """Headers, flags and layout only: `core.virtual`."""

    @classmethod
    def of_key(cls, key: str) -> "Form":
        """Return VIRTUAL for a key that ends in ``_virtual.fits``, else ASSEMBLED."""
        return cls.VIRTUAL if key.endswith(_VIRTUAL_END) else cls.ASSEMBLED


@dataclass(frozen=True)
class HeaderValues:
    """Values of the product's primary header that the exposure does not determine.

    Attributes
    ----------
    filename : str
        FILENAME, the product's file name.
    date : str
        DATE, ISO 8601, UTC.
    crds_version, crds_context : str
        CRDS_VER and CRDS_CTX: version of the CRDS package, name of the context.
    mask : str or None
        R_MASK, such as ``crds://jwst_nircam_mask_0033.fits``; None if the step is skipped.
    """

    filename: str
    date: str
    crds_version: str
    crds_context: str
    mask: str | None


def product_name(name: str, suffix: str = "dq_init") -> str:
    """Return the file name of the product of an input file, as `jwst` names it.

    A suffix in `SUFFIXES` after ``_`` or ``-`` is replaced by `suffix`: ``x_uncal.fits`` becomes
    ``x_dq_init.fits``, ``x-uncal.fits`` becomes ``x-dq_init.fits``. Otherwise ``_`` and `suffix`
    are appended.
    """
    stem = name.removesuffix(".fits")
    ends = (s + e for s in "_-" for e in SUFFIXES if stem.endswith(s + e) and stem != s + e)
    # jwst takes the shortest name that one suffix completes, so the longest suffix wins.
    end = max(ends, key=len, default="")
    return f"{stem.removesuffix(end)}{end[:1] or '_'}{suffix}.fits"


def expanded_name(name: str) -> str:
    """Return a name with a final ``_virtual.fits`` replaced by ``.fits``, else unchanged."""
    return f"{name.removesuffix(_VIRTUAL_END)}.fits" if name.endswith(_VIRTUAL_END) else name


def compose(
    exposure: Exposure, quality: DataQuality, values: HeaderValues, encoding: Encoding
) -> Layout:
    """Return the layout of the product of an exposure.

    PIXELDQ and GROUPDQ, of a guider ERR and DQ, follow SCI. Other HDUs keep order and bytes, except
    the primary header and, in float32 encoding, the arrays of `spec.converts`.
    """
    primary = exposure.hdus[0]
    segments: list[Segment] = [
        Literal(header_bytes(_primary_header(exposure, values), exposure.name)),
        Copied(primary.data_start, primary.end - primary.data_start),
    ]
    for hdu in exposure.hdus[1:]:
        if hdu.name not in exposure.spec.adds:
            segments += _passed_on(hdu, exposure, encoding)
        if hdu.name == "SCI":
            segments += _quality_hdus(exposure, quality, encoding, skipped=values.mask is None)
    return Layout.of(segments)


def _primary_header(exposure: Exposure, values: HeaderValues) -> fits.Header:
    """Return the input's primary header, updated; comments and titles are those of `jwst`."""
    header, name = exposure.header.copy(), exposure.name
    for keyword in CHECKSUMS:
        header.remove(keyword, ignore_missing=True)
    set_card(header, ("DATE", values.date, "UTC date file created"), name)
    set_card(header, ("FILENAME", values.filename, "Name of the file"), name)
    set_card(header, ("DATAMODL", exposure.spec.data_model, "Type of data model"), name)
    reference: list[HeaderCard] = [
        ("CRDS_VER", values.crds_version, "Version of CRDS file selection software used"),
        ("CRDS_CTX", values.crds_context, "CRDS context (.pmap) used to select ref files"),
        ("R_MASK", values.mask or NO_MASK, "Mask reference file name"),
    ]
    status = "SKIPPED" if values.mask is None else "COMPLETE"
    step: list[HeaderCard] = [("S_DQINIT", status, "Data Quality Initialization")]
    set_section(header, "Reference file information", reference, name)
    set_section(header, "Calibration step information", step, name)
    header.add_history(f"dq_init by {SOFTWARE} {__version__}")
    return header


def _passed_on(hdu: Hdu, exposure: Exposure, encoding: Encoding) -> list[Segment]:
    """Return the segments of an HDU of the input, unchanged or converted to float32."""
    if encoding is Encoding.NATIVE or hdu.name not in exposure.spec.converts:
        return _unchanged(hdu, exposure)
    pixel_format = format_of(hdu.header, f"{exposure.name}, {hdu.name}")
    if pixel_format == FLOAT32 and hdu.header.get("EXTVER") != 0:  # jwst writes 1 instead of 0
        return _unchanged(hdu, exposure)
    pixels = hdu.data_length // pixel_format.itemsize
    header = image_header(hdu.name, FLOAT32, hdu.shape, hdu)
    return _new_hdu(header, Converted(hdu.data_start, pixels, pixel_format), exposure.name)


def _unchanged(hdu: Hdu, exposure: Exposure) -> list[Segment]:
    if hdu is not exposure.hdus[-1]:
        return [Copied(hdu.start, hdu.end - hdu.start)]
    # The last HDU may lack its padding in the input.
    data_end = hdu.data_start + hdu.data_length
    return [Copied(hdu.start, data_end - hdu.start), Literal(bytes(hdu.end - data_end))]


def _new_hdu(header: fits.Header, data: Segment, name: str) -> list[Segment]:
    return [Literal(header_bytes(header, name)), data, Literal(bytes(padding(data.length)))]


def _quality_hdus(
    exposure: Exposure, quality: DataQuality, encoding: Encoding, skipped: bool
) -> list[Segment]:
    """Return the segments of the HDUs after SCI: PIXELDQ and GROUPDQ, of a guider ERR and DQ."""
    name = exposure.spec.image
    present = find(exposure.hdus, name)
    if skipped and present is not None and present.shape != exposure.plane_shape:
        image = _unchanged(present, exposure)  # a skipped step leaves an array of another shape
    else:
        header = image_header(name, _UINT32, quality.image.shape, present)
        flags = FlagImage(np.ascontiguousarray(quality.image, np.uint32), name)
        image = _new_hdu(header, flags, exposure.name)
    if exposure.kind is Kind.GUIDER:
        return _error_hdu(exposure, encoding) + image
    present = find(exposure.hdus, "GROUPDQ")
    if skipped and present is not None and present.shape != exposure.shape:
        return image + _unchanged(present, exposure)
    return image + _groups_hdu(exposure, quality)


def _groups_hdu(exposure: Exposure, quality: DataQuality) -> list[Segment]:
    """Return the segments of GROUPDQ: repeated planes, merged with GROUPDQ of the input."""
    integrations, groups = exposure.shape[:2]
    stripes = len(quality.groupdq_planes)
    planes = quality.groupdq_planes.reshape(stripes, -1)
    repeated = Repeated(planes, each=groups, count=integrations // stripes)
    data: Segment = repeated
    header = image_header("GROUPDQ", _UINT8, exposure.shape, find(exposure.hdus, "GROUPDQ"))
    existing = exposure.existing_array("GROUPDQ", exposure.shape)
    if existing is not None:
        pixel_format = format_of(existing.header, f"{exposure.name}, GROUPDQ")
        data = Merged(existing.data_start, pixel_format, repeated)
    return _new_hdu(header, data, exposure.name)


def _error_hdu(exposure: Exposure, encoding: Encoding) -> list[Segment]:
    """Return the segments of ERR of a guider exposure: the input's ERR, or zeros."""
    found = find_all(exposure.hdus, "ERR")
    if any(hdu.version != 1 or not hdu.is_image for hdu in found):
        raise InputRejected(
            f"{exposure.name}: its ERR is a table or has EXTVER other than 1, expected an image"
        )
    if found:
        return _passed_on(found[0], exposure, encoding)
    integrations, groups = exposure.shape[:2]
    image_bytes = int(np.prod(exposure.image_shape)) * FLOAT32.itemsize
    zeros = Repeated(np.zeros((1, image_bytes), np.uint8), each=groups, count=integrations)
    return _new_hdu(image_header("ERR", FLOAT32, exposure.shape), zeros, exposure.name)
