"""Records: JSON files that one job writes for others. Their version lets readers refuse an older or damaged record."""

import reprlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

from mllm.core.errors import Failure
from mllm.core.files import read_json, write_json


@dataclass(frozen=True, kw_only=True)
class Record:
    """Base of all records: dataclasses of JSON values.

    A subclass sets ``VERSION`` and raises it by one when a field changes its name, unit or meaning.
    """

    VERSION: ClassVar[int]
    WHOLE: ClassVar[bool] = False
    """Whether one job makes the record's whole folder, so that a fix deletes the folder and not the record alone."""
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def to_json(self) -> dict[str, Any]:
        """Return the record's version and values, without optional values that are unknown (None)."""
        optional = {f.name for f in fields(self) if f.default is None}
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        known = {name: value for name, value in values.items() if value is not None or name not in optional}
        return {"version": self.VERSION, **known}

    def write(self, path: Path) -> None:
        """Write the record as JSON."""
        write_json(path, self.to_json())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a record that :meth:`write` wrote.

        Raises:
            Failure: the file is missing, damaged, or has another version.
        """
        return cls.of(read_json(path), path)

    @classmethod
    def of(cls, found: Any, path: Path) -> Self:
        """Return the record of a file's JSON values; raise as :meth:`read` does."""
        from pydantic import TypeAdapter, ValidationError

        fix = f"Fix: delete {path.parent if cls.WHOLE else path} and rerun the same command"
        version = found.get("version") if isinstance(found, dict) else None
        if version != cls.VERSION:
            raise Failure(f"{path}: record of another version (found {version}, expected {cls.VERSION}). {fix}")
        try:
            made: Self = TypeAdapter(cls).validate_python({k: v for k, v in found.items() if k != "version"})
        except ValidationError as error:
            raise Failure(f"{path}: damaged record ({_wrong(error)}). {fix}") from None
        return made


def _wrong(error: Any) -> str:
    """Return the first error that pydantic found, in this project's words."""
    fault = error.errors(include_url=False)[0]
    place = ".".join(map(str, fault["loc"]))
    match fault["type"]:
        case "missing":
            return f"found no {place}"
        case "unexpected_keyword_argument" | "extra_forbidden":
            return f"found an unknown {place}"
    return f"{place}: found {reprlib.repr(fault['input'])}, expected {fault['type'].split('_')[0]}"
