"""COPY and ADD: what goes where, decided on trees alone."""
