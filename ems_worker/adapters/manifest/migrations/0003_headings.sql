-- The labels and units of parameters and metrics: JSON, {"parameters": {name: {"label", "unit"}}, "metrics": ...}.
ALTER TABLE plans ADD COLUMN headings TEXT NOT NULL DEFAULT '{}';
