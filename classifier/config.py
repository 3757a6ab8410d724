"""Settings: from the environment (STILLWATCH_...), then from stillwatch.toml in the working directory."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

_CONFIG_FILE = Path("stillwatch.toml")


class Settings(BaseSettings):
    """All that an operator can set. Every field is documented in docs/settings.md.

    Attributes:
        home: The folder of bundles, model cache and example store.
        host: The address to listen on.
        port: The port to listen on; 0 takes a free one.
        threads: Threads of one run of the encoder; 0 takes one for each core.
        workers: Processes that score, each with one thread of the encoder; 0 scores in the server's own process.
        batch_tokens: The most window tokens that are scored together.
        queue_tokens: The most window tokens that may wait; more is refused.
        queue_seconds: How long a single prompt may wait for its turn, by the running rate; else it is refused.
        bulk_queue_seconds: The same for the prompts of one BatchClassify.
        verdict_cache_entries: The most verdicts that are kept for repeated prompts; 0 keeps none.
        verdict_cache_bytes: The most bytes, by estimate, of the verdicts that are kept.
        window_cache_entries: The most embeddings of full windows that are kept for shared parts of prompts; 0 keeps none.
        max_prompt_chars: The most characters of one prompt.
        max_batch_items: The most items of one BatchClassify or AddExamples request.
        max_message_bytes: The most bytes of one gRPC message.
        stream_in_flight: The most unanswered prompts of one stream.
        drain_pause_seconds: How long the server serves on after SIGTERM, its health off, until balancers have noticed.
        grace_seconds: How long accepted work may take after that.
        review_threshold: Overrides the bundle's review threshold.
        flag_threshold: Overrides the bundle's flag threshold.
        reflection: Whether the server describes its services.
        watch_seconds: How often the server looks whether another bundle became current; 0 never.
        tls_certificate: The server's certificate chain, PEM; with it the server speaks TLS.
        tls_key: The certificate's private key, PEM without a passphrase.
        tls_client_ca: Certificates that callers' ones must come from, PEM; with it callers must show one.
        allow_plaintext: Whether to listen beyond loopback without TLS.
        tokens_file: Who may call, and what for; `stillwatch tokens new` writes its lines.
        quota_tokens_per_minute: Each caller's prompt tokens, by estimate; 0 sets no limit.
        quota_requests_per_second: Each caller's requests; 0 sets no limit.
        max_concurrent_rpcs: The most calls under way.
        max_connection_streams: The most calls under way on one connection.
        max_header_bytes: The most bytes of a call's metadata.
        channelz: Whether the server shows its channels and sockets.
        metrics_host: The address of the metrics endpoint.
        metrics_port: The port of the metrics endpoint; 0 takes a free one, None is no endpoint.
        log_format: JSON lines, or lines for people.
        log_level: The least level that is logged.
        log_lines_per_second: The most lines of one kind in a second.
        store: The example store: a file, or a postgresql:// URL, which may hold a password; empty takes the home's file.
        pending_by_default: Whether added examples wait for an acceptance when their writer names no state.
        two_person_rule: Whether an example becomes active only when another than its author accepts it.
        reservoir_prompts: The most recent benign prompts on which the impact of examples is shown; 0 keeps none.
    """

    model_config = SettingsConfigDict(env_prefix="STILLWATCH_", toml_file=_CONFIG_FILE, extra="forbid", frozen=True)

    home: Path = Path("~/.local/share/stillwatch")
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 50_551
    threads: Annotated[int, Field(ge=0, le=256)] = 0
    workers: Annotated[int, Field(ge=0, le=64)] = 0
    batch_tokens: Annotated[int, Field(ge=256, le=1_000_000)] = 4_096
    queue_tokens: Annotated[int, Field(ge=256, le=100_000_000)] = 262_144
    queue_seconds: Annotated[float, Field(gt=0, le=3_600)] = 0.5
    bulk_queue_seconds: Annotated[float, Field(gt=0, le=3_600)] = 10.0
    verdict_cache_entries: Annotated[int, Field(ge=0, le=10_000_000)] = 8_192
    verdict_cache_bytes: Annotated[int, Field(ge=0, le=2**40)] = 32 * 2**20
    window_cache_entries: Annotated[int, Field(ge=0, le=10_000_000)] = 4_096
    max_prompt_chars: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    max_batch_items: Annotated[int, Field(ge=1, le=100_000)] = 256
    max_message_bytes: Annotated[int, Field(ge=1_024, le=1_073_741_824)] = 8 * 2**20
    stream_in_flight: Annotated[int, Field(ge=1, le=10_000)] = 64
    drain_pause_seconds: Annotated[float, Field(ge=0, le=300)] = 1.0
    grace_seconds: Annotated[float, Field(ge=0, le=3_600)] = 30.0
    review_threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    flag_threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    reflection: bool = True
    watch_seconds: Annotated[float, Field(ge=0, le=3_600)] = 1.0
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    allow_plaintext: bool = False
    tokens_file: Path | None = None
    quota_tokens_per_minute: Annotated[int, Field(ge=0, le=10**12)] = 0
    quota_requests_per_second: Annotated[float, Field(ge=0, le=1_000_000)] = 0.0
    max_concurrent_rpcs: Annotated[int, Field(ge=1, le=1_000_000)] = 4_096
    max_connection_streams: Annotated[int, Field(ge=1, le=1_000_000)] = 1_024
    max_header_bytes: Annotated[int, Field(ge=1_024, le=1_048_576)] = 16_384
    channelz: bool = False
    metrics_host: str = "127.0.0.1"
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    log_format: Literal["json", "console"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_lines_per_second: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    store: SecretStr = SecretStr("")
    pending_by_default: bool = False
    two_person_rule: bool = False
    reservoir_prompts: Annotated[int, Field(ge=0, le=100_000)] = 2_000

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # .env files are not read
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # nor secret folders
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then the environment, then stillwatch.toml."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def bundles(self) -> Path:
        """The folder of all bundles."""
        return self.home.expanduser() / "bundles"

    @property
    def bundle(self) -> Path:
        """The bundle in force."""
        return self.bundles / "current"

    @property
    def store_address(self) -> Path | str:
        """The example store: a file, or a URL that may hold a password and so is never shown."""
        given = self.store.get_secret_value()
        if "://" in given:
            return given
        return Path(given).expanduser() if given else self.home.expanduser() / "examples.db"

    @property
    def index(self) -> Path:
        """Where the index's graphs are kept."""
        return self.home.expanduser() / "index"

    @property
    def model_cache(self) -> Path:
        """Where the model wheel is kept."""
        return self.home.expanduser() / "cache"
