"""rclib.checkpoints.hub: the real huggingface_hub client against a small hub on the loopback
interface.

The client reads its environment when it is imported, so every case runs in a process of its own,
whose sockets can reach nothing but 127.0.0.1.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import torch
from safetensors.torch import save

from rclib.checkpoints.hub_names import split_id

TOKEN = "hf_token_of_the_test"
Files = dict[str, bytes]

# A process that has torch loaded, but not the client. For each line of its input it forks a child
# with an environment of its own that opens a checkpoint and says what it got: exit status 3 and
# the message for the library's own error.
SERVER = """
import json, os, socket, sys, traceback

from rclib.checkpoints.opening import CheckpointError, open_checkpoint

assert "huggingface_hub" not in sys.modules

def guard(name):
    real = getattr(socket.socket, name)
    def connect(self, address, *rest):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] != "127.0.0.1":
            raise AssertionError(f"the client tried to reach {address}")
        return real(self, address, *rest)
    setattr(socket.socket, name, connect)

guard("connect"); guard("connect_ex")

def child(source, revision):
    try:
        with open_checkpoint(source, revision=revision) as c:
            sums = {name: float(c.tensor(name).double().sum()) for name in c.tensors}
            return 0, json.dumps({"source": c.source, "config": c.config, "sums": sums})
    except CheckpointError as error:
        return 3, str(error)
    except BaseException:
        return 1, traceback.format_exc()

for line in sys.stdin:
    job = json.loads(line)
    read, write = os.pipe()
    if os.fork() == 0:
        os.environ.update(job["environment"])
        os.write(write, json.dumps(child(job["source"], job["revision"])).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        print(answer.read(), flush=True)
    os.wait()
"""


@dataclass
class Hub:
    """Models by id: {revision: (commit, files)}; `gated` ones ask for the token."""

    url: str = ""
    models: dict[str, dict[str, tuple[str, Files]]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    failing: int = 0  # status that every request gets, if not 0

    def add(self, model: str, files: Files, *, revision: str = "main") -> str:
        """Publish files as a revision; its commit."""
        digest = hashlib.sha1(repr((model, revision, sorted(files))).encode())
        commit = digest.hexdigest()
        revisions = self.models.setdefault(model, {})
        revisions[revision] = revisions[commit] = (commit, files)
        return commit


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def refuse(self, status: int, code: str, commit: str = "") -> None:
            headers = {"X-Error-Code": code, "X-Error-Message": code}
            self.answer(status, headers | ({"X-Repo-Commit": commit} if commit else {}))

        def do_GET(self) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            parts = unquote(self.path.split("?")[0]).strip("/").split("/")
            if hub.failing:
                return self.refuse(hub.failing, "Down")
            if parts[:2] == ["api", "models"]:  # api/models/owner/name[/revision/REVISION]
                model, revision, name = "/".join(parts[2:4]), "/".join(parts[5:]) or "main", ""
            else:  # owner/name/resolve/REVISION/file
                model, revision, name = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
            if model not in hub.models:  # the hub does not tell missing from private
                return self.refuse(401, "RepoNotFound")
            if model in hub.gated and name:
                sent = self.headers.get("Authorization")
                if sent != f"Bearer {TOKEN}":
                    return self.refuse(403 if sent else 401, "GatedRepo")
            if revision not in hub.models[model]:
                return self.refuse(404, "RevisionNotFound")
            commit, files = hub.models[model][revision]
            if not name:
                listed = [{"rfilename": file} for file in files]
                info = {"id": model, "modelId": model, "sha": commit, "siblings": listed}
                return self.answer(
                    200, {"Content-Type": "application/json"}, json.dumps(info).encode()
                )
            if name not in files:
                return self.refuse(404, "EntryNotFound", commit)
            body = files[name]
            sha = hashlib.sha256(body).hexdigest()
            headers = {"X-Repo-Commit": commit, "ETag": f'"{sha}"', "Accept-Ranges": "bytes"}
            large = name.endswith((".safetensors", ".bin"))
            if large and "lfs" not in self.path:
                # Large files are redirected to a store; size and checksum come along.
                headers |= {"X-Linked-Etag": f'"{sha}"', "X-Linked-Size": str(len(body))}
                return self.answer(302, headers | {"Location": f"{hub.url}{self.path}?lfs"})
            asked = self.headers.get("Range")
            if asked:
                first = int(asked.removeprefix("bytes=").split("-")[0])
                span = f"bytes {first}-{len(body) - 1}/{len(body)}"
                return self.answer(206, headers | {"Content-Range": span}, body[first:])
            return self.answer(200, headers, body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A running hub without models."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield hub
    server.shutdown()
    server.server_close()
    thread.join(10)


@dataclass
class Outcome:
    """What a process that opened a checkpoint said."""

    code: int
    text: str

    @property
    def all(self) -> dict[str, Any]:
        assert self.code == 0, self.text
        return dict(json.loads(self.text))

    @property
    def sums(self) -> dict[str, float]:
        return dict(self.all["sums"])

    @property
    def error(self) -> str:
        assert self.code == 3, self.text
        assert "\n" not in self.text
        return self.text


Open = Callable[..., Outcome]


@pytest.fixture(scope="module")
def _server() -> Iterator[subprocess.Popen[str]]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    with subprocess.Popen(
        [sys.executable, "-c", SERVER],
        env=inherited | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def opened(_server: subprocess.Popen[str], hub: Hub, tmp_path: Path) -> Open:
    """opened(source, revision=None, home="home", **environment) in a process of its own."""

    def ask(
        source: str, revision: str | None = None, home: str = "home", **environment: str
    ) -> Outcome:
        settings = {
            "HF_HOME": str(tmp_path / home),
            "HF_ENDPOINT": hub.url,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1",
        }
        job = {
            "source": source,
            "revision": revision,
            "environment": settings | environment,
        }
        assert _server.stdin is not None
        assert _server.stdout is not None
        _server.stdin.write(json.dumps(job) + "\n")
        _server.stdin.flush()
        return Outcome(*json.loads(_server.stdout.readline()))

    return ask


def _weights(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(4, 3, generator=generator) for name in ("a", "b", "c")}


def _sums(tensors: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: float(t.double().sum()) for name, t in tensors.items()}


def _single(seed: int = 0) -> Files:
    return {
        "config.json": b'{"model_type": "tiny"}',
        "model.safetensors": save(_weights(seed)),
        "modeling_tiny.py": b"raise SystemExit('code of the repository ran')",
        "pytorch_model.bin": b"not to be fetched",
    }


def _sharded() -> Files:
    weights = _weights()
    placed = {"a": "s-1.safetensors", "b": "s-1.safetensors", "c": "s-2.safetensors"}
    return {
        "config.json": b"{}",
        "model.safetensors.index.json": json.dumps({"weight_map": placed}).encode(),
        "s-1.safetensors": save({k: weights[k] for k in "ab"}),
        "s-2.safetensors": save({"c": weights["c"]}),
    }


def test_single_file_and_only_what_is_needed(hub: Hub, opened: Open) -> None:
    commit = hub.add("tiny/model", _single())
    got = opened("tiny/model")
    assert got.sums == _sums(_weights())
    assert got.all["config"] == {"model_type": "tiny"}
    assert got.all["source"] == "tiny/model"
    asked = {line.split("?")[0].split("/")[-1] for line in hub.requests}
    assert asked == {"model", "config.json", "model.safetensors"}
    # Files are asked of the commit that was seen first, so a push in between mixes nothing.
    assert f"GET /tiny/model/resolve/{commit}/model.safetensors?lfs" in hub.requests


def test_sharded(hub: Hub, opened: Open) -> None:
    hub.add("tiny/shards", _sharded())
    assert opened("tiny/shards").sums == _sums(_weights())


def test_pickle_when_there_is_nothing_else(hub: Hub, opened: Open, tmp_path: Path) -> None:
    torch.save(_weights(), tmp_path / "w.bin")
    hub.add("tiny/pickle", {"pytorch_model.bin": (tmp_path / "w.bin").read_bytes()})
    got = opened("tiny/pickle")
    assert got.sums == _sums(_weights())
    assert got.all["config"] is None


def test_revision_in_the_id_and_as_argument(hub: Hub, opened: Open) -> None:
    hub.add("tiny/model", _single())
    commit = hub.add("tiny/model", _single(1), revision="v1")
    for arguments in (("tiny/model@v1",), ("tiny/model", "v1"), (f"tiny/model@{commit}",)):
        assert opened(*arguments).sums == _sums(_weights(1))
    missing = opened("tiny/model@v2").error
    assert missing == "tiny/model@v2: the model has no such revision"


def test_unknown_id(hub: Hub, opened: Open) -> None:
    error = opened("tiny/nothing").error
    assert error.startswith(f"tiny/nothing: no such model at {hub.url}")


def test_gated(hub: Hub, opened: Open) -> None:
    hub.add("tiny/gated", _single())
    hub.gated.add("tiny/gated")
    for wrong in ({}, {"HF_TOKEN": "hf_wrong"}):
        error = opened("tiny/gated", **wrong).error
        assert error.startswith(
            f"tiny/gated: gated model; accept its terms at {hub.url}/tiny/gated"
        )
        assert "HF_TOKEN" in error
        assert "hf_wrong" not in error
    assert opened("tiny/gated", HF_TOKEN=TOKEN).sums


def test_offline_and_without_network(hub: Hub, opened: Open) -> None:
    hub.add("tiny/model", _single())
    hub.add("tiny/shards", _sharded())
    empty = opened("tiny/model", HF_HUB_OFFLINE="1").error
    assert "HF_HUB_OFFLINE forbids to ask the hub" in empty
    assert not hub.requests
    for model in ("tiny/model", "tiny/shards"):
        assert opened(model).code == 0
    asked = len(hub.requests)
    for model in ("tiny/model", "tiny/shards"):
        assert opened(model, HF_HUB_OFFLINE="1").sums == _sums(_weights())
    assert len(hub.requests) == asked
    # Nobody listens on port 1.
    for model in ("tiny/model", "tiny/shards"):
        assert opened(model, HF_ENDPOINT="http://127.0.0.1:1").sums == _sums(_weights())
    gone = opened("tiny/model", home="other", HF_ENDPOINT="http://127.0.0.1:1").error
    assert "http://127.0.0.1:1 cannot be reached" in gone


def test_a_hub_that_fails(hub: Hub, opened: Open) -> None:
    hub.add("tiny/model", _single())
    hub.failing = 500
    error = opened("tiny/model").error
    assert error.startswith("tiny/model: ")
    assert hub.url in error


def test_a_cache_that_lost_a_shard(hub: Hub, opened: Open, tmp_path: Path) -> None:
    hub.add("tiny/shards", _sharded())
    assert opened("tiny/shards").code == 0
    (shard,) = tmp_path.glob("home/hub/models--tiny--shards/snapshots/*/s-2.safetensors")
    shard.unlink()
    error = opened("tiny/shards", HF_HUB_OFFLINE="1").error
    assert "shard 's-2.safetensors'" in error
    assert "is not in the cache, and HF_HUB_OFFLINE forbids" in error
    assert opened("tiny/shards").sums == _sums(_weights())


@pytest.mark.parametrize("shard", ["../../evil.safetensors", "/etc/passwd", "a\\..\\b"])
def test_an_index_that_leads_out(hub: Hub, opened: Open, shard: str) -> None:
    files = _sharded()
    files["model.safetensors.index.json"] = json.dumps({"weight_map": {"a": shard}}).encode()
    hub.add("tiny/evil", files)
    assert "outside the directory" in opened("tiny/evil").error
    assert not any("evil.safe" in line or "passwd" in line for line in hub.requests)


def test_a_repository_without_weights(hub: Hub, opened: Open) -> None:
    hub.add("tiny/empty", {"config.json": b"{}"})
    error = opened("tiny/empty").error
    assert error.startswith("tiny/empty: none of model.safetensors")
    hub.add("tiny/holes", {k: v for k, v in _sharded().items() if k != "s-2.safetensors"})
    error = opened("tiny/holes").error
    assert error.endswith(
        "shard 's-2.safetensors' of model.safetensors.index.json is not in the repository"
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("openai-community/gpt2", ("openai-community/gpt2", None)),
        ("meta-llama/Llama-3.1-8B@refs/pr/3", ("meta-llama/Llama-3.1-8B", "refs/pr/3")),
        ("gpt2", None),
        ("./a/b", None),
        ("../a/b", None),
        ("/a/b", None),
        ("a/b/c", None),
        ("a/b@", None),
        ("a b/c", None),
    ],
)
def test_what_is_an_id(source: str, expected: tuple[str, str | None] | None) -> None:
    assert split_id(source) == expected
