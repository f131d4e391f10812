"""Settings of one worker: flags win over the environment, which wins over `.env`."""

from argparse import ArgumentParser, BooleanOptionalAction
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Never, override

from pydantic import Field

from classifier.configuration import Settings, SettingsError, load


class WorkerType(StrEnum):
    """The kind of upstream a worker plays; also the name of its pool."""

    GENERAL = "general"
    HIGH_COMPUTE = "high-compute"
    FAST_PATH = "fast-path"


DEFAULT_PORTS = {
    WorkerType.GENERAL: 9001,
    WorkerType.HIGH_COMPUTE: 9002,
    WorkerType.FAST_PATH: 9003,
}

type Milliseconds = Annotated[int, Field(ge=0, le=600_000)]
type PortOrFree = Annotated[int, Field(ge=0, le=65_535)]


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """What one worker does with a request.

    Attributes:
        port: TCP port to listen on; 0 takes a free one.
        delay_ms: How long a request waits, or how much CPU time it burns with `burn_cpu`.
        cpu_processes: How many requests burn CPU at the same time; the others queue.
        echo_headers: Put the headers of a request into its answer.
    """

    type: WorkerType
    name: str
    host: str
    port: int
    delay_ms: int
    burn_cpu: bool
    cpu_processes: int
    echo_headers: bool
    access_log: bool


class WorkerSettings(Settings):
    """Everything an operator can say about a worker."""

    worker_type: Annotated[
        WorkerType, Field(description="What the worker plays: general, high-compute or fast-path.")
    ] = WorkerType.GENERAL
    worker_name: Annotated[
        str | None,
        Field(pattern=r"^[A-Za-z0-9._-]{1,64}$", description="Its name; else type and port."),
    ] = None
    worker_host: Annotated[
        str, Field(min_length=1, description="Address the worker listens on.")
    ] = "127.0.0.1"
    worker_port: Annotated[
        PortOrFree | None,
        Field(description="Port it listens on, 0 for a free one; else 9001, 9002 or 9003 by type."),
    ] = None
    worker_delay_ms: Annotated[
        Milliseconds | None,
        Field(description="Time a request takes, whatever the worker's type."),
    ] = None
    worker_burn_cpu: Annotated[
        bool, Field(description="Burn CPU for that time instead of waiting.")
    ] = False
    worker_cpu_processes: Annotated[
        int, Field(ge=1, le=256, description="Processes that burn CPU, for each worker.")
    ] = 2
    worker_echo_headers: Annotated[
        bool, Field(description="Put a request's headers into its answer.")
    ] = False
    worker_access_log: Annotated[bool, Field(description="Log each request.")] = False
    general_delay_ms: Annotated[
        Milliseconds, Field(description="Time a request takes at a general worker.")
    ] = 50
    high_compute_delay_ms: Annotated[
        Milliseconds, Field(description="Time a request takes at a high-compute worker.")
    ] = 400
    fast_path_delay_ms: Annotated[
        Milliseconds, Field(description="Time a request takes at a fast-path worker.")
    ] = 5

    def config(self) -> WorkerConfig:
        """The settings with the defaults of the worker's type filled in."""
        port = DEFAULT_PORTS[self.worker_type] if self.worker_port is None else self.worker_port
        delays_ms = {
            WorkerType.GENERAL: self.general_delay_ms,
            WorkerType.HIGH_COMPUTE: self.high_compute_delay_ms,
            WorkerType.FAST_PATH: self.fast_path_delay_ms,
        }
        delay_ms = self.worker_delay_ms
        return WorkerConfig(
            type=self.worker_type,
            name=self.worker_name or f"{self.worker_type}-{port}",
            host=self.worker_host,
            port=port,
            delay_ms=delays_ms[self.worker_type] if delay_ms is None else delay_ms,
            burn_cpu=self.worker_burn_cpu,
            cpu_processes=self.worker_cpu_processes,
            echo_headers=self.worker_echo_headers,
            access_log=self.worker_access_log,
        )


class _OneLineParser(ArgumentParser):
    @override
    def error(self, message: str) -> Never:
        raise SettingsError(message)


def _parser() -> ArgumentParser:
    parser = _OneLineParser(
        prog="python -m workers",
        description="A demo worker. Each flag has an environment twin: WORKER_DELAY_MS and so on.",
        allow_abbrev=False,
    )
    for name, field in WorkerSettings.model_fields.items():
        if not name.startswith("worker_"):
            continue
        flag = f"--{name.removeprefix('worker_').replace('_', '-')}"
        if field.annotation is bool:
            parser.add_argument(
                flag, dest=name, action=BooleanOptionalAction, help=field.description
            )
        else:
            parser.add_argument(flag, dest=name, metavar="VALUE", help=field.description)
    return parser


def load_config(argv: Sequence[str]) -> WorkerConfig:
    """Read flags, environment and `.env`.

    Raises:
        SettingsError: If a value is malformed.
    """
    flags = vars(_parser().parse_args(argv))
    given = {name: value for name, value in flags.items() if value is not None}
    return load(WorkerSettings, **given).config()
