"""The pydantic models of the requests to /person-reid/compare and /person-reid/match, for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import BaseModel, Field

from api.comparison_request import LONGEST_NAME, MAX_CANDIDATES
from api.numbers import LIMIT
from api.schemas import Base64, BoxByCorners, BoxBySize, Corners, Unparsed
from tasks.similarity import DIMENSION

_Box = Annotated[Corners | BoxBySize | BoxByCorners | None, Field(None, description="the person's box in the image")]
_BoxText = Annotated[str | None, Field(None, description="the person's box in the image: x1,y1,x2,y2")]
_Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
_Vector = Annotated[list[float], Field(min_length=DIMENSION, max_length=DIMENSION)]
_Packed = Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]
_File = Annotated[str, Field(json_schema_extra={"format": "binary"})]


class SideByImageBase64(BaseModel):
    """A person in an image."""

    image_base64: Base64
    bbox: _Box


class SideByImage(BaseModel):
    """A person in an image, under the key's other name."""

    image: Base64
    bbox: _Box


class SideByEmbedding(BaseModel):
    """A person's embedding, such as an answer of /person-reid."""

    embedding: _Vector | _Packed = Field(description="a list, or faster: base64 of its little-endian float32")
    model_id: _Name


class CandidateInput(SideByEmbedding):
    """A candidate under the caller's id. Ids may repeat: each embedding is ranked by itself."""

    id: _Name


class CompareQuery(BaseModel):
    """The options of both routes."""

    threshold: float | None = Field(None, ge=0, le=1, description="the cosine from which two embeddings are one person")


class MatchQuery(CompareQuery):
    """The options of /person-reid/match."""

    top: int | None = Field(None, ge=1, lt=LIMIT, description="the most matches to list")


class CompareForm(CompareQuery):
    """A form with two files."""

    first: _File
    second: _File
    first_bbox: _BoxText
    second_bbox: _BoxText


_Side = SideByImageBase64 | SideByImage | SideByEmbedding


class CompareInput(Unparsed, CompareQuery):
    """Two people, each by an image or an embedding."""

    forms: ClassVar[Mapping[str, type[BaseModel]]] = {"multipart/form-data": CompareForm}
    query_options: ClassVar[type[BaseModel]] = CompareQuery

    first: _Side
    second: _Side


class MatchInput(Unparsed, MatchQuery):
    """A person, and the candidates that it may be."""

    query_options: ClassVar[type[BaseModel]] = MatchQuery

    query: _Side
    candidates: list[CandidateInput] = Field(min_length=1, max_length=MAX_CANDIDATES)
