"""What all sections have in common: strict values, and fields that say whether they can change live."""

from __future__ import annotations

from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, field_validator


def live(default: Any, description: str, low: float, high: float, scale: str = "linear", **bounds: Any) -> Any:
    """Declare a setting that may change while training runs; low, high and scale are for its slider."""
    extra: dict[str, Any] = {"live": True, "slider": {"low": low, "high": high, "scale": scale}}
    return Field(default, description=description, json_schema_extra=extra, **bounds)


class Section(BaseModel):
    """Settings that are frozen, known by name, and finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_for_a_number(cls, value: Any, info: Any) -> Any:
        # pydantic would take `true` for 1; in a config that is a slip of the pen
        annotation = cls.model_fields[info.field_name].annotation
        kinds = {annotation, *get_args(annotation)}
        kinds |= {get_args(kind)[0] for kind in kinds if get_origin(kind) is Annotated}
        if isinstance(value, bool) and bool not in kinds and kinds & {int, float}:
            raise ValueError("expected a number, not true/false")
        return value
