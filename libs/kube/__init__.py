"""Everything about the Kubernetes API: one client, small typed requests, errors by what to do about them."""
