"""The first lines of the report: the figures in sentences, written by rules."""

from collections.abc import Callable, Sequence

from finance.model import Finding, Material, Metric, Plan, Relation
from finance.months import month_label, span_label
from finance.tables import percent


def summarise(plan: Plan, material: Material) -> list[str]:
    """One sentence for each figure asked for, one for the benchmark."""
    findings = material.findings or ((material.benchmark,) if material.benchmark else ())
    writers: dict[Metric, Callable[[Sequence[Finding]], str]] = {
        "return": _returns,
        "volatility": _volatility,
        "drawdown": _drawdown,
        "sharpe": _sharpe,
    }
    sentences = [writers[metric](findings) for metric in plan.metrics if metric in writers]
    sentences += [_against(material.relations)] if material.relations else []
    lines = [sentence for sentence in sentences if sentence]
    return [" ".join([f"**{span_label(plan.start, plan.end)}.**", *lines])]


def _returns(findings: Sequence[Finding]) -> str:
    ordered = sorted(findings, key=lambda finding: -finding.total_return)
    each = [f"{finding.name} returned {percent(finding.total_return)}" for finding in ordered]
    yearly = ordered[0].annual_return
    if yearly is not None:
        each[0] += f" ({percent(yearly)} a year)"
    return f"{_joined(each)}."


def _volatility(findings: Sequence[Finding]) -> str:
    known = [(f.volatility, f.name) for f in findings if f.volatility is not None]
    if not known:
        return ""
    (least, calm), (most, wild) = min(known), max(known)
    if calm == wild:
        return f"{calm} varied by {least:.1%} a year."
    return f"{calm} varied least ({least:.1%} a year), {wild} most ({most:.1%})."


def _drawdown(findings: Sequence[Finding]) -> str:
    worst = min(findings, key=lambda finding: finding.drawdown.depth)
    fall = worst.drawdown
    if fall.depth == 0:
        return "Nothing fell below an earlier month's close."
    made_good = f"made good by {month_label(fall.recovered)}" if fall.recovered else "not made good"
    dates = f"from {month_label(fall.peak)} to {month_label(fall.trough)}"
    return f"The worst drawdown was {worst.name}'s: {percent(fall.depth)} {dates}, {made_good}."


def _sharpe(findings: Sequence[Finding]) -> str:
    known = [(f.sharpe, f.name) for f in findings if f.sharpe is not None]
    if not known:
        return ""
    ratio, name = max(known)
    if len(known) == 1:
        return f"{name}'s Sharpe ratio was {ratio:.2f}."
    return f"For its risk, {name} paid best: a Sharpe ratio of {ratio:.2f}."


def _against(relations: Sequence[Relation]) -> str:
    ahead = [r.name for r in relations if r.stock_return > r.benchmark_return]
    behind = [r.name for r in relations if r.stock_return <= r.benchmark_return]
    if not behind:
        return f"{_joined(ahead)} beat the S&P 500."
    if not ahead:
        return f"{_joined(behind)} did not beat the S&P 500."
    return f"{_joined(ahead)} beat the S&P 500, {_joined(behind)} did not."


def _joined(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
