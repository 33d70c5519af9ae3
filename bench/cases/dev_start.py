"""The newcomer's first minute."""

from bench.harness import Bound, Metric, Role, Sample, case


@case("dev_start", Metric("", "s", Bound(at_most=3.0)), floor=False)
async def dev_start(_: Role) -> Sample:
    """From starting `callboard dev` to the first result of a workflow."""
    from bench.callboard_side import seconds_to_first_result

    return Sample(values={"": await seconds_to_first_result()})
