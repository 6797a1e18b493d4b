"""The paper's tables, rerun: rows of overrides over one recipe, stages shared, differences tested, a verdict."""
