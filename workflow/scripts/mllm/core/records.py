"""Records: what one job writes as JSON for others, with a version, so that an older or damaged one is refused in words."""

import reprlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

from mllm.core.errors import Failure
from mllm.core.files import read_json, write_json


@dataclass(frozen=True, kw_only=True)
class Record:
    """Base of all records: dataclasses of values that JSON has.

    A subclass sets ``VERSION``, one more for each field that changes its name, unit or meaning.
    """

    VERSION: ClassVar[int]
    WHOLE: ClassVar[bool] = False
    """Whether the record's folder was made in one piece, so that it is made again in one piece."""
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def to_json(self) -> dict[str, Any]:
        """The record's version and its values; optional ones that are not known (None) are left out."""
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
            Failure: the file is missing, damaged, or of another version of the project.
        """
        return cls.of(read_json(path), path)

    @classmethod
    def of(cls, found: Any, path: Path) -> Self:
        """The record in a file's JSON; raises as :meth:`read`."""
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
    """The first fault that pydantic found, in our words."""
    fault = error.errors(include_url=False)[0]
    place = ".".join(map(str, fault["loc"]))
    match fault["type"]:
        case "missing":
            return f"found no {place}"
        case "unexpected_keyword_argument" | "extra_forbidden":
            return f"found an unknown {place}"
    return f"{place}: found {reprlib.repr(fault['input'])}, expected {fault['type'].split('_')[0]}"
