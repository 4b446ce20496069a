"""What every section of a file is made of: the kinds of knobs and how their texts are read.

Law: after parsing, durations are float seconds and sizes are int bytes. In a file a duration
carries its unit; code that builds a section may pass the number.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
)

from gateway.config.hours import check_hours
from gateway.config.units import parse_duration, parse_size, split_address

# Given as validation context when the values come from text that a person wrote.
FROM_TEXT: Final = {"from_text": True}


@dataclass(frozen=True, slots=True)
class Kind:
    """What a knob is called in the table of knobs, and an example of it."""

    name: str
    example: str


def _size(value: Any) -> Any:
    return parse_size(value) if isinstance(value, str) else value


def _duration(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, str):
        return parse_duration(value)
    if info.context and value and isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f"write the unit of the duration, such as {value}s")
    return value


def _path(value: Any) -> Any:
    if isinstance(value, str):
        if not value or "\0" in value:
            raise ValueError("write the path of a file or folder")
        return Path(value)
    return value


def one_or_more(value: Any) -> Any:
    """Take one text for a list of it."""
    return (value,) if isinstance(value, str) else value


def _address(value: str) -> str:
    split_address(value)
    return value


Size = Annotated[int, BeforeValidator(_size), Kind("size", "64MiB")]
Duration = Annotated[float, BeforeValidator(_duration), Kind("duration", "5s")]
FilePath = Annotated[Path, BeforeValidator(_path), Kind("path", "certs/site.pem")]
Address = Annotated[str, AfterValidator(_address), Kind("host:port", "127.0.0.1:4317")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"), Kind("name", "dock-7")]
ModelName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$"), Kind("name", "damage-net")
]
Identity = Annotated[str, Field(pattern=r"^[!-~]{1,128}$"), Kind("identity", "ci-deployer")]
Url = Annotated[str, Field(min_length=1, max_length=2048), Kind("URL", "http://127.0.0.1:9093")]
DailyHours = Annotated[str, AfterValidator(check_hours), Kind("daily hours", "01:00-05:00")]
Rule = Annotated[str, Kind("keep rule", "duration > 500ms")]


class Section(BaseModel):
    """Base of all sections: frozen, no unknown key, no silent conversion."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
