# /// script
# requires-python = ">=3.11"
# ///
"""Run every front door on the healthy forms of the published models and write reports/real-models.md.

    python scripts/fetch_real_models.py
    cargo build --release
    python scripts/real_models_report.py                                     # every model, every form, every door
    python scripts/real_models_report.py --models smollm2-135m --doors validate,check
    python scripts/real_models_report.py --kill-matrix reports/kill-matrix.json

The forms are those of suites/real.yaml; `apr qa --keep-forms` builds them, one model at a time. All are healthy, so a
door that ends with another code than 0 has made a false accusation; its first findings stand in the report. Faults
killed stand beside it, where a kill matrix of `apr qa --prove` is given: a gate that is never red accuses nobody.
"""

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time

from fetch_real_models import MODELS

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOORS = {
    "validate": ["validate", "--quality", "--strict"],
    "check": ["check"],
    "qa": ["qa", "--no-report"],
}
LISTED = 3


@dataclasses.dataclass
class Row:
    model: str
    form: str
    door: str
    code: int
    seconds: float
    findings: list[str]
    judged: int

    @property
    def verdict(self) -> str:
        if self.code == 0:
            return "quiet"
        return {1: "accused", 5: "accused", 6: "undecided", 124: "out of time"}.get(self.code, "failed")


def call(apr: pathlib.Path, arguments: list[str], limit: float) -> tuple[int, str, str, float]:
    started = time.monotonic()
    try:
        done = subprocess.run([apr, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=limit)
        code, out, err = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired:
        code, out, err = 124, "", f"stopped after {limit:.0f} s"
    return code, out, err, time.monotonic() - started


def short(verdict: dict) -> str:
    """The summary of a verdict that a check or a run wrote."""
    (kind, body), *_ = verdict.items()
    return f"{kind}: {body.get('summary') or body.get('why') or body}"


def findings(door: str, value: dict) -> tuple[list[str], int]:
    """What a door holds against a model, and how much it looked at."""
    if door == "validate":
        wrong = value.get("violations", [])
        lines = [f"{v['rule']} {v['where']}: expected {v['expected']}, found {v['found']}" for v in wrong]
        return lines, value.get("checked", {}).get("tensors", 0)
    if door == "check":
        gates = [gate for stage in value.get("stages", []) for gate in stage["gates"]]
        red = [gate for gate in gates if not {"corroborated", "skipped"} & set(gate["verdict"])]
        return [f"{gate['gate']}: {short(gate['verdict'])}" for gate in red], len(gates)
    cases = value.get("cases", [])
    red = [case for case in cases
           if case["verdict"] in ("falsified", "broken", "inconclusive")]
    lines = [f"{case['contract']}/{case['gate']}: {case.get('evidence', {}).get('summary', case['verdict'])}"
             for case in red]
    return lines, len(cases)


def observations(apr: pathlib.Path) -> set[str]:
    """The gates that only observe: what they find unusual is held against nobody."""
    code, out, err, _ = call(apr, ["qa", "list", "--filter", "severity(=info)", "--json"], 300)
    if code != 0:
        sys.exit(f"apr qa list: exit {code}: {err.strip()}")
    return {case.split("@")[0] for case in json.loads(out)["cases"]}


def run(apr: pathlib.Path, model: str, form: str, path: pathlib.Path, door: str, args: argparse.Namespace) -> Row:
    code, out, err, seconds = call(apr, [*DOORS[door], "--json", str(path)], args.limit)
    try:
        value = json.loads(out)
    except json.JSONDecodeError:
        value = {}
    found, judged = findings(door, value)
    found = [line for line in found if line.split(":")[0] not in args.observations]
    if code != 0 and not found:
        error = value.get("error") or {}
        found = [error.get("message") or (err.strip().splitlines() or ["no message"])[-1]]
    return Row(model, form, door, code, seconds, found, judged)


def built(apr: pathlib.Path, model: str, form: str, folder: pathlib.Path) -> tuple[dict[str, pathlib.Path], list[str]]:
    """Make the forms of `model` in `folder`: the path of each form, and those that are not on this machine."""
    wanted = f"model(={model}) & gate(=parses)" + (f" & form(={form})" if form else "")
    arguments = ["qa", "--suite", "real", "--no-report", "--json", "--jobs", "1", "--keep-forms", str(folder),
                 "--filter", wanted]
    code, out, err, _ = call(apr, arguments, 3600)
    try:
        cases = json.loads(out)["cases"]
    except (json.JSONDecodeError, KeyError):
        sys.exit(f"{model}: apr {' '.join(arguments)}: exit {code}: {err.strip() or out[:500]}")
    here, absent = {}, []
    for case in cases:
        cell = case["cell"]["model"]
        if case["verdict"] == "skipped":
            absent.append(f"{model}.{cell['form']}")
        else:
            here[cell["form"]] = pathlib.Path(cell["path"])
    return here, absent


def judge(apr: pathlib.Path, args: argparse.Namespace) -> list[Row]:
    """Every run; the report is written anew after each form, so that an interrupted one says what it has."""
    rows, missing = [], []
    for model in args.models or MODELS:
        with tempfile.TemporaryDirectory(prefix="apr-real-") as scratch:
            forms, absent = built(apr, model, args.form, args.keep_forms or pathlib.Path(scratch))
            missing += absent
            for form, path in forms.items():
                for door in args.doors:
                    rows.append(run(apr, model, form, path, door, args))
                    last = rows[-1]
                    print(f"{model:20} {form:20} {door:9} {last.verdict:11} exit {last.code} {last.seconds:6.1f} s",
                          file=sys.stderr)
                args.output.write_text(render(rows, missing, args), encoding="utf-8")
    return rows


def kills(path: pathlib.Path | None) -> str:
    if path is None:
        return "Faults killed: not measured beside this run (`apr qa --prove`, then `--kill-matrix`)."
    matrix = json.loads(path.read_text())
    cells = matrix.get("matrix", matrix).get("cells", [])
    killed = sum(cell["kill"] == "killed" for cell in cells)
    gates = len({cell["gate"] for cell in cells})
    return f"Faults killed: {killed} of {len(cells)} planted at {gates} gates ({path.name})."


def commit() -> str:
    told = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, capture_output=True,
                          text=True)
    return told.stdout.strip() or "unknown"


def processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def render(rows: list[Row], absent: list[str], args: argparse.Namespace) -> str:
    accused = [row for row in rows if row.code != 0]
    forms = {(row.model, row.form) for row in rows}
    when = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    lines = ["# Published models at every front door", "",
             "Written by `python scripts/real_models_report.py`. Every form is healthy: what is not quiet is a false",
             "accusation, or a failure of the program. Seconds are wall time on a machine that may have been busy.", "",
             f"- {when}, commit {commit()}, {args.profile} build",
             f"- {processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end",
             f"- {len(rows)} runs of {len(args.doors)} doors on {len(forms)} forms of "
             f"{len({model for model, _ in forms})} models: **{len(accused)} false accusations or failures**",
             f"- {kills(args.kill_matrix)}"]
    if absent:
        lines.append(f"- not on this machine, so not judged: {', '.join(absent)}")
    lines += ["", "| model | form | door | verdict | exit | looked at | s |", "|---|---|---|---|--:|--:|--:|"]
    for row in rows:
        door = " ".join(argument for argument in DOORS[row.door] if argument != "--no-report")
        verdict = row.verdict if row.code == 0 else f"**{row.verdict}**"
        lines.append(f"| {row.model} | {row.form} | {door} | {verdict} | {row.code} | {row.judged} | {row.seconds:.1f} |")
    if accused:
        lines += ["", "## What was held against healthy models", ""]
    for row in accused:
        lines.append(f"- {row.model}.{row.form}, {row.door}, exit {row.code}:")
        lines += [f"  - {finding[:300]}".replace("\n", " ") for finding in row.findings[:LISTED]]
        if len(row.findings) > LISTED:
            lines.append(f"  - and {len(row.findings) - LISTED} more")
    return "\n".join(lines) + "\n"


def words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--apr", type=pathlib.Path, default=ROOT / "target/release/apr", help="the program")
    parser.add_argument("--models", type=words, default=[], help="ids with commas between; all when absent")
    parser.add_argument("--form", default="", help="one form, such as published; all when absent")
    parser.add_argument("--keep-forms", type=pathlib.Path, help="folder of forms for the next run; none is kept when absent")
    parser.add_argument("--doors", type=words, default=list(DOORS), help=f"of {','.join(DOORS)}")
    parser.add_argument("--limit", type=float, default=900, help="seconds after which a door is stopped")
    parser.add_argument("--kill-matrix", type=pathlib.Path, help="kill-matrix.json of apr qa --prove")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "reports/real-models.md")
    args = parser.parse_args()
    if unknown := [door for door in args.doors if door not in DOORS]:
        parser.error(f"no door is called {', '.join(unknown)}; expected {', '.join(DOORS)}")
    if unknown := [model for model in args.models if model not in MODELS]:
        parser.error(f"no model is called {', '.join(unknown)}; expected {', '.join(MODELS)}")
    apr = args.apr.resolve()
    if not apr.exists():
        parser.error(f"{apr} is not there; cargo build --release")
    args.profile = apr.parent.name
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.observations = observations(apr)
    rows = judge(apr, args)
    if not rows:
        sys.exit("no form is on this machine; python scripts/fetch_real_models.py")
    print(f"{args.output}: {sum(row.code != 0 for row in rows)} of {len(rows)} runs are not quiet")
    return 1 if any(row.code != 0 for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
