"""Reads a request body of any accepted content type into the fields that the service knows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from api import form
from api.encoded import percent_decoded
from api.errors import ApiError, describe, invalid_field, printable
from api.media import (
    FORM_TYPE,
    IMAGE_TYPES,
    UNKNOWN_TYPES,
    URLENCODED_TYPE,
    begins_as_json,
    is_binary,
    is_json,
    looks_like_json,
    media_type,
    unsupported_type,
)

IMAGE_KEYS: Final = ("image_base64", "image")
OPTIONS: Final = (
    "bbox",
    "min_confidence",
    "min_keypoint_confidence",
    "method",
    "near_m",
    "far_m",
    "render",
    "format",
    "colormap",
)

# Base64 turns three bytes into four. A tenth more holds the options, form boundaries and line breaks.
_ENCODING_OVERHEAD: Final = 4 / 3 * 1.1
_MAX_FIELDS: Final = 1000  # of a urlencoded form
_MAX_MARKS: Final = 20_000  # commas and brackets of JSON; a request with every option has a few dozen
# Texts by which clients say that an option is not set.
_UNSET: Final = frozenset({"", "null", "none", "undefined"})
_LONGEST_UNSET: Final = 20

_JSON_EXPECTED: Final = 'send {"image_base64": "…"}, or an image with a content type of its own'

_LONGEST_MEMBER: Final = 20  # characters; int() refuses thousands of digits
_LISTS: Final = frozenset({"bbox", "models"})

Pair = tuple[str, Any]


def max_body_bytes(max_image_bytes: int) -> int:
    """Return the size limit of a body in bytes, for images of at most `max_image_bytes`."""
    return int(max_image_bytes * _ENCODING_OVERHEAD)


def read_fields(content_type: str, body: bytes, options: Sequence[str] = OPTIONS) -> dict[str, Any]:
    """Return the image and the options by name, without those that are not set.

    options: the names that count. The image is bytes if it was sent as a file, else the unchecked value. Raises
    ApiError: invalid_json, invalid_image, invalid_request or unsupported_media_type.
    """
    kind = media_type(content_type)
    if is_json(kind) or (kind in UNKNOWN_TYPES | {URLENCODED_TYPE} and looks_like_json(body)):
        return gather(_json_members(body), options)
    if kind == FORM_TYPE:
        return _form_fields(_unquoted(form.read(content_type, body)), options)
    if kind == URLENCODED_TYPE:
        return gather(_unquoted(_urlencoded_pairs(body)), options)
    if kind == "" and not is_binary(body):
        return gather(_json_members(body), options)  # a text without a content type is read as JSON
    if kind in UNKNOWN_TYPES | IMAGE_TYPES:
        return gather([("image", body)], options)
    raise unsupported_type(content_type)


def gather(pairs: Iterable[Pair], options: Sequence[str] = OPTIONS) -> dict[str, Any]:
    """Return the known fields by name, without those that are not set.

    Repeated texts of bbox or models become one list, because httpx, requests and query strings send lists that way.
    So do `bbox[]` and `bbox[0]`, and `bbox[x]` becomes an object's member: PHP, jQuery and axios name them so.
    Raises ApiError invalid_request for any other repeated field.
    """
    found: dict[str, list[Any]] = {}
    members: dict[str, dict[str, Any]] = {}
    for name, value in pairs:
        known, bracket, rest = name.partition("[")
        if known not in (*IMAGE_KEYS, *options) or is_unset(value):
            continue
        if not bracket or rest == "]":
            found.setdefault(known, []).append(value)
        elif known in options:
            _add_member(members.setdefault(known, {}), name, known, value)
        elif rest.removesuffix("]").isdecimal():  # image[0]
            found.setdefault(known, []).append(value)
    for name, its in members.items():
        found.setdefault(name, []).append(_list_or_object(its))
    fields: dict[str, Any] = {}
    for name, values in found.items():
        if len(values) > 1 and not (name in _LISTS and all(isinstance(value, str) for value in values)):
            raise invalid_field(name, f"received {len(values)} times; send exactly one")
        fields[name] = values[0] if len(values) == 1 else values
    return fields


def _add_member(members: dict[str, Any], name: str, field: str, value: Any) -> None:
    """Add the value of `field[member]`. Raises ApiError invalid_request for a deeper name or one that was there."""
    member = name[len(field) + 1 : -1]
    if field not in _LISTS or not name.endswith("]") or not member.isalnum() or len(member) > _LONGEST_MEMBER:
        raise invalid_field(field, f"{printable(name)} was received; send {field} as one field")
    if member in members:
        raise invalid_field(field, f"{printable(name)} was received twice; send it once")
    members[member] = value


def _list_or_object(members: Mapping[str, Any]) -> list[Any] | dict[str, Any]:
    if all(member.isdecimal() for member in members):
        return [members[member] for member in sorted(members, key=int)]
    return dict(members)


def is_unset(value: Any) -> bool:
    """Whether a client means by this value that it does not set the field."""
    if isinstance(value, str):
        return len(value) <= _LONGEST_UNSET and value.strip().lower() in _UNSET
    return value is None or value == b""


def _json_members(body: bytes) -> Iterable[Pair]:
    if not body:
        raise ApiError("invalid_json", f"the body is empty; {_JSON_EXPECTED}")
    # Count before parsing: json.loads holds the GIL, for seconds if the body has very many keys.
    if begins_as_json(body) and (marks := sum(body.count(mark) for mark in b",[{")) > _MAX_MARKS:
        raise ApiError(
            "invalid_request", f"the JSON has {marks} commas and brackets; at most {_MAX_MARKS} are accepted"
        )
    try:
        # An object becomes a tuple of its members, so that duplicate keys are seen. An array stays a list.
        members = _objects_below(json.loads(body, object_pairs_hook=tuple))
    except UnicodeDecodeError as error:
        binary = ", but binary data: send an image with a content type of its own" if is_binary(body) else ""
        raise ApiError("invalid_json", f"the body is not JSON in UTF-8 (byte {error.start}){binary}") from None
    except (ValueError, RecursionError) as error:  # json's messages quote no part of the body, only a position
        position = f" ({error.msg}, position {error.pos})" if isinstance(error, json.JSONDecodeError) else ""
        raise ApiError(
            "invalid_json", f"the body of {len(body)} bytes is not JSON{position}; {_JSON_EXPECTED}"
        ) from None
    if not isinstance(members, tuple):
        raise ApiError(
            "invalid_request", f"the body must be a JSON object; {describe(members)} was received; {_JSON_EXPECTED}"
        )
    return members


def _objects_below(members: Any) -> Any:
    """Return `members` with all nested objects as dictionaries. Only the outermost object stays a tuple of pairs."""
    return tuple((name, _object(value)) for name, value in members) if isinstance(members, tuple) else members


def _object(value: Any) -> Any:
    if isinstance(value, tuple):
        return {name: _object(member) for name, member in value}
    return [_object(each) for each in value] if isinstance(value, list) else value


def _form_fields(pairs: list[Pair], options: Sequence[str]) -> dict[str, Any]:
    """Return the fields as `gather` does, and take a single file as the image under any name."""
    pairs = [(name, _option_text(value) if _is_option(name, options) else value) for name, value in pairs]
    fields = gather(pairs, options)
    if any(key in fields for key in IMAGE_KEYS):
        return fields
    files = [
        (name, value) for name, value in pairs if isinstance(value, bytes) and value and not _is_option(name, options)
    ]
    if len(files) > 1:  # one of them may be a text without a telling type, such as a camera's metadata
        files = [(name, value) for name, value in files if is_binary(value)] or files
    if len(files) > 1:
        names = ", ".join(printable(name) for name, _ in files[:8])
        raise invalid_field("image", f"{len(files)} files were received ({names}); send one, under the name image")
    return fields | ({"image": files[0][1]} if files else {})


def _is_option(name: str, options: Sequence[str]) -> bool:
    return name.partition("[")[0] in options


def _option_text(value: Any) -> Any:
    """Return the text of an option that was sent as a file, as requests and `new Blob` do; any other value as it is."""
    return value if isinstance(value, str) or is_binary(value) else _text_of(value.decode("utf-8-sig", "replace"))


def _unquoted(pairs: Iterable[Pair]) -> list[Pair]:
    """Decode form fields that are JSON strings: BentoML's client writes every field except files as JSON."""
    return [(name, _text_of(value)) for name, value in pairs]


def _text_of(value: Any) -> Any:
    if not isinstance(value, str) or not (value.startswith('"') and value.endswith('"')):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value  # the option's own reader refuses it


def _urlencoded_pairs(body: bytes) -> list[Pair]:
    if is_binary(body):
        # curl uses this type for files, too, unless told otherwise. `curl -d` drops zeros and line breaks.
        if b"\0" in body:
            return [("image", body)]
        raise ApiError(
            "invalid_image",
            f"a damaged file was received as {URLENCODED_TYPE}; `curl -d` damages files:"
            " send -F image=@FILE, or --data-binary @FILE with the content type application/octet-stream",
        )
    if body.count(b"&") >= _MAX_FIELDS:
        raise ApiError("invalid_request", f"the form has over {_MAX_FIELDS} fields; at most these are accepted")
    pairs = (field.partition(b"=") for field in body.split(b"&"))
    return [_field(_unescaped(name).decode("utf-8", "replace"), value) for name, _, value in pairs]


def _field(name: str, value: bytes) -> Pair:
    """Return a name and its value: a text, or the bytes of a file."""
    # A client that forgets to escape base64 sends `+` as it is, and `+` means a space in a form. A plain `/`, or no `%`
    # at all, reveals it: every form encoder escapes `/`, and only very short base64 holds none.
    unescaped = name in IMAGE_KEYS and (b"/" in value or b"%" not in value)
    data = percent_decoded(value) if unescaped else _unescaped(value)
    return name, data if is_binary(data) else data.decode("utf-8", "replace")


def _unescaped(text: bytes) -> bytes:
    return percent_decoded(text.replace(b"+", b" "))
