"""Settings, one small model per domain, read from the environment (`STENO_…`) or a `.env` file.

Nested values use a double underscore: `STENO_LIMITS__MAX_BYTES=2000000000`.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from infra.api_settings import ApiSettings, WebhookSettings
from infra.origins import HostName, Origin


class LimitSettings(BaseModel):
    """Caps on what a single recording may cost."""

    max_bytes: int = Field(8 * 2**30, gt=0, description="Largest source, in bytes, as downloaded.")
    max_duration: float = Field(12 * 3600.0, gt=0, description="Longest recording, in seconds.")


class NetSettings(BaseModel):
    """How sources are fetched over the network."""

    connect_timeout: float = Field(10.0, gt=0, description="Seconds to connect.")
    stall_timeout: float = Field(30.0, gt=0, description="Seconds without a byte before a download counts as stalled.")
    min_rate: float = Field(
        1024.0, ge=0, description="Bytes per second; a download slower than this for a stall_timeout counts as stalled."
    )
    max_seconds: float = Field(12 * 3600.0, gt=0, description="Longest download, in seconds, resumes included.")
    max_redirects: int = Field(5, ge=0)
    resumes: int = Field(4, ge=0, description="How often a broken download is resumed before it fails.")
    allow_hosts: tuple[str, ...] = Field(
        (),
        description="Hosts, addresses or networks that may be fetched although they are private; `:port` limits an entry to it.",
    )


class S3Settings(BaseModel, frozen=True):
    """Where `s3://` leads, for sources and for the store. Credentials left empty come from the usual AWS chain."""

    endpoint_url: str | None = None
    region: str | None = None
    key: SecretStr | None = None
    secret: SecretStr | None = None
    token: SecretStr | None = None
    addressing_style: Literal["auto", "path", "virtual"] = "auto"
    timeout: float = Field(30.0, gt=0, description="Seconds without a byte before a request counts as stalled.")
    patience: float = Field(
        20.0, ge=0, description="Seconds that the store goes on asking again when it is throttled, fails or cannot be reached."
    )


class ComputeSettings(BaseModel):
    """Where stages run, and with what."""

    backend: str = Field(
        "local",
        pattern=r"local|modal|[\w.]+:\w+",
        description="`local`, `modal`, or `module:function`: a backend of your own, as a function of the settings that returns a Compute.",
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compute_type: str = Field(
        "auto", description="CTranslate2's: int8, float16, int8_float16, float32; auto decides by device."
    )
    threads: int = Field(0, ge=0, description="CPU threads of one stage; 0 decides from the number of cores.")
    workers: int = Field(
        1, ge=1, le=64, description="Shards of one stage at work at the same time on this machine; they share its threads."
    )


class ShardSettings(BaseModel):
    """When a long recording is divided among several workers."""

    threshold: float = Field(1800.0, ge=0, description="Seconds of audio from which on a recording is divided.")
    min_seconds: float = Field(600.0, gt=0, description="Seconds of audio that a shard holds at least, about.")
    max_shards: int = Field(32, ge=1, le=512, description="Shards of one stage at most; 1 never divides.")


class ModalSettings(BaseModel):
    """What is deployed on Modal, and how it is called. All but the last four take effect at `steno modal deploy`."""

    app: str = Field("stenoflow", pattern=r"[A-Za-z0-9._-]{1,48}", description="Name of the app, and prefix of its volumes.")
    environment: str | None = Field(None, description="Modal environment; that of the profile when left out.")
    gpu: tuple[str, ...] = Field(
        ("L4",), description="GPU of transcription and alignment, then what to fall back on; empty runs on CPUs."
    )
    voices_gpu: tuple[str, ...] | None = Field(
        None, description="GPU of segmentation and speaker embeddings; the same as `gpu` when left out."
    )
    cpu: float = Field(4.0, gt=0, description="Physical cores of a container.")
    memory: int = Field(16384, ge=512, description="MiB of memory of a container.")
    inputs: int = Field(1, ge=1, le=32, description="Calls that one container works on at the same time.")
    min_containers: int = Field(0, ge=0, description="Containers of each class that are kept running, and paid for, always.")
    buffer_containers: int = Field(0, ge=0, description="Containers that are kept ready beyond those at work.")
    max_containers: int | None = Field(None, ge=1, description="Containers of each class at most.")
    scaledown_window: int = Field(120, ge=2, le=3600, description="Seconds that an idle container waits for more work.")
    timeout: int = Field(4 * 3600, ge=10, le=24 * 3600, description="Seconds after which Modal itself ends a call.")
    startup_timeout: int = Field(900, ge=10, le=3600, description="Seconds that loading the models may take.")
    region: tuple[str, ...] = Field((), description="Regions that containers run in; any when empty.")
    snapshot: bool = Field(False, description="Start containers from a snapshot of their memory after the imports.")
    hf_secret: str = Field("", description="Modal secret that holds HF_TOKEN; needed for gated models only.")
    s3_secret: str = Field("", description="Modal secret with the credentials of an S3 store.")
    api_secret: str = Field(
        "",
        description="Modal secret with PREFECT_API_URL, and PREFECT_API_KEY or PREFECT_API_AUTH_STRING; with it the app serves the REST API, too.",
    )
    keep_days: float = Field(7.0, gt=0, description="Days after which the app deletes artifacts from its volume.")
    larger_gpus: tuple[str, ...] = Field(
        ("L40S", "A100-80GB", "H200"), description="What to take, one after the other, when memory does not suffice."
    )
    calls: int = Field(32, ge=1, le=1000, description="Calls of this process at the same time.")
    executions: int = Field(3, ge=1, le=20, description="How often one call may be begun when its container keeps dying.")
    reconnect: float = Field(120.0, ge=0, description="Seconds that Modal may be out of reach while a call is awaited.")


class RetrySettings(BaseModel):
    """How often a stage is tried again after an error that may pass, and after which pause."""

    attempts: int = Field(3, ge=0, le=10, description="Retries after transient errors; halving the batch does not count.")
    delay: float = Field(
        2.0, ge=0, description="Seconds before the first retry; each further one waits three times as long, with jitter."
    )
    max_delay: float = Field(60.0, ge=0, description="Longest pause, in seconds.")


class TimeoutSettings(BaseModel):
    """How long one attempt at a stage may wait for its turn, stand still, and work."""

    wait: float = Field(
        4 * 3600.0,
        gt=0,
        description="Seconds that a stage may wait for a slot, in Modal's queue and for a container; work is counted from its first progress.",
    )
    still: float = Field(
        600.0,
        gt=0,
        description="Seconds without progress after which a stage counts as hung, beyond what `factor` gives its largest batch.",
    )
    floor: float = Field(600.0, gt=0, description="Seconds that every stage may work, however short the recording.")
    factor: float = Field(20.0, gt=0, description="Seconds of work per second of audio.")


class BatchSettings(BaseModel):
    """How batches list their recordings and watch over those at work."""

    max_items: int = Field(100_000, ge=1, description="Most recordings that one source may list.")
    max_list_bytes: int = Field(64 * 2**20, gt=0, description="Largest manifest, or page of a feed, in bytes.")
    settle_seconds: float = Field(
        5.0,
        ge=0,
        le=600,
        description="A file changed more recently is looked at again that much later; if it grew, it is left.",
    )
    lease_seconds: float = Field(
        60.0, ge=5, description="How long a batch that stopped renewing its lease keeps others from taking over its recordings."
    )
    recycle: int = Field(
        500, ge=1, description="Recordings after which the process that computes them is replaced by a fresh one."
    )
    poll_seconds: float = Field(3.0, gt=0, description="How often runs on workers are asked for their state, all at once.")


class DeploySettings(BaseModel):
    """What `steno deploy` and `steno up` register with Prefect, and how runs are executed there."""

    pool: str = Field("stenoflow", min_length=1, pattern=r"[^/%&<>]+", description="The work pool that workers serve.")
    workdir: Path | None = Field(
        None,
        description="Folder on the workers that relative paths of a request lead to; `transcripts` under `home` when empty.",
    )
    concurrency: int = Field(2, ge=1, description="Recordings transcribed at once, over all workers; the others queue.")
    nightly_source: str = Field(
        "",
        description="What the nightly batch lists: a folder, an S3 prefix, a manifest, a feed. Without one it is not scheduled.",
    )
    nightly_cron: str = Field("0 2 * * *", description="When the nightly batch runs.")
    nightly_options: dict[str, Any] = Field(
        default_factory=dict, description='Options of the nightly batch\'s recordings, as JSON: `{"language": "en"}`.'
    )
    nightly_output: str = Field(
        ".",
        description="Folder or fsspec URL that the nightly batch writes to; a relative one is below the work pool's, `transcripts` of STENO_HOME.",
    )
    gc_cron: str = Field(
        "30 4 * * *", description="When artifacts that have outlived their retention are removed; empty for never."
    )
    timezone: str = Field("UTC", description="The time zone of the schedules, as `Europe/Berlin`.")
    zombie_seconds: int = Field(
        90, ge=45, description="Seconds without a sign of life, sent every 30, after which a running run counts as crashed."
    )
    late_minutes: float = Field(15.0, gt=0, description="Minutes a scheduled run may be late before that is reported.")
    notify_block: str = Field(
        "",
        description="Prefect notification block that failures are sent to: `slack-webhook/operators`, `custom-webhook/pager`.",
    )
    notify_url: SecretStr | None = Field(
        None, description="Webhook that failures are sent to as well: any URL that Apprise knows, or https:// for JSON."
    )
    database_url: SecretStr | None = Field(
        None, description="Where `steno up` keeps runs: `postgresql+asyncpg://user:password@host/name`; SQLite when empty."
    )
    auth: bool | None = Field(
        None,
        description="Whether Prefect's UI and API ask for the string in `prefect-auth` under `home`; when left out, unless they listen on loopback alone.",
    )
    allowed_hosts: tuple[HostName, ...] = Field(
        (),
        description='Further host names that Prefect\'s UI and API answer to, as JSON: `["steno.example.com"]`. Those of this machine need not be listed.',
    )
    allowed_origins: tuple[Origin, ...] = Field(
        (), description='Other sites whose pages may call Prefect\'s API, as JSON: `["https://dashboard.example.com"]`.'
    )


class RecoverySettings(BaseModel):
    """What happens to runs whose process dies, or which are cancelled from outside."""

    restarts: int = Field(
        3,
        ge=1,
        le=100,
        description="How often the process of a run may die before the run is set aside until a person retries it.",
    )
    cancel_poll: float = Field(
        2.5, gt=0, le=60, description="Seconds between two looks at whether the run was cancelled in Prefect's UI or API."
    )


class ReportSettings(BaseModel):
    """What the report of a run shows in Prefect."""

    preview_words: int = Field(
        0, ge=0, le=2000, description="Words of the transcript's beginning in a run's report; 0 keeps all text out of Prefect."
    )
    progress_seconds: float = Field(2.0, ge=2.0, le=60, description="Seconds between two updates of a run's progress.")


class PriceSettings(BaseModel):
    """What computing costs, for the reports."""

    machine_hour: float = Field(
        0.0, ge=0, description="Dollars per hour of the machine that runs the flow; rented GPUs have a table."
    )


Days = Annotated[float | None, Field(ge=0), BeforeValidator(lambda value: None if value in ("", "never") else value)]


class RetentionSettings(BaseModel):
    """How long is kept what runs leave; `steno gc` and the deployment gc/clean-up remove it. "never" keeps for good."""

    run_days: Days = Field(
        90.0,
        description="Days after its end that a run is kept: in Prefect's database with its logs, reports and events, and in the store with the artifacts that no other run used.",
    )
    log_days: Days = Field(30.0, description="Days that the logs of ended runs are kept in Prefect's database.")
    event_days: Days = Field(7.0, description="Days that the events of runs are kept in Prefect's database.")
    days: float | None = Field(
        None,
        ge=0,
        description="Days that the artifacts of a run are kept after its end, then removed; as long as the run when empty. A request may say otherwise.",
    )
    record_days: float | None = Field(
        None,
        gt=0,
        description="Days that records of how runs ended, and of what batches have done, are kept; for good when empty.",
    )
    grace_hours: float = Field(
        24.0,
        gt=0,
        description="Hours that a run without a sign of life still holds what it uses, and that left-overs of killed processes stay.",
    )


class LockSettings(BaseModel):
    """How runs of the same recording wait for one another."""

    lease: float = Field(
        60.0,
        ge=2,
        le=3600,
        description="Seconds after which a lock on an object store is anybody's, unless its holder has renewed it; folders need none.",
    )


class StenoSettings(BaseSettings):
    """All settings of Stenoflow."""

    model_config = SettingsConfigDict(
        env_prefix="STENO_", env_nested_delimiter="__", env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True
    )

    home: Path = Field(Path("~/.stenoflow"), description="Where everything lives that is not told otherwise.")
    store: str = Field(
        "", description="fsspec URL of the artifact store; a folder under `home` when empty, `s3://bucket/prefix` to share it."
    )
    scratch: Path | None = Field(None, description="Folder for downloads under way and local copies of remote artifacts.")
    models_dir: Path | None = Field(None, description="Folder for joined and converted weights.")
    model: str = Field("auto", description="The Whisper model used when a request names none.")
    offline: bool = Field(False, description="Never ask the model hub, whatever is missing.")
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


@lru_cache(maxsize=1)
def get_settings() -> StenoSettings:
    """The process's settings, read once. Tests call `get_settings.cache_clear()` after changing the environment."""
    return StenoSettings()
