"""MLPs and the adapters that read and write them."""
