"""One shape for all errors, with the headers that go with them."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from api.errors import ERROR_HEADER, STATUS, ApiError, ErrorCode, internal_error, invalid_field, not_assigned
from models.catalogue import CATALOGUE


@pytest.mark.parametrize("code", get_args(ErrorCode))
def test_every_code_has_a_status_and_the_one_shape(code: ErrorCode) -> None:
    response = ApiError(code, "why").response("the-id")
    body = json.loads(bytes(response.body))
    assert response.status_code == STATUS[code] >= 400
    assert body == {"error": {"code": code, "message": "why", "request_id": "the-id"}}
    assert response.headers[ERROR_HEADER] == code


def test_a_field_that_is_wrong_is_named() -> None:
    error = json.loads(bytes(invalid_field("bbox", "must be four numbers").response("i").body))["error"]
    assert error["details"] == [{"field": "bbox", "message": "must be four numbers"}]


def test_an_error_of_ours_says_nothing_of_its_cause() -> None:
    assert internal_error().status == 500
    assert "log" in internal_error().message


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_model_that_is_served_elsewhere_is_misdirected(name: str) -> None:
    error = not_assigned(name)  # type: ignore[arg-type]
    assert (error.status, error.code) == (421, "model_not_assigned")
    assert name in error.message
