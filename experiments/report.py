"""Pages and figures from the committed results.

    python experiments/report.py           # writes figures, and the parts of the pages between the markers
    python experiments/report.py --check   # tells what is out of date, and fails

Every file of experiments/results becomes a section of docs/results.md: a new one is added at the page's end, to be
moved to where it belongs. ``<!-- result NAME ... -->`` marks a section, ``<!-- table NAME ... -->`` a table alone,
``<!-- account costs ... -->`` what editors cost against what they save, from the results and experiments/costs.json.
Needs the extra ``report``, ``--check`` nothing but the package.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from metaedit_fast.evaluation import amortisation, figures, tables
from metaedit_fast.evaluation.record import Record, read_record
from metaedit_fast.requirements import REQUIREMENTS

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results"
COSTS = ROOT / "experiments" / "costs.json"
FIGURES = ROOT / "docs" / "figures"
RESULTS_PAGE = ROOT / "docs" / "results.md"
PAGES = (ROOT / "README.md", RESULTS_PAGE)
MARKED = re.compile(r"<!-- (result|table|account) (\w+):[^>]*-->\n(.*?)<!-- /\1 \2 -->", re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing")
    check: bool = parser.parse_args().check
    records = read_records()
    stale = stale_files(records)
    if check:
        for name in stale:
            print(f"out of date: {name}")
        sys.exit(bool(stale))
    write()
    print(f"wrote {', '.join(stale) or 'nothing new'}")


def write() -> None:
    """Draw the figures and write the pages."""
    records = read_records()
    FIGURES.mkdir(exist_ok=True)
    for record in records.values():
        draw(record)
    for page in PAGES:
        page.write_text(rendered(page.read_text(), records, complete=page == RESULTS_PAGE))


def read_records() -> dict[str, Record]:
    """The committed results by the names of their experiments, which are those of their files."""
    found = {path.stem: read_record(path) for path in sorted(RESULTS.glob("*.json"))}
    for stem, record in found.items():
        if record.experiment != stem:
            raise ValueError(f"{stem}.json: expected the experiment of that name, got {record.experiment!r}")
    return found


def stale_files(records: dict[str, Record]) -> list[str]:
    """Pages and figures that are not those of the records."""
    found = []
    for page in PAGES:
        text = page.read_text()
        if rendered(text, records, complete=page == RESULTS_PAGE) != text:
            found.append(str(page.relative_to(ROOT)))
    for record in records.values():
        for figure in figures_of(record):
            if not figure.exists() or figures.source_hash(record) not in figure.read_text():
                found.append(str(figure.relative_to(ROOT)))
    return found


def figures_of(record: Record) -> list[Path]:
    """The figures of a record: its front, and quality against time where it has families of methods."""
    names = [record.experiment, *([f"{record.experiment}_time"] if record.families else [])]
    return [FIGURES / f"{name}.svg" for name in names]


def draw(record: Record) -> None:
    """Draw the figures of a record."""
    front, *times = figures_of(record)
    figures.draw_front(record, front)
    for path in times:
        figures.draw_times(record, path, budget=time_budget(record))


def time_budget(record: Record) -> float:
    """The budget at which methods are compared by time: the record's own choice, or the middle one."""
    if "time_budget" in record.details:
        return float(record.details["time_budget"])
    members = next(iter(record.families.values()))
    budgets = sorted(point.budget for point in record.curves[members[0]])
    return budgets[len(budgets) // 2]


def rendered(page: str, records: dict[str, Record], *, complete: bool) -> str:
    """``page`` with what stands between its markers made anew; ``complete`` adds the sections that are missing."""

    def replaced(match: re.Match[str]) -> str:
        kind, name = match.group(1), match.group(2)
        if kind == "account":
            return marked(kind, name, account(records))
        if name not in records:
            raise ValueError(f"the page has a {kind} of {name!r}, which experiments/results has not")
        return marked(kind, name, (section if kind == "result" else table)(records[name]))

    text = MARKED.sub(replaced, page)
    there = {name for kind, name, _ in MARKED.findall(text) if kind == "result"}
    for name, record in records.items():
        if complete and name not in there:
            text += f"\n## {title(record)}\n\n{marked('result', name, section(record))}\n"
    return text


def account(records: dict[str, Record]) -> str:
    """The table of what each editor saves against what it cost, and what the populations cost."""
    costs = amortisation.read_costs(COSTS)
    names = [f"{dataset}_{requirement}" for requirement in REQUIREMENTS for dataset in costs.populations]
    found = amortisation.account([records[name] for name in names if name in records], costs)
    said = [
        f"The population of {name}, {cost.runs} runs of {cost.epochs} epochs, takes {cost.seconds / 60:.0f} ± "
        f"{cost.se / 60:.0f} minutes of one thread, by {cost.timed_epochs} epochs of {cost.timed_runs} runs."
        for name, cost in costs.populations.items()
    ]
    said.append(f"Populations timed on {costs.processor}, by `{costs.command}`; all else is of the records above.")
    return f"{found.markdown()}\n\n{' '.join(said)}"


def marked(kind: str, name: str, text: str) -> str:
    return f"<!-- {kind} {name}: written by `python experiments/report.py` -->\n{text}\n<!-- /{kind} {name} -->"


def title(record: Record) -> str:
    return str(record.details.get("title", record.experiment.replace("_", " ").capitalize()))


def section(record: Record) -> str:
    """Figures, tables and how they were made, for docs/results.md."""
    drawn = "\n".join(f"![{path.stem.replace('_', ' ')}](figures/{path.name})" for path in figures_of(record))
    compared = [tables.comparison_table(record).markdown()] if record.comparisons else []
    return "\n\n".join([drawn, *main_tables(record), *compared, note(record)])


def table(record: Record) -> str:
    """The main tables of a record and how they were made."""
    return "\n\n".join([*main_tables(record), note(record)])


def main_tables(record: Record) -> list[str]:
    """What each method reaches, at its budgets or where the fronts reach the same requirement."""
    parts = []
    if record.readings:
        parts.append(tables.reading_table(record).markdown())
        if single := [method for method in record.curves if not record.readings.get(method)]:
            parts.append(tables.points_table(record, single).markdown())
    else:
        parts.append(tables.budget_table(record).markdown())
    return parts


def note(record: Record) -> str:
    """Where a record's figures come from, in a few sentences."""
    details = record.details
    said = [f"{record.models} models of population-test, {record.rows} test rows."]
    if details.get("accuracy_before") is not None:
        said.append(f"Accuracy before the edit {100 * details['accuracy_before']:.1f} %.")
    if details.get("requirement_before"):
        said.append(f"{record.unit.capitalize()} before {details['requirement_before']:.4g}.")
    seeds = ", ".join(map(str, record.seeds))
    said.append(
        "Standard errors are over models, clustered by training run; the editor's "
        + (f"seeds {seeds}, their mean." if len(record.seeds) > 1 else f"seed {seeds}.")
    )
    if "reference" in details:
        reference = details["reference"]
        said.append(
            f"Hypervolumes are fractions of the box from {reference['best']:g} to {reference['worst']:g} "
            f"({record.unit}) and from JSD 0 to {reference['jsd']:g}, the mean over models."
        )
    if "versions" in details:
        said.append(f"Times are those of one thread of {details['versions']['processor']}, engine {details['engine']}.")
    training = details.get("editor", {}).get("metrics", {})
    if {"steps", "seconds", "threads"} <= training.keys():
        said.append(
            f"The editor's training took {training['steps']} steps, {training['seconds'] / 60:.0f} minutes on "
            f"{training['threads']} thread{'s' * (training['threads'] > 1)}."
        )
    said += details.get("notes", [])
    return " ".join([*said, f"Made by `{record.command}`."])


if __name__ == "__main__":
    main()
