"""What a generated text must pass before it joins the pool; each gate returns a verdict with its reason."""
