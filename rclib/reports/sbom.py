"""A software bill of materials of the environment that results were made in (CycloneDX, JSON).

    python -m rclib.reports.sbom dist/rclib-0.1.0-py3-none-any.whl

writes it from `requirements.lock` and `pyproject.toml` into the wheel, where PEP 770 wants it:
`rclib-<version>.dist-info/sboms/rclib.cdx.json`. `make dist` does this. The wheel itself asks for
lower bounds; the bill says with which versions it was tested, and the sha256 of their files.
The same lock gives the same bytes.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import sys
import tomllib
import uuid
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rclib import paths
from rclib.files.atomic import write_atomically
from rclib.files.command import command
from rclib.files.terminal import note, report

__all__ = ["Pin", "add_to_wheel", "bill_of_materials", "main", "read_lock"]

_PIN = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]*)==(?P<version>[\w.!+-]+)"
    r"(?: ; (?P<marker>[^\\]+?))?(?P<hashes>(?: --hash=sha256:[0-9a-f]{64})+)"
)
_MAKER = uuid.UUID("6b1f0e0e-5d7c-5a55-9a43-5b8d1f2c7a10")  # of the serial numbers made here


@dataclass(frozen=True)
class Pin:
    """One line of the lock. marker : where it holds, "" for everywhere; hashes : sha256 of the
    files that it may come in."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]

    @property
    def purl(self) -> str:
        """Its package URL."""
        return f"pkg:pypi/{_canonical(self.name)}@{self.version}"


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def read_lock(text: str) -> list[Pin]:
    """The lines of a lock file. Raises ValueError for one that is no pin with hashes."""
    found = []
    for line in re.sub(r" *\\\n *", " ", text).splitlines():
        pin = _PIN.fullmatch(line.strip())
        if pin is None:
            raise ValueError(f"requirements.lock: {line[:80]!r} is no pin with hashes")
        hashes = tuple(re.findall(r"sha256:([0-9a-f]{64})", pin["hashes"]))
        found.append(Pin(pin["name"], pin["version"], pin["marker"] or "", hashes))
    if not found:
        raise ValueError("requirements.lock: it is empty")
    return found


def bill_of_materials(pins: Sequence[Pin], project: Mapping[str, Any]) -> dict[str, Any]:
    """The bill in CycloneDX's form.

    project : the table `[project]` of pyproject.toml; what it names itself is `required` or, in an
        extra, `optional`. What others bring along has no scope, since the lock does not say.
    """
    wanted = {_name(line) for line in project["dependencies"]}
    extras: dict[str, list[str]] = {}
    for extra, lines in project["optional-dependencies"].items():
        for line in lines:
            extras.setdefault(_name(line), []).append(extra)
    itself = f"pkg:pypi/{_canonical(project['name'])}@{project['version']}"
    direct = [pin.purl for pin in pins if _canonical(pin.name) in wanted]
    bill: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "lifecycles": [{"phase": "pre-build"}],
            "component": {
                "type": "library",
                "bom-ref": itself,
                "name": project["name"],
                "version": project["version"],
                "description": project["description"],
                "licenses": [{"license": {"id": project["license"]}}],
                "purl": itself,
            },
        },
        "components": [_component(pin, wanted, extras) for pin in pins],
        "dependencies": [
            {"ref": itself, "dependsOn": sorted(dict.fromkeys(direct))},
            *({"ref": pin.purl} for pin in pins),
        ],
    }
    content = json.dumps(bill, sort_keys=True)
    return {"serialNumber": f"urn:uuid:{uuid.uuid5(_MAKER, content)}"} | bill


def _name(line: str) -> str:
    """The package that a requirement such as `numpy>=1.26` names."""
    return _canonical(re.split(r"[<>=!~;\[ ]", line, maxsplit=1)[0])


def _component(pin: Pin, wanted: set[str], extras: Mapping[str, list[str]]) -> dict[str, Any]:
    name = _canonical(pin.name)
    properties = [{"name": "rclib:extra", "value": extra} for extra in extras.get(name, [])]
    if pin.marker:
        properties.append({"name": "rclib:marker", "value": pin.marker})
    found: dict[str, Any] = {
        "type": "library",
        "bom-ref": pin.purl,
        "name": pin.name,
        "version": pin.version,
        "purl": pin.purl,
        "externalReferences": [
            {
                "type": "distribution",
                "url": pin.purl,
                "hashes": [{"alg": "SHA-256", "content": value} for value in pin.hashes],
            }
        ],
    }
    if name in wanted or name in extras:
        found["scope"] = "required" if name in wanted else "optional"
    return found | ({"properties": properties} if properties else {})


def add_to_wheel(wheel: Path, bill: Mapping[str, Any]) -> str:
    """Put the bill into a wheel and its RECORD; the wheel is written whole. Returns the name of
    the file in it. Raises ValueError for a file that is no wheel, or has a bill already."""
    try:
        with zipfile.ZipFile(wheel) as packed:
            entries = [(info, packed.read(info)) for info in packed.infolist()]
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{wheel} is no wheel: {error}") from None
    records = [
        info for info, _ in entries if re.fullmatch(r"[^/]+\.dist-info/RECORD", info.filename)
    ]
    if len(records) != 1:
        raise ValueError(f"{wheel} is no wheel: it has {len(records)} RECORDs")
    (record,) = records
    folder = record.filename.rpartition("/")[0]
    name = f"{folder}/sboms/{folder.partition('-')[0]}.cdx.json"
    if any(info.filename == name for info, _ in entries):
        raise ValueError(f"{wheel} has a bill of materials already")
    content = (json.dumps(bill, indent=1, ensure_ascii=False) + "\n").encode()
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([name, f"sha256={digest}", len(content)])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for info, payload in entries:
            if info is not record:
                packed.writestr(info, payload)
        added = zipfile.ZipInfo(name, record.date_time)
        added.external_attr, added.compress_type = record.external_attr, zipfile.ZIP_DEFLATED
        packed.writestr(added, content)
        listed = next(payload for info, payload in entries if info is record)
        packed.writestr(record, line.getvalue().encode() + listed)
    write_atomically(wheel, buffer.getvalue())
    return name


@command()
def main(argv: Sequence[str] | None = None) -> int:
    """Put the bill of materials of this project's lock into the wheels that are named."""
    root = paths.project_root()
    wheels = list(sys.argv[1:] if argv is None else argv)
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        pins = read_lock((root / "requirements.lock").read_text(encoding="utf-8"))
        bill = bill_of_materials(pins, project)
        for wheel in wheels:
            name = add_to_wheel(Path(wheel), bill)
            report(f"{wheel}: {name}, {len(pins)} packages")
    except (OSError, ValueError, KeyError) as error:
        note(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
