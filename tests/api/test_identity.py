from __future__ import annotations

import pytest
from starlette.datastructures import Headers, MutableHeaders

from api.identity import Identity

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
HARMFUL = ["", "x" * 129, "a b", 'a"b', "<script>", "a;b", "a\nb", "a\x00b", "a\u00e9b", "a,b"]


def signed(identity: Identity) -> dict[str, str]:
    headers = MutableHeaders()
    identity.sign(headers)
    return dict(headers)


@pytest.mark.parametrize("sent", ["abc-123", "00-4bf92f35_77.b34da:6", "x" * 128])
def test_the_request_id_sent_is_taken(sent: str) -> None:
    assert signed(Identity.of(Headers({"x-request-id": sent}))) == {"x-request-id": sent}


def test_a_correlation_id_is_the_request_id_where_there_is_no_other() -> None:
    assert signed(Identity.of(Headers({"X-Correlation-ID": "c1"}))) == {"x-request-id": "c1", "x-correlation-id": "c1"}
    both = Identity.of(Headers({"X-Correlation-ID": "c1", "X-Request-ID": "r1"}))
    assert signed(both) == {"x-request-id": "r1", "x-correlation-id": "c1"}


def test_without_any_there_is_a_new_one_each_time() -> None:
    ids = {Identity.of(Headers({})).request_id for _ in range(3)}
    assert len(ids) == 3
    assert {len(each) for each in ids} == {32}


@pytest.mark.parametrize("sent", HARMFUL, ids=repr)
def test_an_id_that_could_do_harm_is_replaced_or_left_out(sent: str) -> None:
    identity = Identity.of(Headers({"x-request-id": sent, "x-correlation-id": sent}))
    assert len(identity.request_id) == 32
    assert signed(identity) == {"x-request-id": identity.request_id}
    assert Identity.of(Headers({"x-request-id": sent, "x-correlation-id": "c1"})).request_id == "c1"


@pytest.mark.parametrize("sent", [TRACE, TRACE[:-2] + "00", "01" + TRACE[2:], "01" + TRACE[2:] + "-later.fields"])
def test_a_traceparent_goes_back_as_it_came(sent: str) -> None:
    assert signed(Identity.of(Headers({"traceparent": sent})))["traceparent"] == sent


@pytest.mark.parametrize(
    "sent",
    [
        "",
        TRACE.upper(),
        TRACE[:-1],
        TRACE + "-more",  # version 00 has no more
        "ff" + TRACE[2:],
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01",
        "01" + TRACE[2:] + "-a b",
        "01" + TRACE[2:] + "-" + "x" * 201,
        TRACE + "\n",
    ],
    ids=repr,
)
def test_a_traceparent_that_is_none_is_left_out(sent: str) -> None:
    assert "traceparent" not in signed(Identity.of(Headers({"traceparent": sent})))
