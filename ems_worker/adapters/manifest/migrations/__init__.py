"""The manifest's schema, one numbered step a file; a released file never changes again."""
