"""The service's configuration: ``QRAG_*`` and ``LLM_*`` environment variables and a ``.env`` file."""

from __future__ import annotations

import ipaddress
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, HttpUrl, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

import index
from index.storage.engines import Engines
from service.errors import ConfigurationError
from service.host_names import parse_authority, parse_prefix

DEFAULT_CHECKPOINT = Path(index.__file__).parent / "checkpoints" / "default"
"""The checkpoint that comes with this software."""


SIGNING_CHARACTERS = 32
"""Least characters of the key that signs continuations."""


class Settings(BaseSettings):
    """The settings; each field is the variable ``QRAG_<FIELD>``, or ``LLM_<...>`` as it stands."""

    model_config = SettingsConfigDict(
        env_prefix="QRAG_", env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    data_dir: Path = Field(Path("data"), description="where documents and vectors are kept")
    database_url: SecretStr | None = Field(
        None,
        description="`postgresql://USER:PASSWORD@HOST:5432/DATABASE`: documents are kept there and vectors in "
        "`QRAG_QDRANT_URL`, for any number of replicas of the service; needs the extra `engines`",
    )
    qdrant_url: HttpUrl | None = Field(
        None, description="address of a Qdrant cluster, with its port (6333 where it is not given)"
    )
    qdrant_api_key: SecretStr | None = Field(None, description="where it asks for one")
    qdrant_prefix: str = Field(
        "qrag", pattern="^[A-Za-z0-9_-]{1,64}$", description="the names of the service's collections in it begin so"
    )
    qdrant_shards: int | None = Field(
        None, ge=1, description="parts of a new collection; default: as many as the cluster has nodes"
    )
    qdrant_replicas: int = Field(1, ge=1, description="copies of each part of a new collection")
    qdrant_write_consistency: int | None = Field(
        None,
        ge=1,
        description="copies that must have taken what is written, more than half of them; default: all. With fewer, "
        "writing goes on while a node is away, and each search asks all copies",
    )
    qdrant_seconds: int = Field(10, ge=1, description="how long a search there may take")
    checkpoint: Path = Field(DEFAULT_CHECKPOINT, description="directory of the checkpoint to serve")
    checkpoints_dir: Path | None = Field(
        None, description="of the checkpoints that can be changed to; default: checkpoints in the data directory"
    )
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="comma-separated; if given, requests need `Authorization: Bearer KEY`"
    )
    keys_file: Path | None = Field(
        None, description="of the keys that `python -m service keys` makes; default: keys.json in the data directory"
    )
    allow_anonymous: bool = Field(
        False, description="listen on other addresses than loopback although there are no keys"
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="comma-separated; without keys, the names under which the service is reached beside localhost and "
        "`QRAG_HOST`: `qrag`, `qrag.example.org`, `*.example.org`, each for all ports or with one; `*`: all names",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="comma-separated; the sites whose pages may use the service from a browser, such as "
        "`https://app.example.org`",
    )
    root_path: str | None = Field(
        None, description="the path below which a proxy serves this, such as `/qrag`; it may pass it on or strip it"
    )
    forwarded_allow_ips: str = Field(
        "127.0.0.1,::1",
        validation_alias="FORWARDED_ALLOW_IPS",
        description="comma-separated; the addresses and networks of proxies whose `X-Forwarded-` headers are "
        "believed; `*`: all",
    )
    max_requests_per_key: int = Field(64, gt=0, description="requests of one key at the same time")
    max_body_bytes: int = Field(128 << 20, gt=0, description="longest request body")
    max_documents_per_request: int = Field(1000, gt=0, description="most documents in one upload")
    max_queued_documents: int = Field(10_000, gt=0, description="most documents waiting to be indexed")
    max_running_retrievals: int = Field(64, gt=0, description="episodes stepped together")
    max_waiting_retrievals: int = Field(256, ge=0, description="episodes waiting behind them")
    min_free_bytes: int = Field(64 << 20, ge=0, description="uploads are refused with less disk space left")
    parse_seconds: float = Field(120.0, gt=0, description="time for reading one file that is not plain text")
    parse_memory_bytes: int = Field(1 << 30, gt=0, description="memory for the same")
    other_vectors: Literal["embed", "refuse"] = Field(
        "embed",
        description="where the stored vectors are those of another checkpoint: embed all documents again in the "
        "background, each is found again once that is done; or refuse to start",
    )
    preselect_above: int = Field(
        3_000_000, ge=0, description="chunks in short documents from which whole collections are searched approximately"
    )
    reranker: Path | None = Field(
        None, description="folder of a cross-encoder, for requests that ask for a second look with `rerank`"
    )
    continuation_key: SecretStr | None = Field(
        None,
        description="signs continuations, at least 32 characters, the same for all copies that take each other's; "
        "default: a random one, in the data directory",
    )
    feedback: bool = Field(
        True, description="whether `/feedback` takes judgements of which chunks helped, and gives them out"
    )
    keep_questions_days: int = Field(
        0,
        ge=0,
        le=3650,
        description="days for which questions are kept with what came of them, for `GET /questions`; 0: none is kept, "
        "and those of before are removed",
    )
    llm_base_url: HttpUrl | None = Field(
        None, validation_alias="LLM_BASE_URL", description="OpenAI-compatible endpoint that writes answers, up to `/v1`"
    )
    llm_api_key: SecretStr | None = Field(None, validation_alias="LLM_API_KEY", description="where it asks for one")
    llm_model: str | None = Field(None, validation_alias="LLM_MODEL", description="which of its models")
    answer_seconds: float = Field(300.0, gt=0, description="how long the language model may take for one answer")
    shutdown_seconds: int = Field(10, gt=0, description="how long requests may take to finish at shutdown")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="how much is logged")
    log_format: Literal["text", "json"] = Field("text", description="a line of text or a JSON object an event")

    @property
    def engines(self) -> Engines | None:
        """PostgreSQL and Qdrant; none where everything is in the data directory."""
        if self.database_url is None or self.qdrant_url is None:
            return None
        return Engines(
            self.database_url.get_secret_value(),
            str(self.qdrant_url).rstrip("/"),
            None if self.qdrant_api_key is None else self.qdrant_api_key.get_secret_value(),
            self.qdrant_prefix,
            self.qdrant_shards,
            self.qdrant_replicas,
            self.qdrant_write_consistency or self.qdrant_replicas,
            self.qdrant_seconds,
        )

    @property
    def checkpoints_path(self) -> Path:
        """The folder of the other checkpoints."""
        return self.checkpoints_dir or self.data_dir / "checkpoints"

    @property
    def loopback_only(self) -> bool:
        """Whether only programs on the same machine can connect."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def keys_path(self) -> Path:
        """The file of the keys."""
        return self.keys_file or self.data_dir / "keys.json"

    @model_validator(mode="after")
    def _engines_are_two(self) -> Settings:
        # No ValueErrors: their messages would repeat all settings.
        if (self.database_url is None) != (self.qdrant_url is None):
            raise ConfigurationError(
                "QRAG_DATABASE_URL and QRAG_QDRANT_URL belong together: documents are in PostgreSQL and vectors in "
                "Qdrant. Set both, or neither, and everything is in QRAG_DATA_DIR."
            )
        if self.database_url is not None and not all(map(find_spec, ("psycopg", "qdrant_client"))):
            raise ConfigurationError(
                "QRAG_DATABASE_URL and QRAG_QDRANT_URL need packages that are not installed: "
                "pip install ./client '.[engines]'."
            )
        written = self.qdrant_write_consistency or self.qdrant_replicas
        if not self.qdrant_replicas < 2 * written <= 2 * self.qdrant_replicas:
            raise ConfigurationError(
                f"QRAG_QDRANT_WRITE_CONSISTENCY is {written} of {self.qdrant_replicas} copies. Give more than half of "
                "QRAG_QDRANT_REPLICAS, so that every search sees what was written, and at most all."
            )
        return self

    @field_validator("database_url")
    @classmethod
    def _is_of_postgresql(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("postgresql://", "postgres://")):
            raise ConfigurationError(
                "QRAG_DATABASE_URL is no address of PostgreSQL. Write postgresql://USER:PASSWORD@HOST:5432/DATABASE."
            )
        return value

    @field_validator("port", mode="before")
    @classmethod
    def _is_no_address(cls, value: object) -> object:
        if isinstance(value, str) and "://" in value:
            raise ValueError(
                f"QRAG_PORT is {value}: Kubernetes gives it to pods beside a Service named qrag. Name the Service "
                "otherwise, set enableServiceLinks: false in the pod, or set QRAG_PORT in the container"
            )
        return value

    @field_validator("root_path")
    @classmethod
    def _is_a_prefix(cls, path: str | None) -> str | None:
        prefix = parse_prefix(path or "")
        if prefix is None:
            raise ValueError(f"{path!r} is no path: give one like /qrag, of letters, digits and . _ ~ -")
        return prefix or None

    @field_validator("continuation_key")
    @classmethod
    def _cannot_be_guessed(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < SIGNING_CHARACTERS:
            # No ValueError: its message would repeat the key.
            raise ConfigurationError(
                f"QRAG_CONTINUATION_KEY has fewer than {SIGNING_CHARACTERS} characters. Make one: openssl rand -hex 32."
            )
        return value

    @field_validator("llm_base_url", "llm_api_key", "llm_model", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("llm_api_key")
    @classmethod
    def _fit_for_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        key = value and value.get_secret_value().strip()  # files of secrets often end in a line feed
        if key and not (key.isascii() and key.isprintable()):
            # No ValueError: its message would repeat the key.
            raise ConfigurationError("LLM_API_KEY has other characters than printable ASCII. Copy the key again.")
        return SecretStr(key) if key else None

    @field_validator("api_keys", "allowed_hosts", "cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            scheme, separator, host = origin.lower().partition("://")
            if scheme not in {"http", "https"} or not separator or parse_authority(host) is None or "*" in host:
                raise ValueError(
                    f"{origin!r} is no origin: give scheme and host of each site, as in https://app.example.org, "
                    "without a path"
                )
        return tuple(origin.lower() for origin in origins)

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if parse_authority(host) is None:
                raise ValueError(
                    f"{host!r} is no host: give names as they stand in addresses, without scheme and path, an IPv6 "
                    "address in brackets; `*` stands for all names or for the beginning of one"
                )
        return hosts
