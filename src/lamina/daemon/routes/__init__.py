"""The endpoints, one module a resource: parse the request, call the engine, render the answer."""
