"""The documentation's tools: pages generated from the code, and measures of the prose."""
