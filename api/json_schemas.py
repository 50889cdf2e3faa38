"""Makes JSON Schemas of pydantic models, in the form that the OpenAPI document needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema
from pydantic_core import core_schema

Schema = dict[str, Any]

NULL: Final[Schema] = {"type": "null"}
_REFERENCE: Final = "#/components/schemas/{model}"


def schemas(requests: Iterable[type[BaseModel]], answers: Iterable[type[BaseModel]]) -> dict[str, Schema]:
    """Return the schemas of these models and of their nested models, by name."""
    modes: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        *((model, "validation") for model in requests),
        *((model, "serialization") for model in answers),
    ]
    _, definitions = models_json_schema(modes, ref_template=_REFERENCE, schema_generator=_Generator)
    return {
        name: {key: schema[key] for key in schema if key != "title"} for name, schema in definitions["$defs"].items()
    }


def reference(name: str) -> Schema:
    """Return a reference to the schema of a model."""
    return {"$ref": _REFERENCE.format(model=name)}


def without_null(schema: Schema) -> Schema:
    """Return the schema without null among its forms."""
    return either(schema, [form for form in schema.get("anyOf", []) if form != NULL])


def either(schema: Schema, forms: Sequence[Schema]) -> Schema:
    """Return the schema with these forms in place of its `anyOf`; unchanged if there are no forms."""
    if not forms:
        return schema
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    return rest | (forms[0] if len(forms) == 1 else {"anyOf": list(forms)})


class _Generator(GenerateJsonSchema):
    """pydantic's schemas without titles and without `default: null`.

    In answers, a field whose default is None is optional, and never null unless its own `type` says so. All other
    fields are required.
    """

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> Schema:
        inner = schema["schema"]
        if self.mode == "validation":
            return super().default_schema(schema) if schema.get("default") is not None else self.generate_inner(inner)
        if schema.get("default") is None and inner["type"] == "nullable":
            inner = inner["schema"]
        return self.generate_inner(inner)

    def field_is_required(
        self, field: core_schema.ModelField | core_schema.DataclassField | core_schema.TypedDictField, total: bool
    ) -> bool:
        if self.mode == "validation":
            return super().field_is_required(field, total)
        schema = field["schema"]
        return schema["type"] != "default" or schema.get("default", ...) is not None
