"""What a kind of exposure entails: its data model, what the step adds, what is converted.

kind          data model             the step adds       float32 converts
ramp          RampModel              PIXELDQ, GROUPDQ    SCI, ZEROFRAME, REFOUT
superstripe   SuperstripeRampModel   PIXELDQ, GROUPDQ    SCI, ZEROFRAME, REFOUT
guider        GuiderRawModel         ERR, DQ             SCI, ERR

The kinds are those of `jwst.dq_init` in jwst 3.0.0; the models those of `stdatamodels.jwst`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from core.keywords import Keywords

__all__ = ["ENTAILS", "Entailment", "Kind", "kind_of"]

_GUIDER_TYPES = frozenset(
    {"FGS_ID-IMAGE", "FGS_ID-STACK", "FGS_ACQ1", "FGS_ACQ2", "FGS_TRACK", "FGS_FINEGUIDE"}
)


class Kind(StrEnum):
    """Which arrays the step makes, and which `jwst` data model the product is."""

    RAMP = "ramp"
    SUPERSTRIPE = "superstripe"
    GUIDER = "guider"


@dataclass(frozen=True)
class Entailment:
    """What follows from an exposure's kind.

    Attributes
    ----------
    data_model : str
        DATAMODL of the product.
    image : str
        EXTNAME of the data-quality image.
    adds : frozenset of str
        EXTNAMEs of the arrays whose place is after SCI, whatever the input has of them.
    converts : frozenset of str
        EXTNAMEs of the arrays that `jwst` writes as float32.
    """

    data_model: str
    image: str
    adds: frozenset[str]
    converts: frozenset[str]


_QUALITY = frozenset({"PIXELDQ", "GROUPDQ"})
_SCIENCE = frozenset({"SCI", "ZEROFRAME", "REFOUT"})

ENTAILS: Mapping[Kind, Entailment] = MappingProxyType(
    {
        Kind.RAMP: Entailment("RampModel", "PIXELDQ", _QUALITY, _SCIENCE),
        Kind.SUPERSTRIPE: Entailment("SuperstripeRampModel", "PIXELDQ", _QUALITY, _SCIENCE),
        Kind.GUIDER: Entailment(
            "GuiderRawModel", "DQ", frozenset({"ERR", "DQ"}), frozenset({"SCI", "ERR"})
        ),
    }
)
"""The table above."""


def kind_of(keywords: Keywords, superstripes: int) -> Kind:
    """Return the kind of an exposure.

    Parameters
    ----------
    keywords : `~core.keywords.Keywords`
        Its primary header's.
    superstripes : int
        SSTR_NST; 0 where it is absent.

    Raises
    ------
    InputRejected
        If EXP_TYPE is not written as `jwst` knows it.
    """
    if keywords.word("EXP_TYPE") in _GUIDER_TYPES:
        return Kind.GUIDER
    return Kind.SUPERSTRIPE if superstripes > 0 else Kind.RAMP
