"""From stored numbers to JSON, tables, files and pages."""
