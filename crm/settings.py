"""Settings, each read from the environment variable that its description names."""

import phonenumbers
from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Raises pydantic.ValidationError, naming the variable, when one has no usable value."""

    model_config = SettingsConfigDict(env_prefix="CRM_", env_ignore_empty=True)

    database_url: str = Field(default="sqlite:///crm.db", validation_alias="DATABASE_URL")
    default_region: str = Field(default="RU", description="CRM_DEFAULT_REGION: region of phones written without +")
    busy_timeout: float = Field(
        default=5, gt=0, le=60, description="CRM_BUSY_TIMEOUT: seconds a write waits for the lock"
    )

    @field_validator("default_region")
    @classmethod
    def _known_region(cls, region: str) -> str:
        if region.upper() not in phonenumbers.SUPPORTED_REGIONS:
            raise PydanticCustomError("region", "must be a two-letter region such as RU or DE")
        return region.upper()
