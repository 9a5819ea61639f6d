"""From the engine's values to the JSON of the API: pure functions, one module a resource."""
