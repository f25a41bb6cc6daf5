"""A changed parameter takes effect when deployed, and so does its reset."""

from tests.conftest import PROJECT
from tests.e2e.stack import Stack, deploy

SMALL = "nircam-sub64p"
SAM = PROJECT / ".venv-tools" / "bin" / "sam"
CHANGES = {
    "CrdsContext": ("CRDS_CONTEXT", "jwst_9001.pmap", "latest"),
    "ScienceEncoding": ("SCIENCE_ENCODING", "float32", "native"),
    "OutputPrefix": ("OUTPUT_PREFIX", "level1b/", "dq_init/"),
    "EventBus": ("EVENT_BUS", "other", "default"),
}


def test_changed_parameter_takes_effect_when_deployed(
    stack: Stack, exposures: dict[str, bytes]
) -> None:
    stack.client("events").create_event_bus(Name="other")
    functions, name = stack.client("lambda"), stack["FunctionName"]
    try:
        for parameter, (variable, changed, _) in CHANGES.items():
            deploy(stack, SAM, **{parameter: changed})
            found = functions.get_function_configuration(FunctionName=name)
            assert found["Environment"]["Variables"][variable] == changed
    finally:  # sam keeps parameters that are not named
        before = {parameter: value for parameter, (_, _, value) in CHANGES.items()}
        deploy(stack, SAM, **before)
    found = functions.get_function_configuration(FunctionName=name)
    for variable, _, value in CHANGES.values():
        assert found["Environment"]["Variables"][variable] == value
    called = {
        m["FunctionArn"] for m in functions.list_event_source_mappings()["EventSourceMappings"]
    }
    assert all(arn.endswith(f":{name}") for arn in called), "no version stands between"
    key = "parameters/jw01_uncal.fits"
    stack.upload(key, exposures[SMALL])
    stack.drain(60)
    assert stack.said(key) == ["Complete"]
