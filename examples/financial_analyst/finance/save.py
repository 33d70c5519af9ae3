"""The report as files."""

from pathlib import Path

from finance.model import Report
from finance.report import CHART_FILE

REPORT_FILE = "report.md"


def save(report: Report, folder: Path) -> tuple[Path, ...]:
    """Write report.md, and chart.png if there is a chart, into `folder`; the files written."""
    folder.mkdir(parents=True, exist_ok=True)
    text = folder / REPORT_FILE
    text.write_text(report.markdown, encoding="utf-8")
    if report.chart is None:
        return (text,)
    picture = folder / CHART_FILE
    picture.write_bytes(report.chart.png)
    return text, picture
