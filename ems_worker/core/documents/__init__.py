"""What enters and leaves the worker as documents: their content, schemas and limits of size."""
