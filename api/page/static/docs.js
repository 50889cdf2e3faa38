// Shows the service's OpenAPI document. No validator: it would send the document to another host.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#operations",
  deepLinking: true,
  validatorUrl: "none",
});
