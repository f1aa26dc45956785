"""Reading real rows and splitting them into reference and hold-out."""
