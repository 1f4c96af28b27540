"""Chaos: a real cloud, seeded pushes and faults, and what must hold once it is quiet (`make chaos`)."""
