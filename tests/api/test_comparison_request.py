"""Reading the requests of /person-reid/compare and /match: every refusal names its field."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import numpy as np
import pytest

from api.comparison_request import CompareRequest, Image, MatchRequest, parse_compare, parse_match
from api.errors import ApiError
from api.request import Received
from tasks.similarity import DIMENSION, Embedding, unit
from tests.api.bodies import BASE64, IMAGE, SECRET, as_form, as_json, as_raw, as_urlencoded

LIMIT = 200_000  # of an image; a body may be half as large again
MAX = 20 * 2**20
ID, OTHER = "osnet-x0-25@osnet_x0_25@6f57607fed9f", "osnet-x0-25@osnet_x0_25@cf55163d78fc"
VECTOR = [float(number) for number in np.random.default_rng(1).normal(size=DIMENSION)]
PICTURE = {"image_base64": BASE64}
FLOATS = np.array(VECTOR, "<f4").tobytes()
PACKED = base64.b64encode(FLOATS).decode()


def person(embedding: Any = VECTOR, model_id: Any = ID) -> dict[str, Any]:
    return {"embedding": embedding, "model_id": model_id}


def candidates(*vectors: Any, model_id: str = ID) -> list[dict[str, Any]]:
    return [{"id": f"p{at}"} | person(vector, model_id) for at, vector in enumerate(vectors)]


def compare_of(received: Received) -> CompareRequest:
    return parse_compare(received, LIMIT)


def match_of(received: Received) -> MatchRequest:
    return parse_match(received, MAX)


def refusal(received: Received, parse: Any = compare_of) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parse(received)
    error: ApiError = caught.value
    assert SECRET not in f"{error.message}{error.details}"
    assert len(error.message) < 500
    return error


def refused_field(received: Received, parse: Any = compare_of) -> str:
    error = refusal(received, parse)
    assert error.code == "invalid_request"
    (detail,) = error.details
    assert error.message.startswith(detail["field"])
    return detail["field"]


def vector_of(subject: object) -> list[float]:
    assert isinstance(subject, Embedding)
    vector: list[float] = subject.vector.tolist()
    return vector


@pytest.mark.parametrize("embedding", [VECTOR, PACKED, base64.urlsafe_b64encode(FLOATS).decode()])
def test_an_embedding_is_a_list_or_the_base64_of_its_floats(embedding: Any) -> None:
    asked = compare_of(as_json({"first": PICTURE, "second": person(embedding)}))
    assert asked.first == Image(IMAGE, None)
    np.testing.assert_allclose(vector_of(asked.second), unit(VECTOR), atol=1e-7)


def test_an_answer_of_person_reid_is_taken_as_it_is() -> None:
    stored = person() | {"embedding_dim": 512, "embedding_dimension": 512, "inference_time_ms": 8.2}
    assert compare_of(as_json({"first": stored, "second": stored})).threshold is None


@pytest.mark.parametrize("key", ["image", "image_base64"])
def test_an_image_may_have_a_box(key: str) -> None:
    asked = compare_of(as_json({"first": {key: BASE64, "bbox": [1, 2, 30, 40]}, "second": PICTURE, "threshold": 0.5}))
    assert asked == CompareRequest(Image(IMAGE, (1, 2, 30, 40)), Image(IMAGE, None), 0.5)


def test_a_form_has_two_files_with_their_boxes() -> None:
    received = as_form(("first", IMAGE), ("second", IMAGE), ("second_bbox", "1,2,30,40"), ("threshold", "0.5"))
    assert compare_of(received) == CompareRequest(Image(IMAGE, None), Image(IMAGE, (1, 2, 30, 40)), 0.5)


def test_a_form_may_have_a_box_as_repeated_numbers() -> None:
    box = [("first_bbox", text) for text in ("1", "2", "30", "40")]
    assert compare_of(as_form(("first", IMAGE), ("second", IMAGE), *box)).first == Image(IMAGE, (1, 2, 30, 40))


def test_a_form_may_compare_a_file_with_an_embedding() -> None:
    asked = compare_of(as_form(("first", IMAGE), ("second", json.dumps(person()))))
    assert (asked.first, vector_of(asked.second)) == (Image(IMAGE, None), unit(VECTOR).tolist())
    assert compare_of(as_form(("first", IMAGE), ("second", BASE64))).second == Image(IMAGE, None)


def test_a_body_may_be_compressed_and_lack_its_type() -> None:
    body = json.dumps({"first": PICTURE, "second": PICTURE}).encode()
    assert compare_of(Received("", body, {})).first == Image(IMAGE, None)
    assert compare_of(Received("application/json", gzip.compress(body), {}, "gzip")).first == Image(IMAGE, None)


def test_the_options_may_stand_in_the_query() -> None:
    both = {"first": PICTURE, "second": PICTURE}
    assert compare_of(as_json(both, threshold="0.5")).threshold == 0.5
    assert refused_field(as_json(both | {"threshold": 0.4}, threshold="0.5")) == "threshold"
    assert refused_field(as_json(both, threshold=["0.5", "0.5"])) == "threshold"
    asked = match_of(as_json({"query": PICTURE, "candidates": candidates(VECTOR)}, threshold="0.5", top="3"))
    assert (asked.threshold, asked.top) == (0.5, 3)


@pytest.mark.parametrize(
    ("second", "field"),
    [
        (None, "second"),
        (BASE64, "second"),
        ([], "second"),
        ({}, "second"),
        (PICTURE | {"image": BASE64}, "second"),
        (PICTURE | person(), "second"),
        ({"image": 7}, "second.image"),
        (PICTURE | {"bbox": [1, 2, 3]}, "second.bbox"),
        ({"embedding": VECTOR}, "second.model_id"),
        (person(model_id=""), "second.model_id"),
        (person(model_id=7), "second.model_id"),
        (person(model_id=SECRET * 50), "second.model_id"),
        (person(model_id=OTHER), "second.model_id"),
        (person([]), "second.embedding"),
        (person(7), "second.embedding"),
        (person(VECTOR[1:]), "second.embedding"),
        (person([*VECTOR[1:], "1"]), "second.embedding"),
        (person([*VECTOR[1:], True]), "second.embedding"),
        (person([*VECTOR[1:], None]), "second.embedding"),
        (person([*VECTOR[1:], [1.0]]), "second.embedding"),
        (person([*VECTOR[1:], float("nan")]), "second.embedding"),
        (person([*VECTOR[1:], float("-inf")]), "second.embedding"),
        (person([*VECTOR[1:], 10**400]), "second.embedding"),
        (person([0] * DIMENSION), "second.embedding"),
        (person(base64.b64encode(bytes(2047)).decode()), "second.embedding"),
        (person(base64.b64encode(bytes(2048)).decode()), "second.embedding"),
        (person(base64.b64encode(np.full(512, np.nan, "<f4").tobytes()).decode()), "second.embedding"),
    ],
)
def test_a_refusal_names_the_field(second: Any, field: str) -> None:
    assert refused_field(as_json({"first": person(), "second": second})) == field
    if isinstance(second, dict) and "embedding" in second and field != "second":
        asked = {"query": person(), "candidates": [*candidates(VECTOR), {"id": "x"} | second]}
        assert refused_field(as_json(asked), match_of) == field.replace("second", "candidates[1]")


def test_embeddings_of_two_models_are_refused_with_both_ids() -> None:
    error = refusal(as_json({"first": person(), "second": person(model_id=OTHER)}))
    assert ID in error.message
    assert OTHER in error.message
    mixed = candidates(VECTOR, VECTOR)
    mixed[1]["model_id"] = OTHER
    for query in (person(), PICTURE):
        error = refusal(as_json({"query": query, "candidates": mixed}), match_of)
        assert error.details[0]["field"] == "candidates[1].model_id"
        assert ID in error.message
        assert OTHER in error.message


def test_base64_that_is_none_is_refused_with_the_field() -> None:
    for side in ({"image": "%"}, person("%")):
        error = refusal(as_json({"first": PICTURE, "second": side}))
        assert error.code == "invalid_base64"
        assert error.message.startswith("second.")


def test_an_image_that_is_too_large_is_refused_with_the_field() -> None:
    image = base64.b64encode(bytes(LIMIT + 1)).decode()
    error = refusal(as_json({"first": PICTURE, "second": {"image": image}}))
    assert (error.code, error.message.split(":")[0]) == ("payload_too_large", "second")


@pytest.mark.parametrize("threshold", [-0.1, 1.1, "high", True, float("nan"), [0.5]])
def test_a_threshold_is_a_fraction(threshold: Any) -> None:
    both = {"first": PICTURE, "second": PICTURE, "threshold": threshold}
    assert refused_field(as_json(both)) == "threshold"
    assert refused_field(
        as_json({"query": PICTURE, "candidates": candidates(VECTOR), "threshold": threshold}), match_of
    )


@pytest.mark.parametrize("top", [0, -1, 1.5, "all", True])
def test_top_is_a_whole_number(top: Any) -> None:
    assert refused_field(as_json({"query": PICTURE, "candidates": candidates(VECTOR), "top": top}), match_of) == "top"


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        (None, "candidates"),
        ([], "candidates"),
        ({}, "candidates"),
        ("p", "candidates"),
        (candidates(*[VECTOR[:1]] * 1001), "candidates"),
        ([person()], "candidates[0].id"),
        ([{"id": 7} | person()], "candidates[0].id"),
        ([{"id": ""} | person()], "candidates[0].id"),
        ([{"id": SECRET * 50} | person()], "candidates[0].id"),
        ([*candidates(VECTOR), VECTOR], "candidates[1]"),
        ([*candidates(VECTOR), {"id": "x", "image": BASE64}], "candidates[1].embedding"),
    ],
)
def test_candidates_are_up_to_a_thousand_embeddings_with_ids(sent: Any, field: str) -> None:
    assert refused_field(as_json({"query": PICTURE, "candidates": sent}), match_of) == field


def test_a_thousand_candidates_are_read_in_either_form() -> None:
    for embedding in (VECTOR, PACKED):
        asked = match_of(as_json({"query": person(), "candidates": candidates(*[embedding] * 1000)}))
        assert asked.candidates.shape == (1000, DIMENSION)
        assert (asked.ids[0], asked.ids[-1], asked.model_id, asked.top) == ("p0", "p999", ID, None)


def test_json_of_too_many_values_is_refused_before_it_is_parsed() -> None:
    for parse, values in ((compare_of, 30_000), (match_of, 600_000)):
        assert "commas" in refusal(Received("application/json", b"[" * values, {}), parse).message


@pytest.mark.parametrize("body", [b"", b"{", b'{"first": ' + SECRET.encode(), b"\xff\xfe", b'{"first": "\\ud800"}'])
def test_a_body_that_is_no_json_is_refused(body: bytes) -> None:
    for parse in (compare_of, match_of):
        assert refusal(Received("application/json", body, {}), parse).code == "invalid_json"


def test_a_body_that_is_no_object_is_refused() -> None:
    for parse in (compare_of, match_of):
        assert refusal(as_json([1]), parse).code == "invalid_request"


@pytest.mark.parametrize("received", [as_raw(), as_raw(content_type=""), as_urlencoded("first=1&second=2")])
def test_another_content_type_is_refused(received: Received) -> None:
    for parse in (compare_of, match_of):
        assert refusal(received, parse).code == "unsupported_media_type"
    assert refusal(as_form(("query", IMAGE)), match_of).code == "unsupported_media_type"


def test_a_form_without_a_file_or_with_two_of_a_name_is_refused() -> None:
    assert refused_field(as_form(("first", IMAGE))) == "second"
    assert refused_field(as_form(("first", IMAGE), ("second", b""))) == "second"
    assert refused_field(as_form(("first", IMAGE), ("first", IMAGE), ("second", IMAGE))) == "first"
    assert refused_field(as_form(("first", IMAGE), ("second", IMAGE), ("second_bbox", "1,2"))) == "second.bbox"
