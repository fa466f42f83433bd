"""reports.sbom: every pin of the lock is in the bill, and the wheel with it is a valid wheel."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from rclib.reports import sbom

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
HASH = "0123456789abcdef" * 4


def small_wheel(folder: Path) -> Path:
    """A wheel with one module, as an installer takes it."""
    files = {
        "small.py": b"x = 1\n",
        "small-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: small\nVersion: 1.0\n",
        "small-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\n"
        b"Root-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = [f"{name},sha256={digest(content)},{len(content)}" for name, content in files.items()]
    record = "small-1.0.dist-info/RECORD"
    path = folder / "small-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in files.items():
            packed.writestr(name, content)
        packed.writestr(record, "\n".join([*lines, f"{record},,"]) + "\n")
    return path


def digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")


def check_record(wheel: Path) -> None:
    """Every file of a wheel stands in its RECORD with its hash and size, once."""
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        (record,) = (name for name in names if name.endswith(".dist-info/RECORD"))
        rows = list(csv.reader(io.StringIO(packed.read(record).decode())))
        assert sorted(row[0] for row in rows) == sorted(names)
        assert len(set(names)) == len(names)
        for name, found, size in rows:
            if name != record:
                content = packed.read(name)
                assert (found, size) == (f"sha256={digest(content)}", str(len(content))), name


def test_every_pin_of_the_lock_is_in_the_bill_with_all_its_hashes() -> None:
    pins = sbom.read_lock(LOCK)
    bill = sbom.bill_of_materials(pins, PROJECT)
    listed = {(c["name"], c["version"]) for c in bill["components"]}
    assert listed == set(re.findall(r"^([\w.-]+)==([\w.!+-]+)", LOCK, re.MULTILINE))
    assert LOCK.count("--hash=") == sum(
        len(reference["hashes"])
        for component in bill["components"]
        for reference in component["externalReferences"]
    )
    references = [c["bom-ref"] for c in bill["components"]]
    assert len(set(references)) == len(references)
    named = {d["ref"] for d in bill["dependencies"]}
    assert named == {*references, bill["metadata"]["component"]["bom-ref"]}
    direct = {ref.split("@")[0].removeprefix("pkg:pypi/") for ref in
              bill["dependencies"][0]["dependsOn"]}  # fmt: skip
    assert direct == {Requirement(line).name for line in PROJECT["dependencies"]}
    scopes = {c["name"]: c.get("scope") for c in bill["components"]}
    assert (scopes["torch"], scopes["nbconvert"], scopes["idna"]) == ("required", "optional", None)
    numba = next(c for c in bill["components"] if c["name"] == "numba")
    assert {"name": "rclib:extra", "value": "fast"} in numba["properties"]
    assert bill["metadata"]["component"]["version"] == PROJECT["version"]


def test_bill_repeats_and_follows_the_lock() -> None:
    pins = sbom.read_lock(LOCK)
    bill = sbom.bill_of_materials(pins, PROJECT)
    assert bill == sbom.bill_of_materials(pins, PROJECT)
    other = sbom.bill_of_materials(pins[1:], PROJECT)
    assert bill["serialNumber"] != other["serialNumber"]
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", bill["serialNumber"])


def test_markers_and_the_lines_of_a_lock() -> None:
    text = (
        f"a.b==1.0 ; python_full_version < '3.12' \\\n    --hash=sha256:{HASH} \\\n"
        f"    --hash=sha256:{HASH[::-1]}\nc==2+x \\\n    --hash=sha256:{HASH}\n"
    )
    first, second = sbom.read_lock(text)
    assert first == sbom.Pin("a.b", "1.0", "python_full_version < '3.12'", (HASH, HASH[::-1]))
    assert first.purl == "pkg:pypi/a-b@1.0"
    assert (second.version, second.marker) == ("2+x", "")


@pytest.mark.parametrize(
    "line",
    ["a==1.0", f"a>=1 --hash=sha256:{HASH}", "a==1 --hash=sha256:12", "-e .", "--index-url x",
     f"a @ file:///x --hash=sha256:{HASH}", f"a==1 --hash=md5:{HASH}"],
)  # fmt: skip
def test_lock_without_hashes_or_with_anything_else_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="is no pin with hashes"):
        sbom.read_lock(line)
    with pytest.raises(ValueError, match="it is empty"):
        sbom.read_lock("")


def test_wheel_stays_a_wheel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wheel = small_wheel(tmp_path)
    check_record(wheel)
    assert sbom.main([str(wheel)]) == 0
    assert "small-1.0.dist-info/sboms/small.cdx.json" in capsys.readouterr().out
    check_record(wheel)
    with zipfile.ZipFile(wheel) as packed:
        bill = json.loads(packed.read("small-1.0.dist-info/sboms/small.cdx.json"))
        assert packed.read("small.py") == b"x = 1\n"
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--quiet"]
    target = ["--disable-pip-version-check", "--target", str(tmp_path / "there"), str(wheel)]
    done = subprocess.run([*command, *target], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "there/small-1.0.dist-info/sboms/small.cdx.json").is_file()
    # A second bill would contradict the first.
    before = wheel.read_bytes()
    assert sbom.main([str(wheel)]) == 1
    assert "has a bill of materials already" in capsys.readouterr().err
    assert wheel.read_bytes() == before


def test_what_is_no_wheel_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.whl"
    for content in (None, b"nothing"):
        if content:
            path.write_bytes(content)
        assert sbom.main([str(path)]) == 1
        assert "x.whl is no wheel" in capsys.readouterr().err
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("a.py", "")
    assert sbom.main([str(path)]) == 1
    assert "x.whl is no wheel: it has 0 RECORDs" in capsys.readouterr().err


def test_make_dist_puts_it_into_the_wheel() -> None:
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").split("\ndist:")[1].split("\n\n")[0]
    steps = ["-m build", "-m rclib.reports.sbom dist/*.whl", "-m twine check"]
    assert sorted(steps, key=recipe.index) == steps
