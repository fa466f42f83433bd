"""Changes of files: of bytes whatever they are, and of what lies inside of a container, so that
the change gets past its checksums and lengths."""

from __future__ import annotations

import copy
import gzip
import io
import json
import pickletools
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

import yaml

__all__ = ["bytes_of", "framed_json", "inside_gzip", "inside_tar", "inside_zip", "json_of",
           "opcodes_of", "text_of", "yaml_of"]  # fmt: skip

Mutate = Callable[[Random, bytes], bytes]

NUMBERS = [0, 1, -1, 2, 7, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1]
NUMBERS += [2**40, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1, -(2**31), -(2**63)]
TEXTS = ["", "\0", "a" * 3000, "../../x", "/etc/passwd", "\x1b[2J", "\u202e", "é", "F32", "nan"]
TEXTS += ["{b}{c}{d}", "{{", "out <- in", "__proto__", "weight", "1e999", "-", "~", "\n", "%s"]
PIECES = [b"", b"\0", b"\xff", b"[" * 2000, b"{" * 2000, b"\n", b"\0" * 300, b"PK\x05\x06", b"}"]
PIECES += [
    b'"',
    b"\\ud800",
    b"NaN",
    b"1e999",
    b"- &a [*a, *a]\n",
    b"? ",
    b"!!python/name:os.system",
]
MOST = 1 << 20  # no file grows beyond


def bytes_of(random: Random, content: bytes) -> bytes:
    """A few changes anywhere: bits, bytes, whole numbers, pieces cut out, doubled, moved, added."""
    data = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 3, 8))):
        at, size = random.randrange(len(data) + 1), random.choice((1, 2, 4, 8, 30, 300))
        match random.randrange(9):
            case 0 if data:
                data[at % len(data)] ^= 1 << random.randrange(8)
            case 1 if data:
                data[at % len(data)] = random.choice(
                    (0, 1, 0x7F, 0x80, 0xFF, random.randrange(256))
                )
            case 2:
                del data[at : at + size]
            case 3:
                data[at:at] = data[at : at + size] * random.choice((1, 2, 40))
            case 4:
                data[at:at] = random.choice(PIECES)
            case 5:  # a number where one may stand
                kind = random.choice(("<B", "<H", "<I", "<Q", ">I", ">Q"))
                width = struct.calcsize(kind)
                value = random.choice(NUMBERS) % 256**width
                data[at : at + width] = struct.pack(kind, value)
            case 6:
                del data[at:]
            case 7:
                other = random.randrange(len(data) + 1)
                data[at : at + size] = data[other : other + size]
            case _:
                data[at:at] = random.randbytes(size)
    return bytes(data[:MOST])


def text_of(random: Random, content: bytes) -> bytes:
    """A line or a word of a text moved, doubled or replaced; else `bytes_of`."""
    if random.random() < 0.4:
        return bytes_of(random, content)
    lines = content.split(b"\n")
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(lines))
        match random.randrange(5):
            case 0:
                lines.insert(random.randrange(len(lines) + 1), lines[at])
            case 1 if len(lines) > 1:
                del lines[at]
            case 2:
                lines[at] = b"  " * random.choice((1, 40)) + lines[at]
            case 3:
                words = lines[at].split(b" ")
                value = str(random.choice(NUMBERS + TEXTS))
                words[random.randrange(len(words))] = value.encode("utf-8", "surrogatepass")
                lines[at] = b" ".join(words)
            case _:
                lines[at] = lines[at] * random.choice((2, 50))
    return b"\n".join(lines)[:MOST]


def _places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every entry of nested lists and dictionaries."""
    found: list[tuple[Any, Any]] = []
    todo = [value]
    while todo:
        one = todo.pop()
        keys = one.keys() if isinstance(one, dict) else range(len(one))
        for key in list(keys):
            found.append((one, key))
            if isinstance(one[key], (dict, list)):
                todo.append(one[key])
    return found


def _other(random: Random, value: Any) -> Any:
    """A value in the place of another, of its kind or of another kind."""
    deep: Any = 1
    for _ in range(random.choice((3, 60, 300))):
        deep = [deep] if random.random() < 0.5 else {"a": deep}
    odd = [None, True, False, [], {}, [value] * 3, {"a": value}, deep, 0.5, -0.0, 1e308, 1e-320]
    odd += [float("nan"), float("inf"), [1, "a", None], {"": 0}]
    return random.choice((random.choice(odd), random.choice(NUMBERS), random.choice(TEXTS)))


def _changed(random: Random, value: Any) -> Any:
    """A nested value with a few entries replaced, moved, doubled or gone."""
    value = copy.deepcopy(value)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        places = _places(value)
        if not places:
            return _other(random, value)
        holder, key = random.choice(places)
        match random.randrange(6):
            case 0:
                del holder[key]
            case 1:
                donor, other = random.choice(places)
                if (isinstance(donor, list) and other < len(donor)) or other in donor:
                    holder[key] = copy.deepcopy(donor[other])
            case 2 if isinstance(holder, dict):
                holder[str(random.choice(NUMBERS + TEXTS))] = holder.pop(key)
            case 3 if isinstance(holder, list):
                holder.insert(random.randrange(len(holder) + 1), copy.deepcopy(holder[key]))
            case _:
                holder[key] = _other(random, holder[key])
    return value


def json_of(random: Random, content: bytes) -> bytes:
    """A JSON text whose values are others, sometimes with a key twice; else `text_of`."""
    if random.random() < 0.3:
        return text_of(random, content)
    text = json.dumps(_changed(random, json.loads(content)))
    if random.random() < 0.1 and '", "' in text:
        first = text.find('": ')
        text = text[: first + 3] + "1, " + text[text.rfind('"', 0, first) :]
    return text.encode()[:MOST]


def yaml_of(random: Random, content: bytes) -> bytes:
    """A YAML text whose values are others; else `text_of`."""
    if random.random() < 0.5:
        return text_of(random, content)
    value = _changed(random, yaml.safe_load(content))
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True)).encode(
        "utf-8", "surrogatepass"
    )[:MOST]


def framed_json(random: Random, content: bytes) -> bytes:
    """A safetensors file: its header as JSON with the right length before it, its data, or both."""
    if random.random() < 0.4:
        return bytes_of(random, content)
    length = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + length], content[8 + length :]
    header = json_of(random, header)
    if random.random() < 0.3:
        data = bytes_of(random, data)
    return struct.pack("<Q", len(header)) + header + data


def opcodes_of(random: Random, content: bytes) -> bytes:
    """A pickle with opcodes left out, doubled, moved or of other arguments; else `bytes_of`."""
    if random.random() < 0.3:
        return bytes_of(random, content)
    begins: list[int] = []
    try:
        begins = [place or 0 for _, _, place in pickletools.genops(content)]
    except ValueError:
        return bytes_of(random, content)
    ends = [*begins[1:], len(content)]
    parts = [content[a:b] for a, b in zip(begins, ends, strict=True)]
    for _ in range(random.choice((1, 1, 2, 5))):
        at = random.randrange(len(parts))
        match random.randrange(6):
            case 0:
                del parts[at]
            case 1:
                parts.insert(random.randrange(len(parts)), parts[at])
            case 2:
                parts[at] = parts[random.randrange(len(parts))]
            case 3:
                parts[at:at] = [parts[at]] * random.choice((3, 3000))
            case 4:
                code = random.choice(list(pickletools.code2op)).encode("latin-1")
                parts.insert(at, code + random.randbytes(random.choice((0, 1, 2, 4))))
            case _:
                parts[at] = parts[at][:1] + bytes_of(random, parts[at][1:])
        if not parts:
            break
    return b"".join(parts)[:MOST]


def inside_zip(**members: Mutate) -> Mutate:
    """Changes of a zip's members, by the end of their names ("" for any); else `bytes_of`."""

    def mutate(random: Random, content: bytes) -> bytes:
        if random.random() < 0.3:
            return bytes_of(random, content)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            files = [(info.filename, archive.read(info)) for info in archive.infolist()]
        at = random.randrange(len(files))
        name, payload = files[at]
        match random.randrange(8):
            case 0:
                del files[at]
            case 1:
                files.append((random.choice(files)[0], payload))
            case 2:
                files[at] = (str(random.choice(TEXTS)) or "x", payload)
            case 3:
                files[at] = (random.choice(files)[0], payload)
            case _:
                change = next((m for end, m in members.items() if name.endswith(end)), bytes_of)
                files[at] = (name, change(random, payload))
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", random.choice((0, 0, 8))) as archive:
            for name, payload in files:
                archive.writestr(zipfile.ZipInfo(name.encode("utf-8", "replace").decode()), payload)
        return buffer.getvalue()

    return mutate


def inside_gzip(inner: Mutate) -> Mutate:
    """Changes of what is packed, packed again; else of the packed bytes."""

    def mutate(random: Random, content: bytes) -> bytes:
        if random.random() < 0.3:
            return bytes_of(random, content)
        try:
            return gzip.compress(inner(random, gzip.decompress(content)), compresslevel=1)
        except (OSError, EOFError, zlib.error):
            return bytes_of(random, content)

    return mutate


def inside_tar(inner: Mutate) -> Mutate:
    """Changes of a tar's members, or of its own bytes."""

    def mutate(random: Random, content: bytes) -> bytes:
        if random.random() < 0.4:
            return bytes_of(random, content)
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            files = [
                (member, stream.read())
                for member in tar
                for stream in [tar.extractfile(member)]
                if stream
            ]
        at = random.randrange(len(files))
        info, payload = files[at]
        payload = inner(random, payload) if random.random() < 0.7 else payload
        info.size = len(payload)
        info.type = random.choice((tarfile.REGTYPE,) * 5 + (tarfile.SYMTYPE, tarfile.LNKTYPE))
        files[at] = (info, payload)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for info, payload in files:
                tar.addfile(info, io.BytesIO(payload))
        return buffer.getvalue()

    return mutate
