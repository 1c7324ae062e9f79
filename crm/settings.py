"""Settings: each is read from the environment variable CRM_ and its name, but for DATABASE_URL."""

import re
from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Literal

import phonenumbers
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from crm.errors import StartupError
from crm.fields import TimeZone


@cache
def networks(text: str | None) -> tuple[IPv4Network | IPv6Network, ...]:
    """Of `127.0.0.0/8, fd00::/8`. Raises ValueError."""
    return tuple(ip_network(part.strip()) for part in (text or "").split(",") if part.strip())


class Settings(BaseSettings):
    """Raises pydantic.ValidationError, naming the variable, when one has no usable value."""

    model_config = SettingsConfigDict(env_prefix="CRM_", env_ignore_empty=True)

    database_url: str = Field(default="sqlite:///crm.db", validation_alias="DATABASE_URL")
    default_region: str = Field(default="RU", description="region of phones written without +")
    busy_timeout: float = Field(default=5, gt=0, le=60, description="seconds a call waits for a lock or a connection")
    admin_key: SecretStr | None = Field(default=None, description="the first key")
    rate_limit: float = Field(default=100, ge=1, le=1_000_000, description="requests a second of each key")
    overdue_minutes: float = Field(
        default=10, ge=0, le=100_000, description="minutes that a contact may wait before it is overdue; 0: any"
    )
    time_zone: TimeZone = Field(default="UTC", description="of operators' working hours that name none")
    webhook_allow: str | None = Field(default=None, description="networks, not public ones, that webhooks may go to")
    public_url: str | None = Field(default=None, description="where people reach the page, for the links in messages")
    log_format: Literal["text", "json"] = Field(default="text", description="text or json")
    migrate: bool = Field(default=True, description="whether the start brings the tables up to date")

    @field_validator("admin_key", mode="before")
    @classmethod
    def _fits_a_header(cls, key: str | None) -> str | None:
        key = key if key is None else key.strip()
        if key is not None and not (len(key) >= 16 and key.isascii() and key.isprintable()):
            raise PydanticCustomError("key", "must be at least 16 characters of ASCII")
        return key

    @field_validator("webhook_allow")
    @classmethod
    def _are_networks(cls, allow: str | None) -> str | None:
        try:
            networks(allow)
        except ValueError as error:
            raise PydanticCustomError("networks", "must be networks such as 10.1.0.0/16, fd00::/8") from error
        return allow

    @field_validator("public_url")
    @classmethod
    def _is_a_page(cls, url: str | None) -> str | None:
        if url is not None and not re.fullmatch(r"https?://[^\s?#]+", url):
            raise PydanticCustomError("url", "must be a URL such as https://crm.example")
        return url and url.rstrip("/")

    @field_validator("default_region")
    @classmethod
    def _known_region(cls, region: str) -> str:
        if region.upper() not in phonenumbers.SUPPORTED_REGIONS:
            raise PydanticCustomError("region", "must be a two-letter region such as RU or DE")
        return region.upper()


def load_settings() -> Settings:
    """Those of the environment; raises StartupError, naming the variables, when one has no usable value."""
    try:
        return Settings()
    except ValidationError as error:
        names = {name: f"CRM_{name.upper()}" for name in Settings.model_fields}
        problems = [f"{names.get(str(e['loc'][0]), e['loc'][0])}: {e['msg']}" for e in error.errors()]
        raise StartupError("; ".join(problems)) from None
