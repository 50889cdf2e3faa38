"""Makes the OpenAPI schemas of a request's fields, for each kind of body and for the query string."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from api.json_schemas import NULL, Schema, either, reference, without_null
from vision.decoding import FORMATS

_JSON_TYPE: Final = "application/json"
_FORM_TYPE: Final = "multipart/form-data"
_URLENCODED_TYPE: Final = "application/x-www-form-urlencoded"
# Content types of a raw image. The bytes decide which format it is, whatever the type says.
_FILE_TYPES: Final = (*(f"image/{name.lower()}" for name in FORMATS), "application/octet-stream")
_IMAGE_KEYS: Final = ("image_base64", "image")  # exactly one of them is sent
BINARY: Final[Schema] = {"type": "string", "format": "binary"}
_NUMBER: Final = r"-?[0-9]+(\.[0-9]+)?"


def image_body(name: str) -> Schema:
    """Return the request body of a model with an image: each content type with its schema from `image_schemas`."""
    encoding = {"image": {"contentType": ", ".join(_FILE_TYPES)}}
    content = {
        _JSON_TYPE: {"schema": reference(name)},
        _FORM_TYPE: {"schema": reference(f"{name}File"), "encoding": encoding},
        _URLENCODED_TYPE: {"schema": reference(f"{name}Text")},
        **{kind: {"schema": BINARY} for kind in _FILE_TYPES},
    }
    return {"required": True, "content": content}


def image_schemas(name: str, model: Schema) -> dict[str, Schema]:
    """Return the schemas of the bodies that have fields, by name.

    JSON takes the image under one of two keys. Each key has its own schema, because generators make a class of each.
    """
    fields, options = model["properties"], _options(model)
    texts = {option: _as_text(schema) for option, schema in options.items()}
    needed = [option for option in model.get("required", ()) if option in options]

    def body(key: str, image: Schema, others: Mapping[str, Schema]) -> Schema:
        return {"type": "object", "required": [key, *needed], "properties": {key: image, **others}}

    either = {f"{name}By{_camel_case(key)}": body(key, without_null(fields[key]), options) for key in _IMAGE_KEYS}
    return either | {
        name: {"oneOf": [reference(variant) for variant in either]},
        f"{name}File": body("image", BINARY | {"description": "an encoded image"}, texts),
        f"{name}Text": body("image_base64", without_null(fields["image_base64"]), texts),
    }


def query_parameters(model: Schema) -> list[Schema]:
    """Return the fields as query parameters. All are optional if the body may hold them instead."""
    options = _options(model)
    needed = model.get("required", ()) if options == model["properties"] else ()
    return [_query_parameter(name, _as_text(schema), name in needed) for name, schema in options.items()]


def _query_parameter(name: str, schema: Schema, required: bool) -> Schema:
    plain = {key: value for key, value in schema.items() if key != "description"}
    described = {"name": name, "in": "query", "required": required, "schema": plain}
    return described | {key: schema[key] for key in ("description",) if key in schema}


def _options(model: Schema) -> dict[str, Schema]:
    return {name: schema for name, schema in model["properties"].items() if name not in _IMAGE_KEYS}


def _as_text(schema: Schema) -> Schema:
    """Return the schema of an option in a form or a query string. An empty text or `null` means that it is not set.

    A list of four numbers and a list of names become texts with commas. Any other list or object becomes JSON.
    """
    first, *others = schema.get("anyOf", [schema])
    if first.get("type") not in {"array", "object"} and "$ref" not in first:
        return schema
    if "maxItems" not in first or first["items"].get("type") != "number":
        names = first.get("items", {}).get("enum")
        pattern = f"^(({'|'.join(names)})(,({'|'.join(names)}))*)?$" if names else None
        text = {"type": "string"} | ({"pattern": pattern} if pattern else {"contentMediaType": _JSON_TYPE})
        return either({key: schema[key] for key in ("description",) if key in schema}, [text, NULL])
    further = first["minItems"] - 1
    text = {"type": "string", "pattern": f"^({_NUMBER}(,{_NUMBER}){{{further}}})?$"}
    examples = [",".join(map(str, example)) for example in schema["examples"]]
    return either(schema, [text, *(form for form in others if form == NULL)]) | {"examples": examples}


def _camel_case(key: str) -> str:
    return "".join(word.capitalize() for word in key.split("_"))
