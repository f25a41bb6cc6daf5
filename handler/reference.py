"""Which mask applies to an exposure: the rules' choice, or what the request names."""

from dataclasses import dataclass

from core.exposure import Exposure
from core.mask import Mask
from handler.references.masks import Masks
from handler.references.rules import Choice, Rules
from handler.requests import ExposureRequest
from handler.s3.locations import S3Location
from handler.s3.objects import ObjectStore

__all__ = ["Reference", "References"]


@dataclass(frozen=True)
class Reference:
    """The mask that applies to an exposure, not yet read.

    Attributes
    ----------
    context : str
        The CRDS context in force.
    label : str or None
        What R_MASK says: ``crds://name`` or ``s3://bucket/key``; None where no mask applies.
    sha1 : str
        Of the mask file; empty where no mask applies.
    chosen : `~handler.references.rules.Choice` or None
        The rules' choice, where they were asked.
    given : `~core.mask.Mask` or None
        The mask that the request names, where it names one.
    """

    context: str
    label: str | None = None
    sha1: str = ""
    chosen: Choice | None = None
    given: Mask | None = None


@dataclass
class References:
    """The CRDS mirror: rules and masks.

    Attributes
    ----------
    rules : `~handler.references.rules.Rules`
        The mirror's rules.
    masks : `~handler.references.masks.Masks`
        The mirror's mask files.
    """

    rules: Rules
    masks: Masks

    def resolve(
        self, request: ExposureRequest, exposure: Exposure, context: str, store: ObjectStore
    ) -> Reference:
        """Find out which mask applies to an exposure, without reading it from the mirror.

        Parameters
        ----------
        request : `~handler.requests.ExposureRequest`
            What was asked for.
        exposure : `~core.exposure.Exposure`
            The exposure.
        context : str
            The context to use, unless the request names one.
        store : `~handler.s3.objects.ObjectStore`
            How to reach S3.

        Raises
        ------
        InputRejected, ReferenceUnavailable, TransientFailure
            As `handler.references.rules.Rules.choose` does.
        """
        context = request.context or context
        if isinstance(request.mask, S3Location):
            mask, sha1 = self.masks.load_object(request.mask, store)
            name = self.rules.context_name(context)
            return Reference(name, str(request.mask), sha1, given=mask)
        if request.mask is not None:
            return Reference(self.rules.context_name(context))
        choice = self.rules.choose(exposure.header, context, exposure.name)
        if choice.mask is None:
            return Reference(choice.context)
        return Reference(choice.context, f"crds://{choice.mask}", choice.sha1, chosen=choice)

    def load(self, reference: Reference, exposure: Exposure, store: ObjectStore) -> Mask | None:
        """Return the mask itself; None where none applies.

        Raises
        ------
        ReferenceUnavailable
            If the mirror has no such file, its size or SHA-1 is wrong, or it is no mask.
        """
        if reference.chosen is None:
            return reference.given
        return self.masks.load(reference.chosen, exposure.keyword("INSTRUME") or "", store)
