"""What the Docker engine speaks of, as frozen values, and the archives in which files travel to it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Container:
    """A container as the engine describes it: `status` and `started_at` are Docker's own words.

    `networks` are the ids of its networks, `network_names` their names.
    """

    id: str
    name: str
    status: str
    labels: Mapping[str, str]
    image: str = ""
    exit_code: int = 0
    started_at: str = ""
    networks: frozenset[str] = frozenset()
    network_names: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class DockerNetwork:
    """A network as the engine describes it."""

    id: str
    name: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Volume:
    """A named volume as the engine describes it."""

    name: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ContainerPlan:
    """A container to be made: `volumes` maps volume names to paths, `ports` container ports to ports on 127.0.0.1."""

    name: str
    image: str
    labels: Mapping[str, str]
    environment: Mapping[str, str]
    network: str
    volumes: Mapping[str, str]
    ports: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class File:
    """A file to be put into a container: absolute path, content (may be secret), mode and numeric owner."""

    path: str
    content: str = field(repr=False)
    mode: int
    user_id: int
    group_id: int


@dataclass(frozen=True, slots=True)
class ContainerEvent:
    """What happened to a container at `at` (epoch seconds): Docker's word and the container's labels."""

    at: float
    action: str
    labels: Mapping[str, str]


def container_of(description: Mapping[str, Any]) -> Container:
    """The container that an inspection describes."""
    state, config = description["State"], description["Config"]
    networks = description.get("NetworkSettings", {}).get("Networks") or {}
    return Container(
        id=description["Id"],
        name=description["Name"].lstrip("/"),
        status=state["Status"],
        labels=config.get("Labels") or {},
        image=config.get("Image", ""),
        exit_code=state.get("ExitCode", 0),
        started_at=state.get("StartedAt", ""),
        networks=frozenset(n["NetworkID"] for n in networks.values() if n and n.get("NetworkID")),
        network_names=frozenset(networks),
    )


def archive_of(files: Iterable[File]) -> bytes:
    """A tar archive of `files`, to be unpacked at the root."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for file in files:
            data = file.content.encode()
            info = tarfile.TarInfo(file.path.lstrip("/"))
            info.size, info.mode, info.uid, info.gid = len(data), file.mode, file.user_id, file.group_id
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def archive_of_folder(folder: Path) -> bytes:
    """A tar archive of the files in `folder`, with neither owners nor times, so that equal folders give equal bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            data = path.read_bytes()
            info = tarfile.TarInfo(path.relative_to(folder).as_posix())
            info.size, info.mode = len(data), 0o755 if path.suffix == ".sh" else 0o644
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def only_file_in(archive: bytes) -> str | None:
    """The text of the one regular file in a tar archive; None if there is none."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        for member in opened:
            content = opened.extractfile(member)
            if content is not None:
                return content.read().decode(errors="replace")
    return None
