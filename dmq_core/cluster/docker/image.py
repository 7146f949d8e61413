"""The image that nodes in Docker run: the official one where a registry answers, else one built here from Debian."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dmq_core.cluster.docker.debian_mirror import debian_mirror
from dmq_core.cluster.docker.engine import Engine
from dmq_core.errors import BackendUnavailableError, ClusterError, DmqError, InvalidInputError, OperationTimeoutError
from dmq_core.progress import Progress, ProgressListener, no_progress
from dmq_core.resources import cluster_folder
from dmq_core.text import visible
from dmq_core.versions import parse_version

DEFAULT_SERIES = "4.3"
REGISTRY_TIMEOUT_S = 4.0
_ROOT_TIMEOUT_S = 900.0
_TOLD_EVERY_S = 0.5
_LABEL = "dmq.recipe"
_OFFICIAL = "rabbitmq"
_OWN = "dmq-rabbitmq"
_BASE = "dmq-base"
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_ERROR = re.compile(r"(?:E:|dpkg: error|debootstrap:|tar:|mktemp:|.*\bnot found$)")
_CONSEQUENCE = re.compile(r"Some index files failed|Sub-process .* returned an error|Exiting with failure status")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@dataclass(frozen=True, slots=True)
class ImageRecipe:
    """Where Debian has a RabbitMQ series: the release to begin with and the release that has the packages."""

    series: str
    base: str
    suite: str


# debootstrap of today's stable Debian may not know the release after next, so 4.3 begins with trixie too.
RECIPES: Mapping[str, ImageRecipe] = {
    r.series: r
    for r in (
        ImageRecipe("4.3", "trixie", "forky"),
        ImageRecipe("4.0", "trixie", "trixie"),
        ImageRecipe("3.10", "bookworm", "bookworm"),
    )
}


@dataclass(frozen=True, slots=True)
class Image:
    """An image that the engine has, and the RabbitMQ version in it as far as known (`4.3.6` or `4.3`)."""

    reference: str
    rabbitmq: str


class _Often:
    """Passes on what often changes, at most twice a second."""

    def __init__(self, progress: ProgressListener) -> None:
        self._progress = progress
        self._told_at = 0.0

    def __call__(self, text: str, fraction: float | None = None) -> None:
        if text and time.monotonic() - self._told_at >= _TOLD_EVERY_S:
            self._told_at = time.monotonic()
            self._progress(Progress(text, fraction=fraction))


def series_of(rabbitmq: str | None) -> str:
    """`4.3` for None, `4.3.6` or `4.3`; `InvalidInputError` if it is no version."""
    version = parse_version(rabbitmq or DEFAULT_SERIES)
    return f"{version.major}.{version.minor}"


def official_tag(rabbitmq: str | None) -> str:
    """The tag of the official image: `4-management` unless a version is asked for."""
    return "4-management" if rabbitmq is None or series_of(rabbitmq) == DEFAULT_SERIES else f"{rabbitmq}-management"


def own_tag(recipe: ImageRecipe, folder: Path | None = None) -> str:
    """The tag of the image that we build, which changes when its recipe does: `4.3-0a1b2c3d`."""
    folder = folder or cluster_folder() / "image"
    digest = hashlib.sha256(repr(recipe).encode())
    for path in (folder / "Dockerfile", folder / "docker-entrypoint.sh"):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{recipe.series}-{digest.hexdigest()[:8]}"


def ensure_image(engine: Engine, rabbitmq: str | None = None, progress: ProgressListener = no_progress) -> Image:
    """An image for RabbitMQ `rabbitmq` (None: the default) that the engine has when this returns.

    What is there already is used; else it is pulled where a registry answers within 4 s, else built (minutes).
    """
    official = official_tag(rabbitmq)
    for reference in _candidates(rabbitmq):
        found = _present(engine, reference, rabbitmq)
        if found is not None:
            return found
    if engine.registry_has(f"{_OFFICIAL}:{official}", REGISTRY_TIMEOUT_S):
        try:
            _pull(engine, official, progress)
        except (ClusterError, OperationTimeoutError) as error:
            progress(Progress(f"{error.what}; building the image instead"))
        else:
            return _present(engine, f"{_OFFICIAL}:{official}", rabbitmq) or _gone(f"{_OFFICIAL}:{official}")
    else:
        progress(Progress("no image registry answers; the image is built here from Debian's packages"))
    recipe = RECIPES.get(series_of(rabbitmq))
    if recipe is None:
        raise InvalidInputError(
            f"there is no image of RabbitMQ {rabbitmq} here, and Debian's packages do not have it",
            f"Ask for {', '.join(RECIPES)}, or give Docker access to a registry.",
        )
    build_image(engine, recipe, progress)
    reference = f"{_OWN}:{own_tag(recipe)}"
    return _present(engine, reference, rabbitmq) or _gone(reference)


def build_image(engine: Engine, recipe: ImageRecipe, progress: ProgressListener = no_progress) -> None:
    """Builds our own image of `recipe`; `ClusterError` or `BackendUnavailableError` with the cause if it cannot."""
    mirror = debian_mirror()
    base = f"{_BASE}:{recipe.base}"
    if engine.image_environment(base) is None:
        _make_base(engine, recipe.base, mirror, progress)
    tag = f"{_OWN}:{own_tag(recipe)}"
    arguments = {"BASE": base, "SUITE": recipe.suite, "MIRROR": mirror, **_proxies()}
    last: deque[str] = deque(maxlen=60)
    often = _Often(progress)
    progress(Progress(f"installing RabbitMQ {recipe.series} from Debian {recipe.suite}"))
    try:
        for line in engine.build(cluster_folder() / "image", tag, arguments, {_LABEL: own_tag(recipe)}):
            last.append(line)
            often(_told(line))
    except ClusterError as error:
        raise ClusterError(
            f"the image of RabbitMQ {recipe.series} cannot be built: {cause_of(last) or error.what}",
            f"Check that {mirror} can be reached, or give Docker access to a registry; then start again.",
        ) from error
    finally:
        _remove_leftovers(engine)


def cause_of(lines: Iterable[str]) -> str:
    """The last line of a build or of debootstrap that tells what went wrong; "" if none does."""
    plain = [_COLOUR.sub("", line).strip() for line in lines]
    told = [visible(line)[:300] for line in plain if _ERROR.match(line)]
    telling = [line for line in told if not _CONSEQUENCE.search(line)]
    return (telling or told or [""])[-1]


def _candidates(rabbitmq: str | None) -> list[str]:
    recipe = RECIPES.get(series_of(rabbitmq))
    own = [] if recipe is None else [f"{_OWN}:{own_tag(recipe)}"]
    return [f"{_OFFICIAL}:{official_tag(rabbitmq)}", *own]


def _present(engine: Engine, reference: str, rabbitmq: str | None) -> Image | None:
    environment = engine.image_environment(reference)
    if environment is None:
        return None
    return Image(reference, environment.get("RABBITMQ_VERSION") or series_of(rabbitmq))


def _gone(reference: str) -> Image:
    raise ClusterError(f"the image {reference} was there and is gone", "Start again.")


def _pull(engine: Engine, tag: str, progress: ProgressListener) -> None:
    progress(Progress(f"pulling {_OFFICIAL}:{tag}"))
    layers: dict[str, tuple[int, int]] = {}
    often = _Often(progress)
    for report in engine.pull(_OFFICIAL, tag):
        _count_layer(report, layers)
        done, total = (sum(column) for column in zip(*layers.values(), strict=True)) if layers else (0, 0)
        often(f"pulling {_OFFICIAL}:{tag}", min(done / total, 1.0) if total else None)


def _count_layer(report: Mapping[str, Any], layers: dict[str, tuple[int, int]]) -> None:
    detail = report.get("progressDetail") or {}
    if report.get("status") == "Downloading" and detail.get("total"):
        layers[str(report.get("id"))] = (int(detail.get("current", 0)), int(detail["total"]))
    elif report.get("status") in {"Download complete", "Pull complete"} and str(report.get("id")) in layers:
        total = layers[str(report["id"])][1]
        layers[str(report["id"])] = (total, total)


def _make_base(engine: Engine, suite: str, mirror: str, progress: ProgressListener) -> None:
    script = cluster_folder() / "image" / "make-root.sh"
    command = ["sh", str(script), suite, mirror]
    by_hand = f"sudo {' '.join(command)} | docker import - {_BASE}:{suite}"
    if shutil.which("debootstrap", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
        raise BackendUnavailableError(
            "no image registry answers, and debootstrap, which builds the image, is not installed",
            "Run 'sudo apt-get install debootstrap', or start with --install.",
        )
    if os.geteuid() != 0:
        raise BackendUnavailableError(
            "no image registry answers, and building the image needs root once", f"Run: {by_hand}; then start again."
        )
    progress(Progress(f"making a small Debian {suite} from {mirror}"))
    _import_root(engine, command, suite, progress)


def _import_root(engine: Engine, command: list[str], suite: str, progress: ProgressListener) -> None:
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin", "LC_ALL": "C"}
    last: deque[str] = deque(maxlen=60)
    with subprocess.Popen(  # noqa: S603  # our own script, with a release of ours and the mirror of apt
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment
    ) as process:
        overdue = threading.Timer(_ROOT_TIMEOUT_S, process.terminate)
        overdue.daemon = True
        overdue.start()
        listening = threading.Thread(
            target=_listen, args=(process, last, progress), name="dmq-debootstrap", daemon=True
        )
        listening.start()
        try:
            assert process.stdout is not None  # noqa: S101  # it was asked for
            engine.import_image(process.stdout, _BASE, suite)
            status, failure = process.wait(), None
        except DmqError as error:
            process.terminate()
            status, failure = process.wait(), error
        except BaseException:
            process.terminate()
            raise
        finally:
            overdue.cancel()
        listening.join(2.0)
    if status != 0:
        # The engine makes an image of whatever came before the end.
        engine.remove_image(f"{_BASE}:{suite}")
        raise ClusterError(
            f"a small Debian {suite} cannot be made: {cause_of(last) or f'debootstrap ended with status {status}'}",
            "Check that the mirror in /etc/apt can be reached and that /var/tmp has 1 GB free; then start again.",
        ) from failure
    if failure is not None:
        raise failure


def _listen(process: subprocess.Popen[bytes], last: deque[str], progress: ProgressListener) -> None:
    assert process.stderr is not None  # noqa: S101  # it was asked for
    often = _Often(progress)
    for raw in process.stderr:
        line = visible(raw.decode(errors="replace").strip())
        last.append(line)
        often(line.removeprefix("I: ") if line.startswith("I: ") else "")


def _told(line: str) -> str:
    """A build's line worth showing; "" for the many that are not."""
    fetched = re.match(r"Get:\d+ \S+ \S+ \S+ (\S+)", line)
    set_up = re.match(r"Setting up ([\w.:+-]+)", line)
    return f"fetching {visible(fetched[1])}" if fetched else f"setting up {visible(set_up[1])}" if set_up else ""


def _proxies() -> dict[str, str]:
    return {name: os.environ[name] for name in _PROXIES if os.environ.get(name)}


def _remove_leftovers(engine: Engine) -> None:
    for image in engine.untagged_images(_LABEL):
        engine.remove_image(image)
