"""Options as fields of a record: a verb takes the record, typer sees its fields."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any


def expand_records(verb: Callable[..., None]) -> Callable[..., None]:
    """Let a verb take dataclasses whose fields are options; the command line shows each field in the record's place.

    Example:
        >>> @dataclass(frozen=True)
        ... class MachineOptions:
        ...     batch: Annotated[int, typer.Option(help="Images that the engine works on at once.")] = 64
        >>> @expand_records
        ... def verify(bundle: BundlePath, machine: MachineOptions) -> None: ...  # takes BUNDLE and --batch

    """
    parameters: dict[str, inspect.Parameter] = {}
    records: dict[str, Any] = {}
    for name, parameter in inspect.signature(verb, eval_str=True).parameters.items():
        record: Any = parameter.annotation
        if isinstance(record, type) and dataclasses.is_dataclass(record):
            records[name] = record
            parameters |= inspect.signature(record, eval_str=True).parameters
        else:
            parameters[name] = parameter

    @functools.wraps(verb)
    def call(**values: Any) -> None:
        packed = {
            name: record(**{field.name: values.pop(field.name) for field in dataclasses.fields(record)})
            for name, record in records.items()
        }
        verb(**values, **packed)

    keywords = [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in parameters.values()]
    call.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in keywords}
    return call
