"""Settings, one small model per domain, read from the environment (`STENO_…`) or a `.env` file.

Nested values use a double underscore: `STENO_LIMITS__MAX_BYTES=2000000000`.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from infra.api_settings import ApiSettings, WebhookSettings
from infra.origins import HostName, Origin


class LimitSettings(BaseModel):
    """Limits for a single recording."""

    max_bytes: int = Field(8 * 2**30, gt=0, description="Largest source, in bytes, after HTTP decompression.")
    max_duration: float = Field(12 * 3600.0, gt=0, description="Longest recording, in seconds.")


class NetSettings(BaseModel):
    """Downloads of sources."""

    connect_timeout: float = Field(10.0, gt=0, description="Seconds to connect.")
    stall_timeout: float = Field(30.0, gt=0, description="Seconds without data after which a download has stalled.")
    min_rate: float = Field(
        1024.0, ge=0, description="Slowest acceptable download, in bytes per second, averaged over `stall_timeout`."
    )
    max_seconds: float = Field(12 * 3600.0, gt=0, description="Longest download, in seconds, including resumes.")
    max_redirects: int = Field(5, ge=0, description="Redirects to follow before the download fails.")
    resumes: int = Field(4, ge=0, description="Times an interrupted download is resumed before it fails.")
    allow_hosts: tuple[str, ...] = Field(
        (),
        description="Private hosts, addresses or networks that may be fetched from; `:port` restricts an entry to one port.",
    )


class S3Settings(BaseModel, frozen=True):
    """The S3 service behind `s3://` sources and stores. Empty credentials are taken from the usual AWS chain."""

    endpoint_url: str | None = Field(None, description="URL of a service other than AWS, such as MinIO.")
    region: str | None = Field(None, description="AWS region of the buckets.")
    key: SecretStr | None = Field(None, description="Access key ID.")
    secret: SecretStr | None = Field(None, description="Secret access key.")
    token: SecretStr | None = Field(None, description="Session token of temporary credentials.")
    addressing_style: Literal["auto", "path", "virtual"] = Field(
        "auto", description="Bucket in the path or in the host name; most services other than AWS need `path`."
    )
    timeout: float = Field(30.0, gt=0, description="Seconds without data after which a request fails.")
    patience: float = Field(
        20.0, ge=0, description="Seconds for which the store retries when it is throttled, failing or unreachable."
    )


class ComputeSettings(BaseModel):
    """Where stages run, and on which hardware."""

    backend: str = Field(
        "local",
        pattern=r"local|modal|[\w.]+:\w+",
        description="`local`, `modal`, or `module:function`: your own backend, a function that takes the settings and returns a Compute.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Device for the models; `auto` uses a GPU if there is one."
    )
    compute_type: str = Field(
        "auto", description="Precision of CTranslate2: int8, float16, int8_float16 or float32; `auto` chooses by device."
    )
    threads: int = Field(0, ge=0, description="CPU threads per stage; 0 chooses by the number of cores.")
    workers: int = Field(
        1, ge=1, le=64, description="Shards of a stage that run concurrently on this machine; they share its threads."
    )
    idle_seconds: float = Field(
        300.0,
        ge=0,
        description="Seconds without a run after which a worker's process releases its models and the GPU's memory.",
    )


class ShardSettings(BaseModel):
    """How long recordings are split across workers."""

    threshold: float = Field(1800.0, ge=0, description="Length, in seconds, above which a recording is split.")
    min_seconds: float = Field(600.0, gt=0, description="Approximate minimum length of a shard, in seconds of audio.")
    max_shards: int = Field(32, ge=1, le=512, description="Most shards per stage; 1 turns splitting off.")


class ModalSettings(BaseModel):
    """The app on Modal. All but the last seven take effect at the next `steno modal deploy`."""

    app: str = Field("stenoflow", pattern=r"[A-Za-z0-9._-]{1,48}", description="Name of the app and prefix of its volumes.")
    environment: str | None = Field(None, description="Modal environment; the profile's by default.")
    gpu: tuple[str, ...] = Field(
        ("L4",), description="GPU for transcription and alignment, followed by fallbacks; an empty list uses CPUs."
    )
    voices_gpu: tuple[str, ...] | None = Field(
        None, description="GPU for segmentation and speaker embeddings; the same as `gpu` by default."
    )
    cpu: float = Field(4.0, gt=0, description="Physical cores per container.")
    memory: int = Field(16384, ge=512, description="Memory per container, in MiB.")
    inputs: int = Field(1, ge=1, le=32, description="Concurrent calls per container.")
    min_containers: int = Field(0, ge=0, description="Containers for short recordings that always run, and are always billed.")
    buffer_containers: int = Field(0, ge=0, description="Idle containers kept ready beyond the busy ones.")
    max_containers: int | None = Field(None, ge=1, description="Most containers of each class; unlimited by default.")
    scaledown_window: int = Field(120, ge=2, le=3600, description="Seconds before an idle container stops.")
    timeout: int = Field(4 * 3600, ge=10, le=24 * 3600, description="Seconds after which Modal terminates a call.")
    startup_timeout: int = Field(900, ge=10, le=3600, description="Most seconds for a container to start and load its models.")
    region: tuple[str, ...] = Field((), description="Regions for the containers; any by default.")
    snapshot: bool = Field(False, description="Start containers from a memory snapshot taken after the imports.")
    hf_secret: str = Field("", description="Modal secret with HF_TOKEN; required for gated models only.")
    s3_secret: str = Field("", description="Modal secret with the credentials of an S3 store.")
    api_secret: str = Field(
        "",
        description="Modal secret with PREFECT_API_URL and PREFECT_API_KEY or PREFECT_API_AUTH_STRING; if set, the app also serves the REST API.",
    )
    keep_days: float = Field(7.0, gt=0, description="Days before the app deletes artifacts from its volume.")
    larger_gpus: tuple[str, ...] = Field(
        ("L40S", "A100-80GB", "H200"), description="GPUs to try in turn after a call ran out of memory."
    )
    calls: int = Field(32, ge=1, le=1000, description="Concurrent calls from this process.")
    executions: int = Field(
        3, ge=1, le=20, description="Times a call is started before it fails because its container keeps dying."
    )
    reconnect: float = Field(120.0, ge=0, description="Seconds for which Modal may be unreachable while a call runs.")
    one_container_below: float = Field(
        1800.0,
        ge=0,
        description="Recordings shorter than this, in seconds, are computed in one container by one call; longer ones in two. 0 turns it off.",
    )
    shard_seconds: float = Field(
        3600.0,
        gt=0,
        description="As `STENO_SHARDS__MIN_SECONDS`, for stages on a GPU: about the audio that it computes while another container starts.",
    )
    recordings: int = Field(
        16, ge=1, le=256, description="Recordings of up to three minutes that one call may carry, when a process has many."
    )


class RetrySettings(BaseModel):
    """Retries of a stage after transient errors."""

    attempts: int = Field(
        3, ge=0, le=10, description="Most retries; those with a smaller batch after running out of memory do not count."
    )
    delay: float = Field(
        2.0, ge=0, description="Seconds before the first retry; each later delay is three times as long, with jitter."
    )
    max_delay: float = Field(60.0, ge=0, description="Longest delay, in seconds.")


class TimeoutSettings(BaseModel):
    """Timeouts of one attempt at a stage."""

    wait: float = Field(
        4 * 3600.0,
        gt=0,
        description="Seconds a stage may wait for a slot and, on Modal, for a container. Its run time is counted from its first progress.",
    )
    still: float = Field(
        600.0,
        gt=0,
        description="Seconds without progress after which a stage is considered hung, on top of what `factor` allows for its largest batch.",
    )
    floor: float = Field(600.0, gt=0, description="Seconds every stage may run, however short the recording.")
    factor: float = Field(20.0, gt=0, description="Additional seconds of run time per second of audio.")


class BatchSettings(BaseModel):
    """How batches list recordings and monitor their runs."""

    max_items: int = Field(100_000, ge=1, description="Most recordings that a source may list.")
    max_list_bytes: int = Field(64 * 2**20, gt=0, description="Largest manifest or feed page, in bytes.")
    settle_seconds: float = Field(
        5.0,
        ge=0,
        le=600,
        description="A file modified within this many seconds is checked again after the same time, and skipped if it is still growing.",
    )
    lease_seconds: float = Field(
        60.0,
        ge=5,
        description="Seconds after which another batch may take over the recordings of one that stopped renewing its lease.",
    )
    recycle: int = Field(
        500, ge=1, description="Recordings after which the process that transcribes them, of a batch or a worker, is replaced."
    )
    poll_seconds: float = Field(3.0, gt=0, description="Seconds between polls of the states of all runs on workers.")


class DeploySettings(BaseModel):
    """What `steno deploy` and `steno up` register with Prefect, and how its runs are executed."""

    pool: str = Field("stenoflow", min_length=1, pattern=r"[^/%&<>]+", description="Name of the work pool.")
    workdir: Path | None = Field(
        None,
        description="Folder on the workers that relative paths in requests are resolved against; `transcripts` in `home` by default.",
    )
    concurrency: int = Field(2, ge=1, description="Recordings transcribed concurrently across all workers; others are queued.")
    nightly_source: str = Field(
        "",
        description="Source of the nightly batch: a folder, bucket prefix, manifest or feed. Without one it is not scheduled.",
    )
    nightly_cron: str = Field("0 2 * * *", description="Schedule of the nightly batch, as cron.")
    nightly_options: dict[str, Any] = Field(
        default_factory=dict, description='Options for the nightly batch, as JSON: `{"language": "en"}`.'
    )
    nightly_output: str = Field(
        ".",
        description="Folder or fsspec URL for the transcripts of the nightly batch; relative to `workdir`.",
    )
    gc_cron: str = Field(
        "30 4 * * *", description="Schedule of the clean-up of expired artifacts and runs, as cron; empty turns it off."
    )
    timezone: str = Field("UTC", description="Time zone of the schedules, such as `Europe/Berlin`.")
    zombie_seconds: int = Field(
        90, ge=45, description="Seconds without a heartbeat, which is sent every 30, after which a run is considered crashed."
    )
    late_minutes: float = Field(15.0, gt=0, description="Minutes a scheduled run may be late before a notification is sent.")
    notify_block: str = Field(
        "",
        description="Prefect notification block for failures, such as `slack-webhook/operators` or `custom-webhook/pager`.",
    )
    notify_url: SecretStr | None = Field(
        None, description="Webhook for failures: any URL that Apprise supports, or https:// for JSON."
    )
    database_url: SecretStr | None = Field(
        None, description="Prefect's database, as `postgresql+asyncpg://user:password@host/name`; SQLite by default."
    )
    auth: bool | None = Field(
        None,
        description="Whether Prefect's UI and API require the string in `prefect-auth` under `home`. By default they do unless they listen on loopback only.",
    )
    allowed_hosts: tuple[HostName, ...] = Field(
        (),
        description="Additional host names that Prefect's UI and API answer to, as JSON: `[\"steno.example.com\"]`. This machine's own names are always accepted.",
    )
    allowed_origins: tuple[Origin, ...] = Field(
        (), description='Other web origins that may call Prefect\'s API, as JSON: `["https://dashboard.example.com"]`.'
    )


class RecoverySettings(BaseModel):
    """Recovery of runs whose process died, and their cancellation."""

    restarts: int = Field(
        3,
        ge=1,
        le=100,
        description="Times the process of a run may die before the run is quarantined until someone retries it.",
    )
    cancel_poll: float = Field(
        2.5, gt=0, le=60, description="Seconds between checks whether the run was cancelled in Prefect's UI or API."
    )


class ReportSettings(BaseModel):
    """The report of a run in Prefect."""

    preview_words: int = Field(
        0, ge=0, le=2000, description="Words of the transcript to show in a run's report; 0 keeps all text out of Prefect."
    )
    progress_seconds: float = Field(2.0, ge=2.0, le=60, description="Seconds between updates of a run's progress.")


class PriceSettings(BaseModel):
    """Prices for the cost estimates in reports."""

    machine_hour: float = Field(
        0.0, ge=0, description="Dollars per hour of the machine that runs the flow. The prices of Modal's GPUs are built in."
    )


Days = Annotated[float | None, Field(ge=0), BeforeValidator(lambda value: None if value in ("", "never") else value)]


class RetentionSettings(BaseModel):
    """How long the data of runs is kept. `steno gc` and the deployment gc/clean-up delete what has expired; "never" keeps it forever."""

    run_days: Days = Field(
        90.0,
        description="Days after its end before a run is deleted: from Prefect's database, with its logs, reports and events, and from the store, with the artifacts that no other run uses.",
    )
    log_days: Days = Field(30.0, description="Days before the logs of ended runs are deleted from Prefect's database.")
    event_days: Days = Field(7.0, description="Days before the events of runs are deleted from Prefect's database.")
    days: float | None = Field(
        None,
        ge=0,
        description="Days after its end before the artifacts of a run are deleted; by default they are kept as long as the run. A request may override it.",
    )
    record_days: float | None = Field(
        None,
        gt=0,
        description="Days before the records of ended runs and finished batch rows are deleted; by default they are kept forever.",
    )
    grace_hours: float = Field(
        24.0,
        gt=0,
        description="Hours after its last heartbeat during which a run still protects the artifacts it uses; leftovers of killed processes are kept as long.",
    )


class LockSettings(BaseModel):
    """Locks that keep runs of the same recording from repeating each other's work."""

    lease: float = Field(
        60.0,
        ge=2,
        le=3600,
        description="Seconds after which a lock on an object store expires unless it is renewed. Folders use the operating system's locks.",
    )


class StenoSettings(BaseSettings):
    """All settings of Stenoflow."""

    model_config = SettingsConfigDict(
        env_prefix="STENO_", env_nested_delimiter="__", env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True
    )

    home: Path = Field(
        Path("~/.stenoflow"),
        description="Folder for everything that has no setting of its own: store, models, transcripts, Prefect's database.",
    )
    store: str = Field(
        "",
        description="Folder or fsspec URL of the artifact store, such as `s3://bucket/prefix` for several machines; `store` in `home` by default.",
    )
    scratch: Path | None = Field(
        None,
        description="Folder for unfinished downloads and local copies of remote artifacts; `scratch` in `home` by default.",
    )
    models_dir: Path | None = Field(None, description="Folder for converted model weights; `models` in `home` by default.")
    model: str = Field("auto", description="Model for requests that do not name one.")
    offline: bool = Field(False, description="Never contact the model hub, even if a model is missing.")
    limits: LimitSettings = LimitSettings()
    net: NetSettings = NetSettings()
    s3: S3Settings = S3Settings()
    compute: ComputeSettings = ComputeSettings()
    shards: ShardSettings = ShardSettings()
    modal: ModalSettings = ModalSettings()
    retry: RetrySettings = RetrySettings()
    api: ApiSettings = ApiSettings()
    webhooks: WebhookSettings = WebhookSettings()
    timeout: TimeoutSettings = TimeoutSettings()
    retention: RetentionSettings = RetentionSettings()
    locks: LockSettings = LockSettings()
    recovery: RecoverySettings = RecoverySettings()
    deploy: DeploySettings = DeploySettings()
    batch: BatchSettings = BatchSettings()
    report: ReportSettings = ReportSettings()
    prices: PriceSettings = PriceSettings()

    def __hash__(self) -> int:
        """So that what is opened is kept by them; they are compared as a whole."""
        return hash((self.home, self.store, self.model))

    @property
    def home_path(self) -> Path:
        return self.home.expanduser().absolute()

    @property
    def store_url(self) -> str:
        return self.store or str(self.home_path / "store")

    @property
    def scratch_path(self) -> Path:
        return (self.scratch or self.home_path / "scratch").expanduser().absolute()

    @property
    def workdir_path(self) -> Path:
        """Where the relative paths of deployed runs lead."""
        return (self.deploy.workdir or self.home_path / "transcripts").expanduser().absolute()

    @property
    def models_path(self) -> Path:
        return (self.models_dir or self.home_path / "models").expanduser().absolute()


class ProcessSettings:
    """The process's settings: the environment's, with what its command line says above them. Read once."""

    def __init__(self) -> None:
        self._settings: StenoSettings | None = None
        self._said: dict[str, dict[str, Any]] = {}
        self._guard = threading.Lock()

    def __call__(self) -> StenoSettings:
        with self._guard:
            if self._settings is None:
                self._settings = StenoSettings(**self._said)  # type: ignore[arg-type]
            return self._settings

    def use(self, **said: dict[str, Any]) -> None:
        """Read them anew, with these fields of these groups as they were said: `compute={"device": "cpu"}`."""
        with self._guard:
            self._said, self._settings = said, None

    def cache_clear(self) -> None:
        """Read them anew, from the environment alone: what tests do after changing it."""
        self.use()

    def environment(self) -> dict[str, str]:
        """What was said, as a child process reads it."""
        return {
            f"STENO_{group}__{name}".upper(): str(value)
            for group, fields in self._said.items()
            for name, value in fields.items()
        }


get_settings = ProcessSettings()
