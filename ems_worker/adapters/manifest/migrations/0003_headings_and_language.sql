-- The labels and units of parameters and metrics: JSON, {"parameters": {name: {"label", "unit"}}, "metrics": ...}.
ALTER TABLE plans ADD COLUMN headings TEXT NOT NULL DEFAULT '{}';

-- The version of the plan language in which the condition of a change is.
ALTER TABLE changes ADD COLUMN language INTEGER NOT NULL DEFAULT 1;
