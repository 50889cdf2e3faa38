"""A typed client of ai-enrichment-light: vision models for home-security cameras behind HTTP."""

from enrichment_client.calls import Candidate, Person, Region
from enrichment_client.client import AsyncClient, Client
from enrichment_client.errors import EnrichmentError
from enrichment_client.images import Bbox, Image

__all__ = ["AsyncClient", "Bbox", "Candidate", "Client", "EnrichmentError", "Image", "Person", "Region"]
